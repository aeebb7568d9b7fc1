//! Layers: convolution, transposed convolution, norm, and the three fused.

use tomograd_autodiff::Var;
use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_kernels::{
    conv,
    elementwise::{Chain, Function},
    norm::{self, Statistics},
};

use crate::{Module, Pass, Scope, Slot, init::Init, params::blend};

/// An elementwise function as a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation(pub Function);

impl Module for Activation {
    fn forward(&self, x: &Var, _: &mut Pass) -> Result<Var> {
        Var::apply(Chain::unary(self.0), &[x])
    }
}

/// A convolution layer of any spatial rank from 1 to 3. Parameters: `weight` (C_out, C_in / groups, kernel...), `bias` (C_out).
#[derive(Debug, Clone)]
pub struct Conv {
    op: conv::Conv,
    weight: Slot,
    bias: Option<Slot>,
    out_channels: usize,
}

/// A convolution layer in the making: the attributes that differ from the usual.
pub struct ConvBuilder<'a> {
    scope: Scope<'a>,
    in_channels: usize,
    out_channels: usize,
    kernel: Vec<usize>,
    op: conv::Conv,
}

impl Conv {
    /// A layer with this kernel, stride 1, no padding, one group and a bias, unless the builder is told otherwise.
    ///
    /// # Errors
    /// When the kernel doesn't have one to three axes.
    #[allow(clippy::new_ret_no_self, reason = "the builder's `build` gives the layer")]
    pub fn new<'a>(
        scope: Scope<'a>,
        in_channels: usize,
        out_channels: usize,
        kernel: &[usize],
    ) -> Result<ConvBuilder<'a>> {
        if !(1..=3).contains(&kernel.len()) {
            return Err(Error::argument("conv", format!("a kernel of {} axes", kernel.len())).expected("one to three"));
        }
        let op = conv::Conv { bias: true, ..conv::Conv::new(kernel.len()) };
        Ok(ConvBuilder { scope, in_channels, out_channels, kernel: kernel.to_vec(), op })
    }

    fn inputs(&self, x: &[&Var], pass: &Pass) -> Result<(conv::Conv, Vec<Var>)> {
        let mut inputs: Vec<Var> = x.iter().map(|&x| x.clone()).collect();
        inputs.push(pass.parameter(self.weight)?);
        if let Some(bias) = self.bias {
            inputs.push(pass.parameter(bias)?);
        }
        Ok((conv::Conv { two_inputs: x.len() == 2, ..self.op.clone() }, inputs))
    }
}

impl ConvBuilder<'_> {
    /// The stride along every axis.
    #[must_use]
    pub fn stride(mut self, stride: usize) -> Self {
        self.op.stride = vec![stride; self.kernel.len()];
        self
    }

    /// Zeros on both sides of every axis.
    #[must_use]
    pub fn padding(mut self, padding: usize) -> Self {
        self.op.padding = vec![padding; self.kernel.len()];
        self
    }

    /// The dilation along every axis.
    #[must_use]
    pub fn dilation(mut self, dilation: usize) -> Self {
        self.op.dilation = vec![dilation; self.kernel.len()];
        self
    }

    /// Into how many groups the channels are divided.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.op.groups = groups;
        self
    }

    /// Whether there is a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.op.bias = bias;
        self
    }

    /// Makes the parameters, filled as PyTorch fills them.
    ///
    /// # Errors
    /// When the groups don't divide the channels, or a name is taken.
    pub fn build(mut self) -> Result<Conv> {
        let groups = self.op.groups;
        if groups == 0 || !self.in_channels.is_multiple_of(groups) || !self.out_channels.is_multiple_of(groups) {
            return Err(Error::argument(
                "conv",
                format!("{groups} groups of {} input and {} output channels", self.in_channels, self.out_channels),
            )
            .expected("a number of groups that divides both"));
        }
        let shape = [&[self.out_channels, self.in_channels / groups], &self.kernel[..]].concat();
        let init = Init::FanIn(shape[1..].iter().product());
        let weight = self.scope.parameter("weight", &shape, init)?;
        let bias = self.op.bias.then(|| self.scope.parameter("bias", &[self.out_channels], init)).transpose()?;
        Ok(Conv { op: self.op, weight, bias, out_channels: self.out_channels })
    }
}

