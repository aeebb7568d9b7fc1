//! Batches: samples collated for a training step.

use tomograd_core::{DType, Device, Error, Result, Tensor};

use crate::{Field, Kind, Sample, names, sample::only};

/// The input of a training step: the fields of several samples, collated by kind.
///
/// | kind | in the batch |
/// |---|---|
/// | image | f32 `(N, C, D, H, W)` or `(N, C, H, W)` |
/// | label | class numbers, i64 `(N, D, H, W)` or `(N, H, W)` |
/// | class | i64 `(N)` |
/// | labels | 0 and 1, f32 `(N, K)` |
/// | numbers | f32 `(N, K)` |
/// | boxes | for each sample f32 `(boxes, 2 · axes)` and their classes, i64 `(boxes)` |
/// | points | for each sample f32 `(points, axes)` |
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{Batch, Field, Sample};
/// let image = Tensor::zeros(&[1, 8, 9], DType::F32, Device::Cpu)?;
/// let one = |class| Sample::new("case", &image, None)?.with("diagnosis", Field::Class(class));
/// let batch = Batch::collate(&[one(2)?, one(0)?])?;
/// assert_eq!(batch.image()?.shape(), [2, 1, 8, 9]);
/// assert_eq!(batch.class()?.to_vec::<i64>()?, [2, 0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    /// The names of the cases.
    pub names: Vec<String>,
    fields: Vec<(String, Kind, Collated)>,
}

/// A collated field.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Collated {
    /// One tensor for all samples.
    Tensor(Tensor),
    /// For each sample: its boxes and their classes.
    Boxes(Vec<(Tensor, Tensor)>),
    /// For each sample: its points.
    Points(Vec<Tensor>),
}

impl Batch {
    /// Collates samples with the same fields and shapes.
    ///
    /// # Errors
    /// When there are no samples, fields or shapes differ, or memory runs out; the error names the case.
    pub fn collate(samples: &[Sample]) -> Result<Self> {
        let first = samples.first().ok_or_else(|| Error::argument("batch", "no samples").expected("at least one"))?;
        let kinds = |sample: &Sample| -> Vec<(String, Kind)> {
            sample.fields().map(|(name, field)| (name.to_owned(), field.kind())).collect()
        };
        let text = |kinds: &[(String, Kind)]| match kinds {
            [] => "no fields".to_owned(),
            kinds => kinds.iter().map(|(name, kind)| format!("{name} ({kind})")).collect::<Vec<_>>().join(", "),
        };
        let expected = kinds(first);
        for sample in samples {
            let found = kinds(sample);
            let mut sorted = [&found, &expected].map(|kinds| kinds.iter().collect::<Vec<_>>());
            sorted.iter_mut().for_each(|kinds| kinds.sort_by_key(|(name, _)| name));
            if sorted[0] != sorted[1] {
                return Err(Error::argument("batch", format!("a sample with {}", text(&found)))
                    .expected(format!("{}, as case {} has", text(&expected), first.name))
                    .within(format!("case {}", sample.name)));
            }
        }
        let fields = expected.into_iter().map(|(name, kind)| {
            let collated = collated(samples, &name, kind)?;
            Ok((name, kind, collated))
        });
        Ok(Self {
            fields: fields.collect::<Result<_>>()?,
            names: samples.iter().map(|sample| sample.name.clone()).collect(),
        })
    }

    /// The images, f32 `(N, C, D, H, W)` or `(N, C, H, W)`: the field `image`, or the only image field.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `image`.
    pub fn image(&self) -> Result<&Tensor> {
        self.only(Kind::Image)
    }

    /// The class numbers of the voxels, i64 `(N, D, H, W)` or `(N, H, W)`: the field `label`, or the only label field.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `label`.
    pub fn label(&self) -> Result<&Tensor> {
        self.only(Kind::Label)
    }

    /// The classes of the samples, i64 `(N)`: the field `class`, or the only class field.
    ///
    /// # Errors
    /// When there is none, or there are several and none is called `class`.
    pub fn class(&self) -> Result<&Tensor> {
        self.only(Kind::Class)
    }

    /// The batch on `device`: every field that isn't there yet is copied.
    ///
    /// # Errors
    /// When the device can't be used, or memory runs out.
    pub fn to(&self, device: Device) -> Result<Self> {
        let fields = self.fields.iter().map(|(name, kind, field)| Ok((name.clone(), *kind, field.to(device)?)));
        Ok(Self { names: self.names.clone(), fields: fields.collect::<Result<_>>()? })
    }

    fn only(&self, kind: Kind) -> Result<&Tensor> {
        let fields = self.fields.iter().map(|(name, kind, field)| (name.as_str(), *kind, (name, field)));
        let (name, field) = only("batch", kind, fields)?;
        field.tensor(name)
    }

