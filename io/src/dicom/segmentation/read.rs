//! Segmentations into masks.

use std::{path::Path, sync::Arc};

use dicom_dictionary_std::{tags, uids};
use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{
    super::{
        fail,
        file::{Header, Source},
        geometry::{dot, length, minus, normal},
        image::{Image, Photometric},
        pixels::{Pixels, Values},
        stack::{Slice, Stack},
    },
    Segment, SegmentationType,
};
use crate::{Volume, geometry};

/// A DICOM segmentation.
///
/// ```no_run
/// use tomograd_io::dicom::{Listing, Segmentation};
/// let segmentation = Segmentation::open("segmentation.dcm")?;
/// let listing = Listing::open("study")?;
/// let stack = listing.find(&segmentation.series()[0])?.stack()?; // the series that was segmented
/// for (number, segment) in segmentation.segments() {
///     let mask = segmentation.mask(*number, stack)?;
///     println!("{} {:?}", segment.label, mask.voxels().shape());
/// }
/// let labels = segmentation.labels(stack)?; // all at once, where they don't overlap
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Segmentation {
    kind: SegmentationType,
    segments: Vec<(u16, Segment)>,
    series: Vec<String>,
    image: Arc<Image>,
    /// The segment of each frame; of label maps none.
    frames: Vec<Option<u16>>,
    /// The value of a whole voxel, of fractions.
    whole: f64,
}

