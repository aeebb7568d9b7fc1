//! The contract of operations that write over tensors: optimizer steps, scaling, averages.

use std::{any::Any, fmt};

use tomograd_core::{Device, Error, ErrorKind, Result, Tensor};

use crate::{Cost, Meta, op::no_kernel};

/// An operation that writes over its targets, run through [`run_in_place`](crate::run_in_place) only. It has no gradient.
///
/// As with [`Op`](crate::Op), what it is ([`check`](InPlace::check), [`cost`](InPlace::cost)) is the same on every device, and
/// each device has a function of its own; on [`Device::Meta`] there is nothing to write.
pub trait InPlace: fmt::Debug + Send + Sync + Any {
    /// The name in errors, traces and lists.
    fn name(&self) -> &'static str;

    /// Checks the operation's numbers, and that targets and inputs fit it and each other.
    ///
    /// # Errors
    /// Says what doesn't fit and what was expected.
    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()>;

    /// Writes over the targets on their device; each is contiguous and has memory of its own.
    ///
    /// # Errors
    /// When memory runs out, a value is out of range, or the operation has no kernel for the device; then no value has changed.
    fn apply(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        match targets.first().map_or(Device::Cpu, |target| target.device()) {
            Device::Cpu => self.apply_cpu(targets, inputs),
            Device::Meta => Ok(()),
            device => Err(no_kernel(self.name(), device)),
        }
    }

    /// [`apply`](InPlace::apply) on the CPU.
    ///
    /// # Errors
    /// When memory runs out, a value is out of range, or the operation has no kernel for the CPU; then no value has changed.
    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        let _ = (targets, inputs);
        Err(no_kernel(self.name(), Device::Cpu))
    }

    /// Work and traffic, for traces: by default the targets read and written, and the inputs read.
    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        Cost::of(0.0, &[targets, inputs].concat(), targets)
    }
}

/// Checks for [`InPlace::check`].
pub(crate) mod check {
    use super::{Error, ErrorKind, Meta, Result};

    /// That a target is of a dtype that kernels compute in.
    pub(crate) fn real(operation: &str, target: &Meta) -> Result<()> {
        if matches!(target.dtype, tomograd_core::DType::F32 | tomograd_core::DType::F64) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::DType, operation, format!("no kernel computes in {}", target.dtype))
            .expected("f32 or f64"))
    }

    /// That a gradient, state or value is like its target.
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

    /// That there are so many targets and inputs.
    pub(crate) fn counts(operation: &str, targets: &[Meta], inputs: &[Meta], expected: [usize; 2]) -> Result<()> {
        if [targets.len(), inputs.len()] == expected {
            return Ok(());
        }
        Err(Error::argument(operation, format!("{} targets and {} inputs", targets.len(), inputs.len()))
            .expected(format!("{} and {}", expected[0], expected[1])))
    }
}
