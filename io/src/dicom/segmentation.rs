//! DICOM segmentation objects (DICOM-SEG), binary: masks that say which series, slices and structures they are of.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use tomograd_core::{DType, Error, Result, Tensor};

use super::{
    OPERATION, fail,
    file::Header,
    image::About,
    stack::{Slice, Stack},
    uid,
    write::Elements,
};
use crate::write_atomically;

/// A coded term, such as `(T-62000, SRT, Liver)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The code, such as `85756007`.
    pub value: String,
    /// The scheme that defines it, such as `SCT` for SNOMED CT.
    pub scheme: String,
    /// What it means, such as `Tissue`.
    pub meaning: String,
}

impl Code {
    /// A coded term.
    pub fn new(value: impl Into<String>, scheme: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { value: value.into(), scheme: scheme.into(), meaning: meaning.into() }
    }

    pub(super) fn item(&self) -> Elements {
        let mut item = Elements::default();
        item.text(tags::CODE_VALUE, b"SH", &self.value).text(tags::CODING_SCHEME_DESIGNATOR, b"SH", &self.scheme).text(
            tags::CODE_MEANING,
            b"LO",
            &self.meaning,
        );
        item
    }

    fn check(&self) -> Result<()> {
        check("code", &self.value, 16)?;
        check("coding scheme", &self.scheme, 16)?;
        check("meaning", &self.meaning, 64)
    }
}

/// A structure of a mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name, such as `Left hippocampus`.
    pub label: String,
    /// Its category, such as `(123037004, SCT, Anatomical Structure)`.
    pub category: Code,
    /// What it is, such as `(72478000, SCT, Hippocampus)`.
    pub kind: Code,
    /// The name of the algorithm that made it.
    pub algorithm: String,
}

impl Segment {
    /// A structure without a code of its own: of the category *Tissue*.
    pub fn new(label: impl Into<String>, algorithm: impl Into<String>) -> Self {
        let tissue = Code::new("85756007", "SCT", "Tissue");
        Self { label: label.into(), category: tissue.clone(), kind: tissue, algorithm: algorithm.into() }
    }

    fn item(&self, number: u16) -> Elements {
        let mut item = Elements::default();
        item.short(tags::SEGMENT_NUMBER, number)
            .text(tags::SEGMENT_LABEL, b"LO", &self.label)
            .text(tags::SEGMENT_ALGORITHM_TYPE, b"CS", "AUTOMATIC")
            .text(tags::SEGMENT_ALGORITHM_NAME, b"LO", &self.algorithm)
            .sequence(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, vec![self.category.item()])
            .sequence(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, vec![self.kind.item()]);
        item
    }
}

/// Refuses what an element can't hold.
fn check(what: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() || text.chars().count() > most || text.contains(['\\']) || text.contains(char::is_control) {
        return Err(Error::argument(OPERATION, format!("a {what} of {text:?}"))
            .expected(format!("1 to {most} letters without \\ and control characters")));
    }
    Ok(())
}

