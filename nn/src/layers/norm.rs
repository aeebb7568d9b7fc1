//! Batch, instance, group and layer norm, and a fused layer of convolution, norm and activation.

use std::sync::{Arc, Mutex};

use tomograd_autodiff::Var;
use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_kernels::{
    conv,
    elementwise::Function,
    norm::{self, Statistics},
};

use super::{Conv, PerAxis, per_axis::from_lists};
use crate::{BufferChange, Followed, Module, Pass, Scope, Slot, check, fold::Link, init::Init};

/// The elements over which a norm computes mean and variance.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Norm, NormKind, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// for (name, kind) in [("batch", NormKind::Batch), ("instance", NormKind::Instance), ("group", NormKind::Group(4))] {
///     Norm::new(scope.at(name), 16, kind)?;
/// }
/// assert!(params.get("batch.running_mean").is_ok() && params.get("instance.running_mean").is_err());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// The voxels of one channel of one image.
    Instance,
    /// The voxels and channels of one group of one image; the number is that of groups.
    Group(usize),
    /// The voxels of one channel of the whole batch in training; running statistics in inference.
    Batch,
}

/// Options of a [`Norm`]. By default: γ = 1 and β = 0, no activation, ε = 10⁻⁵, momentum 0.1 (the weight of a new batch in the
/// running statistics).
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Activation, Norm, NormKind, NormOptions, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let options = NormOptions::new(NormKind::Batch).activation(Activation::Relu).epsilon(1e-3).momentum(0.01);
/// let norm = Norm::new(params.root(), 16, options)?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormOptions {
    kind: NormKind,
    activation: Option<Function>,
    affine: bool,
    weight: Init,
    epsilon: f64,
    momentum: f64,
}

impl From<NormKind> for NormOptions {
    fn from(kind: NormKind) -> Self {
        Self::new(kind)
    }
}

impl NormOptions {
    /// Options of a norm of this kind.
    pub fn new(kind: NormKind) -> Self {
        Self { kind, activation: None, affine: true, weight: Init::Constant(1.0), epsilon: 1e-5, momentum: 0.1 }
    }

    /// Adds an activation, fused with the norm.
    #[must_use]
    pub fn activation(mut self, activation: Function) -> Self {
        self.activation = Some(activation);
        self
    }

    /// Sets whether there are γ and β.
    #[must_use]
    pub fn affine(mut self, affine: bool) -> Self {
        self.affine = affine;
        self
    }

    /// Sets the initialisation of γ, such as 0 for the last norm of a residual block (Goyal et al. 2017).
    #[must_use]
    pub fn weight(mut self, init: Init) -> Self {
        self.weight = init;
        self
    }

    /// Sets ε.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// Sets the momentum: the weight of a new batch in the running statistics.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    fn check(&self, channels: usize) -> Result<()> {
        let groups = if let NormKind::Group(groups) = self.kind { groups } else { 1 };
        check::groups("norm", groups, &[channels])?;
        self.activation.map_or(Ok(()), |function| check::check_activation("norm", function))?;
        check::number("norm", "epsilon", self.epsilon, check::SMALLEST..=check::LARGEST)?;
        check::number("norm", "the momentum", self.momentum, 0.0..=1.0)
    }
}

/// Batch, instance or group norm with an optional fused activation. Parameters: `weight` (γ), `bias` (β), each (C); for
/// [`NormKind::Batch`] the buffers `running_mean`, `running_var` (C) and `num_batches_tracked`, which an empty batch doesn't
/// change.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Activation, Norm, NormKind, NormOptions, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let batch = Norm::new(scope.at("bn"), 16, NormKind::Batch)?;
/// let instance = NormOptions::new(NormKind::Instance).activation(Activation::LeakyRelu(0.01));
/// let instance = Norm::new(scope.at("in"), 16, instance)?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Norm {
    channels: usize,
    options: NormOptions,
    /// γ and β.
    affine: Option<[Slot; 2]>,
    running: Option<[Slot; 3]>,
    /// For batch norm: the convolution that it follows.
    link: Option<Arc<Link>>,
}

