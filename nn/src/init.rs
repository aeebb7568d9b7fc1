//! Initialisation of parameters: PyTorch's distributions, bounds and fans.

use std::f64::consts::SQRT_2;

use tomograd_core::{DType, Device, Error, Result, Seed, Tensor, TensorBuilder};
use tomograd_kernels::methods::*;

/// The initialisation of a parameter.
///
/// ```
/// use tomograd_core::{DType, Device, Seed};
/// use tomograd_nn::init::Init;
/// let weight = Init::Uniform(0.5).tensor(&[4, 3], Seed::new(1), DType::F32, Device::Cpu)?;
/// assert!(weight.to_vec::<f32>()?.iter().all(|w| w.abs() <= 0.5));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All elements equal to this number.
    Constant(f64),
    /// Uniform on [−bound, bound].
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Normal with this mean and standard deviation, such as the scales of norms around 1.
    NormalAround {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
    /// Normal with mean 0 and this standard deviation, truncated at two standard deviations.
    TruncatedNormal(f64),
    /// PyTorch's default for convolution and linear layers: uniform on ±1/√fan_in, for both weight and bias (He et al. 2015
    /// with a = √5).
    FanIn(usize),
    /// Normal with standard deviation √(2 / fan_in), for layers before a ReLU (He et al. 2015).
    KaimingNormal(usize),
    /// Mean 0 and standard deviation gain / √fan, with a fan that follows from the weight's shape. [`Init::kaiming_normal`] and the
    /// other functions have the usual gains; before a leaky ReLU of slope a it is √(2 / (1 + a²)).
    Scaled {
        /// The standard deviation for a fan of 1.
        gain: f64,
        /// The fan.
        fan: Fan,
        /// The distribution.
        distribution: Distribution,
    },
    /// ICNR (Aitken et al. 2017), for convolutions before a pixel shuffle: `copies` outputs in a row, which become neighbours, have the
    /// same weights, so that the shuffle starts as nearest-neighbour upsampling. Normal with standard deviation √(2 / fan_in).
    Icnr {
        /// The voxels that become of one, such as 4 for twice the size in 2D; divides the number of outputs.
        copies: usize,
    },
}

/// The fan of a weight of shape (outputs, inputs, kernel...), as PyTorch computes it: for a transposed convolution, whose first
/// axis has the inputs, the fans are exchanged; groups reduce the fan of the second axis alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fan {
    /// Size of the second axis times voxels of the kernel: keeps the variance of activations.
    In,
    /// Size of the first axis times voxels of the kernel: keeps the variance of gradients.
    Out,
    /// The mean of both (Glorot and Bengio 2010).
    Average,
}

impl Fan {
    fn of(self, shape: &[usize]) -> Result<f64> {
        let &[outputs, inputs, ref kernel @ ..] = shape else {
            return Err(Error::argument("init", format!("a fan of the shape {shape:?}"))
                .expected("a weight: two axes at least"));
        };
        let voxels: f64 = kernel.iter().map(|&size| size as f64).product();
        let fan = voxels
            * match self {
                Fan::In => inputs as f64,
                Fan::Out => outputs as f64,
                Fan::Average => (inputs as f64 + outputs as f64) / 2.0,
            };
        if fan > 0.0 { Ok(fan) } else { Err(Error::argument("init", "a fan of 0").expected("1 at least")) }
    }
}

/// The distribution of [`Init::Scaled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Normal.
    Normal,
    /// Normal, truncated at two standard deviations and widened, so that the standard deviation is the given one.
    TruncatedNormal,
    /// Uniform on ±√3 standard deviations.
    Uniform,
}

/// The standard deviation of a standard normal distribution that is truncated at ±2.
const TRUNCATED: f64 = 0.879_625_661_034_239_8;