/// The bits of a frame: which voxels have a label.
struct Frame {
    segment: u16,
    slice: usize,
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
        let bytes = self.segmentation(mask, segments)?;
        write_atomically(path.as_ref(), |writer| crate::atomic::write_all(writer, &bytes))
    }

    fn segmentation(&self, mask: &Tensor, segments: &[Segment]) -> Result<Vec<u8>> {
        let [width, height, depth] = self.size();
        if mask.shape() != [depth, height, width] || mask.dtype().is_float() {
            return Err(Error::shape(OPERATION, format!("a mask of {}", mask.dtype()))
                .expected(format!("integers of shape ({depth}, {height}, {width})"))
                .shapes([mask.shape()]));
        }
        if segments.is_empty() || segments.len() > 65535 {
            return Err(Error::argument(OPERATION, format!("{} segments", segments.len())).expected("1 to 65535"));
        }
        for segment in segments {
            check("label", &segment.label, 64)?;
            check("algorithm", &segment.algorithm, 64)?;
            segment.category.check()?;
            segment.kind.check()?;
        }
        let labels = labels(mask, segments.len())?;
        let (frames, pixels) = frames(&labels, width.saturating_mul(height), segments.len());
        let first = self.slices().first().ok_or_else(|| fail("a stack without slices"))?;
        let source = &first.image.source;
        let header = Header::read(source)?;
        let view = header.view();

        let about = &first.image.about;
        let made = |name: &str| made_uid(&[&about.series, &about.instance, name], &pixels, segments);
        let (instance, organization) = (made("instance"), made("dimensions"));
        let mut object = Elements::default();
        // What is the patient's and the study's.
        for (tag, vr) in [
            (tags::PATIENT_NAME, b"PN"),
            (tags::PATIENT_ID, b"LO"),
            (tags::PATIENT_BIRTH_DATE, b"DA"),
            (tags::PATIENT_SEX, b"CS"),
            (tags::STUDY_INSTANCE_UID, b"UI"),
            (tags::STUDY_DATE, b"DA"),
            (tags::STUDY_TIME, b"TM"),
            (tags::REFERRING_PHYSICIAN_NAME, b"PN"),
            (tags::STUDY_ID, b"SH"),
            (tags::ACCESSION_NUMBER, b"SH"),
            (tags::POSITION_REFERENCE_INDICATOR, b"LO"),
        ] {
            object.text(tag, vr, &view.text(tag).unwrap_or_default());
        }
        let dated = |first: Tag, second: Tag, otherwise: &str| {
            view.text(first).or_else(|| view.text(second)).unwrap_or_else(|| otherwise.to_owned())
        };
        let frame_of_reference = about.frame_of_reference.clone().unwrap_or_else(|| made("frame of reference"));
        object
            .text(tags::SPECIFIC_CHARACTER_SET, b"CS", "ISO_IR 192")
            .text(tags::IMAGE_TYPE, b"CS", "DERIVED\\PRIMARY")
            .text(tags::SOP_CLASS_UID, b"UI", uids::SEGMENTATION_STORAGE)
            .text(tags::SOP_INSTANCE_UID, b"UI", &instance)
            .text(tags::MODALITY, b"CS", "SEG")
            .text(tags::SERIES_INSTANCE_UID, b"UI", &made("series"))
            .text(tags::SERIES_NUMBER, b"IS", "1")
            .text(tags::SERIES_DESCRIPTION, b"LO", "Segmentation")
            .text(tags::INSTANCE_NUMBER, b"IS", "1")
            .text(tags::FRAME_OF_REFERENCE_UID, b"UI", &frame_of_reference)
            // The mask says what was so at the time of the source.
            .text(tags::CONTENT_DATE, b"DA", &dated(tags::CONTENT_DATE, tags::STUDY_DATE, "19000101"))
            .text(tags::CONTENT_TIME, b"TM", &dated(tags::CONTENT_TIME, tags::STUDY_TIME, "000000"))
            .text(tags::MANUFACTURER, b"LO", "tomograd")
            .text(tags::MANUFACTURER_MODEL_NAME, b"LO", "tomograd")
            .text(tags::DEVICE_SERIAL_NUMBER, b"LO", "1")
            .text(tags::SOFTWARE_VERSIONS, b"LO", env!("CARGO_PKG_VERSION"))
            .text(tags::CONTENT_LABEL, b"CS", "SEGMENTATION")
            .text(tags::CONTENT_DESCRIPTION, b"LO", "")
            .text(tags::CONTENT_CREATOR_NAME, b"PN", "")
            .text(tags::LOSSY_IMAGE_COMPRESSION, b"CS", "00")
            .text(tags::SEGMENTATION_TYPE, b"CS", "BINARY")
            .text(tags::SEGMENTS_OVERLAP, b"CS", "NO")
            .short(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, b"CS", "MONOCHROME2")
            .text(tags::NUMBER_OF_FRAMES, b"IS", &frames.len().to_string())
            .short(tags::ROWS, height as u16)
            .short(tags::COLUMNS, width as u16)
            .short(tags::BITS_ALLOCATED, 1)
            .short(tags::BITS_STORED, 1)
            .short(tags::HIGH_BIT, 0)
            .short(tags::PIXEL_REPRESENTATION, 0)
            .bytes(tags::PIXEL_DATA, &pixels);
        let items = (1u16..).zip(segments).map(|(number, segment)| segment.item(number)).collect();
        object.sequence(tags::SEGMENT_SEQUENCE, items);
        dimensions(&mut object, &organization);
        self.functional_groups(&mut object, &frames)?;
        object.sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![referenced_series(about, self.slices())]);
        Ok(object.file(uids::SEGMENTATION_STORAGE, &instance))
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
            let mut content = Elements::default();
            let place = u32::try_from(frame.slice).unwrap_or(u32::MAX).saturating_add(1);
            content.long(tags::DIMENSION_INDEX_VALUES, &[frame.segment.into(), place]);
            let (mut plane, mut segment, mut groups) = (Elements::default(), Elements::default(), Elements::default());
            plane.decimals(tags::IMAGE_POSITION_PATIENT, &position);
            segment.short(tags::REFERENCED_SEGMENT_NUMBER, frame.segment);
            groups
                .sequence(tags::FRAME_CONTENT_SEQUENCE, vec![content])
                .sequence(tags::PLANE_POSITION_SEQUENCE, vec![plane])
                .sequence(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![segment])
                .sequence(tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation(slice)]);
            each.push(groups);
        }
        object.sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, each);
        Ok(())
    }
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

