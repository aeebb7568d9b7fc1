//! The trait of operations that write tensors in place: optimizer steps, scaling, averages.

use std::{any::Any, fmt};

use tomograd_core::{Device, Error, ErrorKind, Result, Tensor};

use crate::{Cost, Meta, op::no_kernel};

/// An operation that writes its targets in place. It runs only through [`run_in_place`](crate::run_in_place), and has no
/// gradient.
///
/// As with [`Op`](crate::Op), the device-independent part ([`check`](InPlace::check), [`cost`](InPlace::cost)) is separate
/// from the functions for each device. On [`Device::Meta`] nothing is written.
pub trait InPlace: fmt::Debug + Send + Sync + Any {
    /// The name in errors, traces and lists.
    fn name(&self) -> &'static str;

    /// Checks the operation's attributes, and that targets and inputs fit the operation and each other.
    ///
    /// # Errors
    /// When something doesn't fit; the error says what, and what was expected.
    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()>;

    /// Writes the targets on their device. Each target is contiguous and shares its memory with no other tensor.
    ///
    /// # Errors
    /// When memory runs out, a value is out of range, or the operation has no kernel for the device. In that case no value
    /// has changed.
    fn apply(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        match targets.first().map_or(Device::Cpu, |target| target.device()) {
            Device::Cpu => self.apply_cpu(targets, inputs),
            Device::Meta => Ok(()),
            Device::Cuda(_) => self.apply_cuda(targets, inputs),
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// [`apply`](InPlace::apply) on the CPU.
    ///
    /// # Errors
    /// When memory runs out, a value is out of range, or the operation has no kernel for the CPU. In that case no value has
    /// changed.
    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        let _ = (targets, inputs);
        Err(no_kernel(self.name(), Device::Cpu))
    }

    /// [`apply`](InPlace::apply) on a CUDA device.
    ///
    /// # Errors
    /// When memory runs out, the device can't be used any more, or the operation has no kernel for CUDA devices. In that case
    /// no value has changed.
    fn apply_cuda(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        let _ = inputs;
        Err(no_kernel(self.name(), targets.first().map_or(Device::Cuda(0), |target| target.device())))
    }

    /// Operations and memory traffic, for traces; by default, targets are read and written and inputs are read.
    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        Cost::of(0.0, &[targets, inputs].concat(), targets)
    }
}

/// Checks for [`InPlace::check`].
pub(crate) mod check {
    use super::{Error, ErrorKind, Meta, Result};

    /// Checks that kernels compute in the dtype of a target.
    pub(crate) fn real(operation: &str, target: &Meta) -> Result<()> {
        if matches!(target.dtype, tomograd_core::DType::F32 | tomograd_core::DType::F64) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::DType, operation, format!("no kernel computes in {}", target.dtype))
            .expected("f32 or f64"))
    }

    /// Checks that a gradient, state or value has the metadata of its target.
    pub(crate) fn like(operation: &str, target: &Meta, other: &Meta) -> Result<()> {
        if other == target {
            return Ok(());
        }
        Err(Error::shape(
            operation,
            format!("a gradient or state of {} where {} is changed", other.dtype, target.dtype),
        )
        .expected("one like the parameter")
        .shapes([&other.shape[..], &target.shape]))
    }

    /// Checks the numbers of targets and inputs.
    pub(crate) fn counts(operation: &str, targets: &[Meta], inputs: &[Meta], expected: [usize; 2]) -> Result<()> {
        if [targets.len(), inputs.len()] == expected {
            return Ok(());
        }
        Err(Error::argument(operation, format!("{} targets and {} inputs", targets.len(), inputs.len()))
            .expected(format!("{} and {}", expected[0], expected[1])))
    }
}
