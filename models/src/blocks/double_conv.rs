//! Two convolutions, each with a norm and an activation.

use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Conv, ConvNormActivation, Kernel, Module, Norm, NormKind, NormOptions, Pass, Scope};

/// Options of [`DoubleConv`]: by default stride 1, and a bias in both convolutions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DoubleConvOptions {
    rank: usize,
    norm: NormKind,
    activation: Activation,
    stride: usize,
    bias: bool,
}

impl DoubleConvOptions {
    /// Options for `rank` spatial axes, with this norm and activation after each convolution.
    pub fn new(rank: usize, norm: NormKind, activation: Activation) -> Self {
        Self { rank, norm, activation, stride: 1, bias: true }
    }

    /// Sets the stride of the first convolution.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets whether the convolutions have a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
}

/// (3-wide convolution → norm → activation) twice, as in U-Nets (Ronneberger et al. 2015). (N, C_in, spatial...) to
/// (N, C_out, spatial / stride...).
///
/// State-dict names: `0` the first convolution, `1` its norm, `3` and `4` the second ones, as in a PyTorch `Sequential` whose
/// entries 2 and 5 are the activations.
#[derive(Debug)]
pub struct DoubleConv {
    first: ConvNormActivation,
    second: ConvNormActivation,
}

impl DoubleConv {
    /// Creates the parameters in `scope`.
    ///
    /// # Errors
    /// When there aren't one to three axes, a number of channels or the stride is 0, the norm's groups don't divide the
    /// channels, a name is taken, or memory runs out; then no parameter is created.
    pub fn new(mut scope: Scope<'_>, in_channels: usize, channels: usize, options: DoubleConvOptions) -> Result<Self> {
        let DoubleConvOptions { rank, norm, activation, stride, bias } = options;
        let norm = NormOptions::new(norm).activation(activation);
        scope.whole(|scope| {
            let mut layer = |place: usize, in_channels: usize, stride: usize| -> Result<ConvNormActivation> {
                let kernel = Kernel::new(rank, 3).stride(stride).padding(1).bias(bias);
                let conv = Conv::new(scope.at(place), in_channels, channels, kernel)?;
                ConvNormActivation::new(conv, Norm::new(scope.at(place + 1), channels, norm)?)
            };
            Ok(Self { first: layer(0, in_channels, stride)?, second: layer(3, channels, 1)? })
        })
    }

    /// The output for two inputs concatenated along channels, without the concatenated copy.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub fn forward_two(&self, first: Var, second: Var, pass: &Pass) -> Result<Var> {
        let joined = self.first.forward_two(&first, &second, pass)?;
        drop((first, second));
        self.second.forward(&joined, pass)
    }
}

impl Module for DoubleConv {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.second.forward(&self.first.forward(x, pass)?, pass)
    }
}