impl Norm {
    /// A norm of `channels` channels with these [`NormOptions`], or of this [`NormKind`].
    ///
    /// # Errors
    /// When there are no channels, the groups don't divide them, an attribute of the activation is invalid, ε isn't from
    /// 10⁻³⁰ to 10³⁰, the momentum isn't in [0, 1], the [`Init`] has an invalid number, a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, channels: usize, options: impl Into<NormOptions>) -> Result<Self> {
        let options = options.into();
        scope.layer(|scope| {
            options.check(channels)?;
            let mut parameter = |name, init| scope.parameter(name, &[channels], init);
            let affine = match options.affine {
                true => Some([parameter("weight", options.weight)?, parameter("bias", Init::Constant(0.0))?]),
                false => None,
            };
            let running = match options.kind {
                NormKind::Batch => {
                    let device = scope.device();
                    Some([
                        scope.constant_buffer("running_mean", &[channels], 0.0)?,
                        scope.constant_buffer("running_var", &[channels], 1.0)?,
                        scope.buffer("num_batches_tracked", Tensor::zeros(&[], DType::I64, device)?)?,
                    ])
                }
                _ => None,
            };
            let link = running.map(|[mean, variance, _]| {
                let (path, epsilon) = (scope.path().to_owned(), options.epsilon);
                scope.link(Link { path, affine, mean, variance, epsilon, follows: Mutex::default() })
            });
            Ok(Self { channels, options, affine, running, link })
        })
    }

    /// A norm of the output channels of `&conv`, whose output nothing else may read: a batch norm can then be folded into the
    /// convolution by [`Params::fold_batch_norm`](crate::Params::fold_batch_norm).
    ///
    /// # Errors
    /// As [`Norm::new`].
    pub fn after(scope: Scope<'_>, conv: impl Into<Followed>, options: impl Into<NormOptions>) -> Result<Self> {
        let conv = conv.into();
        let norm = Self::new(scope, conv.channels, options)?;
        norm.follow(conv);
        Ok(norm)
    }

    fn follow(&self, conv: Followed) {
        self.link.iter().for_each(|link| link.follow(conv));
    }

    /// Whether the norm is folded into the preceding convolution.
    fn is_folded(&self, pass: &Pass) -> Result<bool> {
        self.running.map_or(Ok(false), |[mean, ..]| pass.is_folded(mean))
    }

    /// The operation, and its inputs after x.
    fn op(&self, pass: &Pass) -> Result<(norm::Norm, Vec<Var>)> {
        let affine = self.affine.iter().flatten();
        let mut inputs = affine.map(|&slot| pass.parameter(slot)).collect::<Result<Vec<_>>>()?;
        let statistics = match (self.options.kind, self.running) {
            (NormKind::Instance, _) => Statistics::Instance,
            (NormKind::Group(groups), _) => Statistics::Group(groups),
            (NormKind::Batch, Some([mean, variance, _])) if !pass.is_training() => {
                inputs.extend([pass.parameter(mean)?, pass.parameter(variance)?]);
                Statistics::Running
            }
            (NormKind::Batch, _) => Statistics::Batch,
        };
        Ok((
            norm::Norm {
                statistics,
                epsilon: self.options.epsilon,
                affine: self.affine.is_some(),
                activation: self.options.activation,
            },
            inputs,
        ))
    }

    /// Updates the running statistics by those of the batch; returns y.
    fn finish(&self, mut outputs: Vec<Var>, pass: &Pass) -> Result<Var> {
        if let (Some([mean, variance, batches]), [_, batch_mean, batch_variance]) = (self.running, &outputs[..]) {
            // An empty batch has no statistics.
            if outputs[0].value().count() > 0 {
                for (slot, batch) in [(mean, batch_mean), (variance, batch_variance)] {
                    let change = BufferChange::Blend { value: batch.value().clone(), weight: self.options.momentum };
                    pass.update_buffer(slot, change)?;
                }
                pass.update_buffer(batches, BufferChange::Count(1))?;
            }
        }
        Ok(outputs.swap_remove(0))
    }
}

impl Module for Norm {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        if self.is_folded(pass)? {
            return self.options.activation.map_or_else(|| Ok(x.clone()), |activation| activation.forward(x, pass));
        }
        let (op, rest) = self.op(pass)?;
        let inputs: Vec<&Var> = std::iter::once(x).chain(&rest).collect();
        let outputs = Var::apply_all(op, &inputs).map_err(|error| match self.affine {
            Some([weight, _]) => pass.within(weight, error),
            None => error,
        })?;
        self.finish(outputs, pass)
    }
}

/// Options of a [`LayerNorm`]: its axes, and ε, by default 10⁻⁵.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{LayerNorm, LayerNormOptions, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let norm = LayerNorm::new(params.root(), LayerNormOptions::new(96).epsilon(1e-6))?;
/// assert_eq!(params.get("weight")?.shape(), [96]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormOptions {
    shape: Vec<usize>,
    epsilon: f64,
}

impl From<usize> for LayerNormOptions {
    fn from(size: usize) -> Self {
        Self::new(size)
    }
}

from_lists!(LayerNormOptions: shape => LayerNormOptions::new(shape));

impl LayerNormOptions {
    /// The shape of the normalised axes: a number is the size of the last axis, a list has one size for each of the last
    /// axes.
    pub fn new(shape: impl Into<PerAxis>) -> Self {
        Self { shape: shape.into().given().to_vec(), epsilon: 1e-5 }
    }

