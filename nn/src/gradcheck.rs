//! Gradient checks of layers and networks; those of single functions and operations are [`tomograd_autodiff::gradcheck`].

use tomograd_core::{DType, Result, Seed, Tensor};
use tomograd_kernels::Context;

use crate::{Module, Params, Pass, Scope};
pub use tomograd_autodiff::gradcheck::*;

/// Checks the gradients of a module's input and of all its parameters, in training mode and f64, against central differences.
/// `build` makes the module in the given scope; dropout draws the same numbers in each evaluation.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Conv, Kernel, gradcheck};
///
/// let x = Tensor::normal(&[1, 2, 4, 5], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu)?;
/// gradcheck::module(|scope| Conv::new(scope, 2, 3, Kernel::d2(3).padding(1)), &x)?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When a gradient is wrong (the error has the input, where 0 is the module's input and its parameters follow in order, the
/// direction and both values), an output isn't finite, or the module can't be made or fails.
pub fn module<M: Module>(build: impl FnOnce(Scope<'_>) -> Result<M>, input: &Tensor) -> Result<()> {
    let mut params = Params::new(input.device(), Seed::new(0)).with_dtype(DType::F64);
    let module = build(params.root())?;
    let pass = Pass::new(&params, Seed::new(0), true, false, Context::default())?;
    let learned = params.entries.iter().filter(|entry| !entry.is_buffer && !entry.frozen);
    let inputs: Vec<Tensor> = std::iter::once(input).chain(learned.map(|entry| &entry.value)).cloned().collect();
    check(|vars| module.forward(&vars[0], &pass.with_learned(vars[0].tape(), &vars[1..])), &inputs)
}
