//! Batch, instance, group and layer norm, and the layer of a convolution, a norm and an activation in one operation.

use tomograd_autodiff::Var;
use tomograd_core::{DType, Result, Tensor};
use tomograd_kernels::{
    conv,
    elementwise::Function,
    norm::{self, Statistics},
};

use super::Conv;
use crate::{Module, Pass, Scope, Slot, init::Init, params::blend};

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
/// `running_mean`, `running_var` (C) and `num_batches_tracked`.
#[derive(Debug, Clone)]
pub struct Norm {
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
    /// When a name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
        let weight = scope.parameter("weight", &[channels], Init::Constant(1.0))?;
        let bias = scope.parameter("bias", &[channels], Init::Constant(0.0))?;
        Ok(Self { affine: Some([weight, bias]), ..Self::plain(scope, kind, channels, activation)? })
    }

    /// The same without γ and β.
    ///
    /// # Errors
    /// When a name is taken, or memory runs out.
    pub fn plain(mut scope: Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
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
        Ok(Self { kind, activation, epsilon: 1e-5, momentum: 0.1, affine: None, running })
    }

    /// With another ε than 10⁻⁵.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.epsilon = epsilon;
        self
    }

    /// With another share of a new batch in the running statistics than 0.1.
    #[must_use]
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
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

    /// Takes the batch's statistics into the running ones; gives y.
    fn finish(&self, mut outputs: Vec<Var>, pass: &mut Pass) -> Result<Var> {
        if let (Some([mean, variance, batches]), [_, batch_mean, batch_variance]) = (self.running, &outputs[..]) {
            for (slot, batch) in [(mean, batch_mean), (variance, batch_variance)] {
                let running = pass.parameter(slot)?;
                pass.update_buffer(slot, blend(running.value(), batch.value(), self.momentum)?)?;
            }
            let count = pass.parameter(batches)?.value().to_vec::<i64>()?[0];
            pass.update_buffer(batches, Tensor::scalar(count + 1, batch_mean.value().device())?)?;
        }
        Ok(outputs.swap_remove(0))
    }
}

impl Module for Norm {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let (op, rest) = self.op(pass)?;
        let inputs: Vec<&Var> = std::iter::once(x).chain(&rest).collect();
        self.finish(Var::apply_all(op, &inputs)?, pass)
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
    /// When a name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, shape: &[usize]) -> Result<Self> {
        Ok(Self {
            op: norm::LayerNorm { axes: shape.len(), epsilon: 1e-5, affine: true },
            weight: scope.parameter("weight", shape, Init::Constant(1.0))?,
            bias: scope.parameter("bias", shape, Init::Constant(0.0))?,
        })
    }

    /// With another ε.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.op.epsilon = epsilon;
        self
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        Var::apply(self.op.clone(), &[x, &pass.parameter(self.weight)?, &pass.parameter(self.bias)?])
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
    pub fn new(conv: Conv, norm: Norm) -> Self {
        Self { conv, norm }
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
        self.norm.finish(Var::apply_all(op, &inputs.iter().collect::<Vec<_>>())?, pass)
    }
}

impl Module for ConvNormActivation {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        self.run(&[x], pass)
    }
}
