//! What the objects that are made of a stack have in common: patient, study, series, equipment, references.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use tomograd_core::{Error, Result, Tensor};

use super::{
    OPERATION, fail,
    file::Header,
    image::About,
    stack::{Slice, Stack},
    uid,
    view::View,
    write::Elements,
};

/// An object in the making.
pub(super) struct Object {
    pub(super) elements: Elements,
    class: &'static str,
    pub(super) instance: String,
    pub(super) frame_of_reference: String,
    header: Header,
    /// What its UIDs follow from.
    seed: Vec<u8>,
}

impl Object {
    /// An object of this class and modality, a series of its own in the study of the stack. Its UIDs follow from the source and
    /// `content`, so that the same content is the same object.
    pub(super) fn of(
        stack: &Stack,
        class: &'static str,
        modality: &str,
        about: &str,
        content: &[&[u8]],
    ) -> Result<Self> {
        let first = stack.slices().first().ok_or_else(|| fail("a stack without slices"))?;
        let header = Header::read(&first.image.source)?;
        let source = &first.image.about;
        let mut seed =
            [source.series.as_bytes(), &[0xFF], source.instance.as_bytes(), &[0xFF], class.as_bytes()].concat();
        for part in content {
            seed.extend([0xFF]);
            seed.extend(*part);
        }
        let mut object = Self {
            elements: Elements::default(),
            class,
            instance: String::new(),
            frame_of_reference: String::new(),
            header,
            seed,
        };
        object.instance = object.uid("instance");
        object.frame_of_reference =
            source.frame_of_reference.clone().unwrap_or_else(|| object.uid("frame of reference"));
        object.common(modality, about);
        Ok(object)
    }

    /// A UID of the object for this purpose.
    pub(super) fn uid(&self, name: &str) -> String {
        uid::of_parts([name.as_bytes(), &self.seed])
    }

    /// The elements of the stack's first file.
    pub(super) fn source(&self) -> View<'_> {
        self.header.view()
    }

    /// A text of the source, or this.
    pub(super) fn dated(&self, first: Tag, second: Tag, otherwise: &str) -> String {
        let view = self.source();
        view.text(first).or_else(|| view.text(second)).unwrap_or_else(|| otherwise.to_owned())
    }

    fn common(&mut self, modality: &str, about: &str) {
        let series = self.uid("series");
        let Self { elements, header, .. } = self;
        let view = header.view();
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
        ] {
            elements.text(tag, vr, &view.text(tag).unwrap_or_default());
        }
        elements
            .text(tags::SPECIFIC_CHARACTER_SET, b"CS", "ISO_IR 192")
            .text(tags::SOP_CLASS_UID, b"UI", self.class)
            .text(tags::SOP_INSTANCE_UID, b"UI", &self.instance)
            .text(tags::MODALITY, b"CS", modality)
            .text(tags::SERIES_INSTANCE_UID, b"UI", &series)
            .text(tags::SERIES_NUMBER, b"IS", "1")
            .text(tags::SERIES_DESCRIPTION, b"LO", about)
            .text(tags::INSTANCE_NUMBER, b"IS", "1")
            .text(tags::MANUFACTURER, b"LO", "tomograd")
            .text(tags::MANUFACTURER_MODEL_NAME, b"LO", "tomograd")
            .text(tags::DEVICE_SERIAL_NUMBER, b"LO", "1")
            .text(tags::SOFTWARE_VERSIONS, b"LO", env!("CARGO_PKG_VERSION"));
    }

    /// The date and time of the content: it says what was so at the time of the source.
    pub(super) fn content_date(&mut self) -> &mut Self {
        let date = self.dated(tags::CONTENT_DATE, tags::STUDY_DATE, "19000101");
        let time = self.dated(tags::CONTENT_TIME, tags::STUDY_TIME, "000000");
        self.elements.text(tags::CONTENT_DATE, b"DA", &date).text(tags::CONTENT_TIME, b"TM", &time);
        self
    }

    /// The place of the voxels: the frame of reference of the source.
    pub(super) fn frame_of_reference(&mut self) {
        let indicator = self.source().text(tags::POSITION_REFERENCE_INDICATOR).unwrap_or_default();
        let frame = self.frame_of_reference.clone();
        self.elements.text(tags::FRAME_OF_REFERENCE_UID, b"UI", &frame).text(
            tags::POSITION_REFERENCE_INDICATOR,
            b"LO",
            &indicator,
        );
    }

    /// The bytes of its file, in explicit little endian.
    pub(super) fn file(self) -> Vec<u8> {
        self.elements.file(self.class, &self.instance)
    }

    /// The bytes of its file in implicit little endian, whose values may be of any length.
    pub(super) fn implicit_file(self) -> Vec<u8> {
        self.elements.implicit_file(self.class, &self.instance)
    }
}

/// Refuses a mask that isn't of a stack's size.
pub(super) fn check_shape(stack: &Stack, mask: &Tensor) -> Result<()> {
    let [width, height, depth] = stack.size();
    if mask.shape() == [depth, height, width] {
        return Ok(());
    }
    Err(Error::shape(OPERATION, "a mask of another size than its series")
        .expected(format!("({depth}, {height}, {width})"))
        .shapes([mask.shape()]))
}

/// Refuses what an element can't hold.
pub(super) fn check_text(what: &str, text: &str, most: usize) -> Result<()> {
    if text.is_empty() || text.chars().count() > most || text.contains(['\\']) || text.contains(char::is_control) {
        return Err(Error::argument(OPERATION, format!("a {what} of {text:?}"))
            .expected(format!("1 to {most} letters without \\ and control characters")));
    }
    Ok(())
}

/// The image of a slice, referred to.
pub(super) fn reference(slice: &Slice) -> Elements {
    let mut reference = Elements::default();
    reference.text(tags::REFERENCED_SOP_CLASS_UID, b"UI", &slice.image.about.class).text(
        tags::REFERENCED_SOP_INSTANCE_UID,
        b"UI",
        &slice.image.about.instance,
    );
    reference
}

/// As [`reference`], with the frame of a file that has several.
pub(super) fn frame_reference(slice: &Slice) -> Elements {
    let mut reference = reference(slice);
    if slice.image.frames.len() > 1 {
        reference.text(tags::REFERENCED_FRAME_NUMBER, b"IS", &slice.frame.saturating_add(1).to_string());
    }
    reference
}

/// The images of slices, each once.
pub(super) fn references(slices: &[Slice]) -> Vec<Elements> {
    let mut instances: Vec<Elements> = Vec::new();
    let mut last = None;
    for slice in slices {
        if last != Some(&slice.image.about.instance) {
            instances.push(reference(slice));
            last = Some(&slice.image.about.instance);
        }
    }
    instances
}

/// The series of slices with its images.
pub(super) fn referenced_series(about: &About, slices: &[Slice]) -> Elements {
    let mut series = Elements::default();
    series
        .text(tags::SERIES_INSTANCE_UID, b"UI", &about.series)
        .sequence(tags::REFERENCED_INSTANCE_SEQUENCE, references(slices));
    series
}
