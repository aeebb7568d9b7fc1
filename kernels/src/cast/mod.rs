//! Conversion between dtypes.

mod cpu;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{DType, Device, Result, Tensor};

use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check, op::no_kernel};

/// The input's values in another dtype: rounded to nearest (ties to even) for floating point; truncated and saturated for
/// integers (NaN gives 0); `value != 0` for bool. The gradient is converted back.
#[derive(Debug, Clone)]
pub struct Cast(pub DType);

/// `tensor` in `dtype`; the tensor itself if it has that dtype already.
///
/// # Errors
/// When memory runs out.
pub fn cast(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor.clone());
    }
    match tensor.device() {
        Device::Cpu => cpu::cast(tensor, dtype),
        Device::Meta => Tensor::meta("cast", tensor.shape(), dtype),
        Device::Cuda(_) => tensor.converted(dtype),
        device => Err(no_kernel("cast", device)),
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("cast", inputs, 1, 1)?;
        Ok(vec![inputs[0].with_dtype(self.0)])
    }

    fn forward(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cast(inputs[0], self.0)?))
    }

    fn backward(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![gradients[0].as_ref().map(|gradient| cast(gradient, saved.metas[0].dtype)).transpose()?])
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
