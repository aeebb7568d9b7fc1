//! One case: an image, its label, its spacing and its name.

use tomograd_core::{DType, Error, Result, Tensor};

use crate::grid;

/// One case on its way from a file to a batch.
#[derive(Clone, Debug)]
pub struct Sample {
    /// f32, `(C, D, H, W)` or `(C, H, W)`.
    pub image: Tensor,
    /// Class numbers, u8, `(D, H, W)` or `(H, W)`.
    pub label: Option<Tensor>,
    /// Millimetres between voxels along the spatial axes, in the order of the shape.
    pub spacing: Vec<f64>,
    /// The name of the case: the file name without its ending.
    pub name: String,
}

impl Sample {
    /// A case, converted to the dtypes that transforms expect, with a spacing of 1 mm.
    ///
    /// # Errors
    /// When the label hasn't the spatial shape of the image, or holds something that isn't a class number in `0..=255`.
    pub fn new(name: impl Into<String>, image: &Tensor, label: Option<&Tensor>) -> Result<Self> {
        let name = name.into();
        let (_, _) = grid::image_dims("sample", image.shape()).map_err(|error| error.within(&name))?;
        let label = label.map(|label| class_numbers(label, image.shape())).transpose();
        Ok(Self {
            image: image.converted(DType::F32)?.contiguous()?,
            label: label.map_err(|error| error.within(&name))?,
            spacing: vec![1.0; image.rank() - 1],
            name,
        })
    }

    /// The same case with another spacing, in millimetres along the spatial axes.
    ///
    /// # Errors
    /// When there isn't one positive number an axis.
    pub fn with_spacing(mut self, spacing: &[f64]) -> Result<Self> {
        grid::spacings("sample", spacing, self.image.rank() - 1).map_err(|error| error.within(&self.name))?;
        self.spacing = spacing.to_vec();
        Ok(self)
    }

    /// The number of channels and the spatial sizes.
    pub(crate) fn dims(&self, operation: &str) -> Result<(usize, [usize; 3])> {
        let dims = grid::image_dims(operation, self.image.shape())?;
        if let Some(label) = self.label.as_ref().filter(|label| self.image.shape().get(1..) != Some(label.shape())) {
            return Err(mismatch(self.image.shape(), label.shape()));
        }
        Ok(dims)
    }
}

fn mismatch(image: &[usize], label: &[usize]) -> Error {
    Error::shape("sample", "image and label have different spatial shapes")
        .expected("an image (C, D, H, W) and a label (D, H, W)")
        .shapes([image, label])
}

/// The label as u8.
fn class_numbers(label: &Tensor, image: &[usize]) -> Result<Tensor> {
    if image.get(1..) != Some(label.shape()) {
        return Err(mismatch(image, label.shape()));
    }
    if label.dtype() == DType::U8 {
        return label.contiguous();
    }
    let values = label.to_vec_f64()?;
    if let Some(at) = values.iter().position(|value| !(0.0..=255.0).contains(value) || value.fract() != 0.0) {
        return Err(bad_label(values[at], at, label.shape(), 256));
    }
    label.converted(DType::U8)
}

/// The error of a label that isn't one of `classes` classes.
pub(crate) fn bad_label(value: f64, index: usize, shape: &[usize], classes: usize) -> Error {
    let mut place = vec![0; shape.len()];
    let mut rest = index;
    for (axis, &size) in shape.iter().enumerate().rev() {
        place[axis] = rest % size.max(1);
        rest /= size.max(1);
    }
    Error::argument("label", format!("value {value} at voxel {place:?}"))
        .expected(format!("whole numbers in 0..={}", classes.saturating_sub(1)))
}
