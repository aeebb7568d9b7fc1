//! Masks into segmentations.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use tomograd_core::{DType, Error, Result, Tensor};

use super::{
    super::{
        OPERATION,
        code::Code,
        fail,
        object::{self, Object, check_shape},
        stack::{Slice, Stack},
        write::Elements,
    },
    Segment, SegmentationType,
};
use crate::write_atomically;

/// The value of a whole voxel, or of certainty.
const WHOLE: u16 = 255;

/// A frame: the voxels of a segment, or of all of them, in a slice.
struct Frame {
    /// `None` in a label map.
    segment: Option<u16>,
    slice: usize,
}

/// Frames, and the bytes of their pixels.
struct Pixels {
    frames: Vec<Frame>,
    bytes: Vec<u8>,
    /// Bits of a pixel: 1, 8 or 16.
    bits: u16,
    overlap: bool,
}

impl Stack {
    /// Writes a mask (D, H, W) of this stack as a binary DICOM segmentation. Voxels of label i > 0 belong to `segments[i − 1]`, those of 0
    /// to none. Slices without a voxel of a segment are left out. The object has the patient, study and frame of reference
    /// of the stack's first file and refers to each slice's. Its UIDs follow from the mask and the source, so that the same
    /// mask is the same object.
    ///
    /// ```no_run
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::dicom::{Code, Listing, Segment};
    /// let listing = Listing::open("study")?;
    /// let stack = listing.only()?.stack()?;
    /// let [width, height, depth] = stack.size();
    /// let mask = Tensor::ones(&[depth, height, width], DType::U8, Device::Cpu)?;
    /// let liver = Segment {
    ///     category: Code::new("123037004", "SCT", "Anatomical Structure"),
    ///     kind: Code::new("10200004", "SCT", "Liver"),
    ///     ..Segment::new("Liver", "tomograd")
    /// };
    /// stack.write_segmentation("liver.dcm", &mask, &[liver])?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the mask isn't of the stack's size or has a label without a segment, a text is too long, slices have no place, or the
    /// file can't be written.
    pub fn write_segmentation(&self, path: impl AsRef<Path>, mask: &Tensor, segments: &[Segment]) -> Result<()> {
        check(self, segments.iter(), [mask])?;
        if mask.dtype().is_float() {
            return Err(Error::argument(OPERATION, format!("a mask of {}", mask.dtype())).expected("integers"));
        }
        let labels = labels(mask, segments.len())?;
        let masks: Vec<Vec<u16>> =
            (1u16..).take(segments.len()).map(|number| select(&labels, |label| label == number)).collect();
        let segments: Vec<&Segment> = segments.iter().collect();
        self.write(path.as_ref(), &segments, &masks, SegmentationType::Binary)
    }

    /// As [`Stack::write_segmentation`], with a mask for each segment, which may overlap unless they become a label map. Of binary ones and
    /// label maps, the voxels that aren't 0 belong to the segment; of fractional ones, values are from 0 to 1.
    ///
    /// # Errors
    /// As [`Stack::write_segmentation`], and when fractions aren't from 0 to 1, or segments of a label map overlap.
    pub fn write_segments(
        &self,
        path: impl AsRef<Path>,
        segments: &[(Segment, &Tensor)],
        kind: SegmentationType,
    ) -> Result<()> {
        check(self, segments.iter().map(|(segment, _)| segment), segments.iter().map(|(_, mask)| *mask))?;
        let mut masks = Vec::new();
        for (segment, mask) in segments {
            let values = mask.to_vec_f64()?;
            let fractional = matches!(kind, SegmentationType::Probability | SegmentationType::Occupancy);
            let wrong = values.iter().find(|value| !(0.0..=1.0).contains(*value)).filter(|_| fractional);
            if let Some(value) = wrong {
                return Err(Error::argument(OPERATION, format!("{value} in segment {:?}", segment.label))
                    .expected("fractions from 0 to 1"));
            }
            let whole = if fractional { f64::from(WHOLE) } else { 1.0 };
            let stored = |value: f64| if fractional { (value * whole).round() as u16 } else { u16::from(value != 0.0) };
            masks.push(values.into_iter().map(stored).collect());
        }
        let segments: Vec<&Segment> = segments.iter().map(|(segment, _)| segment).collect();
        self.write(path.as_ref(), &segments, &masks, kind)
    }

