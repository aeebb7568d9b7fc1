//! Pooling and upsampling: layers without parameters, for any number of spatial axes.

use tomograd_autodiff::Var;
use tomograd_core::{Error, Result, element_count};
use tomograd_kernels::{
    Meta, Op, pool,
    resample::{Interpolate, Interpolation},
};

use super::{PerAxis, per_axis::from_lists};
use crate::{Module, Pass, check};

/// The window of a pooling layer: by default the stride is the window size, and there is no padding. A number applies to all
/// spatial axes of the input; a list has one number for each.
///
/// ```
/// use tomograd_nn::{MaxPool, Window};
/// let halved = MaxPool::new(2)?;
/// let overlapping = MaxPool::new(Window::new(3).stride(2).padding(1))?;
/// let in_plane = MaxPool::new([1, 2, 2])?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    size: PerAxis,
    stride: Option<PerAxis>,
    padding: PerAxis,
    dilation: PerAxis,
    ceil_mode: bool,
    count_padding: bool,
}

impl From<usize> for Window {
    fn from(size: usize) -> Self {
        Self::new(size)
    }
}

from_lists!(Window: sizes => Window::new(sizes));

impl Window {
    /// Windows of this size, with a stride of the same size.
    pub fn new(size: impl Into<PerAxis>) -> Self {
        Self {
            size: size.into(),
            stride: None,
            padding: PerAxis::All(0),
            dilation: PerAxis::All(1),
            ceil_mode: false,
            count_padding: true,
        }
    }

    /// Sets the stride; by default the window size.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<PerAxis>) -> Self {
        self.stride = Some(stride.into());
        self
    }

    /// Sets the padding on both sides (for an average: zeros; a maximum ignores it); at most half a window.
    #[must_use]
    pub fn padding(mut self, padding: impl Into<PerAxis>) -> Self {
        self.padding = padding.into();
        self
    }

    /// Sets the dilation, the distance between voxels of a window; for [`MaxPool`].
    #[must_use]
    pub fn dilation(mut self, dilation: impl Into<PerAxis>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Sets whether windows may extend beyond the end.
    #[must_use]
    pub fn ceil_mode(mut self, ceil_mode: bool) -> Self {
        self.ceil_mode = ceil_mode;
        self
    }

    /// Sets whether zeros of the padding count in the mean (by default they do); for [`AveragePool`].
    #[must_use]
    pub fn count_padding(mut self, count_padding: bool) -> Self {
        self.count_padding = count_padding;
        self
    }

    /// Size, stride, padding and dilation for `rank` spatial axes.
    fn axes(&self, operation: &str, rank: usize) -> Result<[Vec<usize>; 4]> {
        let numbers = |name, numbers: &PerAxis| numbers.numbers(operation, name, rank);
        Ok([
            numbers("window", &self.size)?,
            numbers("stride", self.stride.as_ref().unwrap_or(&self.size))?,
            numbers("padding", &self.padding)?,
            numbers("dilation", &self.dilation)?,
        ])
    }

    /// Checks everything that doesn't depend on the input, by the operation's own checks for one number of axes.
    fn check<O: Op>(&self, operation: &str, op: impl Fn(usize) -> Result<O>) -> Result<()> {
        let lists = [Some(&self.size), self.stride.as_ref(), Some(&self.padding), Some(&self.dilation)];
        let mut rank = 1;
        for list in lists.into_iter().flatten() {
            list.check_length(operation, "a window")?;
            if let PerAxis::Each(numbers) = list {
                rank = numbers.len();
            }
        }
        let [size, stride, _, dilation] = self.axes(operation, rank)?;
        // A limit beyond any sensible size, below which nothing overflows.
        let most = 1 << 20;
        for (name, numbers) in [("the window", &size), ("the stride", &stride), ("the dilation", &dilation)] {
            if numbers.iter().any(|number| !(1..=most).contains(number)) {
                return Err(
                    Error::argument(operation, format!("{name}: {numbers:?}")).expected("numbers from 1 to 2^20")
                );
            }
        }
        // The smallest valid image: the extent of the dilated window.
        let spans = size.iter().zip(&dilation).map(|(size, dilation)| dilation * (size - 1) + 1);
        let shape = [1, 1].into_iter().chain(spans).collect();
        let x = Meta { shape, dtype: tomograd_core::DType::F32, device: tomograd_core::Device::Cpu };
        op(rank)?.infer(&[x]).map(drop)
    }
}

