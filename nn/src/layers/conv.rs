//! Convolution and transposed convolution.

use std::marker::PhantomData;

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result, element_count};
use tomograd_kernels::{Meta, Op, conv};

use crate::{Module, Pass, Scope, Slot, check, init::Init};

/// A number for each spatial axis, made from one for all or from a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerAxis {
    /// The same number for all axes.
    All(usize),
    /// One for each, in the order of the shape.
    Each(Vec<usize>),
}

impl From<usize> for PerAxis {
    fn from(number: usize) -> Self {
        Self::All(number)
    }
}

impl From<&[usize]> for PerAxis {
    fn from(numbers: &[usize]) -> Self {
        Self::Each(numbers.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for PerAxis {
    fn from(numbers: [usize; N]) -> Self {
        Self::Each(numbers.to_vec())
    }
}

impl PerAxis {
    /// The numbers of `rank` axes.
    fn numbers(self, rank: usize) -> Vec<usize> {
        match self {
            Self::All(number) => vec![number; rank],
            Self::Each(numbers) => numbers,
        }
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
/// `build` checks all of it together, before it makes a parameter.
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

    /// An error of a run, with the layer's path.
    pub(super) fn within(&self, error: Error, pass: &Pass) -> Error {
        pass.within(self.weight, error)
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
    pub fn stride(mut self, stride: impl Into<PerAxis>) -> Self {
        self.stride = stride.into().numbers(self.kernel.len());
        self
    }

    /// Zeros on both sides (of a transposed convolution: voxels cut off).
    #[must_use]
    pub fn padding(mut self, padding: impl Into<PerAxis>) -> Self {
        self.padding = padding.into().numbers(self.kernel.len());
        self
    }

    /// The dilation.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<PerAxis>) -> Self {
        self.dilation = dilation.into().numbers(self.kernel.len());
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

    /// Checks the sizes, and `op` on an input that has `spatial` voxels along an axis of kernel, stride, padding and dilation
    /// (`None`: too many), then makes weight and bias, filled as PyTorch fills them: the fan is taken from the weight's axes
    /// after the first, also for a transposed convolution.
    fn slots(
        &mut self,
        [first, second]: [usize; 2],
        op: &dyn Op,
        spatial: impl Fn(usize, usize, usize, usize) -> Option<usize>,
    ) -> Result<(Slot, Option<Slot>)> {
        let (name, rank) = (op.name(), self.kernel.len());
        check::groups(name, self.groups, &[self.in_channels, self.out_channels])?;
        check::sizes(name, "the kernel", &self.kernel)?;
        for (what, numbers) in [("stride", &self.stride), ("padding", &self.padding), ("dilation", &self.dilation)] {
            if numbers.len() != rank {
                return Err(Error::argument(name, format!("{what} {numbers:?} for a kernel of {rank} axes"))
                    .expected("one number for each"));
            }
        }
        check::sizes(name, "the stride", &self.stride)?;
        check::sizes(name, "the dilation", &self.dilation)?;
        let shape = [&[first, second / self.groups], &self.kernel[..]].concat();
        element_count(name, &shape)?;
        let axes = (0..rank).map(|i| spatial(self.kernel[i], self.stride[i], self.padding[i], self.dilation[i]));
        let overflow = || {
            let what = format!("padding {:?}, dilation {:?} and stride {:?}", self.padding, self.dilation, self.stride);
            Error::argument(name, what).expected("numbers with which sizes don't overflow")
        };
        let axes: Vec<usize> = axes.collect::<Option<_>>().ok_or_else(overflow)?;
        let meta = |shape: Vec<usize>| Meta { shape, dtype: self.scope.dtype(), device: self.scope.device() };
        let x = meta([&[1, self.in_channels], &axes[..]].concat());
        let bias = self.bias.then(|| meta(vec![self.out_channels]));
        op.infer(&[x, meta(shape.clone())].into_iter().chain(bias).collect::<Vec<_>>())
            .map_err(|error| overflow().source(error))?;
        let init = Init::FanIn(shape[1..].iter().product());
        let (bias, out_channels) = (self.bias, self.out_channels);
        self.scope.whole(|scope| {
            let weight = scope.parameter("weight", &shape, init)?;
            let bias = bias.then(|| scope.parameter("bias", &[out_channels], init)).transpose()?;
            Ok((weight, bias))
        })
    }
}

impl ConvBuilder<'_, Conv> {
    /// Makes the parameters.
    ///
    /// # Errors
    /// When channels, groups, a size of the kernel, stride or dilation is 0, the groups don't divide the channels, stride,
    /// padding or dilation isn't one number for each axis, sizes overflow, a name is taken, or memory runs out.
    pub fn build(mut self) -> Result<Conv> {
        let op = conv::Conv {
            stride: self.stride.clone(),
            padding: self.padding.clone(),
            dilation: self.dilation.clone(),
            groups: self.groups,
            two_inputs: false,
            bias: self.bias,
        };
        // As many voxels as the kernel spans.
        let spatial = |kernel: usize, _, _, dilation: usize| dilation.checked_mul(kernel - 1)?.checked_add(1);
        let (weight, bias) = self.slots([self.out_channels, self.in_channels], &op, spatial)?;
        Ok(Conv { op, weight, bias, out_channels: self.out_channels })
    }
}

impl ConvBuilder<'_, ConvTranspose> {
    /// Voxels added at the end of each axis; fewer than the stride.
    #[must_use]
    pub fn output_padding(mut self, output_padding: impl Into<PerAxis>) -> Self {
        self.output_padding = output_padding.into().numbers(self.kernel.len());
        self
    }

    /// Makes the parameters.
    ///
    /// # Errors
    /// When channels, groups, a size of the kernel, stride or dilation is 0, the groups don't divide the channels, stride,
    /// padding or dilation isn't one number for each axis, the output padding isn't below the stride, sizes overflow, a name is
    /// taken, or memory runs out.
    pub fn build(mut self) -> Result<ConvTranspose> {
        let op = conv::ConvTranspose {
            stride: self.stride.clone(),
            padding: self.padding.clone(),
            output_padding: self.output_padding.clone(),
            dilation: self.dilation.clone(),
            groups: self.groups,
            bias: self.bias,
        };
        let fewer = |(padding, stride): (&usize, &usize)| padding < stride;
        if self.output_padding.len() != self.stride.len() || !self.output_padding.iter().zip(&self.stride).all(fewer) {
            let what = format!("output padding {:?} and stride {:?}", self.output_padding, self.stride);
            return Err(Error::argument("conv_transpose", what).expected("for each axis less than the stride"));
        }
        // So many voxels that cutting off the padding leaves some.
        let spatial = |_, stride: usize, padding: usize, _| padding.checked_mul(2)?.div_ceil(stride).checked_add(1);
        let (weight, bias) = self.slots([self.in_channels, self.out_channels], &op, spatial)?;
        Ok(ConvTranspose { op, weight, bias })
    }
}

impl Module for Conv {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let (op, inputs) = self.inputs(&[x], pass)?;
        Var::apply(op, &inputs.iter().collect::<Vec<_>>()).map_err(|error| pass.within(self.weight, error))
    }
}

impl Module for ConvTranspose {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        let weight = pass.parameter(self.weight)?;
        let bias = self.bias.map(|bias| pass.parameter(bias)).transpose()?;
        let inputs: Vec<&Var> = [x, &weight].into_iter().chain(&bias).collect();
        Var::apply(self.op.clone(), &inputs).map_err(|error| pass.within(self.weight, error))
    }
}