    fn write(&self, path: &Path, segments: &[&Segment], masks: &[Vec<u16>], kind: SegmentationType) -> Result<()> {
        let bytes = self.segmentation(segments, masks, kind)?;
        write_atomically(path, |writer| crate::atomic::write_all(writer, &bytes))
    }

    fn segmentation(&self, segments: &[&Segment], masks: &[Vec<u16>], kind: SegmentationType) -> Result<Vec<u8>> {
        let [width, height, _] = self.size();
        let plane = width.saturating_mul(height);
        let pixels = match kind {
            SegmentationType::LabelMap => label_map(masks, plane)?,
            _ => planes(masks, plane, kind == SegmentationType::Binary),
        };
        let class = match kind {
            SegmentationType::LabelMap => uids::LABEL_MAP_SEGMENTATION_STORAGE,
            _ => uids::SEGMENTATION_STORAGE,
        };
        let named: Vec<&[u8]> = segments.iter().map(|segment| segment.label.as_bytes()).collect();
        let kind_of = [kind as u8];
        let content: Vec<&[u8]> = [&kind_of[..], &pixels.bytes].into_iter().chain(named).collect();
        let mut object = Object::of(self, class, "SEG", "Segmentation", &content)?;
        object.content_date().frame_of_reference();
        let organization = object.uid("dimensions");
        let elements = &mut object.elements;
        let (name, fraction) = match kind {
            SegmentationType::Binary => ("BINARY", None),
            SegmentationType::Probability => ("FRACTIONAL", Some("PROBABILITY")),
            SegmentationType::Occupancy => ("FRACTIONAL", Some("OCCUPANCY")),
            SegmentationType::LabelMap => ("LABELMAP", None),
        };
        if let Some(fraction) = fraction {
            elements
                .text(tags::SEGMENTATION_FRACTIONAL_TYPE, b"CS", fraction)
                .short(tags::MAXIMUM_FRACTIONAL_VALUE, WHOLE);
        }
        elements
            .text(tags::IMAGE_TYPE, b"CS", "DERIVED\\PRIMARY")
            .text(tags::CONTENT_LABEL, b"CS", "SEGMENTATION")
            .text(tags::CONTENT_DESCRIPTION, b"LO", "")
            .text(tags::CONTENT_CREATOR_NAME, b"PN", "")
            .text(tags::LOSSY_IMAGE_COMPRESSION, b"CS", "00")
            .text(tags::SEGMENTATION_TYPE, b"CS", name)
            .text(tags::SEGMENTS_OVERLAP, b"CS", if pixels.overlap { "YES" } else { "NO" })
            .short(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, b"CS", "MONOCHROME2")
            .text(tags::NUMBER_OF_FRAMES, b"IS", &pixels.frames.len().to_string())
            .short(tags::ROWS, height as u16)
            .short(tags::COLUMNS, width as u16)
            .short(tags::BITS_ALLOCATED, pixels.bits)
            .short(tags::BITS_STORED, pixels.bits)
            .short(tags::HIGH_BIT, pixels.bits - 1)
            .short(tags::PIXEL_REPRESENTATION, 0)
            .put(tags::PIXEL_DATA, if pixels.bits == 16 { b"OW" } else { b"OB" }, &pixels.bytes);
        let mut items: Vec<Elements> = (1u16..).zip(segments).map(|(number, segment)| segment.item(number)).collect();
        if kind == SegmentationType::LabelMap {
            let background = Code::new("125040", "DCM", "Background");
            let algorithm = segments.first().map_or("", |segment| &segment.algorithm);
            let segment =
                Segment { category: background.clone(), kind: background, ..Segment::new("Background", algorithm) };
            items.insert(0, segment.item(0));
            elements.short(tags::PIXEL_PADDING_VALUE, 0);
        }
        elements.sequence(tags::SEGMENT_SEQUENCE, items);
        dimensions(elements, &organization, kind);
        self.functional_groups(elements, &pixels.frames)?;
        let series = object::referenced_series(&self.image()?.about, self.slices());
        elements.sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![series]);
        Ok(object.file())
    }

    /// What frames share, and what each has.
    fn functional_groups(&self, object: &mut Elements, frames: &[Frame]) -> Result<()> {
        let detail = self.slices().first().and_then(Slice::detail);
        let (Some(orientation), Some(spacing)) =
            (detail.and_then(|detail| detail.orientation), detail.and_then(|detail| detail.spacing))
        else {
            return Err(fail("a segmentation of slices without orientation and spacing"));
        };
        let [.., between] = crate::geometry::spacing(self.affine());
        let (mut measures, mut plane, mut shared) = (Elements::default(), Elements::default(), Elements::default());
        let thickness = detail.and_then(|detail| detail.thickness).unwrap_or(between);
        measures
            .decimals(tags::SLICE_THICKNESS, &[thickness])
            .decimals(tags::SPACING_BETWEEN_SLICES, &[between])
            .decimals(tags::PIXEL_SPACING, &spacing);
        plane.decimals(tags::IMAGE_ORIENTATION_PATIENT, &orientation);
        shared
            .sequence(tags::PIXEL_MEASURES_SEQUENCE, vec![measures])
            .sequence(tags::PLANE_ORIENTATION_SEQUENCE, vec![plane]);
        object.sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]);
        let mut each = Vec::new();
        for frame in frames {
            let slice = self.slices().get(frame.slice).ok_or_else(|| fail("a slice that isn't there"))?;
            let position = slice.position().ok_or_else(|| fail("a segmentation of slices without places"))?;
            let place = u32::try_from(frame.slice).unwrap_or(u32::MAX).saturating_add(1);
            let (mut content, mut plane, mut groups) = (Elements::default(), Elements::default(), Elements::default());
            let index: Vec<u32> = frame.segment.map(u32::from).into_iter().chain([place]).collect();
            content.long(tags::DIMENSION_INDEX_VALUES, &index);
            plane.decimals(tags::IMAGE_POSITION_PATIENT, &position);
            groups
                .sequence(tags::FRAME_CONTENT_SEQUENCE, vec![content])
                .sequence(tags::PLANE_POSITION_SEQUENCE, vec![plane])
                .sequence(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation(slice)]);
            if let Some(number) = frame.segment {
                let mut segment = Elements::default();
                segment.short(tags::REFERENCED_SEGMENT_NUMBER, number);
                groups.sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment]);
            }
            each.push(groups);
        }
        object.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, each);
        Ok(())
    }
}

