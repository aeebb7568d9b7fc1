//! A custom layer and a custom operation, with property tests of their gradients.

use tomograd::{
    kernels::{Context, Forward, Meta, Op, Saved, check},
    prelude::*,
};

/// Squeeze and excitation (Hu et al. 2018): scales channels by weights computed from the whole image.
pub struct SqueezeExcite {
    reduce: Conv,
    expand: Conv,
}

impl SqueezeExcite {
    /// A layer for (N, channels, spatial...) with `rank` spatial axes.
    pub fn new(mut scope: Scope<'_>, channels: usize, rank: usize) -> Result<Self> {
        let kernel = vec![1; rank];
        let squeezed = (channels / 2).max(1);
        Ok(Self {
            reduce: Conv::new(scope.at("fc1"), channels, squeezed, &kernel)?,
            expand: Conv::new(scope.at("fc2"), squeezed, channels, &kernel)?,
        })
    }
}

impl Module for SqueezeExcite {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let gate = self.reduce.forward(&x.mean_spatial()?, pass)?.silu()?;
        x.mul(&self.expand.forward(&gate, pass)?.sigmoid()?)
    }
}

/// Σ x³ / 3, with its own backward pass.
#[derive(Debug, Clone)]
pub struct CubeSum;

impl Op for CubeSum {
    fn name(&self) -> &'static str {
        "cube_sum"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("cube_sum", inputs, 1, 1)?;
        Ok(vec![inputs[0].with_shape([])])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(inputs[0].pow(3.0)?.sum(..)?.div(3.0)?))
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward_cpu(&self, _: &Context, saved: Saved, dy: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &dy[0] else { return Ok(vec![None]) };
        Ok(vec![Some(saved.input(0)?.square()?.mul(dy)?)])
    }
}

/// The same operation made of two functions.
pub fn cube_sum(x: &Var) -> Result<Var> {
    Var::custom(&[x], |x| x[0].pow(3.0)?.sum(..)?.div(3.0), |x, _, dy| Ok(vec![x[0].square()?.mul(dy)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_layer_has_its_gradient(x in gradcheck::images_of(2..=3, 3..=3)) {
            gradcheck::module(|scope| SqueezeExcite::new(scope, 3, x.rank() - 2), &x)
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
        }

        #[test]
        fn the_operation_has_its_gradient(x in gradcheck::images(1..=3)) {
            gradcheck::operation(CubeSum, &[x]).map_err(|error| TestCaseError::fail(error.to_string()))?;
        }

        #[test]
        fn the_functions_have_their_gradient(x in gradcheck::images(1..=3)) {
            gradcheck::check(|vars| cube_sum(&vars[0]), &[x]).map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
    }
}