    /// Sets ε.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }
}

/// Layer norm over the last axes (Ba et al. 2016). Parameters: `weight`, `bias`, with the shape of these axes.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{LayerNorm, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let norm = LayerNorm::new(params.root(), 2)?;
/// let pass = Pass::eval(&params)?;
/// let x = Tensor::from_slice(&[1.0f32, 3.0, -20.0, 20.0], &[2, 2], Device::Cpu)?;
/// let y = norm.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?;
/// assert!(y.iter().zip([-1.0, 1.0, -1.0, 1.0]).all(|(y, expected)| (y - expected).abs() < 1e-4));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerNorm {
    op: norm::LayerNorm,
    weight: Slot,
    bias: Slot,
}

impl LayerNorm {
    /// A norm with these [`LayerNormOptions`], or over last axes of this shape.
    ///
    /// # Errors
    /// When there is no axis, an axis has size 0, ε isn't from 10⁻³⁰ to 10³⁰, a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, options: impl Into<LayerNormOptions>) -> Result<Self> {
        let LayerNormOptions { shape, epsilon } = options.into();
        scope.layer(|scope| {
            if shape.is_empty() {
                return Err(Error::argument("layer_norm", "a shape of no axes").expected("one axis at least"));
            }
            check::sizes("layer_norm", "the sizes of the axes", &shape)?;
            check::number("layer_norm", "epsilon", epsilon, check::SMALLEST..=check::LARGEST)?;
            Ok(Self {
                op: norm::LayerNorm { axes: shape.len(), epsilon, affine: true },
                weight: scope.parameter("weight", &shape, Init::Constant(1.0))?,
                bias: scope.parameter("bias", &shape, Init::Constant(0.0))?,
            })
        })
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        Var::apply(self.op.clone(), &[x, &pass.parameter(self.weight)?, &pass.parameter(self.bias)?])
            .map_err(|error| pass.within(self.weight, error))
    }
}

/// Convolution, norm and activation as one fused operation.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Activation, Conv, ConvNormActivation, Kernel, Module, Norm, NormKind, NormOptions, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let conv = Conv::new(scope.at("conv"), 1, 4, Kernel::d2(3).padding(1))?;
/// let norm = NormOptions::new(NormKind::Instance).activation(Activation::Relu);
/// let block = ConvNormActivation::new(conv, Norm::new(scope.at("norm"), 4, norm)?)?;
/// let pass = Pass::eval(&params)?;
/// let image = Tensor::ones(&[1, 1, 6, 6], DType::F32, Device::Cpu)?;
/// assert_eq!(block.forward(&pass.input(&image), &pass)?.shape(), [1, 4, 6, 6]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConvNormActivation {
    conv: Conv,
    norm: Norm,
}

impl ConvNormActivation {
    /// Fuses a convolution with the norm that follows it and the norm's activation. If other layers read the convolution as well
    /// (a clone of it that runs elsewhere, say), a batch norm must not be [folded](crate::Params::fold_batch_norm) into it: the store
    /// knows only of fused layers and of [`Norm::after`].
    ///
    /// # Errors
    /// When the norm's channels aren't the convolution's output channels.
    pub fn new(conv: Conv, norm: Norm) -> Result<Self> {
        if conv.out_channels() != norm.channels {
            let what = format!("a norm of {} channels after {}", norm.channels, conv.out_channels());
            return Err(
                Error::argument("conv_norm_activation", what).expected("as many channels as the convolution has")
            );
        }
        norm.follow(conv.followed());
        Ok(Self { conv, norm })
    }

    /// The output for two inputs concatenated along channels, without the concatenated copy.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub fn forward_two(&self, first: &Var, second: &Var, pass: &Pass) -> Result<Var> {
        self.run(&[first, second], pass)
    }

    /// The number of output channels.
    pub fn out_channels(&self) -> usize {
        self.conv.out_channels()
    }

    fn run(&self, x: &[&Var], pass: &Pass) -> Result<Var> {
        // With an activation, the fused operation is kept, since the folded norm costs nothing in its epilogue.
        if self.norm.is_folded(pass)? && self.norm.options.activation.is_none() {
            return self.conv.run(x, pass);
        }
        let (conv, mut inputs) = self.conv.inputs(x, pass)?;
        let (norm, rest) = self.norm.op(pass)?;
        inputs.extend(rest);
        let op = conv::ConvNormActivation { conv, norm };
        let outputs = Var::apply_all(op, &inputs.iter().collect::<Vec<_>>());
        self.norm.finish(outputs.map_err(|error| self.conv.within(error, pass))?, pass)
    }
}

impl Module for ConvNormActivation {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.run(&[x], pass)
    }
}
