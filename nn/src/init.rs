//! How parameters are filled at first: PyTorch's distributions, bounds and fans.

use tomograd_core::{DType, Device, Result, Seed, Tensor};

/// How a parameter is filled at first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Every element this number.
    Constant(f64),
    /// Evenly from −bound to bound.
    Uniform(f64),
    /// Normal with mean 0 and this deviation.
    Normal(f64),
    /// Normal with mean 0 and this deviation, cut off at two deviations.
    TruncatedNormal(f64),
    /// PyTorch's default of convolution and linear layers: evenly within 1/√fan_in, both for weight and bias (He et al. 2015
    /// with a = √5).
    FanIn(usize),
    /// Normal with deviation √(2 / fan_in), for layers before a ReLU (He et al. 2015).
    KaimingNormal(usize),
}

impl Init {
    /// A tensor so filled; element `i` depends on `seed` and `i` alone.
    ///
    /// # Errors
    /// When the size overflows or memory runs out.
    pub fn tensor(self, shape: &[usize], seed: Seed, dtype: DType, device: Device) -> Result<Tensor> {
        let inverse_root = |fan: usize| 1.0 / (fan.max(1) as f64).sqrt();
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
                let values: Vec<f64> =
                    (0..shape.iter().product()).map(|_| deviation * random.truncated_normal(-2.0, 2.0)).collect();
                Tensor::from_slice(&values, shape, device)?.converted(dtype)
            }
        }
    }
}