impl Module for Conv {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let (op, inputs) = self.inputs(&[x], pass)?;
        Var::apply(op, &inputs.iter().collect::<Vec<_>>())
    }
}

/// A transposed convolution layer. Parameters: `weight` (C_in, C_out, kernel...), `bias` (C_out).
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    op: conv::ConvTranspose,
    weight: Slot,
    bias: Slot,
}

impl ConvTranspose {
    /// A layer with this kernel and the same stride along every axis, no padding, and a bias.
    ///
    /// # Errors
    /// When a name is taken, or memory runs out.
    pub fn new(
        mut scope: Scope<'_>,
        in_channels: usize,
        out_channels: usize,
        kernel: &[usize],
        stride: usize,
    ) -> Result<Self> {
        let shape = [&[in_channels, out_channels], kernel].concat();
        // PyTorch takes the fan from the second axis here too.
        let init = Init::FanIn(shape[1..].iter().product());
        Ok(Self {
            op: conv::ConvTranspose { bias: true, ..conv::ConvTranspose::new(kernel.len(), stride) },
            weight: scope.parameter("weight", &shape, init)?,
            bias: scope.parameter("bias", &[out_channels], init)?,
        })
    }
}

impl Module for ConvTranspose {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        Var::apply(self.op.clone(), &[x, &pass.parameter(self.weight)?, &pass.parameter(self.bias)?])
    }
}

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
    weight: Slot,
    bias: Slot,
    running: Option<[Slot; 3]>,
}

/// ε of all norms, and the share of a new batch in running statistics: PyTorch's.
const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl Norm {
    /// A norm of `channels` channels, followed by `activation`.
    ///
    /// # Errors
    /// When a name is taken, or memory runs out.
    pub fn new(mut scope: Scope<'_>, kind: NormKind, channels: usize, activation: Option<Function>) -> Result<Self> {
        let weight = scope.parameter("weight", &[channels], Init::Constant(1.0))?;
        let bias = scope.parameter("bias", &[channels], Init::Constant(0.0))?;
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
        Ok(Self { kind, activation, weight, bias, running })
    }

    /// The operation, and its inputs after x.
    fn op(&self, pass: &Pass) -> Result<(norm::Norm, Vec<Var>)> {
        let mut inputs = vec![pass.parameter(self.weight)?, pass.parameter(self.bias)?];
        let statistics = match (self.kind, self.running) {
            (NormKind::Instance, _) => Statistics::Instance,
            (NormKind::Group(groups), _) => Statistics::Group(groups),
            (NormKind::Batch, Some([mean, variance, _])) if !pass.is_training() => {
                inputs.extend([pass.parameter(mean)?, pass.parameter(variance)?]);
                Statistics::Running
            }
            (NormKind::Batch, _) => Statistics::Batch,
        };
        Ok((norm::Norm { statistics, epsilon: EPSILON, affine: true, activation: self.activation }, inputs))
    }

    /// Takes the batch's statistics into the running ones; gives y.
    fn finish(&self, mut outputs: Vec<Var>, pass: &mut Pass) -> Result<Var> {
        if let (Some([mean, variance, batches]), [_, batch_mean, batch_variance]) = (self.running, &outputs[..]) {
            for (slot, batch) in [(mean, batch_mean), (variance, batch_variance)] {
                let running = pass.parameter(slot)?;
                pass.update_buffer(slot, blend(running.value(), batch.value(), MOMENTUM)?)?;
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
        self.conv.out_channels
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
