//! Convolution and transposed convolution.

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result, element_count};
use tomograd_kernels::{Meta, Op, conv};

use super::{PerAxis, per_axis::from_lists};
use crate::{Activation, Followed, Module, Pass, Scope, Slot, check, init::Init};

/// The kernel of a convolution: by default stride 1, no padding, no dilation, one group, a bias and PyTorch's initialisation.
/// A list gives the size for each spatial axis (`[3, 3]`, a slice, a `Vec`); one size for all axes needs their number:
/// `Kernel::d2(3)`. The layer's `new` checks everything together.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Conv, Kernel, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let stem = Conv::new(scope.at("stem"), 1, 16, [3, 3, 3])?;
/// let down = Conv::new(scope.at("down"), 16, 32, Kernel::d3(3).stride(2).padding(1).bias(false))?;
/// let error = Conv::new(scope.at("flat"), 32, 32, Kernel::d3(3).stride([1, 2])).unwrap_err();
/// assert_eq!(error.to_string(), "flat: conv: stride [1, 2] for 3 spatial axes; expected one number for all, or one for each");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    rank: usize,
    size: PerAxis,
    stride: PerAxis,
    padding: PerAxis,
    output_padding: PerAxis,
    dilation: PerAxis,
    groups: usize,
    weight: Option<Init>,
    bias: Option<Option<Init>>,
}

from_lists!(Kernel: numbers => Kernel::new(numbers.len(), numbers));

impl Kernel {
    /// A kernel of this size over `rank` spatial axes, 1 to 3.
    pub fn new(rank: usize, size: impl Into<PerAxis>) -> Self {
        Self {
            rank,
            size: size.into(),
            stride: PerAxis::All(1),
            padding: PerAxis::All(0),
            output_padding: PerAxis::All(0),
            dilation: PerAxis::All(1),
            groups: 1,
            weight: None,
            bias: Some(None),
        }
    }

    /// A 1D kernel.
    pub fn d1(size: impl Into<PerAxis>) -> Self {
        Self::new(1, size)
    }

    /// A 2D kernel.
    pub fn d2(size: impl Into<PerAxis>) -> Self {
        Self::new(2, size)
    }

    /// A 3D kernel.
    pub fn d3(size: impl Into<PerAxis>) -> Self {
        Self::new(3, size)
    }

    /// Sets the stride.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<PerAxis>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Sets the zero padding on both sides (for a transposed convolution: the voxels cropped from both sides).
    #[must_use]
    pub fn padding(mut self, padding: impl Into<PerAxis>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Sets the voxels that a transposed convolution adds at the end of each axis; fewer than the stride.
    #[must_use]
    pub fn output_padding(mut self, output_padding: impl Into<PerAxis>) -> Self {
        self.output_padding = output_padding.into();
        self
    }

    /// Sets the dilation, the distance between kernel elements.
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<PerAxis>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Sets the number of groups into which the channels are divided.
    #[must_use]
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias.then_some(self.bias.flatten());
        self
    }

    /// Sets the initialisation of the weight.
    #[must_use]
    pub fn weight(mut self, init: Init) -> Self {
        self.weight = Some(init);
        self
    }

    /// Adds a bias with this initialisation.
    #[must_use]
    pub fn bias_filled(mut self, init: Init) -> Self {
        self.bias = Some(Some(init));
        self
    }

    /// The numbers for each axis, each checked for itself.
    fn axes(&self, operation: &str, channels: [usize; 2]) -> Result<Axes> {
        let rank = self.rank;
        if !(1..=3).contains(&rank) {
            return Err(Error::argument(operation, format!("a kernel of {rank} axes")).expected("one to three"));
        }
        check::groups(operation, self.groups, &channels)?;
        let axes = Axes {
            size: self.size.numbers(operation, "kernel", rank)?,
            stride: self.stride.numbers(operation, "stride", rank)?,
            padding: self.padding.numbers(operation, "padding", rank)?,
            output_padding: self.output_padding.numbers(operation, "output padding", rank)?,
            dilation: self.dilation.numbers(operation, "dilation", rank)?,
        };
        check::sizes(operation, "the kernel", &axes.size)?;
        check::sizes(operation, "the stride", &axes.stride)?;
        check::sizes(operation, "the dilation", &axes.dilation)?;
        Ok(axes)
    }