fn spatial_rank(x: &Var) -> usize {
    x.rank().saturating_sub(2)
}

/// The maximum of each window of (N, C, spatial...). Padding is ignored; NaN propagates.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{MaxPool, Module, Params, Pass};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 5.0, 4.0], &[1, 1, 4], Device::Cpu)?;
/// assert_eq!(MaxPool::new(2)?.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?, [2.0, 5.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPool {
    window: Window,
}

impl MaxPool {
    /// A layer with this [`Window`], or with its size: a number or a list.
    ///
    /// # Errors
    /// When a number is 0 or more than 2²⁰, the padding is more than half a window, lists differ in length or have more than
    /// three numbers, or `count_padding` is false, which has no meaning here.
    pub fn new(window: impl Into<Window>) -> Result<Self> {
        let layer = Self { window: window.into() };
        if !layer.window.count_padding {
            return Err(Error::argument("max_pool", "padding that doesn't count").expected("a window of an average"));
        }
        layer.window.check("max_pool", |rank| layer.op(rank))?;
        Ok(layer)
    }

    fn op(&self, rank: usize) -> Result<pool::MaxPool> {
        let [kernel, stride, padding, dilation] = self.window.axes("max_pool", rank)?;
        Ok(pool::MaxPool { kernel, stride, padding, dilation, ceil_mode: self.window.ceil_mode })
    }
}

impl Module for MaxPool {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        Var::apply(self.op(spatial_rank(x))?, &[x])
    }
}

/// The mean of each window of (N, C, spatial...).
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{AveragePool, Module, Params, Pass};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 5.0, 4.0], &[1, 1, 4], Device::Cpu)?;
/// assert_eq!(AveragePool::new(2)?.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?, [1.5, 4.5]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AveragePool {
    window: Window,
}

impl AveragePool {
    /// A layer with this [`Window`], or with its size: a number or a list.
    ///
    /// # Errors
    /// When a number is 0 or more than 2²⁰, the padding is more than half a window, lists differ in length or have more than
    /// three numbers, or there is a dilation.
    pub fn new(window: impl Into<Window>) -> Result<Self> {
        let layer = Self { window: window.into() };
        if layer.window.dilation.given().iter().any(|&dilation| dilation != 1) {
            return Err(Error::argument("average_pool", format!("a dilation of {:?}", layer.window.dilation.given()))
                .expected("none: only maxima have one"));
        }
        layer.window.check("average_pool", |rank| layer.op(rank))?;
        Ok(layer)
    }

    fn op(&self, rank: usize) -> Result<pool::AveragePool> {
        let [kernel, stride, padding, _] = self.window.axes("average_pool", rank)?;
        let (ceil_mode, count_include_pad) = (self.window.ceil_mode, self.window.count_padding);
        Ok(pool::AveragePool { kernel, stride, padding, ceil_mode, count_include_pad })
    }
}

impl Module for AveragePool {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        Var::apply(self.op(spatial_rank(x))?, &[x])
    }
}

/// Checks the output size of an adaptive layer.
fn checked_output(operation: &str, output: PerAxis) -> Result<PerAxis> {
    output.check_length(operation, "an output")?;
    check::sizes(operation, "the output", output.given())?;
    Ok(output)
}

/// Adaptive max pooling of (N, C, spatial...): maxima of equal windows, which overlap if the sizes don't divide.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{AdaptiveMaxPool, Module, Params, Pass};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = pass.input(&Tensor::ones(&[1, 2, 7, 9], DType::F32, Device::Cpu)?);
/// assert_eq!(AdaptiveMaxPool::new([2, 3])?.forward(&x, &pass)?.shape(), [1, 2, 2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveMaxPool {
    output: PerAxis,
}

