//! Two convolutions, each with a norm and an activation.

use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, Kernel, Module, Norm, NormOptions, Pass, Scope, check_activation, init::Init,
};

/// Options of [`DoubleConv`]: by default stride 1, padding 1, as many channels between the convolutions as behind them, a bias
/// in both convolutions, and the names of a PyTorch `Sequential`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DoubleConvOptions {
    rank: usize,
    norm: Option<NormOptions>,
    activation: Activation,
    stride: usize,
    padding: usize,
    middle: Option<usize>,
    bias: bool,
    weight: Option<Init>,
    names: [[&'static str; 2]; 2],
}

impl DoubleConvOptions {
    /// Options for `rank` spatial axes, with this norm and activation after each convolution.
    pub fn new(rank: usize, norm: impl Into<NormOptions>, activation: Activation) -> Self {
        let norm = Some(norm.into());
        let names = [["0", "1"], ["3", "4"]];
        Self { rank, norm, activation, stride: 1, padding: 1, middle: None, bias: true, weight: None, names }
    }

    /// Options for `rank` spatial axes, with this activation and no norm after each convolution. A PyTorch `Sequential` then
    /// has the second convolution as its entry 2.
    pub fn without_norm(rank: usize, activation: Activation) -> Self {
        let (norm, names) = (None, [["0", ""], ["2", ""]]);
        Self { rank, norm, activation, stride: 1, padding: 1, middle: None, bias: true, weight: None, names }
    }

    /// Sets the stride of the first convolution.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    /// Sets the zero padding of both convolutions; with 0, each takes two voxels off each axis.
    #[must_use]
    pub fn padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// Sets the number of channels between the convolutions.
    #[must_use]
    pub fn middle(mut self, channels: usize) -> Self {
        self.middle = Some(channels);
        self
    }

    /// Sets whether the convolutions have a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Sets the initialisation of the convolutions' weights; by default PyTorch's.
    #[must_use]
    pub fn weight(mut self, init: Init) -> Self {
        self.weight = Some(init);
        self
    }

    /// Sets the names: the first convolution and its norm, the second convolution and its norm.
    #[must_use]
    pub fn names(mut self, names: [[&'static str; 2]; 2]) -> Self {
        self.names = names;
        self
    }
}

/// (3-wide convolution → norm → activation) twice, as in U-Nets (Ronneberger et al. 2015). (N, C_in, spatial...) to
/// (N, C_out, spatial / stride...).
///
/// State-dict names: `0` the first convolution, `1` its norm, `3` and `4` the second ones, as in a PyTorch `Sequential` whose
/// entries 2 and 5 are the activations; without norms `0` and `2`; others by [`DoubleConvOptions::names`].
#[derive(Debug)]
pub struct DoubleConv {
    first: ConvActivation,
    second: ConvActivation,
}

/// A convolution with an activation, and perhaps a norm between them.
#[derive(Debug)]
pub(crate) enum ConvActivation {
    Normed(ConvNormActivation),
    Plain(Conv, Activation),
}

impl ConvActivation {
    fn forward_two(&self, first: &Var, second: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Normed(layer) => layer.forward_two(first, second, pass),
            Self::Plain(conv, activation) => conv.forward_activated(&[first, second], *activation, pass),
        }
    }
}

impl Module for ConvActivation {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self {
            Self::Normed(layer) => layer.forward(x, pass),
            Self::Plain(conv, activation) => conv.forward_activated(&[x], *activation, pass),
        }
    }
}

impl DoubleConv {
    /// Creates the parameters in `scope`.
    ///
    /// # Errors
    /// When there aren't one to three axes, a number of channels or the stride is 0, the norm's groups don't divide the
    /// channels, a number of the activation makes no sense, a name is taken, or memory runs out; then no parameter is created.
    pub fn new(mut scope: Scope<'_>, in_channels: usize, channels: usize, options: DoubleConvOptions) -> Result<Self> {
        let DoubleConvOptions { rank, norm, activation, stride, padding, middle, bias, weight, names } = options;
        scope.whole(|scope| {
            let mut layer =
                |[conv, norm_name]: [&str; 2], channels: [usize; 2], stride: usize| -> Result<ConvActivation> {
                    let kernel = Kernel::new(rank, 3).stride(stride).padding(padding).bias(bias);
                    let kernel = weight.map_or(kernel.clone(), |init| kernel.weight(init));
                    let conv = Conv::new(scope.at(conv), channels[0], channels[1], kernel)?;
                    let Some(norm) = norm else {
                        check_activation("activation", activation)?;
                        return Ok(ConvActivation::Plain(conv, activation));
                    };
                    let norm = Norm::new(scope.at(norm_name), channels[1], norm.activation(activation))?;
                    Ok(ConvActivation::Normed(ConvNormActivation::new(conv, norm)?))
                };
            let middle = middle.unwrap_or(channels);
            let first = layer(names[0], [in_channels, middle], stride)?;
            Ok(Self { first, second: layer(names[1], [middle, channels], 1)? })
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
