//! Views as operations with gradients: other layouts of the same memory.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use cpu::{contiguous, exchange, transposed};
use tomograd_core::{Device, Layout, Result, Tensor};

use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check, op::no_kernel};

/// A view of the input. No element is copied, except for a [`Reshape`](View::Reshape) that strides can't express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// The axes permuted to this order.
    Permute(Vec<usize>),
    /// `length` elements of `axis` from `start` in steps of `step`.
    Slice {
        /// The axis to be sliced.
        axis: usize,
        /// The first element.
        start: usize,
        /// The number of elements.
        length: usize,
        /// The distance from one element to the next.
        step: usize,
    },
    /// Axes of size 1 repeated, and leading axes added, up to this shape.
    Expand(Vec<usize>),
    /// The same elements in row-major order with this shape.
    Reshape(Vec<usize>),
}

impl View {
    /// The layout for a contiguous input; `None` for a reshape that must copy (never the case for a contiguous input).
    fn layout(&self, layout: &Layout) -> Result<Option<Layout>> {
        Ok(match self {
            View::Permute(axes) => Some(layout.permute(axes)?),
            View::Slice { axis, start, length, step } => Some(layout.slice(*axis, *start, *length, *step)?),
            View::Expand(shape) => Some(layout.expand(shape)?),
            View::Reshape(shape) => layout.reshape(shape)?,
        })
    }
}

impl Op for View {
    fn name(&self) -> &'static str {
        match self {
            View::Permute(_) => "permute",
            View::Slice { .. } => "slice",
            View::Expand(_) => "expand",
            View::Reshape(_) => "reshape",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 1, 1)?;
        let shape = match self.layout(&Layout::contiguous(&inputs[0].shape))? {
            Some(layout) => layout.shape().to_vec(),
            None => Vec::new(),
        };
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let x = inputs[0];
        Ok(Forward::one(match self {
            View::Permute(axes) => x.permute(axes)?,
            View::Slice { axis, start, length, step } => x.slice(*axis, *start, *length, *step)?,
            View::Expand(shape) => x.expand(shape)?,
            View::Reshape(shape) => x.reshape(shape)?,
        }))
    }

    fn backward(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        let shape = &saved.metas[0].shape;
        Ok(vec![Some(match self {
            View::Permute(axes) => {
                let mut inverse = vec![0; axes.len()];
                for (to, &from) in axes.iter().enumerate() {
                    inverse[from] = to;
                }
                gradient.permute(&inverse)?
            }
            View::Slice { axis, start, step, .. } => match gradient.device() {
                Device::Cpu => cpu::unslice(gradient, shape, *axis, *start, *step)?,
                Device::Meta => Tensor::meta("slice", shape, gradient.dtype())?,
                Device::Cuda(_) => cuda::unslice(gradient, shape, *axis, *start, *step)?,
                device => return Err(no_kernel("slice", device)),
            },
            View::Expand(_) => crate::reduce::sum_to(gradient, shape)?,
            View::Reshape(_) => gradient.reshape(shape)?,
        })])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
