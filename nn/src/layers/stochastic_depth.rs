//! Stochastic depth.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_kernels::dropout;

use crate::{Module, Pass, Scope};

/// In training, sets whole images of (N, ...) to zero with probability p and multiplies the others by 1 / (1 − p) (Huang et
/// al. 2016; also called drop path). Before the sum of a residual block it skips the block for some images of the batch. The
/// draws follow the rules of [`Dropout`](crate::Dropout). No parameters.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Module, Params, Pass, StochasticDepth};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = StochasticDepth::new(params.root().at("stochastic_depth"), 0.5)?;
/// let x = Tensor::ones(&[32, 2], DType::F32, Device::Cpu)?;
/// let pass = Pass::train(&params, Seed::new(2))?;
/// let y = layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?;
/// assert!(y.chunks(2).all(|image| image == [0.0, 0.0] || image == [2.0, 2.0]));
/// let pass = Pass::eval(&params)?;
/// assert_eq!(layer.forward(&pass.input(&x), &pass)?.value().to_vec::<f32>()?, [1.0; 64]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StochasticDepth {
    path: String,
    probability: f64,
}

impl StochasticDepth {
    /// A layer with this probability of a zero.
    ///
    /// # Errors
    /// When the probability isn't in [0, 1).
    pub fn new(scope: Scope<'_>, probability: f64) -> Result<Self> {
        scope.layer(|scope| {
            if !(0.0..1.0).contains(&probability) {
                return Err(Error::argument("stochastic_depth", format!("a probability of {probability}"))
                    .expected("one in [0, 1)"));
            }
            Ok(Self { path: scope.path().to_owned(), probability })
        })
    }
}

impl Module for StochasticDepth {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        if !pass.is_training() || self.probability == 0.0 || x.rank() == 0 {
            return Ok(x.clone());
        }
        // An image as one channel, which is dropped as a whole.
        let images = x.shape()[0];
        let size = x.shape()[1..].iter().product();
        let op =
            dropout::Dropout { seed: pass.random(&self.path), probability: self.probability, whole_channels: true };
        let y = x.reshape(&[images, 1, size]).and_then(|x| Var::apply(op, &[&x]));
        y.and_then(|y| y.reshape(x.shape())).map_err(|error| error.within(self.path.clone()))
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed, Tensor};

    use super::*;
    use crate::{Params, gradcheck};

    fn layer(params: &mut Params, probability: f64) -> StochasticDepth {
        StochasticDepth::new(params.root().at("drop"), probability).unwrap()
    }

    fn values(params: &Params, layer: &StochasticDepth, x: &Tensor, seed: u64) -> Vec<f64> {
        let pass = Pass::train(params, Seed::new(seed)).unwrap();
        layer.forward(&pass.input(x), &pass).unwrap().value().to_vec::<f64>().unwrap()
    }

    #[test]
    fn gradients_equal_differences() {
        let x = Tensor::normal(&[6, 2, 3, 4], 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
        gradcheck::module(|mut scope| StochasticDepth::new(scope.at("drop"), 0.4), &x).unwrap();
    }

    #[test]
    fn whole_images_are_dropped_as_often_as_asked_for() {
        let mut params = Params::new(Device::Cpu, Seed::new(0)).with_dtype(DType::F64);
        let layer = layer(&mut params, 0.2);
        let x = Tensor::ones(&[4000, 3, 2], DType::F64, Device::Cpu).unwrap();
        let y = values(&params, &layer, &x, 1);
        let images: Vec<&[f64]> = y.chunks(6).collect();
        assert!(images.iter().all(|image| **image == [0.0; 6] || **image == [1.25; 6]));
        let dropped = images.iter().filter(|image| image[0] == 0.0).count();
        // 800 expected, with a standard deviation of 25.
        assert!((675..=925).contains(&dropped), "{dropped}");
    }

    #[test]
    fn the_seed_decides_and_inference_changes_nothing() {
        let mut params = Params::new(Device::Cpu, Seed::new(0)).with_dtype(DType::F64);
        let layer = layer(&mut params, 0.5);
        let x = Tensor::normal(&[64, 3], 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
        assert_eq!(values(&params, &layer, &x, 1), values(&params, &layer, &x, 1));
        assert_ne!(values(&params, &layer, &x, 1), values(&params, &layer, &x, 2));
        let pass = Pass::eval(&params).unwrap();
        let y = layer.forward(&pass.input(&x), &pass).unwrap();
        assert_eq!(y.value().to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
    }

    #[test]
    fn a_bad_probability_is_explained() {
        let mut params = Params::new(Device::Cpu, Seed::new(0));
        for probability in [-0.1, 1.0, f64::NAN] {
            let error = StochasticDepth::new(params.root().at("drop"), probability).unwrap_err().to_string();
            assert!(error.starts_with("drop: stochastic_depth: a probability of "), "{error}");
        }
    }
}