    /// Names and values of the fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Collated)> {
        self.fields.iter().map(|(name, _, field)| (name.as_str(), field))
    }

    /// The field called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names and the nearest one.
    pub fn get(&self, name: &str) -> Result<&Collated> {
        let found = self.fields().find(|(known, _)| *known == name).map(|(_, field)| field);
        found.ok_or_else(|| names::unknown("batch", "field", name, self.fields().map(|(name, _)| name)))
    }

    /// The tensor called `name`: an image, label, class, labels or numbers field.
    ///
    /// # Errors
    /// When it doesn't exist, or is a field of boxes or points.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.get(name)?.tensor(name)
    }

    /// The boxes called `name`: for each sample f32 `(boxes, 2 · axes)` and the classes, i64 `(boxes)`.
    ///
    /// # Errors
    /// When it doesn't exist, or is of another kind.
    pub fn boxes(&self, name: &str) -> Result<&[(Tensor, Tensor)]> {
        match self.get(name)? {
            Collated::Boxes(boxes) => Ok(boxes),
            other => Err(other.instead(name, "boxes")),
        }
    }

    /// The points called `name`: for each sample f32 `(points, axes)`.
    ///
    /// # Errors
    /// When it doesn't exist, or is of another kind.
    pub fn points(&self, name: &str) -> Result<&[Tensor]> {
        match self.get(name)? {
            Collated::Points(points) => Ok(points),
            other => Err(other.instead(name, "points")),
        }
    }
}

impl Collated {
    fn to(&self, device: Device) -> Result<Self> {
        Ok(match self {
            Self::Tensor(tensor) => Self::Tensor(tensor.to(device)?),
            Self::Boxes(boxes) => Self::Boxes(
                boxes
                    .iter()
                    .map(|(corners, classes)| Ok((corners.to(device)?, classes.to(device)?)))
                    .collect::<Result<_>>()?,
            ),
            Self::Points(points) => Self::Points(points.iter().map(|points| points.to(device)).collect::<Result<_>>()?),
        })
    }

    fn instead(&self, name: &str, expected: &str) -> Error {
        let found = match self {
            Self::Tensor(_) => "one tensor",
            Self::Boxes(_) => "boxes",
            Self::Points(_) => "points",
        };
        Error::argument("batch", format!("the field {name} holds {found}")).expected(expected)
    }

    fn tensor(&self, name: &str) -> Result<&Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(tensor),
            other => Err(other.instead(name, "one tensor for all samples")),
        }
    }
}

/// Collates the field called `name`, which all samples have with the same kind.
fn collated(samples: &[Sample], name: &str, kind: Kind) -> Result<Collated> {
    let fields = || samples.iter().map(|sample| Ok((sample, sample.get(name)?)));
    match kind {
        Kind::Boxes | Kind::Points => {
            let (mut boxes, mut points) = (Vec::new(), Vec::new());
            for field in fields() {
                match field?.1 {
                    Field::Boxes(all) => {
                        boxes.push((all.corners()?, Tensor::from_slice(all.classes(), &[all.len()], Device::Cpu)?))
                    }
                    Field::Points(all) => points.push(all.coordinates()?),
                    _ => {}
                }
            }
            return Ok(if kind == Kind::Boxes { Collated::Boxes(boxes) } else { Collated::Points(points) });
        }
        _ => {}
    }
    let mut shape = None;
    for field in fields() {
        let (sample, field) = field?;
        let found = field.shape();
        let (first, expected) = shape.get_or_insert_with(|| (&sample.name, found.clone()));
        if *expected != found {
            return Err(Error::shape("batch", format!("another shape of {name} than that of case {first}"))
                .expected("samples of one shape (see CropOrPad)")
                .shapes([&found[..], expected])
                .within(format!("case {}", sample.name)));
        }
    }
    let (_, shape) = shape.unwrap_or((&samples[0].name, Vec::new()));
    let each = shape.iter().product::<usize>();
    let dtype = if matches!(kind, Kind::Label | Kind::Class) { DType::I64 } else { DType::F32 };
    let mut whole = Tensor::zeros(&[&[samples.len()], &shape[..]].concat(), dtype, Device::Cpu)?;
    for (place, field) in fields().enumerate() {
        let range = place * each..(place + 1) * each;
        match field?.1 {
            Field::Image(image) => {
                whole.as_mut_slice::<f32>()?[range].copy_from_slice(image.contiguous()?.as_slice::<f32>()?);
            }
            Field::Label(label) => {
                let numbers = label.contiguous()?;
                let numbers = numbers.as_slice::<u8>()?.iter().map(|&class| i64::from(class));
                whole.as_mut_slice::<i64>()?[range].iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
            }
            Field::Class(class) => whole.as_mut_slice::<i64>()?[range].fill(*class),
            Field::Labels(labels) => {
                let labels = labels.iter().map(|&holds| f32::from(u8::from(holds)));
                whole.as_mut_slice::<f32>()?[range].iter_mut().zip(labels).for_each(|(to, from)| *to = from);
            }
            Field::Numbers(numbers) => {
                let numbers = numbers.iter().map(|&number| number as f32);
                whole.as_mut_slice::<f32>()?[range].iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
            }
            Field::Boxes(_) | Field::Points(_) => {}
        }
    }
    Ok(Collated::Tensor(whole))
}
