//! Several networks whose predictions are averaged.

use tomograd_autodiff::methods::*;
use tomograd_core::{Error, Result, Tensor};
use tomograd_io::Volume;
use tomograd_models::Model;

use super::{Activation, OPERATION, Preparation, Segment};

/// The least probability whose logarithm is taken: the logits stay finite.
const LEAST: f64 = 1e-30;

/// Networks of one task, such as those of the folds of a cross-validation. Their probabilities are averaged patch by patch, and
/// the logarithms of the means (of a sigmoid: the logits of the means) are blended and resampled as the logits of one network.
/// A single network's logits are left as they are.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_io::{Volume, geometry};
/// use tomograd_models::{Model, UNet3dConfig};
/// use tomograd_pipeline::{Ensemble, Preparation, Segment};
/// let preparation = Preparation::new([8, 8, 8], ["background", "liver"])?;
/// let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
/// let fold = |seed| Model::new(&config, Device::Cpu, Seed::new(seed))?.with_preparation(&preparation);
/// let ensemble = Ensemble::new(vec![fold(1)?, fold(2)?])?;
/// let voxels = Tensor::normal(&[9, 12, 10], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
/// let mask = ensemble.segment(&Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?)?;
/// assert_eq!(mask.voxels().shape(), [9, 12, 10]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Ensemble {
    models: Vec<Model>,
    preparation: Preparation,
}

impl Ensemble {
    /// Networks with equal preparations.
    ///
    /// # Errors
    /// When there are none, one has no preparation, or two preparations differ.
    pub fn new(models: Vec<Model>) -> Result<Self> {
        let mut preparations = models.iter().map(Segment::preparation);
        let first =
            preparations.next().ok_or_else(|| Error::argument(OPERATION, "no networks").expected("one at least"));
        let preparation = first??;
        for (number, other) in (2..).zip(preparations) {
            if other? != preparation {
                return Err(Error::argument(
                    OPERATION,
                    format!("network {number} has another preparation than the first"),
                )
                .expected("networks of one task: the same patches, spacing, intensities and classes"));
            }
        }
        Ok(Self { models, preparation })
    }

    /// The logits of a batch of patches.
    ///
    /// # Errors
    /// Those of the networks, and when their logits have different shapes.
    pub fn predict(&self, patches: &Tensor) -> Result<Tensor> {
        let [model, others @ ..] = &self.models[..] else { return Err(Error::argument(OPERATION, "no networks")) };
        if others.is_empty() {
            return model.predict(patches);
        }
        let independent = self.preparation.activation == Activation::Sigmoid;
        let probabilities = |model: &Model| {
            let logits = model.predict(patches)?;
            if independent { logits.sigmoid() } else { logits.softmax(1) }
        };
        let mut sum = probabilities(model)?;
        for other in others {
            sum = sum.add(&probabilities(other)?)?;
        }
        let mean = sum.mul(1.0 / self.models.len() as f64)?;
        if !independent {
            return mean.clamp(LEAST, 1.0)?.log();
        }
        let against = mean.reverse_sub(1.0)?.clamp(LEAST, 1.0)?.log()?;
        mean.clamp(LEAST, 1.0)?.log()?.sub(&against)
    }
}

impl Segment for Ensemble {
    fn preparation(&self) -> Result<Preparation> {
        Ok(self.preparation.clone())
    }

    fn segment(&self, volume: &Volume) -> Result<Volume> {
        self.preparation.segment(volume, |patches| self.predict(patches))
    }
}
