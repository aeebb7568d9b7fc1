//! One-hot encoding.

use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{check_dtype, cpu, cuda};
use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_element};

/// A new axis of `classes` elements: 1 at the label, 0 elsewhere. Input: labels, i64. A label outside of 0 to classes − 1 is
/// an error that names it and its position. It has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneHot {
    /// The size of the new axis.
    pub classes: usize,
    /// The position of the new axis in the output: 1 for labels (N, spatial...).
    pub axis: usize,
    /// The dtype of the output.
    pub dtype: DType,
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "one_hot"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("one_hot", inputs, 1, 1)?;
        check_dtype("one_hot", inputs, 0, DType::I64)?;
        let mut shape = inputs[0].shape.clone();
        if self.axis > shape.len() {
            return Err(Error::argument("one_hot", format!("a new axis {} of labels", self.axis))
                .expected(format!("0 to {}", shape.len()))
                .shapes([&shape[..]]));
        }
        shape.insert(self.axis, self.classes);
        Ok(vec![inputs[0].with_shape(shape).with_dtype(self.dtype)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let labels = cpu::Indices::new("one_hot", inputs[0], self.classes)?;
        with_element!(self.dtype, T => Ok(Forward::one(cpu::one_hot::<T>(&labels, self.axis, &outputs[0])?)))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::one_hot(inputs[0], self.classes, self.axis, &outputs[0])?))
    }

    fn backward(&self, _: &Context, _: Saved, _: Vec<Option<Tensor>>, needed: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