    /// Makes weight and bias. In PyTorch's initialisation the fan is computed from the weight's axes after the first, also for a
    /// transposed convolution. Before that, checks `op` on an input with `channels[0]` channels and spatial shape
    /// `spatial` (`None`: it overflowed).
    fn parameters(
        &self,
        scope: &mut Scope<'_>,
        op: &dyn Op,
        axes: &Axes,
        channels: [usize; 2],
        spatial: Option<Vec<usize>>,
        weight: [usize; 2],
    ) -> Result<(Slot, Option<Slot>)> {
        let name = op.name();
        let shape = [&[weight[0], weight[1] / self.groups], &axes.size[..]].concat();
        element_count(name, &shape)?;
        let overflow = || {
            let what = format!("padding {:?}, dilation {:?} and stride {:?}", axes.padding, axes.dilation, axes.stride);
            Error::argument(name, what).expected("numbers with which sizes don't overflow")
        };
        let spatial = spatial.ok_or_else(overflow)?;
        let meta = |shape: Vec<usize>| Meta { shape, dtype: scope.dtype(), device: scope.device() };
        let x = meta([&[1, channels[0]], &spatial[..]].concat());
        let bias = self.bias.map(|_| meta(vec![channels[1]]));
        op.infer(&[x, meta(shape.clone())].into_iter().chain(bias).collect::<Vec<_>>())
            .map_err(|error| overflow().source(error))?;
        let default = Init::FanIn(shape[1..].iter().product());
        let weight = scope.parameter("weight", &shape, self.weight.unwrap_or(default))?;
        let bias =
            self.bias.map(|init| scope.parameter("bias", &[channels[1]], init.unwrap_or(default))).transpose()?;
        Ok((weight, bias))
    }
}

/// The attributes of a [`Kernel`] for each axis.
struct Axes {
    size: Vec<usize>,
    stride: Vec<usize>,
    padding: Vec<usize>,
    output_padding: Vec<usize>,
    dilation: Vec<usize>,
}

/// A 1D, 2D or 3D convolution layer. Parameters: `weight` (C_out, C_in / groups, kernel...), `bias` (C_out).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Conv, Kernel, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let conv = Conv::new(params.root(), 1, 8, Kernel::d3(3).stride(2).padding(1))?;
/// assert_eq!(params.get("weight")?.shape(), [8, 1, 3, 3, 3]);
/// let pass = Pass::eval(&params)?;
/// let image = Tensor::ones(&[1, 1, 8, 8, 6], DType::F32, Device::Cpu)?;
/// assert_eq!(conv.forward(&pass.input(&image), &pass)?.shape(), [1, 8, 4, 4, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Conv {
    op: conv::Conv,
    weight: Slot,
    bias: Option<Slot>,
    out_channels: usize,
}

/// A 1D, 2D or 3D transposed convolution layer. Parameters: `weight` (C_in, C_out / groups, kernel...), `bias` (C_out).
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{ConvTranspose, Kernel, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let up = ConvTranspose::new(params.root(), 8, 4, Kernel::d2(2).stride(2))?;
/// let pass = Pass::eval(&params)?;
/// let features = Tensor::ones(&[1, 8, 5, 6], DType::F32, Device::Cpu)?;
/// assert_eq!(up.forward(&pass.input(&features), &pass)?.shape(), [1, 4, 10, 12]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConvTranspose {
    op: conv::ConvTranspose,
    weight: Slot,
    bias: Option<Slot>,
    out_channels: usize,
}

