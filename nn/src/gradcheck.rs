//! Gradient checks of layers and networks; those of single functions and operations are [`tomograd_autodiff::gradcheck`].

use tomograd_core::{Result, Seed, Tensor};
use tomograd_kernels::Context;

use crate::{Module, Params, Pass};
pub use tomograd_autodiff::gradcheck::*;

/// Checks a module's gradients of its input and of all parameters that aren't frozen against central differences.
/// `params` and `input` are best in f64: `Params::new(..).with_dtype(DType::F64)`. Dropout draws the same each time.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Conv, Params, gradcheck};
///
/// let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
/// let conv = Conv::new(params.root().at("conv"), 2, 3, &[3, 3])?.padding(1).build()?;
/// let x = Tensor::normal(&[1, 2, 4, 5], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu)?;
/// gradcheck::module(&conv, &params, &x, true)?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When a gradient is off, naming input (0 is the module's input, then come the parameters in their order), direction and
/// both values; when an output isn't finite; or when the module fails.
pub fn module(module: &dyn Module, params: &Params, input: &Tensor, training: bool) -> Result<()> {
    let pass = Pass::new(params, Seed::new(0), training, false, Context::default())?;
    let learned = params.entries.iter().filter(|entry| !entry.is_buffer && !entry.frozen);
    let inputs: Vec<Tensor> = std::iter::once(input).chain(learned.map(|entry| &entry.value)).cloned().collect();
    check(|vars| module.forward(&vars[0], &mut pass.with_learned(vars[0].tape(), &vars[1..])), &inputs)
}
