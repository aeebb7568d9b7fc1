//! Samples: the named fields of one case on one grid.

mod field;
mod shapes;
#[cfg(test)]
mod tests;
mod values;

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::geometry::{self, Affine};

pub(crate) use self::values::{MOST_CLASSES, check_classes, check_finite, class_numbers, numbers_of, voxel};
pub use self::{
    field::{Field, Kind},
    shapes::{Boxes, Points},
};
use crate::{grid, names};

/// A case as named fields, in the order in which they were added.
///
/// All fields of a sample share one grid: its images and labels have the same spatial sizes and spacing, and its boxes and
/// points are in the voxel coordinates of this grid. Images on other grids must be resampled first (see
/// [`Preparation`](crate::Preparation), [`alignment`](crate::alignment)), or be separate samples.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{Boxes, Field, Sample};
/// let (image, label) = (Tensor::zeros(&[1, 8, 9], DType::F32, Device::Cpu)?, Tensor::zeros(&[8, 9], DType::U8, Device::Cpu)?);
/// let sample = Sample::new("case", &image, Some(&label))?
///     .with_spacing(&[0.5, 0.5])?
///     .with("lesions", Field::Boxes(Boxes::new(&[([1.0, 2.0], [4.0, 4.0])], &[1])?))?;
/// assert_eq!(sample.label()?.shape(), [8, 9]);
/// let error = sample.get("lesion").unwrap_err().to_string();
/// assert!(error.contains("one of image, label, lesions (nearest: lesions)"));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name of the case: the file name without its extension.
    pub name: String,
    spacing: Vec<f64>,
    affine: Option<Affine>,
    fields: Vec<(String, Field)>,
}

impl Sample {
    /// A sample with the fields `image` and optionally `label`, converted to the dtypes that transforms expect, with a
    /// spacing of 1 mm.
    ///
    /// # Errors
    /// When the label doesn't have the spatial shape of the image, or has a value that isn't a class number in `0..=255`.
    pub fn new(name: impl Into<String>, image: &Tensor, label: Option<&Tensor>) -> Result<Self> {
        let sample = Self::empty(name).with("image", Field::Image(image.clone()))?;
        match label {
            Some(label) => sample.with("label", Field::Label(label.clone())),
            None => Ok(sample),
        }
    }

    /// A sample without fields.
    pub fn empty(name: impl Into<String>) -> Self {
        Self { name: name.into(), spacing: Vec::new(), affine: None, fields: Vec::new() }
    }

    /// Adds a field, or replaces the field of the same name.
    ///
    /// # Errors
    /// When an image or label has an invalid shape or value, or the grid differs from that of other fields.
    pub fn with(mut self, field: impl Into<String>, value: Field) -> Result<Self> {
        let field = field.into();
        let within = |error: Error, name: &str| error.within(field.clone()).within(name.to_owned());
        let value = value.converted().map_err(|error| within(error, &self.name))?;
        match self.fields.iter_mut().find(|(name, _)| *name == field) {
            Some((_, old)) => *old = value,
            None => self.fields.push((field.clone(), value)),
        }
        match self.grid("sample") {
            Ok(grid) if grid.is_none_or(|(_, axes)| self.spacing.len() == axes) => Ok(self),
            Ok(grid) => {
                self.spacing = vec![1.0; grid.map_or(0, |(_, axes)| axes)];
                Ok(self)
            }
            Err(error) => Err(within(error, &self.name)),
        }
    }

    /// Replaces all fields. The spacing is kept if the number of axes is the same, and the affine is kept: a transform that
    /// moves voxels must update it by [`Sample::with_affine`].
    ///
    /// # Errors
    /// As [`Sample::with`].
    pub fn with_fields(mut self, fields: impl IntoIterator<Item = (String, Field)>) -> Result<Self> {
        self.take_fields();
        fields.into_iter().try_fold(self, |sample, (name, field)| sample.with(name, field))
    }

    /// Takes out all fields; name, spacing and affine are kept, for [`Sample::with_fields`].
    pub fn take_fields(&mut self) -> Vec<(String, Field)> {
        std::mem::take(&mut self.fields)
    }

    /// Sets the spacing, in millimetres along the spatial axes.
    ///
    /// # Errors
    /// When there isn't one positive number per axis, or the sample has no image, label, boxes or points.
    pub fn with_spacing(mut self, spacing: &[f64]) -> Result<Self> {
        let axes = self.fields.iter().find_map(|(_, field)| field.axes()).unwrap_or(0);
        grid::spacings("sample", spacing, axes).map_err(|error| error.within(&self.name))?;
        self.spacing = spacing.to_vec();
        Ok(self)
    }

    /// The spacing in millimetres along the spatial axes, in the order of the shape; empty without a grid.
    pub fn spacing(&self) -> &[f64] {
        &self.spacing
    }

    /// Sets the affine: from voxel indices (i, j, k), where i is the last axis, to world coordinates in millimetres. Spatial
    /// transforms update it, so that the world coordinates of voxels don't change; they don't change the spacing.
    ///
    /// # Errors
    /// When it isn't invertible.
    pub fn with_affine(self, affine: &Affine) -> Result<Self> {
        geometry::inverse(affine).map_err(|error| error.within(&self.name))?;
        Ok(Self { affine: Some(*affine), ..self })
    }

