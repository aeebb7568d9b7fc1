//! Concatenation.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{check_same_dtype, check_shapes, cpu, cuda};
use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_element};

/// The inputs concatenated along `axis`: one or more tensors of the same dtype whose shapes differ only along `axis`. The
/// gradients are views of the output's gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concat {
    /// The axis along which sizes add up.
    pub axis: usize,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("concat", inputs, 1, usize::MAX)?;
        check::axis("concat", &inputs[0], self.axis)?;
        for (index, input) in inputs.iter().enumerate() {
            check_same_dtype("concat", inputs, 0, index)?;
            check_shapes("concat", &inputs[0].shape, &input.shape, self.axis)?;
        }
        let mut shape = inputs[0].shape.clone();
        let sum = inputs.iter().try_fold(0usize, |sum, input| sum.checked_add(input.shape[self.axis]));
        shape[self.axis] = sum.ok_or_else(|| {
            Error::shape("concat", "the sum of the sizes overflows").shapes(inputs.iter().map(|input| &input.shape[..]))
        })?;
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        if let [input] = inputs {
            return Ok(Forward::one((*input).clone()));
        }
        with_element!(outputs[0].dtype, T => Ok(Forward::one(cpu::concat::<T>(inputs, self.axis, &outputs[0])?)))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        if let [input] = inputs {
            return Ok(Forward::one((*input).clone()));
        }
        Ok(Forward::one(cuda::concat(inputs, self.axis, &outputs[0])?))
    }

    fn backward(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let mut start = 0;
        let part = |(meta, &needed): (&Meta, &bool)| {
            let (from, length) = (start, meta.shape[self.axis]);
            start += length;
            needed.then(|| gradient.narrow(self.axis, from, length)).transpose()
        };
        saved.metas.iter().zip(needed).map(part).collect()
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
