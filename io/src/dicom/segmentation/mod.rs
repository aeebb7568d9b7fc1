//! DICOM segmentation objects (DICOM-SEG): masks that say which series, slices and structures they are of.

mod read;
mod write;

use dicom_dictionary_std::tags;
use tomograd_core::Result;

pub use read::Segmentation;

use super::{code::Code, object::check_text, view::View, write::Elements};

/// How a segmentation holds its voxels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SegmentationType {
    /// A bit a voxel and segment; segments may overlap.
    #[default]
    Binary,
    /// The probability of a segment at each voxel, in steps of 1/255; segments may overlap.
    Probability,
    /// The share of each voxel that a segment takes, in steps of 1/255; segments may overlap.
    Occupancy,
    /// The number of the segment at each voxel (Label Map Segmentation Storage, which older programs don't know).
    LabelMap,
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

    /// The segment of an item of a segmentation, and its number.
    fn of(item: View<'_>) -> Result<(u16, Self)> {
        let number = item.count(tags::SEGMENT_NUMBER, 65535)?;
        let number = number.ok_or_else(|| super::fail("a segment without a number"))?;
        let code = |tag| item.first(tag).map_or_else(|| Code::new("", "", ""), Code::of);
        let text = |tag| item.text(tag).unwrap_or_default();
        let segment = Self {
            label: text(tags::SEGMENT_LABEL),
            category: code(tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE),
            kind: code(tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE),
            algorithm: text(tags::SEGMENT_ALGORITHM_NAME),
        };
        Ok((number as u16, segment))
    }

    fn check(&self) -> Result<()> {
        check_text("label", &self.label, 64)?;
        check_text("algorithm", &self.algorithm, 64)?;
        self.category.check()?;
        self.kind.check()
    }
}
