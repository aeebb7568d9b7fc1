//! Structured reports of measurements (TID 1500).

mod measure;

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use tomograd_core::{Result, Tensor};

pub use measure::Measurements;

use super::{
    code::Code,
    fail,
    object::{self, Object},
    segmentation::{Segmentation, SegmentationType},
    stack::Stack,
    write::Elements,
};
use crate::write_atomically;

/// Measurements of segments by their labels.
type Found = Vec<(String, Measurements)>;

/// The UID of this program as an observer.
const OBSERVER: &str = "2.25.205866098425917303124816420381973265211";

impl Stack {
    /// Measures the segments of a segmentation of this stack, and writes them as a structured report (Comprehensive 3D SR, TID 1500
    /// with a group of TID 1411 for each segment): volume, longest diameter, and mean, standard deviation, minimum and maximum of
    /// the values. Segments without voxels have no group. The report refers to the segments in the segmentation and to this series.
    ///
    /// Values are named as the modality does: attenuation in Hounsfield units of CT, signal intensity of MR; those of other
    /// modalities are left out, as their meaning isn't certain.
    ///
    /// ```no_run
    /// use tomograd_io::dicom::{Listing, Segmentation};
    /// let segmentation = Segmentation::open("seg.dcm")?;
    /// let listing = Listing::open("study")?;
    /// let stack = listing.find(&segmentation.series()[0])?.stack()?;
    /// for (segment, found) in stack.write_report("report.dcm", &segmentation)? {
    ///     println!("{}: {:.1} ml, {:.1} mm", segment, found.volume / 1000.0, found.diameter);
    /// }
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the segmentation isn't of this stack, holds fractions, or has no voxels, or a file can't be read or written.
    pub fn write_report(
        &self,
        path: impl AsRef<Path>,
        segmentation: &Segmentation,
    ) -> Result<Vec<(String, Measurements)>> {
        let (bytes, found) = self.report(segmentation)?;
        write_atomically(path.as_ref(), |writer| crate::atomic::write_all(writer, &bytes))?;
        Ok(found)
    }

