//! Squeeze and excitation.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{Activation, Conv, Kernel, Module, Pass, Scope, check_activation, init::Init};

use super::saving::mul;

/// Options of [`SqueezeExcitation`]: by default a ReLU between the layers, a sigmoid as the gate, the names `fc1` and `fc2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SqueezeExcitationOptions {
    rank: usize,
    reduced: usize,
    activation: Activation,
    gate: Activation,
    names: [&'static str; 2],
    weight: Option<Init>,
    bias: Option<Init>,
}

impl SqueezeExcitationOptions {
    /// Options for `rank` spatial axes, with `reduced` channels between the layers.
    pub fn new(rank: usize, reduced: usize) -> Self {
        let (activation, gate) = (Activation::Relu, Activation::Sigmoid);
        Self { rank, reduced, activation, gate, names: ["fc1", "fc2"], weight: None, bias: None }
    }

    /// Sets the activation between the layers.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Sets the function that gives the factors.
    #[must_use]
    pub fn gate(mut self, gate: Activation) -> Self {
        self.gate = gate;
        self
    }

    /// Sets the names of the two layers.
    #[must_use]
    pub fn names(mut self, names: [&'static str; 2]) -> Self {
        self.names = names;
        self
    }

    /// Sets the initialisation of the weights; by default PyTorch's.
    #[must_use]
    pub fn weight(mut self, init: Init) -> Self {
        self.weight = Some(init);
        self
    }

    /// Sets the initialisation of the biases; by default PyTorch's.
    #[must_use]
    pub(crate) fn bias(mut self, init: Init) -> Self {
        self.bias = Some(init);
        self
    }
}

/// Squeeze and excitation (Hu et al. 2017): each channel of each image is multiplied by a factor that two convolutions of width
/// 1 compute from the means of all channels. (N, C, spatial...) to the same shape.
///
/// State-dict names: `fc1` and `fc2`, or those of the options.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::blocks::{SqueezeExcitation, SqueezeExcitationOptions};
/// use tomograd_nn::{Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let block = SqueezeExcitation::new(params.root().at("se"), 8, SqueezeExcitationOptions::new(3, 2))?;
/// assert_eq!(params.get("se.fc1.weight")?.shape(), [2, 8, 1, 1, 1]);
/// let pass = Pass::eval(&params)?;
/// let x = pass.input(&Tensor::ones(&[1, 8, 4, 4, 4], DType::F32, Device::Cpu)?);
/// assert_eq!(block.forward(&x, &pass)?.shape(), x.shape());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SqueezeExcitation {
    squeeze: Conv,
    activation: Activation,
    excite: Conv,
    gate: Activation,
}

impl SqueezeExcitation {
    /// Creates the parameters in `scope`.
    ///
    /// # Errors
    /// When there aren't one to three axes, a number of channels is 0, an attribute of a function is invalid, a name is taken,
    /// or memory runs out; then no parameter is created.
    pub fn new(mut scope: Scope<'_>, channels: usize, options: SqueezeExcitationOptions) -> Result<Self> {
        let SqueezeExcitationOptions { rank, reduced, activation, gate, names, weight, bias } = options;
        check_activation("activation", activation)?;
        check_activation("gate", gate)?;
        let kernel = Kernel::new(rank, 1);
        let kernel = weight.map_or(kernel.clone(), |init| kernel.weight(init));
        let kernel = bias.map_or(kernel.clone(), |init| kernel.bias_filled(init));
        scope.whole(|scope| {
            let squeeze = Conv::new(scope.at(names[0]), channels, reduced, kernel.clone())?;
            let excite = Conv::new(scope.at(names[1]), reduced, channels, kernel)?;
            Ok(Self { squeeze, activation, excite, gate })
        })
    }
}

impl SqueezeExcitation {
    /// [`forward`](Module::forward), in the place of x in inference.
    pub(crate) fn scaled(&self, x: Var, pass: &Pass) -> Result<Var> {
        let gates = self.gates(&x, pass)?;
        mul(x, &gates)
    }

    /// The factor of each channel of each image.
    fn gates(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let squeezed = self.squeeze.forward_activated(&[&x.mean_spatial()?], self.activation, pass)?;
        self.excite.forward_activated(&[&squeezed], self.gate, pass)
    }
}

impl Module for SqueezeExcitation {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        x.mul(&self.gates(x, pass)?)
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed, Tensor};
    use tomograd_nn::gradcheck;

    use super::*;

    #[test]
    fn gradients_equal_differences() {
        for shape in [&[2, 4, 5][..], &[2, 4, 3, 2], &[1, 4, 2, 3, 2]] {
            let x = Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
            let options = SqueezeExcitationOptions::new(shape.len() - 2, 2).activation(Activation::Silu);
            gradcheck::module(|scope| SqueezeExcitation::new(scope, 4, options.names(["reduce", "expand"])), &x)
                .unwrap();
        }
    }
}
