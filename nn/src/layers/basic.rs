//! Layers of one operation: linear, activations, dropout, pooling, upsampling.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result, element_count};
use tomograd_kernels::{
    dropout,
    elementwise::{Chain, Function},
    matmul,
    pool::{AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, MaxPool},
    resample::{Interpolate, Interpolation},
    softmax::{LogSoftmax, Softmax},
};

use crate::{Module, Pass, Scope, Slot, check, init::Init};

/// Operations without parameters are layers as they are.
macro_rules! modules {
    ($($op:ty),*) => {$(
        impl Module for $op {
            fn forward(&self, x: &Var, _: &mut Pass) -> Result<Var> {
                Var::apply(self.clone(), &[x])
            }
        }
    )*};
}

modules!(Chain, Softmax, LogSoftmax, MaxPool, AveragePool, AdaptiveMaxPool, AdaptiveAveragePool, Interpolate);

/// An elementwise function as a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation(pub Function);

impl Module for Activation {
    fn forward(&self, x: &Var, _: &mut Pass) -> Result<Var> {
        Var::apply(Chain::unary(self.0), &[x])
    }
}

/// x for x > 0, w x otherwise, with a learned w for each channel (He et al. 2015). Parameter: `weight` (C).
#[derive(Debug, Clone)]
pub struct PRelu {
    weight: Slot,
    channels: usize,
}

impl PRelu {
    /// A layer whose w start at 0.25.
    ///
    /// # Errors
    /// When there are no channels, the name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, channels: usize) -> Result<Self> {
        check::sizes("prelu", "channels", &[channels])?;
        Ok(Self { weight: scope.parameter("weight", &[channels], Init::Constant(0.25))?, channels })
    }
}

impl Module for PRelu {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        if self.channels != 1 && x.shape().get(1) != Some(&self.channels) {
            return Err(Error::shape("prelu", "the input has another number of channels")
                .expected(format!("(N, {}, ...)", self.channels))
                .shapes([x.shape()]));
        }
        let mut shape = vec![1; x.rank().saturating_sub(1)];
        shape.first_mut().into_iter().for_each(|first| *first = self.channels);
        let positive = x.relu()?;
        positive.add(&pass.parameter(self.weight)?.reshape(&shape)?.mul(&x.sub(&positive)?)?)
    }
}

/// y = x Wᵀ + b over the last axis: (..., in) to (..., out). Parameters: `weight` (out, in), `bias` (out).
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Slot,
    bias: Option<Slot>,
}

impl Linear {
    /// A layer with a bias, or without, filled as PyTorch fills it.
    ///
    /// # Errors
    /// When there are no inputs or outputs or their product overflows, a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, inputs: usize, outputs: usize, bias: bool) -> Result<Self> {
        check::sizes("linear", "inputs", &[inputs])?;
        let init = Init::FanIn(inputs);
        Self::filled(scope, inputs, outputs, init, bias.then_some(init))
    }

    /// A layer filled otherwise; without a bias when there is nothing to fill it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when an [`Init`] refuses its number.
    pub fn filled(
        mut scope: Scope<'_>,
        inputs: usize,
        outputs: usize,
        weight: Init,
        bias: Option<Init>,
    ) -> Result<Self> {
        check::sizes("linear", "inputs and outputs", &[inputs, outputs])?;
        scope.whole(|scope| {
            let weight = scope.parameter("weight", &[outputs, inputs], weight)?;
            let bias = bias.map(|init| scope.parameter("bias", &[outputs], init)).transpose()?;
            Ok(Self { weight, bias })
        })
    }
}

impl Module for Linear {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let weight = pass.parameter(self.weight)?;
        let bias = self.bias.map(|bias| pass.parameter(bias)).transpose()?;
        let inputs: Vec<&Var> = [x, &weight].into_iter().chain(&bias).collect();
        Var::apply(matmul::Linear { bias: bias.is_some() }, &inputs).map_err(|error| pass.within(self.weight, error))
    }
}

/// In training, sets elements to zero with probability p and multiplies the others by 1 / (1 − p) (Srivastava et al. 2014).
/// Which ones follows from the pass's seed, the layer's name and how often the pass has used it, so that two uses drop
/// different ones and a recomputation the same.
#[derive(Debug, Clone)]
pub struct Dropout {
    path: String,
    probability: f64,
    whole_channels: bool,
}

impl Dropout {
    /// A layer that drops single elements.
    ///
    /// # Errors
    /// When the probability isn't in [0, 1).
    pub fn new(scope: &Scope<'_>, probability: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&probability) {
            return Err(Error::argument("dropout", format!("a probability of {probability}")).expected("one in [0, 1)"));
        }
        Ok(Self { path: scope.path().to_owned(), probability, whole_channels: false })
    }

    /// The same, dropping whole channels of (N, C, ...) (Tompson et al. 2015).
    #[must_use]
    pub fn whole_channels(mut self) -> Self {
        self.whole_channels = true;
        self
    }
}

impl Module for Dropout {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        if !pass.is_training() || self.probability == 0.0 {
            return Ok(x.clone());
        }
        let Self { probability, whole_channels, .. } = *self;
        Var::apply(dropout::Dropout { seed: pass.random(&self.path), probability, whole_channels }, &[x])
            .map_err(|error| error.within(self.path.clone()))
    }
}

/// Interpolates (N, C, spatial...) to a multiple of its spatial size. [`Interpolate`] is the layer for a given size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upsample {
    factors: Vec<usize>,
    mode: Interpolation,
}

impl Upsample {
    /// A layer with the multiple of each spatial axis, and how values between voxels are found.
    ///
    /// # Errors
    /// When there isn't one factor to three, or one is 0.
    pub fn new(factors: &[usize], mode: Interpolation) -> Result<Self> {
        if !(1..=3).contains(&factors.len()) {
            let what = format!("{} factors", factors.len());
            return Err(Error::argument("upsample", what).expected("one for each of one to three axes"));
        }
        check::sizes("upsample", "the factors", factors)?;
        Ok(Self { factors: factors.to_vec(), mode })
    }
}

impl Module for Upsample {
    fn forward(&self, x: &Var, _: &mut Pass) -> Result<Var> {
        let spatial = x.shape().get(2..).unwrap_or_default();
        if spatial.len() != self.factors.len() {
            return Err(Error::shape("upsample", format!("{} factors", self.factors.len()))
                .expected("one for each spatial axis of (N, C, spatial...)")
                .shapes([x.shape()]));
        }
        let size: Vec<usize> =
            spatial.iter().zip(&self.factors).map(|(size, factor)| size.saturating_mul(*factor)).collect();
        element_count("upsample", &[&x.shape()[..2], &size].concat())?;
        Var::apply(Interpolate { size, mode: self.mode }, &[x])
    }
}
