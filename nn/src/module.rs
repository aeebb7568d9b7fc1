//! The trait of layers and networks with one input and one output.

use tomograd_autodiff::Var;
use tomograd_core::Result;

use crate::Pass;

/// A layer or network with one input and one output. It is immutable: its parameters are in [`Params`](crate::Params).
///
/// ```
/// use tomograd_autodiff::{Var, methods::*};
/// use tomograd_core::{DType, Device, Result, Seed, Tensor};
/// use tomograd_nn::{Conv, Kernel, Module, Params, Pass};
/// struct Residual(Conv);
/// impl Module for Residual {
///     fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
///         self.0.forward(x, pass)?.relu()?.add(x)
///     }
/// }
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let block = Residual(Conv::new(params.root(), 2, 2, Kernel::d2(3).padding(1))?);
/// let pass = Pass::eval(&params)?;
/// let x = pass.input(&Tensor::ones(&[1, 2, 5, 5], DType::F32, Device::Cpu)?);
/// assert_eq!(block.forward(&x, &pass)?.shape(), [1, 2, 5, 5]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Module: Send + Sync {
    /// Computes the output.
    ///
    /// # Errors
    /// When the input doesn't fit.
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var>;
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        (**self).forward(x, pass)
    }
}

/// A chain of modules.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Activation, Conv, Kernel, MaxPool, Module, Params, Pass, Sequential};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let net = Sequential::new()
///     .then(Conv::new(scope.at("conv1"), 1, 8, Kernel::d2(3).padding(1))?)
///     .then(Activation::Relu)
///     .then(MaxPool::new(2)?);
/// let pass = Pass::eval(&params)?;
/// let y = net.forward(&pass.input(&Tensor::ones(&[1, 1, 6, 6], DType::F32, Device::Cpu)?), &pass)?;
/// assert_eq!(y.shape(), [1, 8, 3, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Default)]
pub struct Sequential(Vec<Box<dyn Module>>);

impl Sequential {
    /// An empty chain, which returns its input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `module`.
    #[must_use]
    pub fn then(mut self, module: impl Module + 'static) -> Self {
        self.0.push(Box::new(module));
        self
    }
}

impl Module for Sequential {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.0.iter().try_fold(x.clone(), |x, module| module.forward(&x, pass))
    }
}
