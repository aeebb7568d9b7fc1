//! Elementwise comparisons of two tensors.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor, broadcast_shapes};

use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_element};

/// An elementwise comparison. A NaN is unequal to everything, itself included, and neither less nor greater than anything.
///
/// Inputs: x and y of the same dtype, which may be any; they are broadcast as in NumPy. The output is bool, and has no
/// gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// x = y.
    Equal,
    /// x ≠ y.
    NotEqual,
    /// x < y.
    Less,
    /// x ≤ y.
    LessEqual,
    /// x > y.
    Greater,
    /// x ≥ y.
    GreaterEqual,
}

impl Op for Compare {
    fn name(&self) -> &'static str {
        match self {
            Compare::Equal => "eq",
            Compare::NotEqual => "ne",
            Compare::Less => "lt",
            Compare::LessEqual => "le",
            Compare::Greater => "gt",
            Compare::GreaterEqual => "ge",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 2, 2)?;
        let (x, y) = (&inputs[0], &inputs[1]);
        if x.dtype != y.dtype {
            return Err(Error::new(ErrorKind::DType, self.name(), format!("inputs hold {} and {}", x.dtype, y.dtype))
                .expected("one dtype")
                .shapes([&x.shape[..], &y.shape]));
        }
        Ok(vec![x.with_shape(broadcast_shapes(self.name(), &[&x.shape, &y.shape])?).with_dtype(DType::Bool)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_element!(inputs[0].dtype(), T => {
            Ok(Forward::one(cpu::compare::<T>(*self, inputs[0], inputs[1], &outputs[0])?))
        })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::compare(*self, inputs[0], inputs[1], &outputs[0])?))
    }

    fn backward(&self, _: &Context, _: Saved, _: Vec<Option<Tensor>>, needed: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(outputs[0].count() as f64, inputs, outputs)
    }
}