    /// The affine from voxel indices (i, j, k), where i is the last axis, to world coordinates in millimetres, if known.
    pub fn affine(&self) -> Option<&Affine> {
        self.affine.as_ref()
    }

    /// Names and values of the fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// The field called `name`, if it exists.
    pub fn find(&self, name: &str) -> Option<&Field> {
        self.fields().find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    /// The field called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names and the nearest one.
    pub fn get(&self, name: &str) -> Result<&Field> {
        let known = || self.fields().map(|(name, _)| name);
        self.find(name).ok_or_else(|| names::unknown("sample", "field", name, known()).within(&self.name))
    }

    /// The image: the field `image`, or the only image field.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `image`.
    pub fn image(&self) -> Result<&Tensor> {
        self.only(Kind::Image)?.tensor()
    }

    /// The class numbers of the voxels: the field `label`, or the only label field.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `label`.
    pub fn label(&self) -> Result<&Tensor> {
        self.only(Kind::Label)?.tensor()
    }

    fn only(&self, kind: Kind) -> Result<&Field> {
        let fields = self.fields().map(|(name, field)| (name, field.kind(), field));
        only("sample", kind, fields).map_err(|error| error.within(&self.name))
    }

    /// The memory of all fields in bytes.
    pub fn bytes(&self) -> usize {
        self.fields().map(|(name, field)| name.len() + field.bytes()).sum::<usize>() + self.name.len()
    }

    /// The spatial sizes and their number, if there is a grid; for boxes and points alone, only the number of axes.
    fn grid(&self, operation: &str) -> Result<Option<([usize; 3], usize)>> {
        let spatial = self.fields.iter().find_map(|(name, field)| Some((name, field.spatial()?, field)));
        let first = self.fields.iter().find_map(|(name, field)| Some((name, field.axes()?)));
        for (name, field) in &self.fields {
            if let (Some((other, expected, grid)), Some(found)) = (spatial, field.spatial())
                && expected != found
            {
                let [a, b] = [grid, field].map(|field| field.tensor().map(Tensor::shape));
                return Err(Error::shape(operation, format!("{other} and {name} have different spatial shapes"))
                    .expected("images (C, D, H, W) and labels (D, H, W) on one grid")
                    .shapes([a?, b?]));
            }
            if let (Some((other, expected)), Some(found)) = (first, field.axes())
                && expected != found
            {
                return Err(Error::shape(operation, format!("{other} has {expected} spatial axes, {name} {found}"))
                    .expected("fields on one grid"));
            }
        }
        let sizes = spatial.map(|(_, spatial, _)| grid::dims(operation, spatial)).transpose()?;
        Ok(first.map(|(_, axes)| (sizes.unwrap_or_default(), axes)))
    }

    /// The spatial sizes, padded to three with leading ones, and the number of axes.
    ///
    /// # Errors
    /// When there is neither image nor label, or their grids differ.
    pub(crate) fn dims(&self, operation: &str) -> Result<([usize; 3], usize)> {
        match self.grid(operation)? {
            Some((sizes, axes)) if !sizes.contains(&0) => Ok((sizes, axes)),
            _ => Err(Error::argument(operation, "a sample without a grid").expected("an image or a label")),
        }
    }

    /// Updates the affine after a transform, where `map` maps new to old voxel indices (i, j, k).
    pub(crate) fn note_move(&mut self, map: &Affine) {
        self.affine = self.affine.map(|affine| geometry::compose(&affine, map));
    }

    /// Mutable access to the fields, for transforms that keep them on one grid.
    pub(crate) fn fields_mut(&mut self) -> impl Iterator<Item = (&str, &mut Field)> {
        self.fields.iter_mut().map(|(name, field)| (name.as_str(), field))
    }

    /// The images.
    pub(crate) fn images_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.fields_mut().filter_map(|(_, field)| match field {
            Field::Image(image) => Some(image),
            _ => None,
        })
    }

    /// The label called `label`, otherwise the first one, if there is one.
    pub(crate) fn first_label(&self) -> Option<&Tensor> {
        let labels = || self.fields().filter(|(_, field)| field.kind() == Kind::Label);
        let named = labels().find(|(name, _)| *name == Kind::Label.name());
        named.or_else(|| labels().next()).and_then(|(_, field)| field.tensor().ok())
    }
}

/// The only field of a kind, or the one that has the name of the kind.
pub(crate) fn only<'a, T>(operation: &str, kind: Kind, fields: impl Iterator<Item = (&'a str, Kind, T)>) -> Result<T> {
    let mut names = Vec::new();
    let mut found = Vec::new();
    for (name, of, field) in fields {
        names.push(name);
        match (of == kind, name == kind.name()) {
            (true, true) => return Ok(field),
            (true, false) => found.push((name, field)),
            _ => {}
        }
    }
    if found.len() > 1 {
        let several = found.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        return Err(Error::argument(operation, format!("{} fields of kind {kind}: {several}", found.len()))
            .expected(format!("one of these names, since none is called {:?}", kind.name())));
    }
    let list =
        if names.is_empty() { "there is no field".to_owned() } else { format!("the fields are {}", names.join(", ")) };
    let missing = || Error::argument(operation, format!("no {kind}")).expected(format!("a field of that kind; {list}"));
    found.pop().map(|(_, field)| field).ok_or_else(missing)
}
