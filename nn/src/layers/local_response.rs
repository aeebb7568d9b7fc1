//! Local response normalisation.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};

use super::{AveragePool, Window};
use crate::{Module, Pass, check};

/// Options of [`LocalResponseNorm`]: the number of channels, and by default AlexNet's constants α = 10⁻⁴, β = 0.75 and k = 2
/// (Krizhevsky et al. 2012).
///
/// ```
/// use tomograd_nn::{LocalResponseNorm, LocalResponseNormOptions};
/// let of_alexnet = LocalResponseNorm::new(5)?;
/// // What PyTorch calls alpha, and Caffe too, is divided by the number of channels there.
/// let pytorch_default = LocalResponseNorm::new(LocalResponseNormOptions::new(5).alpha(1e-4 / 5.0).k(1.0))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LocalResponseNormOptions {
    channels: usize,
    alpha: f64,
    beta: f64,
    k: f64,
}

impl From<usize> for LocalResponseNormOptions {
    fn from(channels: usize) -> Self {
        Self::new(channels)
    }
}

impl LocalResponseNormOptions {
    /// Options for sums over this number of adjacent channels.
    pub fn new(channels: usize) -> Self {
        Self { channels, alpha: 1e-4, beta: 0.75, k: 2.0 }
    }

    /// Sets α, the factor of the sum of squares. PyTorch and Caffe multiply the mean of squares instead, so that their number is
    /// α times the number of channels.
    #[must_use]
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets β, the exponent.
    #[must_use]
    pub fn beta(mut self, beta: f64) -> Self {
        self.beta = beta;
        self
    }

    /// Sets k, which is added to the sum.
    #[must_use]
    pub fn k(mut self, k: f64) -> Self {
        self.k = k;
        self
    }
}

/// Local response normalisation of (N, C, spatial...) (Krizhevsky et al. 2012): x / (k + α Σ x²)^β, where the sum is over n
/// adjacent channels at the same place: channel c and the n/2 before it, and as many behind it (one less if n is even), as far as
/// they exist.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{LocalResponseNorm, LocalResponseNormOptions, Module, Params, Pass};
/// let layer = LocalResponseNorm::new(LocalResponseNormOptions::new(3).alpha(1.0).beta(1.0).k(1.0))?;
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let x = Tensor::from_slice(&[1.0f64, 1.0, 2.0], &[1, 3, 1], Device::Cpu)?;
/// let y = layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f64>()?;
/// assert!(y.iter().zip([1.0 / 3.0, 1.0 / 7.0, 1.0 / 3.0]).all(|(y, expected)| (y - expected).abs() < 1e-15));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LocalResponseNorm {
    options: LocalResponseNormOptions,
    /// The mean of n adjacent channels, for images with the channels as the first of two spatial axes.
    mean: AveragePool,
}

impl LocalResponseNorm {
    /// A layer with these [`LocalResponseNormOptions`], or with this number of channels and AlexNet's constants.
    ///
    /// # Errors
    /// When the number of channels isn't from 1 to 2²⁰, α or β isn't from 0 to 10³⁰, or k isn't from 10⁻³⁰ to 10³⁰.
    pub fn new(options: impl Into<LocalResponseNormOptions>) -> Result<Self> {
        const NAME: &str = "local_response_norm";
        let options = options.into();
        let LocalResponseNormOptions { channels, alpha, beta, k } = options;
        check::number(NAME, "alpha", alpha, 0.0..=check::LARGEST)?;
        check::number(NAME, "beta", beta, 0.0..=check::LARGEST)?;
        check::number(NAME, "k", k, check::SMALLEST..=check::LARGEST)?;
        let mean = AveragePool::new(Window::new([channels, 1]).stride(1).padding([channels / 2, 0]))
            .map_err(|error| error.within(NAME))?;
        Ok(Self { options, mean })
    }
}

impl Module for LocalResponseNorm {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let &[batch, channels, ref spatial @ ..] = x.shape() else {
            return Err(Error::shape("local_response_norm", format!("an input of {} axes", x.rank()))
                .expected("(N, C, spatial...)")
                .shapes([x.shape()]));
        };
        let LocalResponseNormOptions { channels: window, alpha, beta, k } = self.options;
        let squares = x.square()?.reshape(&[batch, 1, channels, spatial.iter().product()])?;
        // A window of an even size fits once more than there are channels.
        let means = self.mean.forward(&squares, pass)?.narrow(2, 0, channels)?.reshape(x.shape())?;
        x.mul(&means.mul_scalar(alpha * window as f64)?.add_scalar(k)?.pow(-beta)?)
    }
}
