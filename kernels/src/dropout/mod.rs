//! Dropout: sets elements or whole channels to zero at random.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{Error, Result, Seed, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check};

/// y = x · m, where m is 0 with probability p and 1 / (1 − p) otherwise (Srivastava et al. 2014); with `whole_channels`, one
/// m for each channel of (N, C, ...) (Tompson et al. 2015). Draw i of the seed's stream belongs to element or channel i in
/// row-major order. The backward pass draws again, so nothing is saved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The seed of the draws.
    pub seed: Seed,
    /// p, at least 0 and less than 1.
    pub probability: f64,
    /// Whether the elements of a channel share a draw.
    pub whole_channels: bool,
}

impl Dropout {
    /// The number of draws, and the number of consecutive elements that share a draw.
    fn draws(&self, shape: &[usize]) -> (usize, usize) {
        let leading = if self.whole_channels { shape.len().min(2) } else { shape.len() };
        (shape[..leading].iter().product(), shape[leading..].iter().product())
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("dropout", inputs, 1, 1)?;
        check::same_float("dropout", inputs)?;
        if !(0.0..1.0).contains(&self.probability) {
            return Err(
                Error::argument("dropout", format!("a probability of {}", self.probability)).expected("one in [0, 1)")
            );
        }
        Ok(inputs.to_vec())
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cpu::masked(self, inputs[0])?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::masked(self, inputs[0])?))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![gradients[0].as_ref().map(|gradient| cpu::masked(self, gradient)).transpose()?])
    }

    fn backward_cuda(
        &self,
        _: &Context,
        _: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![gradients[0].as_ref().map(|gradient| cuda::masked(self, gradient)).transpose()?])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}
