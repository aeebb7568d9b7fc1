//! A number added to counts.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor, TensorBuilder};

use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check};

/// x + number for x of i64: how often something happened. A sum beyond i64 is an error. It has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Increment(pub i64);

impl Op for Increment {
    fn name(&self) -> &'static str {
        "increment"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("increment", inputs, 1, 1)?;
        if inputs[0].dtype != DType::I64 {
            return Err(
                Error::new(ErrorKind::DType, "increment", format!("{} counts", inputs[0].dtype)).expected("i64")
            );
        }
        Ok(inputs.to_vec())
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let counts = inputs[0].contiguous()?;
        let mut builder = TensorBuilder::<i64>::new("increment", &outputs[0].shape, Device::Cpu)?;
        for (to, count) in builder.uninit()?.iter_mut().zip(counts.as_slice::<i64>()?) {
            let sum = count.checked_add(self.0);
            to.write(sum.ok_or_else(|| Error::argument("increment", "a count leaves the range of i64"))?);
        }
        // SAFETY: the loop wrote every element.
        Ok(Forward::one(unsafe { builder.assume_init() }))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        _: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
