//! Adding a number to counts.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use super::{cpu, cuda};
use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check};

/// x + number for x of i64, for counters. Overflow is an error. It has no gradient.
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

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cpu::increment(inputs[0], self.0)?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::increment(inputs[0], self.0)?))
    }

    fn backward(&self, _: &Context, _: Saved, _: Vec<Option<Tensor>>, needed: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
