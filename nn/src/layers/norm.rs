//! Batch, instance, group and layer norm, and the layer of a convolution, a norm and an activation in one operation.

use tomograd_autodiff::Var;
use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_kernels::{
    conv,
    elementwise::Function,
    norm::{self, Statistics},
};

use super::Conv;
use crate::{BufferChange, Module, Pass, Scope, Slot, check, init::Init};

/// Over which elements a norm takes mean and variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// The voxels of one channel of one image.
    Instance,
    /// The voxels and channels of one of this many groups of one image.
    Group(usize),
    /// The voxels of one channel of the whole batch in training, running statistics otherwise.
    Batch,
}

/// A norm with γ and β, and an activation fused with it. Parameters: `weight`, `bias` (C); for [`NormKind::Batch`] the buffers
/// `running_mean`, `running_var` (C) and `num_batches_tracked`, which a batch of no voxel leaves as they are.
#[derive(Debug, Clone)]
pub struct Norm {
    channels: usize,
    kind: NormKind,
    activation: Option<Function>,
    epsilon: f64,
    momentum: f64,
    /// γ and β.
    affine: Option<[Slot; 2]>,
    running: Option<[Slot; 3]>,
}

impl Norm {
    /// A norm of `channels` channels, followed by `activation`.
    ///
    /// # Errors
    /// When there are no channels, the groups don't divide them, a number of the activation makes no sense, a name is taken,
    /// or memory runs out.
    pub fn new(mut scope: Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
        scope.whole(|scope| {
            check_norm(kind, channels, activation)?;
            let weight = scope.parameter("weight", &[channels], Init::Constant(1.0))?;
            let bias = scope.parameter("bias", &[channels], Init::Constant(0.0))?;
            Ok(Self { affine: Some([weight, bias]), ..Self::make(scope, kind, channels, activation)? })
        })
    }

    /// The same without γ and β.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn plain(mut scope: Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
        check_norm(kind, channels, activation)?;
        scope.whole(|scope| Self::make(scope, kind, channels, activation))
    }

    fn make(scope: &mut Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
        let running = match kind {
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
        Ok(Self { channels, kind, activation, epsilon: 1e-5, momentum: 0.1, affine: None, running })
    }

    /// With another ε than 10⁻⁵.
    ///
    /// # Errors
    /// When it isn't from 10⁻³⁰ to 10³⁰.
    pub fn epsilon(mut self, epsilon: f64) -> Result<Self> {
        check::number("norm", "epsilon", epsilon, check::SMALLEST..=check::LARGEST)?;
        self.epsilon = epsilon;
        Ok(self)
    }

    /// With another share of a new batch in the running statistics than 0.1.
    ///
    /// # Errors
    /// When it isn't in [0, 1].
    pub fn momentum(mut self, momentum: f64) -> Result<Self> {
        check::number("norm", "the momentum", momentum, 0.0..=1.0)?;
        self.momentum = momentum;
        Ok(self)
    }

    /// The operation, and its inputs after x.
    fn op(&self, pass: &Pass) -> Result<(norm::Norm, Vec<Var>)> {
        let affine = self.affine.iter().flatten();
        let mut inputs = affine.map(|&slot| pass.parameter(slot)).collect::<Result<Vec<_>>>()?;
        let statistics = match (self.kind, self.running) {
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
                epsilon: self.epsilon,
                affine: self.affine.is_some(),
                activation: self.activation,
            },
            inputs,
        ))
    }

    /// Takes the batch's statistics up into the running ones; gives y.
    fn finish(&self, mut outputs: Vec<Var>, pass: &mut Pass) -> Result<Var> {
        if let (Some([mean, variance, batches]), [_, batch_mean, batch_variance]) = (self.running, &outputs[..]) {
            // A batch of nothing has no statistics.
            if outputs[0].value().count() > 0 {
                for (slot, batch) in [(mean, batch_mean), (variance, batch_variance)] {
                    let change = BufferChange::Blend { value: batch.value().clone(), weight: self.momentum };
                    pass.update_buffer(slot, change)?;
                }
                pass.update_buffer(batches, BufferChange::Count(1))?;
            }
        }
        Ok(outputs.swap_remove(0))
    }
}