/// The frames: those with voxels, of each segment and slice; the first if there is none. And their bits, the first in the lowest
/// bit of the first byte.
fn frames(labels: &[u16], plane: usize, segments: usize) -> (Vec<Frame>, Vec<u8>) {
    let slices: Vec<&[u16]> = labels.chunks_exact(plane.max(1)).collect();
    let (mut frames, mut bytes, mut bits) = (Vec::new(), Vec::new(), 0usize);
    for segment in (1u16..).take(segments) {
        for (slice, voxels) in slices.iter().enumerate() {
            if !voxels.contains(&segment) {
                continue;
            }
            frames.push(Frame { segment, slice });
            for &voxel in *voxels {
                if bits.is_multiple_of(8) {
                    bytes.push(0);
                }
                if let Some(last) = bytes.last_mut() {
                    *last |= u8::from(voxel == segment) << (bits % 8);
                }
                bits = bits.saturating_add(1);
            }
        }
    }
    if frames.is_empty() {
        frames.push(Frame { segment: 1, slice: 0 });
        bytes.resize(plane.div_ceil(8), 0);
    }
    (frames, bytes)
}

/// Frames are ordered by segment, then by place.
fn dimensions(object: &mut Elements, organization: &str) {
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
    object.sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![whole]).sequence(
        tags::DIMENSION_INDEX_SEQUENCE,
        vec![
            index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE),
            index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE),
        ],
    );
}

/// The image of a slice, referred to.
fn reference(slice: &Slice) -> Elements {
    let mut reference = Elements::default();
    reference.text(tags::REFERENCED_SOP_CLASS_UID, b"UI", &slice.image.about.class).text(
        tags::REFERENCED_SOP_INSTANCE_UID,
        b"UI",
        &slice.image.about.instance,
    );
    reference
}

/// That a frame was made from a slice by segmentation.
fn derivation(slice: &Slice) -> Elements {
    let mut source = reference(slice);
    if slice.image.frames.len() > 1 {
        source.text(tags::REFERENCED_FRAME_NUMBER, b"IS", &slice.frame.saturating_add(1).to_string());
    }
    let purpose = Code::new("121322", "DCM", "Source image for image processing operation");
    source.text(tags::SPATIAL_LOCATIONS_PRESERVED, b"CS", "YES");
    source.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, vec![purpose.item()]);
    let mut derivation = Elements::default();
    derivation
        .sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source])
        .sequence(tags::DERIVATION_CODE_SEQUENCE, vec![Code::new("113076", "DCM", "Segmentation").item()]);
    derivation
}

fn referenced_series(about: &About, slices: &[Slice]) -> Elements {
    let mut instances: Vec<Elements> = Vec::new();
    let mut last = None;
    for slice in slices {
        if last != Some(&slice.image.about.instance) {
            instances.push(reference(slice));
            last = Some(&slice.image.about.instance);
        }
    }
    let mut series = Elements::default();
    series
        .text(tags::SERIES_INSTANCE_UID, b"UI", &about.series)
        .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    series
}

/// A UID that follows from the source, the mask and its segments.
fn made_uid(names: &[&str], pixels: &[u8], segments: &[Segment]) -> String {
    let labels = segments.iter().map(|segment| segment.label.as_bytes());
    uid::of_parts(names.iter().map(|name| name.as_bytes()).chain([pixels]).chain(labels))
}