fn check<'a>(
    stack: &Stack,
    segments: impl ExactSizeIterator<Item = &'a Segment>,
    masks: impl IntoIterator<Item = &'a Tensor>,
) -> Result<()> {
    if segments.len() == 0 || segments.len() > 65535 {
        return Err(Error::argument(OPERATION, format!("{} segments", segments.len())).expected("1 to 65535"));
    }
    segments.map(Segment::check).collect::<Result<Vec<()>>>()?;
    masks.into_iter().try_for_each(|mask| check_shape(stack, mask))
}

fn select(labels: &[u16], wanted: impl Fn(u16) -> bool) -> Vec<u16> {
    labels.iter().map(|&label| u16::from(wanted(label))).collect()
}

/// The labels of a mask, each of which has a segment.
fn labels(mask: &Tensor, segments: usize) -> Result<Vec<u16>> {
    let values = match mask.dtype() {
        DType::U8 | DType::Bool | DType::I32 | DType::I64 => mask.to_vec_f64()?,
        _ => return Err(fail("a mask that isn't of integers")),
    };
    let label = |value: f64| {
        let label = (0.0..=segments as f64).contains(&value).then_some(value as u16);
        label.ok_or_else(|| {
            Error::argument(OPERATION, format!("label {value}"))
                .expected(format!("0 to {segments}, the number of segments"))
        })
    };
    values.into_iter().map(label).collect()
}

