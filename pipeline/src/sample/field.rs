//! Fields of samples.

use std::fmt;

use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{
    Boxes, Points,
    values::{MOST_CLASSES, class_numbers},
};
use crate::grid;

/// A field of a sample: one piece of data of a case.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{Field, Sample};
/// let t2 = Tensor::zeros(&[1, 8, 9], DType::F32, Device::Cpu)?;
/// let sample = Sample::empty("case")
///     .with("t2", Field::Image(t2))?
///     .with("diagnosis", Field::Class(2))?
///     .with("findings", Field::Labels(vec![true, false, true]))?
///     .with("age", Field::Numbers(vec![64.0]))?;
/// assert_eq!(sample.image()?.shape(), [1, 8, 9]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Field {
    /// An image, f32 `(C, D, H, W)` or `(C, H, W)`; other dtypes are converted.
    Image(Tensor),
    /// A class number for each voxel, u8 `(D, H, W)` or `(H, W)`; other dtypes are converted.
    Label(Tensor),
    /// A class of the whole case.
    Class(i64),
    /// Several independent labels of the whole case (multi-label).
    Labels(Vec<bool>),
    /// Numbers, such as regression targets or clinical data.
    Numbers(Vec<f64>),
    /// Boxes, each with a class.
    Boxes(Boxes),
    /// Points.
    Points(Points),
}

/// The kinds of [`Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// [`Field::Image`].
    Image,
    /// [`Field::Label`].
    Label,
    /// [`Field::Class`].
    Class,
    /// [`Field::Labels`].
    Labels,
    /// [`Field::Numbers`].
    Numbers,
    /// [`Field::Boxes`].
    Boxes,
    /// [`Field::Points`].
    Points,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Image, Self::Label, Self::Class, Self::Labels, Self::Numbers, Self::Boxes, Self::Points];

    /// The name in error messages: `image`, `label`, ... If a sample has several fields of a kind,
    /// [`Sample::image`](super::Sample::image) and similar methods return the field of this name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Label => "label",
            Self::Class => "class",
            Self::Labels => "labels",
            Self::Numbers => "numbers",
            Self::Boxes => "boxes",
            Self::Points => "points",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Field {
    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Image(_) => Kind::Image,
            Self::Label(_) => Kind::Label,
            Self::Class(_) => Kind::Class,
            Self::Labels(_) => Kind::Labels,
            Self::Numbers(_) => Kind::Numbers,
            Self::Boxes(_) => Kind::Boxes,
            Self::Points(_) => Kind::Points,
        }
    }

    /// The tensor of an image or label field.
    ///
    /// # Errors
    /// When the field is of another kind.
    pub fn tensor(&self) -> Result<&Tensor> {
        match self {
            Self::Image(tensor) | Self::Label(tensor) => Ok(tensor),
            other => {
                Err(Error::argument("sample", format!("a field of kind {}", other.kind()))
                    .expected("an image or a label"))
            }
        }
    }

    /// The memory of the field in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Image(tensor) | Self::Label(tensor) => tensor.count() * tensor.dtype().size(),
            Self::Class(_) => 8,
            Self::Labels(labels) => labels.len(),
            Self::Numbers(numbers) => 8 * numbers.len(),
            Self::Boxes(boxes) => 56 * boxes.len(),
            Self::Points(points) => 24 * points.len(),
        }
    }

    /// The part of the shape that must be equal for all samples of a batch; the number of boxes or points may differ.
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Image(tensor) | Self::Label(tensor) => tensor.shape().to_vec(),
            Self::Labels(labels) => vec![labels.len()],
            Self::Numbers(numbers) => vec![numbers.len()],
            _ => Vec::new(),
        }
    }

    /// The spatial sizes of the grid, if the field determines them.
    pub(crate) fn spatial(&self) -> Option<&[usize]> {
        match self {
            Self::Image(image) => image.shape().get(1..),
            Self::Label(label) => Some(label.shape()),
            _ => None,
        }
    }

    /// The number of spatial axes; `None` for a field without a grid.
    pub(crate) fn axes(&self) -> Option<usize> {
        match self {
            Self::Boxes(boxes) => Some(boxes.axes()),
            Self::Points(points) => Some(points.axes()),
            other => other.spatial().map(<[usize]>::len),
        }
    }

    /// The field with tensors converted to the dtypes that transforms expect.
    pub(super) fn converted(self) -> Result<Self> {
        Ok(match self {
            Self::Image(image) => {
                grid::image_dims("sample", image.shape())?;
                Self::Image(image.converted(DType::F32)?.contiguous()?)
            }
            Self::Label(label) => {
                if label.count() == 0 {
                    return Err(Error::shape("sample", "an empty label")
                        .expected("(D, H, W) or (H, W)")
                        .shapes([label.shape()]));
                }
                grid::dims("sample", label.shape())?;
                Self::Label(match label.dtype() {
                    DType::U8 => label.contiguous()?,
                    _ => Tensor::from_slice(&class_numbers(&label, MOST_CLASSES)?, label.shape(), Device::Cpu)?,
                })
            }
            Self::Numbers(numbers) => match numbers.iter().find(|number| !number.is_finite()) {
                Some(number) => {
                    return Err(Error::argument("sample", format!("the number {number}")).expected("finite numbers"));
                }
                None => Self::Numbers(numbers),
            },
            other => other,
        })
    }
}
