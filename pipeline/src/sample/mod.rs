//! One case: named fields on one grid.

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

/// One case on its way from a file to a batch: fields by name, in the order in which they were added.
///
/// A sample has one grid: its images and labels have the same spatial sizes and the same spacing, and its boxes and points are
/// in the coordinates of these voxels. Images of one case that lie on other grids are brought onto one before (see
/// [`Preparation`](crate::Preparation), [`alignment`](crate::alignment)), or are samples of their own.
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
    /// The name of the case: the file name without its ending.
    pub name: String,
    spacing: Vec<f64>,
    affine: Option<Affine>,
    fields: Vec<(String, Field)>,
}

impl Sample {
    /// A case of an `image` and perhaps a `label`, which are the names of the fields, converted to the dtypes that transforms
    /// expect, with a spacing of 1 mm.
    ///
    /// # Errors
    /// When the label hasn't the spatial shape of the image, or holds something that isn't a class number in `0..=255`.
    pub fn new(name: impl Into<String>, image: &Tensor, label: Option<&Tensor>) -> Result<Self> {
        let sample = Self::empty(name).with("image", Field::Image(image.clone()))?;
        match label {
            Some(label) => sample.with("label", Field::Label(label.clone())),
            None => Ok(sample),
        }
    }

    /// A case of which nothing is known yet.
    pub fn empty(name: impl Into<String>) -> Self {
        Self { name: name.into(), spacing: Vec::new(), affine: None, fields: Vec::new() }
    }

    /// The same case with one more field, or with another value of the field of that name.
    ///
    /// # Errors
    /// When an image or a label isn't one, or boxes, points, images and labels don't lie on one grid.
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

    /// The same case with other fields in place of all that it has; the spacing stays if the number of axes does, and the affine
    /// stays: what moves voxels says so by [`Sample::with_affine`].
    ///
    /// # Errors
    /// As [`Sample::with`].
    pub fn with_fields(mut self, fields: impl IntoIterator<Item = (String, Field)>) -> Result<Self> {
        self.take_fields();
        fields.into_iter().try_fold(self, |sample, (name, field)| sample.with(name, field))
    }

    /// Takes all fields out; name, spacing and affine stay, for [`Sample::with_fields`].
    pub fn take_fields(&mut self) -> Vec<(String, Field)> {
        std::mem::take(&mut self.fields)
    }

    /// The same case with another spacing, in millimetres along the spatial axes.
    ///
    /// # Errors
    /// When there isn't one positive number an axis, or the case has no image, label, boxes or points, whose grid it would be.
    pub fn with_spacing(mut self, spacing: &[f64]) -> Result<Self> {
        let axes = self.fields.iter().find_map(|(_, field)| field.axes()).unwrap_or(0);
        grid::spacings("sample", spacing, axes).map_err(|error| error.within(&self.name))?;
        self.spacing = spacing.to_vec();
        Ok(self)
    }

    /// Millimetres between voxels along the spatial axes, in the order of the shape; none without a grid.
    pub fn spacing(&self) -> &[f64] {
        &self.spacing
    }

    /// The same case with a place in the world: from voxel indices (i, j, k), i along the last axis, to millimetres. Spatial
    /// transforms keep it true of their results, so that a voxel stays where it was in the world; the spacing stays as it is.
    ///
    /// # Errors
    /// When it can't be inverted.
    pub fn with_affine(self, affine: &Affine) -> Result<Self> {
        geometry::inverse(affine).map_err(|error| error.within(&self.name))?;
        Ok(Self { affine: Some(*affine), ..self })
    }

    /// From voxel indices (i, j, k), i along the last axis, to the world in millimetres; `None` if nobody said.
    pub fn affine(&self) -> Option<&Affine> {
        self.affine.as_ref()
    }

    /// The names and values of the fields, in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.fields.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// The field of that name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Field> {
        self.fields().find(|(known, _)| *known == name).map(|(_, field)| field)
    }

    /// The field of that name.
    ///
    /// # Errors
    /// When there is none; the error lists the names and says the nearest.
    pub fn get(&self, name: &str) -> Result<&Field> {
        let known = || self.fields().map(|(name, _)| name);
        self.find(name).ok_or_else(|| names::unknown("sample", "field", name, known()).within(&self.name))
    }

    /// The image: the field `image`, or the only one of its kind.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `image`.
    pub fn image(&self) -> Result<&Tensor> {
        self.only(Kind::Image)?.tensor()
    }

    /// The class numbers of the voxels: the field `label`, or the only one of its kind.
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

    /// How many bytes of memory its fields hold.
    pub fn bytes(&self) -> usize {
        self.fields().map(|(name, field)| name.len() + field.bytes()).sum::<usize>() + self.name.len()
    }

    /// The spatial sizes and their number, from what has a grid; the axes alone from boxes and points.
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

    /// The spatial sizes as three, leading ones before those of a flat grid, and how many there are.
    ///
    /// # Errors
    /// When there is neither image nor label, or they don't lie on one grid.
    pub(crate) fn dims(&self, operation: &str) -> Result<([usize; 3], usize)> {
        match self.grid(operation)? {
            Some((sizes, axes)) if !sizes.contains(&0) => Ok((sizes, axes)),
            _ => Err(Error::argument(operation, "a sample without a grid").expected("an image or a label")),
        }
    }

    /// Notes that voxels were moved: that each of the result comes from where `map` says, in voxel indices (i, j, k).
    pub(crate) fn note_move(&mut self, map: &Affine) {
        self.affine = self.affine.map(|affine| geometry::compose(&affine, map));
    }

    /// The fields, to be changed by a transform that keeps them on one grid.
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

    /// The first label, if there is one.
    pub(crate) fn first_label(&self) -> Option<&Tensor> {
        self.fields().find_map(|(_, field)| match field {
            Field::Label(label) => Some(label),
            _ => None,
        })
    }
}

/// Of named things, the only one of a kind, or the one that is called as the kind is.
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
