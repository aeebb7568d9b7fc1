//! Padding.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{cpu, cuda};
use crate::{
    Context, Forward, HalfPolicy, Meta, Op, Saved,
    cast::cast,
    check,
    op::{with_element, with_real},
};

/// How a border is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PadMode {
    /// A constant, converted to the input's dtype.
    Constant(f64),
    /// The elements mirrored at the outermost one, which isn't repeated: c b | a b c | b a. A border must be narrower than
    /// its axis.
    Reflect,
    /// The outermost element.
    Replicate,
}

impl PadMode {
    /// The element of an axis of `size` that element `i` of the padded axis copies; `None` for a constant.
    pub(super) fn source(self, i: usize, before: usize, size: usize) -> Option<usize> {
        match self {
            _ if (before..before + size).contains(&i) => Some(i - before),
            PadMode::Constant(_) => None,
            PadMode::Reflect if i < before => Some(before - i),
            PadMode::Reflect => Some(2 * (size - 1) - (i - before)),
            PadMode::Replicate if i < before => Some(0),
            PadMode::Replicate => Some(size - 1),
        }
    }
}

/// The padded input: axis `a` gets `before[a]` elements in front and `after[a]` elements behind. Any dtype.
#[derive(Debug, Clone, PartialEq)]
pub struct Pad {
    /// The number of elements in front, for every axis.
    pub before: Vec<usize>,
    /// The number of elements behind, for every axis.
    pub after: Vec<usize>,
    /// How the border is filled.
    pub mode: PadMode,
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("pad", inputs, 1, 1)?;
        let shape = &inputs[0].shape;
        let rank = shape.len();
        if self.before.len() != rank || self.after.len() != rank {
            let found = format!("{} widths in front and {} behind", self.before.len(), self.after.len());
            return Err(Error::argument("pad", found).expected(format!("{rank} of each")).shapes([&shape[..]]));
        }
        let mut padded = Vec::with_capacity(rank);
        for (axis, &size) in shape.iter().enumerate() {
            let (before, after) = (self.before[axis], self.after[axis]);
            let fits = match self.mode {
                PadMode::Constant(_) => true,
                _ if before == 0 && after == 0 => true,
                PadMode::Reflect => before < size && after < size,
                PadMode::Replicate => size > 0,
            };
            let sum = size.checked_add(before).and_then(|sum| sum.checked_add(after)).filter(|_| fits);
            padded.push(sum.ok_or_else(|| {
                Error::argument("pad", format!("a border of {before} and {after} on axis {axis} of size {size}"))
                    .expected("widths below the size to reflect, a size above 0 to replicate")
                    .shapes([&shape[..]])
            })?);
        }
        Ok(vec![inputs[0].with_shape(padded)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_element!(outputs[0].dtype, T => Ok(Forward::one(cpu::pad::<T>(self, inputs[0], &outputs[0])?)))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let fold = |mode, gradient: &Tensor, axis, before, size| with_real!("pad", gradient.dtype(), T => cpu::fold_border::<T>(mode, gradient, axis, before, size));
        self.gradient(&saved, &gradients, fold)
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::pad(self, inputs[0], &outputs[0])?))
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.gradient(&saved, &gradients, cuda::fold_border)
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}

impl Pad {
    /// The gradient of the input. `fold` gives that of an axis from that of the padded axis, from the mode, the gradient, the axis,
    /// the number of elements in front and the axis's size.
    fn gradient(
        &self,
        saved: &Saved,
        gradients: &[Option<Tensor>],
        fold: impl Fn(PadMode, &Tensor, usize, usize, usize) -> Result<Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        let dtype = gradient.dtype();
        let mut gradient = match self.mode {
            PadMode::Constant(_) => gradient.clone(),
            _ => cpu::widened(gradient)?,
        };
        for (axis, &size) in saved.metas[0].shape.iter().enumerate() {
            let (before, after) = (self.before[axis], self.after[axis]);
            gradient = match self.mode {
                _ if before == 0 && after == 0 => gradient,
                PadMode::Constant(_) => gradient.narrow(axis, before, size)?,
                mode => fold(mode, &gradient, axis, before, size)?,
            };
        }
        Ok(vec![Some(cast(&gradient, dtype)?)])
    }
}
