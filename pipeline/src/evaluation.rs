//! Evaluation of a network on the cases of a dataset.

use std::path::Path;

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::Volume;

use crate::{Cases, Dataset, Preparation, Report, Scan, alignment, evaluate, evaluate_volumes};

/// A case and its predicted mask, which [`Preparation::evaluate_files`] passes to its callback.
#[derive(Debug)]
pub struct Segmented<'a> {
    index: usize,
    name: &'a str,
    mask: &'a Volume,
}

impl Segmented<'_> {
    /// The index of the case in the dataset.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name of the case.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The mask, on the grid of the image file.
    pub fn mask(&self) -> &Volume {
        self.mask
    }

    /// Writes the mask as `NAME.nii.gz` into `folder`, which is created if necessary.
    ///
    /// # Errors
    /// When the folder or the file can't be written.
    pub fn write_mask(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create", folder.display(), error))?;
        self.mask.write(folder.join(format!("{}.nii.gz", self.name)))
    }
}

impl Preparation {
    /// The metrics of a network on prepared cases ([`Dataset::prepared`]), on their prepared grid: for validation during
    /// training. `predict` is as in [`Preparation::segment`]. Cases without a label are skipped.
    ///
    /// # Errors
    /// Those of the cases and the predictor, and as [`Preparation::labels`]; the error names the case.
    pub fn evaluate(&self, cases: &dyn Cases, mut predict: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Report> {
        let mut report = Report::new(self.foreground());
        for index in 0..cases.len() {
            let sample = cases.sample(index)?;
            let Some(truth) = sample.first_label() else { continue };
            let metrics = sample
                .image()
                .and_then(|image| self.labels(image, &mut predict))
                .and_then(|prediction| evaluate(&prediction, truth, sample.spacing(), self.classes.len()))
                .map_err(|error| within(error, &sample.name))?;
            report.add(&sample.name, metrics)?;
        }
        Ok(report)
    }

    /// The metrics of a network on the files of a dataset, on their original grids: each image is [segmented](Self::segment),
    /// its mask is compared with the label and passed to `each`, for example to be written.
    ///
    /// ```
    /// use tomograd_autodiff::methods::*;
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_io::{Volume, geometry};
    /// use tomograd_pipeline::{Dataset, Preparation};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-evaluation-doc-{}", std::process::id()));
    /// # for (part, label) in [("images", false), ("labels", true)] {
    /// #     std::fs::create_dir_all(folder.join(part)).unwrap();
    /// #     let voxels = Tensor::normal(&[8, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
    /// #     let bits: Vec<u8> = voxels.to_vec::<f32>()?.iter().map(|x| u8::from(*x > 0.0)).collect();
    /// #     let voxels = if label { Tensor::from_slice(&bits, &[8, 8, 8], Device::Cpu)? } else { voxels };
    /// #     Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(folder.join(part).join("a.nii.gz"))?;
    /// # }
    /// let preparation = Preparation::new([8, 8, 8], ["background", "bright"])?;
    /// let dataset = Dataset::prepared(&folder, &preparation)?;
    /// // A network that calls bright voxels bright.
    /// let bright = |patches: &Tensor| Tensor::concat(&[&patches.mul_scalar(0.0)?, patches], 1);
    /// let report = preparation.evaluate_files(&dataset, bright, |case| case.write_mask(folder.join("masks")))?;
    /// assert!(report.mean(|m| m.dice).value > 0.9 && folder.join("masks/a.nii.gz").exists());
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a file can't be read or has no place in the world (a picture), the grids of image and label don't coincide, as [`Preparation::segment`], and those of
    /// `each`; the error names the case.
    pub fn evaluate_files(
        &self,
        dataset: &Dataset,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
        mut each: impl FnMut(&Segmented<'_>) -> Result<()>,
    ) -> Result<Report> {
        let mut report = Report::new(self.foreground());
        for (index, name) in dataset.names().iter().enumerate() {
            let mut case = || {
                let (image, truth, tolerance) = dataset.volumes(index)?;
                let mask = self.segment(&image, &mut predict)?;
                each(&Segmented { index, name, mask: &mask })?;
                // Both have the label values of files.
                let numbers = |volume: &Volume| {
                    let scan = Scan::of_volume(volume)?;
                    volume.with_voxels(alignment::label_numbers(&scan, |values| self.class_numbers(values))?)
                };
                evaluate_volumes(&numbers(&mask)?, &numbers(&truth)?, self.classes.len(), tolerance)
            };
            let metrics = case().map_err(|error| within(error, name))?;
            report.add(name, metrics)?;
        }
        Ok(report)
    }
}

fn within(error: Error, case: &str) -> Error {
    error.within(format!("case {case}"))
}
