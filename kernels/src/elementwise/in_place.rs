//! Chains whose result takes the place of their first input.

use tomograd_core::{Error, Result, Tensor};

use super::{Chain, cpu, cuda};
use crate::{Cost, InPlace, Meta, Op, in_place::check, run_in_place};

/// x ← chain(x, inputs): the [`Chain`] with its result in the place of its input 0, the one target. The other inputs are
/// broadcast to the target's shape. f32 or f64.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::{elementwise::{BinaryFunction, Chain, ChainInPlace}, run_in_place};
/// let mut x = Tensor::from_slice(&[1.0f32, 2.0], &[2], Device::Cpu)?;
/// let add = ChainInPlace(Chain::binary(BinaryFunction::Add));
/// run_in_place(&add, &mut [&mut x], &[&Tensor::scalar(3.0f32, Device::Cpu)?])?;
/// assert_eq!(x.to_vec::<f32>()?, [4.0, 5.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChainInPlace(pub Chain);

impl ChainInPlace {
    /// Runs the chain in the place of `x` if no other tensor shares its memory, it is contiguous, and the result has its shape
    /// and type; otherwise nothing happens, and the result is `false`.
    ///
    /// # Errors
    /// As [`run_in_place`].
    pub fn run_if_alone(&self, x: &mut Tensor, inputs: &[&Tensor]) -> Result<bool> {
        let metas: Vec<Meta> = inputs.iter().map(|&input| Meta::from(input)).collect();
        let fits = x.is_unique() && self.check(&[Meta::from(&*x)], &metas).is_ok();
        if fits {
            run_in_place(self, &mut [x], inputs)?;
        }
        Ok(fits)
    }
}

impl InPlace for ChainInPlace {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        check::counts(self.0.name(), targets, inputs, [1, self.0.input_count() - 1])?;
        check::real(self.0.name(), &targets[0])?;
        let outputs = self.0.infer(&[targets, inputs].concat())?;
        if outputs[0] != targets[0] {
            return Err(Error::shape(self.0.name(), "the result doesn't have the target's shape")
                .expected("inputs that are broadcast to the target's shape")
                .shapes(targets.iter().chain(inputs).map(|meta| &meta.shape[..])));
        }
        Ok(())
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cpu::in_place(&self.0.steps, targets[0], inputs)
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        let all: Vec<&Tensor> = std::iter::once(&*targets[0]).chain(inputs.iter().copied()).collect();
        let output = Meta::from(all[0]);
        *targets[0] = cuda::forward(&self.0.steps, &all, &output)?;
        Ok(())
    }

    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        self.0.cost(&[targets, inputs].concat(), targets)
    }
}