impl Segmentation {
    /// Reads what a file says; its pixels are read with the masks.
    ///
    /// # Errors
    /// When it isn't a segmentation, is damaged, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of(Source::File(path.as_ref().into()))
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// As [`Segmentation::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::of(Source::Memory(bytes.into()))
    }

    fn of(source: Source) -> Result<Self> {
        let header = Header::read(&source).map_err(|error| source.name(error))?;
        Self::parsed(source.clone(), &header).map_err(|error| source.name(error))
    }

    fn parsed(source: Source, header: &Header) -> Result<Self> {
        let view = header.view();
        let text = |tag| view.text(tag).unwrap_or_default();
        let class = text(tags::SOP_CLASS_UID);
        if class != uids::SEGMENTATION_STORAGE && class != uids::LABEL_MAP_SEGMENTATION_STORAGE {
            return Err(fail(format!("an object of class {class:?}")).expected("a segmentation"));
        }
        let kind = match (&*text(tags::SEGMENTATION_TYPE), &*text(tags::SEGMENTATION_FRACTIONAL_TYPE)) {
            ("BINARY", _) => SegmentationType::Binary,
            ("FRACTIONAL", "OCCUPANCY") => SegmentationType::Occupancy,
            ("FRACTIONAL", _) => SegmentationType::Probability,
            ("LABELMAP", _) => SegmentationType::LabelMap,
            (other, _) => {
                return Err(
                    fail(format!("a segmentation of type {other:?}")).expected("BINARY, FRACTIONAL or LABELMAP")
                );
            }
        };
        let mut segments = view.items(tags::SEGMENT_SEQUENCE).map(Segment::of).collect::<Result<Vec<_>>>()?;
        let background = view.number(tags::PIXEL_PADDING_VALUE)?.unwrap_or(0.0);
        if kind == SegmentationType::LabelMap {
            segments.retain(|(number, _)| f64::from(*number) != background);
        }
        let mut numbers: Vec<u16> = segments.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(fail("two segments of one number"));
        }
        let whole = view.number(tags::MAXIMUM_FRACTIONAL_VALUE)?.unwrap_or(255.0);
        if !(1.0..=65535.0).contains(&whole) {
            return Err(fail(format!("a maximum fractional value of {whole}")).expected("1 to 65535"));
        }
        let series = view.items(tags::REFERENCED_SERIES_SEQUENCE);
        let series = series.filter_map(|series| series.text(tags::SERIES_INSTANCE_UID)).collect();
        let mut image = Image::of(source, header)?;
        // The numbers are wanted, not their colours.
        if kind == SegmentationType::LabelMap && image.format.photometric == Photometric::Palette {
            image.format.photometric = Photometric::Monochrome2;
            image.format.palette = None;
        }
        if image.format.photometric.coloured() || image.format.float {
            return Err(fail("a segmentation of colours or floating-point numbers"));
        }
        let frames = image
            .frames
            .iter()
            .map(|frame| {
                let number = frame.segment().and_then(|number| number.parse::<u16>().ok());
                match (kind, number) {
                    (SegmentationType::LabelMap, _) => Ok(None),
                    (_, Some(number)) if numbers.binary_search(&number).is_ok() => Ok(Some(number)),
                    (_, number) => Err(fail(format!("a frame of segment {number:?}, which the file doesn't describe"))),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { kind, segments, series, image: Arc::new(image), frames, whole })
    }

    /// How it holds its voxels.
    pub fn kind(&self) -> SegmentationType {
        self.kind
    }

    /// The segments by number, without the background.
    pub fn segments(&self) -> &[(u16, Segment)] {
        &self.segments
    }

    /// The UIDs of the series that were segmented, as the file says.
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// The mask of a segment in the voxels of a stack: u8, 0 or 1; of fractions f32, from 0 to 1. Slices without a frame are 0.
    ///
    /// # Errors
    /// When there is no such segment, or a frame isn't one of the stack's slices: of another frame of reference, size, spacing,
    /// orientation or place.
    pub fn mask(&self, number: u16, stack: &Stack) -> Result<Volume> {
        if !self.segments.iter().any(|(known, _)| *known == number) {
            let known: Vec<String> = self.segments.iter().take(50).map(|(known, _)| known.to_string()).collect();
            return Err(fail(format!("segment {number}")).expected(format!("one of {}", known.join(", "))));
        }
        match self.kind {
            SegmentationType::Binary => self.filled(stack, DType::U8, Some(number), |to: &mut u8, value| {
                *to |= u8::from(value != 0.0);
                Ok(())
            }),
            SegmentationType::LabelMap => self.filled(stack, DType::U8, None, |to: &mut u8, value| {
                *to = u8::from(value == f64::from(number));
                Ok(())
            }),
            _ => self.filled(stack, DType::F32, Some(number), |to: &mut f32, value| {
                *to = (value / self.whole) as f32;
                Ok(())
            }),
        }
    }

    /// The numbers of segments in the voxels of a stack: i32, 0 where there is none.
    ///
    /// # Errors
    /// As [`Segmentation::mask`]; when segments overlap, or are fractions.
    pub fn labels(&self, stack: &Stack) -> Result<Volume> {
        match self.kind {
            SegmentationType::Binary => {
                let mut all = Tensor::zeros(&self.shape(stack), DType::I32, Device::Cpu)?;
                for (number, segment) in &self.segments {
                    let mask = self.mask(*number, stack)?;
                    let labels = all.as_mut_slice::<i32>()?;
                    for (label, &inside) in labels.iter_mut().zip(mask.voxels().as_slice::<u8>()?) {
                        if inside != 0 && *label != 0 {
                            return Err(fail(format!("segments {label} and {number} ({:?}) overlap", segment.label))
                                .expected("a mask for each"));
                        }
                        *label += i32::from(inside) * i32::from(*number);
                    }
                }
                Volume::new(all, *stack.affine())
            }
            SegmentationType::LabelMap => self.filled(stack, DType::I32, None, |to: &mut i32, value| {
                let known = self.segments.iter().any(|(number, _)| f64::from(*number) == value);
                *to = if known { value as i32 } else { 0 };
                Ok(())
            }),
            _ => Err(fail("fractions").expected("a binary segmentation or a label map, or a mask for each segment")),
        }
    }

    pub(in crate::dicom) fn image(&self) -> &Image {
        &self.image
    }

    fn shape(&self, stack: &Stack) -> [usize; 3] {
        let [width, height, depth] = stack.size();
        [depth, height, width]
    }

    /// A volume of the stack's grid, to whose voxels `put` puts those of the frames of a segment.
    fn filled<T: tomograd_core::Element>(
        &self,
        stack: &Stack,
        dtype: DType,
        segment: Option<u16>,
        put: impl Fn(&mut T, f64) -> Result<()>,
    ) -> Result<Volume> {
        let within = |error: Error| self.image.source.name(error);
        if stack.is_uneven() {
            return Err(fail("a series whose slices are at differing distances").expected("even ones"));
        }
        let frame_of_reference = &stack.image()?.about.frame_of_reference;
        if let (Some(own), Some(other)) = (&self.image.about.frame_of_reference, frame_of_reference)
            && own != other
        {
            return Err(within(
                fail(format!("frame of reference {own}")).expected(format!("{other}, that of the series")),
            ));
        }
        let [depth, height, width] = self.shape(stack);
        let format = &self.image.format;
        if (format.rows, format.columns) != (height, width) {
            return Err(within(
                fail(format!("frames of {} × {}", format.columns, format.rows))
                    .expected(format!("{width} × {height}, as slices of the series")),
            ));
        }
        let plane = width.saturating_mul(height);
        let mut voxels = Tensor::zeros(&[depth, height, width], dtype, Device::Cpu)?;
        let all = voxels.as_mut_slice::<T>()?;
        let pixels = Pixels::open(&self.image).map_err(within)?;
        for (at, number) in self.frames.iter().enumerate() {
            if *number != segment {
                continue;
            }
            let slice = Slice { image: self.image.clone(), frame: at };
            let k = place(&slice, stack).map_err(within)?;
            let Values::Whole(values) = pixels.frame(at).map_err(within)? else {
                return Err(within(fail("floating-point pixels")));
            };
            let part = all.get_mut(k.saturating_mul(plane)..k.saturating_add(1).saturating_mul(plane));
            for (to, &value) in part.unwrap_or_default().iter_mut().zip(values.iter()) {
                put(to, f64::from(value as u32))?;
            }
        }
        Volume::new(voxels, *stack.affine())
    }
}