/// Frames with voxels, of each segment and slice; the first if there is none. Of binary ones, the first voxel is the lowest bit of the
/// first byte, and frames follow each other without a gap.
fn planes(masks: &[Vec<u16>], plane: usize, binary: bool) -> Pixels {
    let (mut frames, mut bytes, mut bits) = (Vec::new(), Vec::new(), 0usize);
    for (number, mask) in (1u16..).zip(masks) {
        for (slice, voxels) in mask.chunks_exact(plane.max(1)).enumerate() {
            if voxels.iter().all(|&voxel| voxel == 0) {
                continue;
            }
            frames.push(Frame { segment: Some(number), slice });
            for &voxel in voxels {
                if !binary {
                    bytes.push(voxel as u8);
                    continue;
                }
                if bits.is_multiple_of(8) {
                    bytes.push(0);
                }
                if let Some(last) = bytes.last_mut() {
                    *last |= u8::from(voxel != 0) << (bits % 8);
                }
                bits = bits.saturating_add(1);
            }
        }
    }
    if frames.is_empty() {
        frames.push(Frame { segment: Some(1), slice: 0 });
        bytes.resize(if binary { plane.div_ceil(8) } else { plane }, 0);
    }
    Pixels { frames, bytes, bits: if binary { 1 } else { 8 }, overlap: overlap(masks).is_some() }
}

/// The first voxel that two segments have.
fn overlap(masks: &[Vec<u16>]) -> Option<usize> {
    let count = masks.first().map_or(0, Vec::len);
    let mut taken = vec![false; count];
    for mask in masks {
        for (i, (taken, &voxel)) in taken.iter_mut().zip(mask).enumerate() {
            if *taken && voxel != 0 {
                return Some(i);
            }
            *taken |= voxel != 0;
        }
    }
    None
}

/// Frames with voxels of any segment, which hold the numbers of segments.
fn label_map(masks: &[Vec<u16>], plane: usize) -> Result<Pixels> {
    if let Some(voxel) = overlap(masks) {
        return Err(fail(format!("two segments have voxel {voxel}"))
            .expected("segments apart, or another type than a label map"));
    }
    let mut labels = vec![0u16; masks.first().map_or(0, Vec::len)];
    for (number, mask) in (1u16..).zip(masks) {
        labels.iter_mut().zip(mask).filter(|(_, voxel)| **voxel != 0).for_each(|(label, _)| *label = number);
    }
    let wide = masks.len() > 255;
    let (mut frames, mut bytes) = (Vec::new(), Vec::new());
    for (slice, voxels) in labels.chunks_exact(plane.max(1)).enumerate() {
        if voxels.iter().any(|&voxel| voxel != 0) {
            frames.push(Frame { segment: None, slice });
            bytes.extend(voxels.iter().flat_map(|voxel| voxel.to_le_bytes().into_iter().take(1 + usize::from(wide))));
        }
    }
    if frames.is_empty() {
        frames.push(Frame { segment: None, slice: 0 });
        bytes.resize(plane * (1 + usize::from(wide)), 0);
    }
    Ok(Pixels { frames, bytes, bits: if wide { 16 } else { 8 }, overlap: false })
}

/// Frames are ordered by segment, if they are of one, then by place.
fn dimensions(object: &mut Elements, organization: &str, kind: SegmentationType) {
    let mut whole = Elements::default();
    whole.text(tags::DIMENSION_ORGANIZATION_UID, b"UI", organization);
    let index = |to: Tag, group: Tag| {
        let mut index = Elements::default();
        index
            .text(tags::DIMENSION_ORGANIZATION_UID, b"UI", organization)
            .pointer(tags::DIMENSION_INDEX_POINTER, to)
            .pointer(tags::FUNCTIONAL_GROUP_POINTER, group);
        index
    };
    let mut indices = vec![index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE)];
    if kind != SegmentationType::LabelMap {
        indices.insert(0, index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE));
    }
    object
        .sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![whole])
        .sequence(tags::DIMENSION_INDEX_SEQUENCE, indices);
}

/// That a frame was made from a slice by segmentation.
fn derivation(slice: &Slice) -> Elements {
    let mut source = object::frame_reference(slice);
    let purpose = Code::new("121322", "DCM", "Source image for image processing operation");
    source.text(tags::SPATIAL_LOCATIONS_PRESERVED, b"CS", "YES");
    source.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose.item()]);
    let mut derivation = Elements::default();
    derivation
        .sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source])
        .sequence(tags::DERIVATION_CODE_SEQUENCE, vec![Code::new("113076", "DCM", "Segmentation").item()]);
    derivation
}
