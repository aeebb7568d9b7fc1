//! Networks with any number of named inputs and outputs.

use tomograd_autodiff::Var;
use tomograd_core::Result;

use crate::{Module, Named, Pass};

/// A network with named inputs and outputs, such as an image pair, or an image and prompts; a reconstruction with mean and
/// variance, or logits with auxiliary heads. It is immutable: its parameters are in [`Params`](crate::Params).
///
/// Every [`Module`] is a network with the input `image` and the output `logits`. A network with other inputs or outputs
/// implements this trait and isn't a module.
///
/// ```
/// use tomograd_autodiff::{Var, methods::*};
/// use tomograd_core::{DType, Device, Result, Seed, Tensor};
/// use tomograd_nn::{Conv, Kernel, Module, Named, Network, Params, Pass};
///
/// /// Moves an image by a displacement of each voxel (here: only predicts it).
/// struct Registration(Conv);
///
/// impl Network for Registration {
///     fn inputs(&self) -> &'static [&'static str] {
///         &["moving", "fixed"]
///     }
///
///     fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
///         let pair = Var::concat(&[inputs.get("moving")?, inputs.get("fixed")?], 1)?;
///         Ok(Named::from([("displacement", self.0.forward(&pair, pass)?)]))
///     }
/// }
///
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let network = Registration(Conv::new(params.root(), 2, 2, Kernel::d2(3).padding(1))?);
/// let pass = Pass::eval(&params)?;
/// let image = pass.input(&Tensor::ones(&[1, 1, 6, 6], DType::F32, Device::Cpu)?);
/// let outputs = network.run(&Named::from([("moving", image.clone()), ("fixed", image)]), &pass)?;
/// assert_eq!(outputs.get("displacement")?.shape(), [1, 2, 6, 6]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Network: Send + Sync {
    /// The names of the inputs, the main one first, including optional ones.
    fn inputs(&self) -> &'static [&'static str];

    /// Computes all outputs, the main one first.
    ///
    /// # Errors
    /// When an input is missing or doesn't fit.
    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>>;
}

impl<M: Module> Network for M {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        Ok(Named::from([("logits", self.forward(inputs.get("image")?, pass)?)]))
    }
}
