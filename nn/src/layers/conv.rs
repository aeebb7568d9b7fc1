//! Convolution and transposed convolution.

use std::marker::PhantomData;

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_kernels::conv;

use crate::{Module, Pass, Scope, Slot, init::Init};

/// A number for each spatial axis: one for all, or a list.
pub trait PerAxis {
    /// The numbers of `rank` axes.
    fn per_axis(self, rank: usize) -> Vec<usize>;
}

impl PerAxis for usize {
    fn per_axis(self, rank: usize) -> Vec<usize> {
        vec![self; rank]
    }
}

impl PerAxis for &[usize] {
    fn per_axis(self, _: usize) -> Vec<usize> {
        self.to_vec()
    }
}

impl<const N: usize> PerAxis for [usize; N] {
    fn per_axis(self, _: usize) -> Vec<usize> {
        self.to_vec()
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

/// A transposed convolution layer. Parameters: `weight` (C_in, C_out / groups, kernel...), `bias` (C_out).
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    op: conv::ConvTranspose,
    weight: Slot,
    bias: Option<Slot>,
}

/// A [`Conv`] or [`ConvTranspose`] in the making: stride 1, no padding, no dilation, one group and a bias, unless told otherwise.
pub struct ConvBuilder<'a, Layer> {
    scope: Scope<'a>,
    in_channels: usize,
    out_channels: usize,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    padding: Vec<usize>,
    output_padding: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
    bias: bool,
    layer: PhantomData<Layer>,
}

impl Conv {
    /// A layer with this kernel, whose length says how many spatial axes there are.
    ///
    /// # Errors
    /// When the kernel doesn't have one to three axes.
    #[allow(clippy::new_ret_no_self, reason = "the builder's `build` gives the layer")]
    pub fn new<'a>(
        scope: Scope<'a>,
        in_channels: usize,
        out_channels: usize,
        kernel: &[usize],
    ) -> Result<ConvBuilder<'a, Conv>> {
        ConvBuilder::new(scope, in_channels, out_channels, kernel)
    }

    /// How many channels come out.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// The operation and its inputs, for one x or two whose channels are put together.
    pub(super) fn inputs(&self, x: &[&Var], pass: &Pass) -> Result<(conv::Conv, Vec<Var>)> {
        let mut inputs: Vec<Var> = x.iter().map(|&x| x.clone()).collect();
        inputs.push(pass.parameter(self.weight)?);
        if let Some(bias) = self.bias {
            inputs.push(pass.parameter(bias)?);
        }
        Ok((conv::Conv { two_inputs: x.len() == 2, ..self.op.clone() }, inputs))
    }
}

impl ConvTranspose {
    /// A layer with this kernel, whose length says how many spatial axes there are.
    ///
    /// # Errors
    /// When the kernel doesn't have one to three axes.
    #[allow(clippy::new_ret_no_self, reason = "the builder's `build` gives the layer")]
    pub fn new<'a>(
        scope: Scope<'a>,
        in_channels: usize,
        out_channels: usize,
        kernel: &[usize],
    ) -> Result<ConvBuilder<'a, ConvTranspose>> {
        ConvBuilder::new(scope, in_channels, out_channels, kernel)
    }
}

impl<'a, Layer> ConvBuilder<'a, Layer> {
    fn new(scope: Scope<'a>, in_channels: usize, out_channels: usize, kernel: &[usize]) -> Result<Self> {
        let rank = kernel.len();
        if !(1..=3).contains(&rank) {
            return Err(Error::argument("conv", format!("a kernel of {rank} axes")).expected("one to three"));
        }
        let (ones, zeros) = (vec![1; rank], vec![0; rank]);
        Ok(Self {
            scope,
            in_channels,
            out_channels,
            kernel: kernel.to_vec(),
            stride: ones.clone(),
            padding: zeros.clone(),
            output_padding: zeros,
            dilation: ones,
            groups: 1,
            bias: true,
            layer: PhantomData,
        })
    }

    /// The stride.
    #[must_use]
    pub fn stride(mut self, stride: impl PerAxis) -> Self {
        self.stride = stride.per_axis(self.kernel.len());
        self
    }

    /// Zeros on both sides (of a transposed convolution: voxels cut off).
    #[must_use]
    pub fn padding(mut self, padding: impl PerAxis) -> Self {
        self.padding = padding.per_axis(self.kernel.len());
        self
    }

    /// The dilation.
    #[must_use]
    pub fn dilation(mut self, dilation: impl PerAxis) -> Self {
        self.dilation = dilation.per_axis(self.kernel.len());
        self
    }

    /// Into how many groups the channels are divided.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Whether there is a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Makes weight and bias, filled as PyTorch fills them: the fan is taken from the weight's axes after the first, also for
    /// a transposed convolution.
    fn slots(&mut self, first: usize, second: usize) -> Result<(Slot, Option<Slot>)> {
        let groups = self.groups;
        if groups == 0 || !self.in_channels.is_multiple_of(groups) || !self.out_channels.is_multiple_of(groups) {
            return Err(Error::argument(
                "conv",
                format!("{groups} groups of {} input and {} output channels", self.in_channels, self.out_channels),
            )
            .expected("a number of groups that divides both"));
        }
        let shape = [&[first, second / groups], &self.kernel[..]].concat();
        let init = Init::FanIn(shape[1..].iter().product());
        let weight = self.scope.parameter("weight", &shape, init)?;
        let bias = self.bias.then(|| self.scope.parameter("bias", &[self.out_channels], init)).transpose()?;
        Ok((weight, bias))
    }
}

impl ConvBuilder<'_, Conv> {
    /// Makes the parameters.
    ///
    /// # Errors
    /// When the groups don't divide the channels, or a name is taken.
    pub fn build(mut self) -> Result<Conv> {
        let (weight, bias) = self.slots(self.out_channels, self.in_channels)?;
        let Self { stride, padding, dilation, groups, bias: has_bias, out_channels, .. } = self;
        let op = conv::Conv { stride, padding, dilation, groups, two_inputs: false, bias: has_bias };
        Ok(Conv { op, weight, bias, out_channels })
    }
}

impl ConvBuilder<'_, ConvTranspose> {
    /// Voxels added at the end of each axis; fewer than the stride.
    #[must_use]
    pub fn output_padding(mut self, output_padding: impl PerAxis) -> Self {
        self.output_padding = output_padding.per_axis(self.kernel.len());
        self
    }

    /// Makes the parameters.
    ///
    /// # Errors
    /// When the groups don't divide the channels, or a name is taken.
    pub fn build(mut self) -> Result<ConvTranspose> {
        let (weight, bias) = self.slots(self.in_channels, self.out_channels)?;
        let Self { stride, padding, output_padding, dilation, groups, bias: has_bias, .. } = self;
        let op = conv::ConvTranspose { stride, padding, output_padding, dilation, groups, bias: has_bias };
        Ok(ConvTranspose { op, weight, bias })
    }
}

impl Module for Conv {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let (op, inputs) = self.inputs(&[x], pass)?;
        Var::apply(op, &inputs.iter().collect::<Vec<_>>())
    }
}

impl Module for ConvTranspose {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let weight = pass.parameter(self.weight)?;
        let bias = self.bias.map(|bias| pass.parameter(bias)).transpose()?;
        let inputs: Vec<&Var> = [x, &weight].into_iter().chain(&bias).collect();
        Var::apply(self.op.clone(), &inputs)
    }
}
