//! Initialisation of parameters: PyTorch's distributions, bounds and fans.

use tomograd_core::{DType, Device, Error, Result, Seed, Tensor, TensorBuilder};

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
    /// Normal with mean 0 and this standard deviation, truncated at two standard deviations.
    TruncatedNormal(f64),
    /// PyTorch's default for convolution and linear layers: uniform on ±1/√fan_in, for both weight and bias (He et al. 2015
    /// with a = √5).
    FanIn(usize),
    /// Normal with standard deviation √(2 / fan_in), for layers before a ReLU (He et al. 2015).
    KaimingNormal(usize),
}

impl Init {
    /// A tensor with this initialisation; element `i` depends on `seed` and `i` alone.
    ///
    /// # Errors
    /// When a number isn't finite in `dtype`, a bound or deviation is negative, a fan is 0, the size overflows, or memory runs
    /// out.
    pub fn tensor(self, shape: &[usize], seed: Seed, dtype: DType, device: Device) -> Result<Tensor> {
        self.check(dtype)?;
        let inverse_root = |fan: usize| 1.0 / (fan as f64).sqrt();
        match self {
            Init::Constant(value) => Tensor::full(shape, value, dtype, device),
            Init::Uniform(bound) => Tensor::uniform(shape, -bound, bound, seed, dtype, device),
            Init::FanIn(fan) => Tensor::uniform(shape, -inverse_root(fan), inverse_root(fan), seed, dtype, device),
            Init::Normal(deviation) => Tensor::normal(shape, 0.0, deviation, seed, dtype, device),
            Init::KaimingNormal(fan) => {
                Tensor::normal(shape, 0.0, 2f64.sqrt() * inverse_root(fan), seed, dtype, device)
            }
            Init::TruncatedNormal(deviation) => {
                let mut random = seed.random();
                let values = TensorBuilder::<f64>::new("init", shape, device)?;
                values.fill_with(|_| deviation * random.truncated_normal(-2.0, 2.0))?.converted(dtype)
            }
        }
    }

    fn check(self, dtype: DType) -> Result<()> {
        let (number, least) = match self {
            Init::FanIn(0) | Init::KaimingNormal(0) => {
                return Err(Error::argument("init", "a fan of 0").expected("1 at least"));
            }
            Init::FanIn(_) | Init::KaimingNormal(_) => return Ok(()),
            Init::Constant(value) => (value, f64::NEG_INFINITY),
            Init::Uniform(bound) => (bound, 0.0),
            Init::Normal(deviation) | Init::TruncatedNormal(deviation) => (deviation, 0.0),
        };
        // A normal variate made from 53 random bits is within nine standard deviations.
        let most = if matches!(self, Init::Normal(_)) { 9.0 * number } else { number };
        let fits = Tensor::full(&[], most, dtype, Device::Cpu)?.to_scalar()?.is_finite();
        if number.is_finite() && number >= least && fits {
            return Ok(());
        }
        let range = if least == 0.0 { "a finite number, 0 at least" } else { "a finite number" };
        Err(Error::argument("init", format!("{self:?}")).expected(format!("{range}, in {dtype} too")))
    }
}
