//! Layers of one operation: linear, activations, dropout.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_kernels::{
    dropout,
    elementwise::{Chain, Function},
    matmul,
    resample::Interpolate,
    softmax::{LogSoftmax, Softmax},
};

use crate::{Module, Pass, Scope, Slot, check, init::Init};

/// Implements `Module` for operations without parameters.
macro_rules! modules {
    ($($op:ty),*) => {$(
        impl Module for $op {
            fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
                Var::apply(self.clone(), &[x])
            }
        }
    )*};
}

modules!(Chain, Softmax, LogSoftmax, Interpolate);

/// Elementwise functions are layers: `Activation::Relu`.
impl Module for Function {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        Var::apply(Chain::unary(*self), &[x])
    }
}

/// x for x > 0, w x otherwise, with a learned w for each channel (He et al. 2015). Parameter: `weight` (C).
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Module, PRelu, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = PRelu::new(params.root(), 2)?;
/// let pass = Pass::eval(&params)?;
/// let x = Tensor::from_slice(&[-4.0f32, 4.0], &[1, 2, 1], Device::Cpu)?;
/// assert_eq!(layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?, [-1.0, 4.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PRelu {
    weight: Slot,
    channels: usize,
}

impl PRelu {
    /// A layer with w initialised to 0.25.
    ///
    /// # Errors
    /// When there are no channels, the name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, channels: usize) -> Result<Self> {
        scope.layer(|scope| {
            check::sizes("prelu", "channels", &[channels])?;
            Ok(Self { weight: scope.parameter("weight", &[channels], Init::Constant(0.25))?, channels })
        })
    }
}

impl Module for PRelu {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        if self.channels != 1 && x.shape().get(1) != Some(&self.channels) {
            return Err(Error::shape("prelu", "the input has another number of channels")
                .expected(format!("(N, {}, ...)", self.channels))
                .shapes([x.shape()]));
        }
        let mut shape = vec![1; x.rank().saturating_sub(1)];
        shape.first_mut().into_iter().for_each(|first| *first = self.channels);
        // Not x less its positive part, which at infinity is NaN.
        let negative = x.clamp(f64::NEG_INFINITY, 0.0)?;
        let scaled = pass.parameter(self.weight)?.reshape(&shape)?.mul(&negative)?;
        // One map less before the sum is allocated.
        drop(negative);
        x.relu()?.add(&scaled)
    }
}

/// Options of a [`Linear`] layer: number of outputs; by default a bias and PyTorch's initialisation.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Linear, LinearOptions, Params, init::Init};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let options = LinearOptions::new(4).weight(Init::KaimingNormal(8)).bias_filled(Init::Constant(0.5));
/// Linear::new(params.root(), 8, options)?;
/// assert_eq!(params.get("bias")?.to_vec::<f32>()?, [0.5; 4]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearOptions {
    outputs: usize,
    weight: Option<Init>,
    bias: Option<Option<Init>>,
}

impl From<usize> for LinearOptions {
    fn from(outputs: usize) -> Self {
        Self::new(outputs)
    }
}

impl LinearOptions {
    /// Options with this number of outputs.
    pub fn new(outputs: usize) -> Self {
        Self { outputs, weight: None, bias: Some(None) }
    }

    /// Sets the initialisation of the weight.
    #[must_use]
    pub fn weight(mut self, init: Init) -> Self {
        self.weight = Some(init);
        self
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias.then_some(self.bias.flatten());
        self
    }

    /// Adds a bias with this initialisation.
    #[must_use]
    pub fn bias_filled(mut self, init: Init) -> Self {
        self.bias = Some(Some(init));
        self
    }
}

/// y = x Wᵀ + b over the last axis: (..., in) to (..., out). Parameters: `weight` (out, in), `bias` (out).
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Linear, LinearOptions, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let hidden = Linear::new(scope.at("hidden"), 784, 100)?;
/// let output = Linear::new(scope.at("output"), 100, LinearOptions::new(10).bias(false))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Slot,
    bias: Option<Slot>,
}