impl Conv {
    /// A layer with this [`Kernel`], or with a list of its sizes.
    ///
    /// # Errors
    /// When there aren't one to three axes, a list has another length, channels, groups, a kernel size, stride or
    /// dilation is 0, the groups don't divide the channels, there is an output padding, sizes overflow, an [`Init`] has an invalid
    /// number, a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, in_channels: usize, out_channels: usize, kernel: impl Into<Kernel>) -> Result<Self> {
        let kernel = kernel.into();
        scope.layer(|scope| {
            let axes = kernel.axes("conv", [in_channels, out_channels])?;
            if axes.output_padding.iter().any(|&padding| padding > 0) {
                return Err(Error::argument("conv", format!("output padding {:?}", axes.output_padding))
                    .expected("none: only a transposed convolution has one"));
            }
            let op = conv::Conv {
                stride: axes.stride.clone(),
                padding: axes.padding.clone(),
                dilation: axes.dilation.clone(),
                groups: kernel.groups,
                two_inputs: false,
                bias: kernel.bias.is_some(),
            };
            // The smallest valid input: the extent of the dilated kernel.
            let spans = axes.size.iter().zip(&axes.dilation);
            let spatial = spans.map(|(size, dilation)| dilation.checked_mul(size - 1)?.checked_add(1)).collect();
            let channels = [in_channels, out_channels];
            let (weight, bias) =
                kernel.parameters(scope, &op, &axes, channels, spatial, [out_channels, in_channels])?;
            Ok(Self { op, weight, bias, out_channels })
        })
    }

    /// The number of output channels.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// The output for two inputs concatenated along channels, without the concatenated copy.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub fn forward_two(&self, first: &Var, second: &Var, pass: &Pass) -> Result<Var> {
        self.run(&[first, second], pass)
    }

    /// activation(conv(x)), for one input or for two that are concatenated along channels. Where nothing is recorded, the
    /// convolution applies the activation to its outputs before it stores them; the values are those of two operations.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_nn::{Activation, Conv, Kernel, Module, Params, Pass};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let conv = Conv::new(params.root().at("conv"), 1, 4, Kernel::d2(3).padding(1))?;
    /// let pass = Pass::eval(&params)?;
    /// let x = pass.input(&Tensor::ones(&[1, 1, 6, 6], DType::F32, Device::Cpu)?);
    /// let y = conv.forward_activated(&[&x], Activation::Relu, &pass)?;
    /// let apart = Activation::Relu.forward(&conv.forward(&x, &pass)?, &pass)?;
    /// assert_eq!(y.value().to_vec::<f32>()?, apart.value().to_vec::<f32>()?);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the inputs don't fit, or a number of the activation makes no sense.
    pub fn forward_activated(&self, x: &[&Var], activation: Activation, pass: &Pass) -> Result<Var> {
        if !pass.tape().context().inference {
            return activation.forward(&self.run(x, pass)?, pass);
        }
        self.apply(x, pass, |conv| conv::ConvActivation { conv, activation })
    }

    /// Adds the layer's path to an error of a forward pass.
    pub(super) fn within(&self, error: Error, pass: &Pass) -> Error {
        pass.within(self.weight, error)
    }

    pub(crate) fn followed(&self) -> Followed {
        let Self { weight, bias, out_channels, .. } = *self;
        Followed { weight, bias, channels: out_channels, transposed: None }
    }

    /// The operation and its inputs, without the bias of a folded norm. `x` is one input, or two that are concatenated along
    /// channels.
    pub(super) fn inputs(&self, x: &[&Var], pass: &Pass) -> Result<(conv::Conv, Vec<Var>)> {
        let mut inputs: Vec<Var> = x.iter().map(|&x| x.clone()).collect();
        inputs.push(pass.parameter(self.weight)?);
        if let Some(bias) = self.bias {
            inputs.push(pass.parameter(bias)?);
        }
        Ok((conv::Conv { two_inputs: x.len() == 2, ..self.op.clone() }, inputs))
    }

    /// The output for one input, or for two that are concatenated along channels.
    pub(super) fn run(&self, x: &[&Var], pass: &Pass) -> Result<Var> {
        self.apply(x, pass, |conv| conv)
    }

    /// The output of the operation that `operation` makes of the convolution.
    fn apply<O: Op>(&self, x: &[&Var], pass: &Pass, operation: impl FnOnce(conv::Conv) -> O) -> Result<Var> {
        let (mut op, mut inputs) = self.inputs(x, pass)?;
        if self.bias.is_none() {
            inputs.extend(pass.folded_bias(self.weight)?);
            op.bias = inputs.len() > x.len() + 1;
        }
        Var::apply(operation(op), &inputs.iter().collect::<Vec<_>>()).map_err(|error| pass.within(self.weight, error))
    }
}

impl ConvTranspose {
    /// A layer with this [`Kernel`], or with a list of its sizes.
    ///
    /// # Errors
    /// When there aren't one to three axes, a list has another length, channels, groups, a kernel size, stride or dilation is
    /// 0, the groups don't divide the channels, the output padding isn't less than the stride, sizes overflow, an [`Init`] has an
    /// invalid number, a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, in_channels: usize, out_channels: usize, kernel: impl Into<Kernel>) -> Result<Self> {
        let kernel = kernel.into();
        scope.layer(|scope| {
            let axes = kernel.axes("conv_transpose", [in_channels, out_channels])?;
            if axes.output_padding.iter().zip(&axes.stride).any(|(padding, stride)| padding >= stride) {
                let what = format!("output padding {:?} and stride {:?}", axes.output_padding, axes.stride);
                return Err(Error::argument("conv_transpose", what).expected("for each axis less than the stride"));
            }
            let op = conv::ConvTranspose {
                stride: axes.stride.clone(),
                padding: axes.padding.clone(),
                output_padding: axes.output_padding.clone(),
                dilation: axes.dilation.clone(),
                groups: kernel.groups,
                bias: kernel.bias.is_some(),
            };
            // An input large enough that cropping the padding leaves some voxels.
            let cut = axes.padding.iter().zip(&axes.stride);
            let spatial =
                cut.map(|(padding, stride)| padding.checked_mul(2)?.div_ceil(*stride).checked_add(1)).collect();
            let channels = [in_channels, out_channels];
            let (weight, bias) = kernel.parameters(scope, &op, &axes, channels, spatial, channels)?;
            Ok(Self { op, weight, bias, out_channels })
        })
    }

    /// The number of output channels.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    pub(crate) fn followed(&self) -> Followed {
        let Self { weight, bias, out_channels, .. } = *self;
        Followed { weight, bias, channels: out_channels, transposed: Some(self.op.groups) }
    }
}

impl Module for Conv {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.run(&[x], pass)
    }
}

impl Module for ConvTranspose {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let weight = pass.parameter(self.weight)?;
        let bias = match self.bias {
            Some(bias) => Some(pass.parameter(bias)?),
            None => pass.folded_bias(self.weight)?,
        };
        let op = conv::ConvTranspose { bias: bias.is_some(), ..self.op.clone() };
        let inputs: Vec<&Var> = [x, &weight].into_iter().chain(&bias).collect();
        Var::apply(op, &inputs).map_err(|error| pass.within(self.weight, error))
    }
}