impl Init {
    /// Normal with standard deviation √(2 / fan), for layers before a ReLU (He et al. 2015).
    ///
    /// ```
    /// use tomograd_core::{Device, Seed};
    /// use tomograd_nn::{Conv, Kernel, Params, init::{Fan, Init}};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let kernel = Kernel::d2(3).weight(Init::kaiming_normal(Fan::Out)).bias_filled(Init::Constant(0.0));
    /// Conv::new(params.root(), 16, 32, kernel)?;
    /// assert_eq!(params.get("bias")?.to_vec::<f32>()?, [0.0; 32]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    pub const fn kaiming_normal(fan: Fan) -> Self {
        Self::Scaled { gain: SQRT_2, fan, distribution: Distribution::Normal }
    }

    /// Uniform with standard deviation √(2 / fan), for layers before a ReLU (He et al. 2015).
    pub const fn kaiming_uniform(fan: Fan) -> Self {
        Self::Scaled { gain: SQRT_2, fan, distribution: Distribution::Uniform }
    }

    /// Normal with standard deviation √(2 / (fan_in + fan_out)) (Glorot and Bengio 2010).
    pub const fn xavier_normal() -> Self {
        Self::Scaled { gain: 1.0, fan: Fan::Average, distribution: Distribution::Normal }
    }

    /// Uniform on ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010).
    pub const fn xavier_uniform() -> Self {
        Self::Scaled { gain: 1.0, fan: Fan::Average, distribution: Distribution::Uniform }
    }

    /// Truncated normal with standard deviation 1 / √fan_in (LeCun et al. 1998, as in timm).
    pub const fn lecun_normal() -> Self {
        Self::Scaled { gain: 1.0, fan: Fan::In, distribution: Distribution::TruncatedNormal }
    }

    /// A tensor with this initialisation; element `i` depends on `seed` and `i` alone.
    ///
    /// # Errors
    /// When a number isn't finite in `dtype`, a bound or deviation is negative, a fan is 0 or the shape has none, the size
    /// overflows, or memory runs out.
    pub fn tensor(self, shape: &[usize], seed: Seed, dtype: DType, device: Device) -> Result<Tensor> {
        if let Self::Icnr { copies } = self {
            return icnr(copies, shape, seed, dtype, device);
        }
        let (distribution, number) = self.drawn(shape)?;
        self.check(distribution, number, dtype)?;
        match distribution {
            None => Tensor::full(shape, number, dtype, device),
            Some(Distribution::Uniform) => Tensor::uniform(shape, -number, number, seed, dtype, device),
            Some(Distribution::Normal) => Tensor::normal(shape, self.mean(), number, seed, dtype, device),
            Some(Distribution::TruncatedNormal) => {
                let mut random = seed.random();
                let values = TensorBuilder::<f64>::new("init", shape, device)?;
                values.fill_with(|_| number * random.truncated_normal(-2.0, 2.0))?.converted(dtype)
            }
        }
    }

    /// The distribution, `None` for a constant, with the constant, bound or deviation for this shape.
    fn drawn(self, shape: &[usize]) -> Result<(Option<Distribution>, f64)> {
        let inverse_root = |fan: usize| match fan {
            0 => Err(Error::argument("init", "a fan of 0").expected("1 at least")),
            _ => Ok(1.0 / (fan as f64).sqrt()),
        };
        Ok(match self {
            Init::Constant(value) => (None, value),
            Init::Uniform(bound) => (Some(Distribution::Uniform), bound),
            Init::Normal(deviation) | Init::NormalAround { deviation, .. } => (Some(Distribution::Normal), deviation),
            Init::TruncatedNormal(deviation) => (Some(Distribution::TruncatedNormal), deviation),
            Init::FanIn(fan) => (Some(Distribution::Uniform), inverse_root(fan)?),
            Init::KaimingNormal(fan) => (Some(Distribution::Normal), SQRT_2 * inverse_root(fan)?),
            Init::Icnr { .. } => return Self::kaiming_normal(Fan::In).drawn(shape),
            Init::Scaled { gain, fan, distribution } => {
                let deviation = gain / fan.of(shape)?.sqrt();
                let number = match distribution {
                    Distribution::Normal => deviation,
                    Distribution::TruncatedNormal => deviation / TRUNCATED,
                    Distribution::Uniform => 3f64.sqrt() * deviation,
                };
                (Some(distribution), number)
            }
        })
    }

    /// The mean of the numbers drawn.
    fn mean(self) -> f64 {
        if let Self::NormalAround { mean, .. } = self { mean } else { 0.0 }
    }

    fn check(self, distribution: Option<Distribution>, number: f64, dtype: DType) -> Result<()> {
        // A normal variate made from 53 random bits is within nine standard deviations.
        let most = if distribution == Some(Distribution::Normal) { self.mean().abs() + 9.0 * number } else { number };
        let fits = Tensor::full(&[], most, dtype, Device::Cpu)?.to_scalar()?.is_finite();
        if number.is_finite() && fits && (number >= 0.0 || distribution.is_none()) {
            return Ok(());
        }
        let range = if distribution.is_some() { "a finite number, 0 at least" } else { "a finite number" };
        Err(Error::argument("init", format!("{self:?}")).expected(format!("{range}, in {dtype} too")))
    }
}

/// [`Init::Icnr`].
fn icnr(copies: usize, shape: &[usize], seed: Seed, dtype: DType, device: Device) -> Result<Tensor> {
    let &[outputs, ref rest @ ..] = shape else {
        return Err(Error::argument("init", "ICNR of a scalar").expected("a weight: two axes at least"));
    };
    if copies == 0 || !outputs.is_multiple_of(copies) {
        return Err(Error::argument("init", format!("ICNR of {copies} copies for {outputs} outputs"))
            .expected("a number of copies that divides that of the outputs"));
    }
    let once = [&[outputs / copies, 1], rest].concat();
    let fans = [&[outputs / copies], rest].concat();
    let drawn = Init::kaiming_normal(Fan::In).tensor(&fans, seed, dtype, device)?.reshape(&once)?;
    Tensor::concat(&vec![&drawn; copies], 1)?.reshape(shape)
}