impl Linear {
    /// A layer with these [`LinearOptions`], or with this number of outputs.
    ///
    /// # Errors
    /// When there are no inputs or outputs or their product overflows, an [`Init`] has an invalid number, a name is taken, or
    /// memory runs out.
    pub fn new(scope: Scope<'_>, inputs: usize, outputs: impl Into<LinearOptions>) -> Result<Self> {
        let LinearOptions { outputs, weight, bias } = outputs.into();
        scope.layer(|scope| {
            check::sizes("linear", "inputs and outputs", &[inputs, outputs])?;
            let default = Init::FanIn(inputs);
            let weight = scope.parameter("weight", &[outputs, inputs], weight.unwrap_or(default))?;
            let bias = bias.map(|init| scope.parameter("bias", &[outputs], init.unwrap_or(default))).transpose()?;
            Ok(Self { weight, bias })
        })
    }
}

impl Module for Linear {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let weight = pass.parameter(self.weight)?;
        let bias = self.bias.map(|bias| pass.parameter(bias)).transpose()?;
        let inputs: Vec<&Var> = [x, &weight].into_iter().chain(&bias).collect();
        Var::apply(matmul::Linear { bias: bias.is_some() }, &inputs).map_err(|error| pass.within(self.weight, error))
    }
}

/// Options of [`Dropout`]: by default single elements are dropped.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Dropout, DropoutOptions, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let elements = Dropout::new(scope.at("elements"), 0.1)?;
/// let channels = Dropout::new(scope.at("channels"), DropoutOptions::new(0.5).whole_channels(true))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutOptions {
    probability: f64,
    whole_channels: bool,
}

impl From<f64> for DropoutOptions {
    fn from(probability: f64) -> Self {
        Self::new(probability)
    }
}

impl DropoutOptions {
    /// Options with this probability.
    pub fn new(probability: f64) -> Self {
        Self { probability, whole_channels: false }
    }

    /// Sets whether whole channels of (N, C, ...) are dropped (Tompson et al. 2015).
    #[must_use]
    pub fn whole_channels(mut self, whole_channels: bool) -> Self {
        self.whole_channels = whole_channels;
        self
    }
}

/// In training, sets elements to zero with probability p and multiplies the others by 1 / (1 − p) (Srivastava et al. 2014).
/// The mask depends on the seed of the pass, the layer's path and the number of earlier uses in the pass: two uses have
/// different masks, and a recomputation has the same mask.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Dropout, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = Dropout::new(params.root().at("dropout"), 0.5)?;
/// let x = Tensor::ones(&[1, 64], DType::F32, Device::Cpu)?;
/// let pass = Pass::train(&params, Seed::new(2))?;
/// let y = layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?;
/// assert!(y.contains(&0.0) && y.contains(&2.0));
/// let pass = Pass::eval(&params)?;
/// assert_eq!(layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?, [1.0; 64]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dropout {
    path: String,
    probability: f64,
    whole_channels: bool,
}

impl Dropout {
    /// A layer with these [`DropoutOptions`], or with this probability for single elements.
    ///
    /// # Errors
    /// When the probability isn't in [0, 1).
    pub fn new(scope: Scope<'_>, options: impl Into<DropoutOptions>) -> Result<Self> {
        let DropoutOptions { probability, whole_channels } = options.into();
        scope.layer(|scope| {
            if !(0.0..1.0).contains(&probability) {
                return Err(
                    Error::argument("dropout", format!("a probability of {probability}")).expected("one in [0, 1)")
                );
            }
            Ok(Self { path: scope.path().to_owned(), probability, whole_channels })
        })
    }
}

impl Module for Dropout {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        if !pass.is_training() || self.probability == 0.0 {
            return Ok(x.clone());
        }
        let Self { probability, whole_channels, .. } = *self;
        Var::apply(dropout::Dropout { seed: pass.random(&self.path), probability, whole_channels }, &[x])
            .map_err(|error| error.within(self.path.clone()))
    }
}
