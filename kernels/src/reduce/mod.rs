//! Reductions along axes.

mod cpu;
pub(crate) mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
mod sum_to;

pub use sum_to::sum_to;

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::backward_by_device};

/// How a reduction combines elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Σ x.
    Sum,
    /// Σ x / n; NaN for no elements.
    Mean,
    /// The largest element, or NaN if there is one; the gradient goes to the first element that equals it.
    Max,
    /// The smallest element, or NaN if there is one; the gradient goes to the first element that equals it.
    Min,
}

/// The sum, mean, maximum or minimum along `axes`, which are removed from the shape or kept with size 1. A maximum or minimum
/// of no elements is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduce {
    /// How elements are combined.
    pub combine: Combine,
    /// The axes that are reduced.
    pub axes: Vec<usize>,
    /// Whether the reduced axes are kept with size 1.
    pub keep_axes: bool,
}

impl Reduce {
    fn kept(&self, shape: &[usize]) -> Vec<usize> {
        shape.iter().enumerate().map(|(axis, &size)| if self.axes.contains(&axis) { 1 } else { size }).collect()
    }

    fn is_extreme(&self) -> bool {
        matches!(self.combine, Combine::Max | Combine::Min)
    }

    fn factor(&self, shape: &[usize]) -> f64 {
        match self.combine {
            Combine::Sum | Combine::Max | Combine::Min => 1.0,
            Combine::Mean => 1.0 / self.axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64,
        }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.combine {
            Combine::Sum => "sum",
            Combine::Mean => "mean",
            Combine::Max => "max",
            Combine::Min => "min",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 1, 1)?;
        check::same_float(self.name(), inputs)?;
        for (i, &axis) in self.axes.iter().enumerate() {
            check::axis(self.name(), &inputs[0], axis)?;
            if self.axes[..i].contains(&axis) {
                return Err(Error::argument(self.name(), format!("axis {axis} is named twice")));
            }
        }
        if self.is_extreme() && self.axes.iter().any(|&axis| inputs[0].shape[axis] == 0) {
            return Err(Error::shape(self.name(), "no elements to choose from").shapes([&inputs[0].shape[..]]));
        }
        let shape = if self.keep_axes {
            self.kept(&inputs[0].shape)
        } else {
            let kept = (0..inputs[0].rank()).filter(|axis| !self.axes.contains(axis));
            kept.map(|axis| inputs[0].shape[axis]).collect()
        };
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let result = cpu::reduce(inputs[0], &self.axes, self.combine, self.factor(inputs[0].shape()))?;
        Ok(Forward::one(result.reshape(&outputs[0].shape)?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let result = cuda::reduce(inputs[0], &self.axes, self.combine, self.factor(inputs[0].shape()))?;
        Ok(Forward::one(result.reshape(&outputs[0].shape)?))
    }

    fn saves_input(&self, _: usize) -> bool {
        self.is_extreme()
    }

    fn saves_output(&self, _: usize) -> bool {
        self.is_extreme()
    }

    fn backward(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        if self.is_extreme() {
            return backward_by_device(self, context, saved, gradients, needed);
        }
        // The gradient of a sum or mean is a view, on every device.
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        let shape = &saved.metas[0].shape;
        let mut scaled = gradient.clone();
        let factor = self.factor(shape);
        if factor != 1.0 {
            crate::optim::scale(&mut scaled, factor)?;
        }
        Ok(vec![Some(scaled.reshape(&self.kept(shape))?.expand(shape)?)])
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cpu::first_equal(saved.input(0)?, saved.output(0)?, gradient, &self.axes)?)])
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cuda::first_equal(saved.input(0)?, saved.output(0)?, gradient, &self.axes)?)])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}

/// The position of the first maximum along `axis`, i64; a NaN counts as the largest. The axis is removed from the shape, and
/// must not be empty. It has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgMax {
    /// The axis along which the maximum is searched.
    pub axis: usize,
}

impl Op for ArgMax {
    fn name(&self) -> &'static str {
        "arg_max"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("arg_max", inputs, 1, 1)?;
        check::same_float("arg_max", inputs)?;
        check::axis("arg_max", &inputs[0], self.axis)?;
        let mut shape = inputs[0].shape.clone();
        if shape.remove(self.axis) == 0 {
            return Err(Error::shape("arg_max", "no elements to choose from").shapes([&inputs[0].shape[..]]));
        }
        Ok(vec![inputs[0].with_shape(shape).with_dtype(DType::I64)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cpu::arg_max(inputs[0], self.axis, &outputs[0].shape)?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::arg_max(inputs[0], self.axis, &outputs[0].shape)?))
    }

    fn backward(&self, _: &Context, _: Saved, _: Vec<Option<Tensor>>, needed: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}