/// The number of the slice of a stack in which a frame lies.
fn place(frame: &Slice, stack: &Stack) -> Result<usize> {
    let first = stack.slices().first().and_then(Slice::detail);
    let (Some(position), Some(own), Some(other)) = (frame.position(), frame.detail(), first) else {
        return Err(fail("a frame without a place"));
    };
    let (Some(orientation), Some(expected)) = (own.orientation, other.orientation) else {
        return Err(fail("frames or slices without orientation"));
    };
    let (Some(spacing), Some(wanted)) = (own.spacing, other.spacing) else {
        return Err(fail("frames or slices without a pixel spacing"));
    };
    let close = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by);
    if !close(&orientation, &expected, 1e-3)
        || !close(&spacing, &wanted, 1e-3 * wanted.iter().fold(1e-6, |a, b| b.max(a)))
    {
        return Err(fail(format!("a frame of orientation {orientation:?} and spacing {spacing:?}"))
            .expected(format!("{expected:?} and {wanted:?}, those of the series")));
    }
    let [.., between] = geometry::spacing(stack.affine());
    let near = |slice: &Slice| slice.position().map_or(f64::INFINITY, |place| length(minus(place, position)));
    let (k, distance) = stack
        .slices()
        .iter()
        .map(near)
        .enumerate()
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .ok_or_else(|| fail("a stack without slices"))?;
    // A tenth of a voxel.
    let [rows, columns] = wanted;
    if distance > 0.1 * rows.min(columns).min(between) {
        let along = dot(position, normal(&expected));
        return Err(fail(format!("a frame at {position:?} ({along:.3} mm along the normal)"))
            .expected(format!("the place of a slice; the nearest is {distance:.3} mm away")));
    }
    Ok(k)
}