    fn report(&self, segmentation: &Segmentation) -> Result<(Vec<u8>, Found)> {
        if !matches!(segmentation.kind(), SegmentationType::Binary | SegmentationType::LabelMap) {
            return Err(fail("a segmentation of fractions").expected("a binary one or a label map"));
        }
        let volume = self.read()?;
        let (mut found, mut groups) = (Vec::new(), Vec::new());
        let modality = self.image()?.about.modality.clone();
        let mut content = Vec::new();
        let object = segmentation.image().about.clone();
        for (number, segment) in segmentation.segments() {
            let mask: Tensor = segmentation.mask(*number, self)?.voxels().clone();
            if mask.to_vec_f64()?.iter().all(|voxel| *voxel == 0.0) {
                continue;
            }
            let measured = Measurements::of(volume.voxels(), &mask, self.affine())?;
            content.extend(segment.label.as_bytes());
            content.extend(format!("{measured:?}").bytes());
            let tracking = super::uid::of_parts([object.instance.as_bytes(), &number.to_le_bytes()]);
            let mut group = vec![
                text("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), &segment.label),
                uid("HAS OBS CONTEXT", ("112040", "DCM", "Tracking Unique Identifier"), &tracking),
                coded("CONTAINS", ("121071", "DCM", "Finding"), &segment.kind),
                image(("121191", "DCM", "Referenced Segment"), &object.class, &object.instance, *number),
                uid("CONTAINS", ("121232", "DCM", "Source series for segmentation"), &self.image()?.about.series),
            ];
            group.extend(numbers(&measured, &modality, self.units().as_deref()));
            groups.push(container("CONTAINS", ("125007", "DCM", "Measurement Group"), Some("1411"), group));
            found.push((segment.label.clone(), measured));
        }
        if groups.is_empty() {
            return Err(fail("a segmentation without voxels").expected("something to measure"));
        }
        let bytes = self.document(&object, groups, &content)?;
        Ok((bytes, found))
    }

    /// The units that the first file says.
    fn units(&self) -> Option<String> {
        self.image().ok()?.about.units.clone()
    }

    fn document(&self, segmentation: &super::image::About, groups: Vec<Elements>, content: &[u8]) -> Result<Vec<u8>> {
        let class = uids::COMPREHENSIVE3_DSR_STORAGE;
        let mut report = Object::of(self, class, "SR", "Measurements", &[content, segmentation.instance.as_bytes()])?;
        let procedure = Code::new("363679005", "SCT", "Imaging procedure");
        let device = Code::new("121007", "DCM", "Device");
        let items = vec![
            coded(
                "HAS CONCEPT MOD",
                ("121049", "DCM", "Language of Content Item and Descendants"),
                &Code::new("en-US", "RFC5646", "English (United States)"),
            ),
            coded("HAS OBS CONTEXT", ("121005", "DCM", "Observer Type"), &device),
            uid("HAS OBS CONTEXT", ("121012", "DCM", "Device Observer UID"), OBSERVER),
            text("HAS OBS CONTEXT", ("121013", "DCM", "Device Observer Name"), "tomograd"),
            coded("HAS CONCEPT MOD", ("121058", "DCM", "Procedure reported"), &procedure),
            container("CONTAINS", ("126010", "DCM", "Imaging Measurements"), None, groups),
        ];
        let evidence = |about: &super::image::About, instances: Vec<Elements>| {
            let mut series = Elements::default();
            series
                .text(tags::SERIES_INSTANCE_UID, b"UI", &about.series)
                .sequence(tags::REFERENCED_SOP_SEQUENCE, instances);
            series
        };
        let mut segments = Elements::default();
        segments.text(tags::REFERENCED_SOP_CLASS_UID, b"UI", &segmentation.class).text(
            tags::REFERENCED_SOP_INSTANCE_UID,
            b"UI",
            &segmentation.instance,
        );
        let source = &self.image()?.about;
        let mut study = Elements::default();
        study.text(tags::STUDY_INSTANCE_UID, b"UI", &source.study).sequence(
            tags::REFERENCED_SERIES_SEQUENCE,
            vec![evidence(segmentation, vec![segments]), evidence(source, object::references(self.slices()))],
        );
        report
            .content_date()
            .elements
            .text(tags::COMPLETION_FLAG, b"CS", "COMPLETE")
            .text(tags::VERIFICATION_FLAG, b"CS", "UNVERIFIED")
            .sequence(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, Vec::new())
            .sequence(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, Vec::new())
            .sequence(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![study]);
        contain(&mut report.elements, ("126000", "DCM", "Imaging Measurement Report"), Some("1500"), items);
        Ok(report.file())
    }
}

/// Code, scheme and meaning.
type Name = (&'static str, &'static str, &'static str);

fn item(relation: &str, kind: &str, (value, scheme, meaning): Name) -> Elements {
    let mut item = Elements::default();
    item.text(tags::RELATIONSHIP_TYPE, b"CS", relation)
        .text(tags::VALUE_TYPE, b"CS", kind)
        .sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![Code::new(value, scheme, meaning).item()]);
    item
}

fn valued(relation: &str, kind: &str, name: Name, tag: Tag, vr: &[u8; 2], value: &str) -> Elements {
    let mut item = item(relation, kind, name);
    item.text(tag, vr, value);
    item
}

fn text(relation: &str, name: Name, value: &str) -> Elements {
    valued(relation, "TEXT", name, tags::TEXT_VALUE, b"UT", value)
}

fn uid(relation: &str, name: Name, value: &str) -> Elements {
    valued(relation, "UIDREF", name, tags::UID, b"UI", value)
}

fn coded(relation: &str, name: Name, value: &Code) -> Elements {
    let mut item = item(relation, "CODE", name);
    item.sequence(tags::CONCEPT_CODE_SEQUENCE, vec![value.item()]);
    item
}

/// A segment of a segmentation.
fn image(name: Name, class: &str, instance: &str, segment: u16) -> Elements {
    let (mut item, mut reference) = (item("CONTAINS", "IMAGE", name), Elements::default());
    reference
        .text(tags::REFERENCED_SOP_CLASS_UID, b"UI", class)
        .text(tags::REFERENCED_SOP_INSTANCE_UID, b"UI", instance)
        .short(tags::REFERENCED_SEGMENT_NUMBER, segment);
    item.sequence(tags::REFERENCED_SOP_SEQUENCE, vec![reference]);
    item
}

fn container(relation: &str, name: Name, template: Option<&str>, content: Vec<Elements>) -> Elements {
    let mut item = Elements::default();
    item.text(tags::RELATIONSHIP_TYPE, b"CS", relation);
    contain(&mut item, name, template, content);
    item
}

fn contain(item: &mut Elements, (value, scheme, meaning): Name, template: Option<&str>, content: Vec<Elements>) {
    item.text(tags::VALUE_TYPE, b"CS", "CONTAINER")
        .sequence(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![Code::new(value, scheme, meaning).item()])
        .text(tags::CONTINUITY_OF_CONTENT, b"CS", "SEPARATE")
        .sequence(tags::CONTENT_SEQUENCE, content);
    if let Some(template) = template {
        let mut of = Elements::default();
        of.text(tags::MAPPING_RESOURCE, b"CS", "DCMR").text(tags::TEMPLATE_IDENTIFIER, b"CS", template);
        item.sequence(tags::CONTENT_TEMPLATE_SEQUENCE, vec![of]);
    }
}

/// The measurements of a group.
fn numbers(found: &Measurements, modality: &str, units: Option<&str>) -> Vec<Elements> {
    let mut items = vec![
        number(("118565006", "SCT", "Volume"), found.volume, &Code::new("mm3", "UCUM", "cubic millimeter"), None),
        number(
            ("81827009", "SCT", "Diameter"),
            found.diameter,
            &Code::new("mm", "UCUM", "millimeter"),
            Some(("56851009", "SCT", "Maximum")),
        ),
    ];
    let (name, unit) = match (modality, units) {
        ("CT", None | Some("HU")) => {
            (("112031", "DCM", "Attenuation Coefficient"), Code::new("[hnsf'U]", "UCUM", "Hounsfield unit"))
        }
        ("MR", _) => (("110852", "DCM", "MR signal intensity"), Code::new("1", "UCUM", "no units")),
        _ => return items,
    };
    for (value, derivation) in [
        (found.mean, ("373098007", "SCT", "Mean")),
        (found.deviation, ("386136009", "SCT", "Standard Deviation")),
        (found.minimum, ("255605001", "SCT", "Minimum")),
        (found.maximum, ("56851009", "SCT", "Maximum")),
    ] {
        items.push(number(name, value, &unit, Some(derivation)));
    }
    items
}

fn number(name: Name, value: f64, unit: &Code, derivation: Option<Name>) -> Elements {
    let (mut item, mut measured) = (item("CONTAINS", "NUM", name), Elements::default());
    measured
        .decimals(tags::NUMERIC_VALUE, &[value])
        .put(tags::FLOATING_POINT_VALUE, b"FD", &value.to_le_bytes())
        .sequence(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![unit.item()]);
    item.sequence(tags::MEASURED_VALUE_SEQUENCE, vec![measured]);
    if let Some((value, scheme, meaning)) = derivation {
        let derivation = coded("HAS CONCEPT MOD", ("121401", "DCM", "Derivation"), &Code::new(value, scheme, meaning));
        item.sequence(tags::CONTENT_SEQUENCE, vec![derivation]);
    }
    item
}
