//! Segmentation: from a volume to its mask.

use tomograd_core::{DType, Device, Error, Result, Tensor, TensorBuilder};
use tomograd_io::{Volume, geometry};
use tomograd_models::Model;

use super::{Activation, OPERATION, Preparation, restore::Restore};
use crate::{
    Scan, grid,
    sliding_window::{check_logits, decide},
};

/// A network with its preparation.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_io::{Volume, geometry};
/// use tomograd_models::{Model, UNet3dConfig};
/// use tomograd_pipeline::{Preparation, Segment};
/// let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
/// let preparation = Preparation::new([8, 8, 8], ["background", "liver"])?.orientation("RAS")?;
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?.with_preparation(&preparation)?;
/// let voxels = Tensor::normal(&[9, 12, 10], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
/// let volume = Volume::new(voxels, geometry::from_orientation("LPS")?)?;
/// let mask = model.segment(&volume)?;
/// assert_eq!((mask.voxels().shape(), mask.affine()), (volume.voxels().shape(), volume.affine()));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Segment {
    /// The preparation of the network's images and masks.
    ///
    /// # Errors
    /// When the model has none, or it has another version.
    fn preparation(&self) -> Result<Preparation>;

    /// The mask of a volume on its original grid: [`Preparation::segment`] with this network.
    ///
    /// # Errors
    /// As [`Segment::preparation`] and [`Preparation::segment`].
    fn segment(&self, volume: &Volume) -> Result<Volume>;
}

impl Segment for Model {
    fn preparation(&self) -> Result<Preparation> {
        let json = self.preparation_json().ok_or_else(|| {
            Error::argument("segment", "nobody said how images are prepared for this network")
                .expected("a checkpoint with a preparation (Checkpoint::preparation), or Model::with_preparation")
        })?;
        Preparation::from_json(&json.to_string())
    }

    fn segment(&self, volume: &Volume) -> Result<Volume> {
        self.preparation()?.segment(volume, |patches| self.predict(patches))
    }
}

impl Preparation {
    /// The mask of a volume on its original grid; voxels have the label values of the classes (u8, or i32 if one is above
    /// 255). `predict` maps patches `(N, C, patch)`, f32, on the CPU, to logits `(N, K, patch)`, on any device.
    ///
    /// If images are resampled, the logits are resampled back linearly and decided on the original grid, so that the boundary
    /// between two classes is where their logits are equal, without steps of the other grid. Reorientation alone changes no
    /// bit.
    ///
    /// Memory besides the volume and its prepared image: that of [`SlidingWindow::labels`](crate::SlidingWindow::labels), and
    /// with resampling two more planes of logits, of the prepared image and of the volume.
    ///
    /// # Errors
    /// Those of the predictor and of [`Preparation::image`], when the number of logit maps isn't
    /// [`Preparation::maps`], and when a logit is NaN; the error has its map and its voxel in the prepared image.
    pub fn segment(&self, volume: &Volume, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Volume> {
        self.check()?;
        let turned = self.turned(self.accepted(Scan::of_volume(volume)?)?)?;
        let image = self.input(&turned)?;
        let (sizes, mut steps) = (grid_of(&turned)?, spacings(&turned)?);
        drop(turned);
        if self.patch.len() == 2 {
            // The spacing between planes is irrelevant for a single plane.
            steps[0] = 1.0;
        }
        let labels = self.decided(&image, (sizes, steps), predict)?;
        let own = volume.orientation();
        let codes = self.orientation.as_ref().unwrap_or(&own);
        // The axes depend on the orientation codes only, so that reorienting back is the exact inverse for any affine.
        let mask = Volume::new(self.values(&labels)?, geometry::from_orientation(codes)?)?;
        volume.with_voxels(mask.reorient(&own)?.voxels().clone())
    }

    /// The class numbers of a prepared image `(C, D, H, W)` or `(C, H, W)`, as made by [`Preparation::image`] and
    /// [`Dataset::prepared`](crate::Dataset::prepared), on its own grid: u8 `(D, H, W)` or `(H, W)`. For validation
    /// during training.
    ///
    /// # Errors
    /// As [`Preparation::segment`].
    pub fn labels(&self, image: &Tensor, predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.check()?;
        let scan = Scan { values: image.clone(), spacing: vec![1.0; image.rank().saturating_sub(1)], affine: None };
        let own = (grid_of(&scan)?, spacings(&scan)?);
        self.decided(&scan, own, predict)?.reshape(&image.shape()[1..])
    }

    /// The postprocessed class numbers `(D, H, W)` of a prepared image on a grid with these sizes and spacings.
    fn decided(
        &self,
        image: &Scan,
        own: ([usize; 3], [f64; 3]),
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let maps = self.maps();
        let fitting = |patches: &Tensor| self.fitting(predict(patches)?);
        let prepared = (grid_of(image)?, spacings(image)?);
        let mut restore = if prepared == own { None } else { Some(Restore::new(maps, prepared, own)?) };
        let plane = own.0[1] * own.0[2];
        let mut result = Tensor::zeros(&own.0, DType::U8, Device::Cpu)?;
        let labels = result.as_mut_slice::<u8>()?;
        let independent = self.activation == Activation::Sigmoid;
        let mut finished = |depth: usize, logits: &mut [f32]| {
            decide(logits, &mut labels[depth * plane..(depth + 1) * plane], independent);
        };
        let spatial = &image.values.shape()[1..];
        self.window()?.run(&image.values, fitting, |depth, logits| {
            check_logits(logits, depth, spatial)?;
            match &mut restore {
                Some(restore) => restore.take(depth, logits, &mut finished)?,
                None => finished(depth, logits),
            }
            Ok(())
        })?;
        for step in &self.postprocessing {
            step.apply(labels, own.0, self.patch.len() == 2);
        }
        Ok(result)
    }

    /// Logits, checked to have a map for each class that has one.
    pub(super) fn fitting(&self, logits: Tensor) -> Result<Tensor> {
        let maps = self.maps();
        match logits.shape().get(1) {
            Some(&found) if found != maps => Err(Error::shape("segment", format!("logits of {found} maps"))
                .expected(format!("{maps}, for {} classes and {:?}", self.classes.len(), self.activation))
                .shapes([logits.shape()])),
            _ => Ok(logits),
        }
    }

    /// The label values of class numbers.
    pub(super) fn values(&self, labels: &Tensor) -> Result<Tensor> {
        let shape = labels.shape();
        let numbers = labels.as_slice::<u8>()?;
        let value = |number: &u8| self.classes.get(usize::from(*number)).map_or(0, |class| class.value);
        if self.classes.iter().all(|class| class.value <= u16::from(u8::MAX)) {
            return TensorBuilder::<u8>::new(OPERATION, shape, Device::Cpu)?
                .fill_with(|at| numbers.get(at).map_or(0, |number| value(number) as u8));
        }
        TensorBuilder::<i32>::new(OPERATION, shape, Device::Cpu)?
            .fill_with(|at| numbers.get(at).map_or(0, |number| i32::from(value(number))))
    }
}

/// The sizes of a scan along three axes.
fn grid_of(scan: &Scan) -> Result<[usize; 3]> {
    grid::image_dims(OPERATION, scan.values.shape()).map(|(_, sizes)| sizes)
}

/// The spacing of a scan along three axes.
fn spacings(scan: &Scan) -> Result<[f64; 3]> {
    grid::spacings(OPERATION, &scan.spacing, scan.values.rank().saturating_sub(1))
}