impl AdaptiveMaxPool {
    /// A layer with this spatial output size: a number for all axes, or a list.
    ///
    /// # Errors
    /// When a number is 0, or the list has more than three.
    pub fn new(output: impl Into<PerAxis>) -> Result<Self> {
        Ok(Self { output: checked_output("adaptive_max_pool", output.into())? })
    }
}

impl Module for AdaptiveMaxPool {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        let output = self.output.numbers("adaptive_max_pool", "output", spatial_rank(x))?;
        Var::apply(pool::AdaptiveMaxPool { output }, &[x])
    }
}

/// Adaptive average pooling of (N, C, spatial...): means of equal windows, which overlap if the sizes don't divide.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{AdaptiveAveragePool, Module, Params, Pass};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = pass.input(&Tensor::ones(&[1, 2, 7, 9], DType::F32, Device::Cpu)?);
/// let y = AdaptiveAveragePool::new(1)?.forward(&x, &pass)?; // global average pooling
/// assert_eq!(y.shape(), [1, 2, 1, 1]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveAveragePool {
    output: PerAxis,
}

impl AdaptiveAveragePool {
    /// A layer with this spatial output size: a number for all axes, or a list.
    ///
    /// # Errors
    /// When a number is 0, or the list has more than three.
    pub fn new(output: impl Into<PerAxis>) -> Result<Self> {
        Ok(Self { output: checked_output("adaptive_average_pool", output.into())? })
    }
}

impl Module for AdaptiveAveragePool {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        let output = self.output.numbers("adaptive_average_pool", "output", spatial_rank(x))?;
        Var::apply(pool::AdaptiveAveragePool { output }, &[x])
    }
}

/// Options of [`Upsample`]: the factors, and the interpolation mode, by default nearest neighbour.
///
/// ```
/// use tomograd_nn::{Interpolation, Upsample, UpsampleOptions};
/// let doubled = Upsample::new(2)?;
/// let in_plane = Upsample::new(UpsampleOptions::new([1, 2, 2]).mode(Interpolation::Linear))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpsampleOptions {
    factors: PerAxis,
    mode: Interpolation,
}

impl From<usize> for UpsampleOptions {
    fn from(factor: usize) -> Self {
        Self::new(factor)
    }
}

from_lists!(UpsampleOptions: factors => UpsampleOptions::new(factors));

impl UpsampleOptions {
    /// Options with these factors of the spatial axes.
    pub fn new(factors: impl Into<PerAxis>) -> Self {
        Self { factors: factors.into(), mode: Interpolation::Nearest }
    }

    /// Sets the interpolation mode.
    #[must_use]
    pub fn mode(mut self, mode: Interpolation) -> Self {
        self.mode = mode;
        self
    }
}

/// Upsamples (N, C, spatial...) by integer factors. [`Interpolate`] is the layer for a given output size.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Module, Params, Pass, Upsample};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = Tensor::from_slice(&[1.0f32, 2.0], &[1, 1, 2], Device::Cpu)?;
/// let y = Upsample::new(2)?.forward(&pass.input(&x), &pass)?;
/// assert_eq!(y.value().to_vec::<f32>()?, [1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upsample {
    options: UpsampleOptions,
}

impl Upsample {
    /// A layer with these [`UpsampleOptions`], or with the factor: a number or a list.
    ///
    /// # Errors
    /// When a list doesn't have one to three factors, or a factor is 0.
    pub fn new(options: impl Into<UpsampleOptions>) -> Result<Self> {
        let options = options.into();
        options.factors.check_length("upsample", "factors")?;
        check::sizes("upsample", "the factors", options.factors.given())?;
        Ok(Self { options })
    }
}

impl Module for Upsample {
    fn forward(&self, x: &Var, _: &Pass) -> Result<Var> {
        let spatial = x.shape().get(2..).unwrap_or_default();
        let factors = self.options.factors.numbers("upsample", "factors", spatial.len())?;
        let size: Vec<usize> = spatial.iter().zip(factors).map(|(size, factor)| size.saturating_mul(factor)).collect();
        element_count("upsample", &[&x.shape()[..x.rank() - spatial.len()], &size].concat())?;
        Var::apply(Interpolate { size, mode: self.options.mode }, &[x])
    }
}