fn check_norm(kind: NormKind, channels: usize, activation: Option<Function>) -> Result<()> {
    let groups = if let NormKind::Group(groups) = kind { groups } else { 1 };
    check::groups("norm", groups, &[channels])?;
    activation.map_or(Ok(()), |function| check::function("norm", function))
}

impl Module for Norm {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let (op, rest) = self.op(pass)?;
        let inputs: Vec<&Var> = std::iter::once(x).chain(&rest).collect();
        let outputs = Var::apply_all(op, &inputs).map_err(|error| match self.affine {
            Some([weight, _]) => pass.within(weight, error),
            None => error,
        })?;
        self.finish(outputs, pass)
    }
}

/// A norm over the last axes (Ba et al. 2016). Parameters: `weight`, `bias`, with the shape of these axes.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    op: norm::LayerNorm,
    weight: Slot,
    bias: Slot,
}

impl LayerNorm {
    /// A norm over last axes of this shape, ε being 10⁻⁵.
    ///
    /// # Errors
    /// When there is no axis, or one of size 0, a name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, shape: &[usize]) -> Result<Self> {
        if shape.is_empty() {
            return Err(Error::argument("layer_norm", "a shape of no axes").expected("one axis at least"));
        }
        check::sizes("layer_norm", "the sizes of the axes", shape)?;
        scope.whole(|scope| {
            Ok(Self {
                op: norm::LayerNorm { axes: shape.len(), epsilon: 1e-5, affine: true },
                weight: scope.parameter("weight", shape, Init::Constant(1.0))?,
                bias: scope.parameter("bias", shape, Init::Constant(0.0))?,
            })
        })
    }

    /// With another ε.
    ///
    /// # Errors
    /// When it isn't from 10⁻³⁰ to 10³⁰.
    pub fn epsilon(mut self, epsilon: f64) -> Result<Self> {
        check::number("layer_norm", "epsilon", epsilon, check::SMALLEST..=check::LARGEST)?;
        self.op.epsilon = epsilon;
        Ok(self)
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        Var::apply(self.op.clone(), &[x, &pass.parameter(self.weight)?, &pass.parameter(self.bias)?])
            .map_err(|error| pass.within(self.weight, error))
    }
}

/// Convolution, norm and activation in one operation.
#[derive(Debug, Clone)]
pub struct ConvNormActivation {
    conv: Conv,
    norm: Norm,
}

impl ConvNormActivation {
    /// Fuses a convolution and the norm (with its activation) that follows it.
    ///
    /// # Errors
    /// When the norm isn't one of the convolution's output channels.
    pub fn new(conv: Conv, norm: Norm) -> Result<Self> {
        if conv.out_channels() != norm.channels {
            let what = format!("a norm of {} channels after {}", norm.channels, conv.out_channels());
            return Err(
                Error::argument("conv_norm_activation", what).expected("as many channels as the convolution has")
            );
        }
        Ok(Self { conv, norm })
    }

    /// The output for two inputs whose channels are put together: what a concatenation before it would give.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub fn forward_two(&self, first: &Var, second: &Var, pass: &mut Pass) -> Result<Var> {
        self.run(&[first, second], pass)
    }

    /// How many channels come out.
    pub fn out_channels(&self) -> usize {
        self.conv.out_channels()
    }

    fn run(&self, x: &[&Var], pass: &mut Pass) -> Result<Var> {
        let (conv, mut inputs) = self.conv.inputs(x, pass)?;
        let (norm, rest) = self.norm.op(pass)?;
        inputs.extend(rest);
        let op = conv::ConvNormActivation { conv, norm };
        let outputs = Var::apply_all(op, &inputs.iter().collect::<Vec<_>>());
        self.norm.finish(outputs.map_err(|error| self.conv.within(error, pass))?, pass)
    }
}

impl Module for ConvNormActivation {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        self.run(&[x], pass)
    }
}
