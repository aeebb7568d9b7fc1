//! De-identification by the basic application level confidentiality profile of the standard (PS3.15, annex E) and its options.

mod clean;
mod profile;
mod values;

use std::path::Path;

use dicom_core::{Tag, dictionary::DataDictionary};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use flate2::{Compression, write::DeflateEncoder};
use tomograd_core::{Error, Result};

use self::{
    clean::Words,
    profile::{Action, Rule},
};
use super::{
    OPERATION,
    code::Code,
    dataset::{self, Element, Value},
    fail,
    file::{Source, Whole},
    image,
    view::View,
    write::{self, Elements},
};
use crate::write_atomically;

/// The shortest key.
const SHORTEST_KEY: usize = 16;
/// Modalities whose pictures often show who is on them.
const SHOWING: [&str; 11] = ["US", "IVUS", "ES", "XC", "GM", "OP", "OT", "RF", "XA", "DOC", "SC"];

/// What is kept beyond what the basic profile keeps: the options of the standard's profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// UIDs.
    Uids,
    /// What identifies the device.
    Device,
    /// What identifies the institution.
    Institution,
    /// Age, sex, size, weight and the like.
    PatientCharacteristics,
    /// Dates and times.
    Dates,
    /// Dates, all of a patient moved by the same number of days (1 to 3650 into the past, by the key), and times.
    ShiftedDates,
    /// Descriptions and comments, without the names, identifiers and addresses that stand elsewhere in the file, and without dates
    /// and long numbers. What else a text tells stays: look at them.
    Descriptions,
    /// The content of structured reports, each element by its own rule and texts as descriptions.
    StructuredContent,
}

impl Keep {
    /// The code that says so (PS3.16, context group 7050).
    fn code(self) -> Code {
        let (value, meaning) = match self {
            Self::Uids => ("113110", "Retain UIDs Option"),
            Self::Device => ("113109", "Retain Device Identity Option"),
            Self::Institution => ("113112", "Retain Institution Identity Option"),
            Self::PatientCharacteristics => ("113108", "Retain Patient Characteristics Option"),
            Self::Dates => ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
            Self::ShiftedDates => ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
            Self::Descriptions => ("113105", "Clean Descriptors Option"),
            Self::StructuredContent => ("113104", "Clean Structured Content Option"),
        };
        Code::new(value, "DCM", meaning)
    }
}

/// What a picture may show of its patient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BurnedIn {
    /// The file says that it shows nothing, or nothing hints at it.
    No,
    /// The file doesn't say, and this is a reason to look.
    Perhaps(String),
    /// The file says so.
    Yes,
}

/// A file that was de-identified.
#[derive(Debug, Clone)]
pub struct Anonymized {
    /// The bytes of the file, in the transfer syntax that it had.
    pub bytes: Vec<u8>,
    /// What takes the place of the patient's identifier; empty if there was none.
    pub patient: String,
    /// The new StudyInstanceUID.
    pub study: String,
    /// The new SeriesInstanceUID.
    pub series: String,
    /// The new SOPInstanceUID.
    pub instance: String,
    /// Whether the pixels may show who the patient is. They aren't changed.
    pub burned_in: BurnedIn,
    /// What was odd, and what was done.
    pub notes: Vec<String>,
}

/// De-identifies DICOM files.
///
/// Every attribute of table E.1-1 is removed, emptied or replaced as it says, in sequences too; private attributes and those that the
/// standard's dictionary doesn't know are removed. Where an action depends on the kind of object (X/Z, X/D, Z/D, X/Z/D), the one is
/// taken that suits all objects: emptied, or replaced. UIDs, patients' identifiers and numbers of days are codes of the key
/// (HMAC-SHA-256): the same key gives the same, in any order of files, and without the key nobody gets back. The patient's identifier
/// and name become a code of the identifier, so that patients stay apart. Pixels stay as they are, to the byte: what is burned in
/// isn't removed, and a head's face can be computed from its slices.
///
/// ```
/// use tomograd_io::dicom::{Anonymizer, Keep};
/// let anonymizer = Anonymizer::new(b"a secret of 16 bytes at least")?.keep(Keep::ShiftedDates).keep(Keep::Device);
/// assert!(anonymizer.anonymize(b"not DICOM".to_vec()).is_err());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Anonymizer {
    key: Vec<u8>,
    keep: Vec<Keep>,
    private: Vec<String>,
}

impl std::fmt::Debug for Anonymizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anonymizer").field("keep", &self.keep).field("private", &self.private).finish_non_exhaustive()
    }
}

impl Anonymizer {
    /// The basic profile, with this key.
    ///
    /// # Errors
    /// When the key is shorter than 16 bytes.
    pub fn new(key: &[u8]) -> Result<Self> {
        if key.len() < SHORTEST_KEY {
            return Err(Error::argument("anonymize", format!("a key of {} bytes", key.len()))
                .expected(format!("at least {SHORTEST_KEY}, which nobody can guess")));
        }
        Ok(Self { key: key.to_vec(), keep: Vec::new(), private: Vec::new() })
    }

    /// Keeps more. Of [`Keep::Dates`] and [`Keep::ShiftedDates`] the last holds.
    pub fn keep(mut self, keep: Keep) -> Self {
        let dates = [Keep::Dates, Keep::ShiftedDates];
        self.keep.retain(|kept| *kept != keep && !(dates.contains(kept) && dates.contains(&keep)));
        self.keep.push(keep);
        self
    }

    /// Keeps the private attributes of this creator, such as `SIEMENS MR HEADER`. That they identify nobody is the caller's word.
    pub fn keep_private(mut self, creator: impl Into<String>) -> Self {
        self.private.push(creator.into());
        self
    }

    fn keeps(&self, keep: Keep) -> bool {
        self.keep.contains(&keep)
    }

    /// De-identifies a file and writes the result.
    ///
    /// # Errors
    /// As [`Anonymizer::anonymize`], and when a file can't be read or written.
    pub fn file(&self, input: impl AsRef<Path>, output: impl AsRef<Path>) -> Result<Anonymized> {
        let done = self.read(input)?;
        write_atomically(output.as_ref(), |writer| crate::atomic::write_all(writer, &done.bytes))?;
        Ok(done)
    }

    /// De-identifies a file.
    ///
    /// # Errors
    /// As [`Anonymizer::anonymize`], and when the file can't be read.
    pub fn read(&self, input: impl AsRef<Path>) -> Result<Anonymized> {
        let source = Source::File(input.as_ref().into());
        let bytes = source.part(0..source.length().map_err(|error| source.name(error))?);
        bytes.and_then(|bytes| self.anonymize(bytes)).map_err(|error| source.name(error))
    }

    /// De-identifies the bytes of a file.
    ///
    /// # Errors
    /// When they aren't a DICOM file, it is damaged, has no SOPClassUID or SOPInstanceUID, or is a DICOMDIR.
    pub fn anonymize(&self, bytes: Vec<u8>) -> Result<Anonymized> {
        let whole = Whole::read(bytes)?;
        let root = whole.view();
        if image::is_directory(root) {
            return Err(fail("a DICOMDIR, which names patients").expected("the files that it lists"));
        }
        let needed = |tag: Tag| root.text(tag).ok_or_else(|| fail(format!("{} is missing", dataset::name(tag))));
        let (class, instance) = (needed(tags::SOP_CLASS_UID)?, needed(tags::SOP_INSTANCE_UID)?);
        let identity = [tags::PATIENT_ID, tags::PATIENT_NAME, tags::STUDY_INSTANCE_UID];
        let identity = identity.into_iter().find_map(|tag| root.text(tag)).unwrap_or_default();
        let mut job = Job {
            anonymizer: self,
            words: Words::of(root),
            days: values::shift(&self.key, &identity),
            pseudonym: values::pseudonym(&self.key, &identity),
            big: whole.encoding.big,
            notes: whole.notes.clone(),
            unknown: 0,
        };
        let mut set = job.data_set(root, false)?;
        self.method(&mut set);
        let uid = |tag: Tag| {
            let uid = root.text(tag).unwrap_or_default();
            if self.keeps(Keep::Uids) { uid } else { values::uids(&self.key, &uid) }
        };
        let (instance, study, series) = (
            if self.keeps(Keep::Uids) { instance } else { values::uids(&self.key, &instance) },
            uid(tags::STUDY_INSTANCE_UID),
            uid(tags::SERIES_INSTANCE_UID),
        );
        let mut bytes = write::start(&class, &instance, &whole.syntax);
        let encoded = set.encoded(whole.encoding);
        if whole.deflated {
            let mut encoder = DeflateEncoder::new(bytes, Compression::default());
            let io = |error| Error::io(OPERATION, "deflated elements", error);
            std::io::Write::write_all(&mut encoder, &encoded).map_err(io)?;
            bytes = encoder.finish().map_err(io)?;
            // An even number of bytes.
            bytes.extend(std::iter::repeat_n(0, bytes.len() % 2));
        } else {
            bytes.extend(encoded);
        }
        if job.unknown > 0 {
            job.notes.push(format!("{} attributes that the standard doesn't know were removed", job.unknown));
        }
        let patient = if root.text(tags::PATIENT_ID).is_some() { job.pseudonym } else { String::new() };
        Ok(Anonymized { bytes, patient, study, series, instance, burned_in: burned_in(root), notes: job.notes })
    }

    /// Says what was done.
    fn method(&self, set: &mut Elements) {
        let mut codes = vec![Code::new("113100", "DCM", "Basic Application Confidentiality Profile")];
        codes.extend(self.keep.iter().map(|keep| keep.code()));
        if !self.private.is_empty() {
            codes.push(Code::new("113111", "DCM", "Retain Safe Private Option"));
        }
        let dates = if self.keeps(Keep::Dates) {
            "UNMODIFIED"
        } else if self.keeps(Keep::ShiftedDates) {
            "MODIFIED"
        } else {
            "REMOVED"
        };
        set.text(tags::PATIENT_IDENTITY_REMOVED, b"CS", "YES")
            .text(tags::DEIDENTIFICATION_METHOD, b"LO", "PS3.15 basic profile, tomograd")
            .text(tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED, b"CS", dates)
            .sequence(tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE, codes.iter().map(Code::item).collect());
    }
}

/// Attributes that say what was done, which a file may have already.
const METHOD: [Tag; 4] = [
    tags::PATIENT_IDENTITY_REMOVED,
    tags::DEIDENTIFICATION_METHOD,
    tags::LONGITUDINAL_TEMPORAL_INFORMATION_MODIFIED,
    tags::DEIDENTIFICATION_METHOD_CODE_SEQUENCE,
];

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Clean,
    Shift(Action),
    By(Action),
}

/// The work on a file.
struct Job<'a> {
    anonymizer: &'a Anonymizer,
    words: Words,
    days: i64,
    pseudonym: String,
    big: bool,
    notes: Vec<String>,
    unknown: usize,
}

impl Job<'_> {
    /// The elements that stay. `dummies`: of a sequence that is replaced, so that no value of it may stay.
    fn data_set(&mut self, view: View<'_>, dummies: bool) -> Result<Elements> {
        if view.set.big != self.big {
            return Err(fail("a sequence of another byte order than its file"));
        }
        let mut kept = Elements::default();
        for (&tag, element) in &view.set.elements {
            // Lengths of groups, which are others now.
            if tag.1 == 0 || METHOD.contains(&tag) {
                continue;
            }
            if tag.0 % 2 == 1 {
                if !dummies && self.keeps_private(view, tag) {
                    self.copy(view, tag, element, &mut kept)?;
                }
                continue;
            }
            let rule = profile::rule(tag);
            if rule.is_none() && StandardDataDictionary.by_tag(tag).is_none() {
                self.unknown = self.unknown.saturating_add(1);
                continue;
            }
            let fate = rule.map_or(Fate::Keep, |rule| self.fate(rule));
            match fate {
                // The value's type and relation are terms of the standard.
                Fate::Keep if dummies && &element.vr != b"CS" => self.replace(view, tag, element, &mut kept)?,
                Fate::Keep => self.copy(view, tag, element, &mut kept)?,
                Fate::Clean => self.clean(view, tag, element, &mut kept)?,
                Fate::Shift(otherwise) => self.shift(view, tag, element, otherwise, &mut kept)?,
                Fate::By(action) => self.act(view, tag, element, action, &mut kept)?,
            }
        }
        Ok(kept)
    }

    /// What the options make of a rule.
    fn fate(&self, rule: Rule) -> Fate {
        let Rule { action, options } = rule;
        let keeps = |keep| self.anonymizer.keeps(keep);
        let kept = [
            (options.uids, Keep::Uids),
            (options.device, Keep::Device),
            (options.institution, Keep::Institution),
            (options.patient, Keep::PatientCharacteristics),
            (options.dates, Keep::Dates),
        ];
        let cleaned = [
            (options.device_cleaned, Keep::Device),
            (options.patient_cleaned, Keep::PatientCharacteristics),
            (options.descriptions, Keep::Descriptions),
            (options.structured, Keep::StructuredContent),
        ];
        if kept.iter().any(|&(has, keep)| has && keeps(keep)) {
            Fate::Keep
        } else if options.dates && keeps(Keep::ShiftedDates) {
            Fate::Shift(action)
        } else if cleaned.iter().any(|&(has, keep)| has && keeps(keep)) {
            Fate::Clean
        } else {
            Fate::By(action)
        }
    }

    fn keeps_private(&self, view: View<'_>, tag: Tag) -> bool {
        let creator = if tag.1 < 0x100 { tag.1 } else { tag.1 >> 8 };
        let creator = view.text(Tag(tag.0, creator));
        creator.is_some_and(|creator| self.anonymizer.private.contains(&creator))
    }

    fn items(&mut self, view: View<'_>, tag: Tag, dummies: bool) -> Result<Vec<Elements>> {
        view.items(tag).map(|item| self.data_set(item, dummies)).collect()
    }

    /// Keeps an element; what is in a sequence by its own rules.
    fn copy(&mut self, view: View<'_>, tag: Tag, element: &Element, kept: &mut Elements) -> Result<()> {
        match &element.value {
            Value::Bytes(place) => {
                kept.raw(tag, &element.vr, view.bytes.get(place.clone()).unwrap_or_default());
            }
            Value::Items(_) => {
                let items = self.items(view, tag, false)?;
                kept.sequence(tag, items);
            }
            Value::Fragments(place) => {
                let end = if self.big { [0xFF, 0xFE, 0xE0, 0xDD] } else { [0xFE, 0xFF, 0xDD, 0xE0] };
                let mut value = view.bytes.get(place.clone()).unwrap_or_default().to_vec();
                // Some files end without the delimiter.
                if !value.ends_with(&[&end[..], &[0; 4]].concat()) {
                    value.extend(end);
                    value.extend([0; 4]);
                }
                kept.fragments(tag, &element.vr, value);
            }
        }
        Ok(())
    }

    fn act(&mut self, view: View<'_>, tag: Tag, element: &Element, action: Action, kept: &mut Elements) -> Result<()> {
        match action {
            Action::Remove => {}
            // Patients stay apart.
            _ if [tags::PATIENT_ID, tags::PATIENT_NAME].contains(&tag) && view.text(tag).is_some() => {
                let pseudonym = self.pseudonym.clone();
                kept.text(tag, &element.vr, &pseudonym);
            }
            Action::Empty => match element.value {
                Value::Items(_) => {
                    kept.sequence(tag, Vec::new());
                }
                _ => {
                    kept.put(tag, &element.vr, &[]);
                }
            },
            Action::Replace => self.replace(view, tag, element, kept)?,
            Action::Uid if &element.vr == b"UI" => {
                let uids = values::uids(&self.anonymizer.key, &view.text(tag).unwrap_or_default());
                kept.text(tag, b"UI", &uids);
            }
            Action::Uid => self.replace(view, tag, element, kept)?,
            Action::References => match element.value {
                Value::Items(_) => self.copy(view, tag, element, kept)?,
                _ => {
                    kept.put(tag, &element.vr, &[]);
                }
            },
        }
        Ok(())
    }

    /// A dummy in the place of a value, or of each value in a sequence.
    fn replace(&mut self, view: View<'_>, tag: Tag, element: &Element, kept: &mut Elements) -> Result<()> {
        match (&element.value, &element.vr) {
            (Value::Items(_), _) => {
                let items = self.items(view, tag, true)?;
                kept.sequence(tag, items);
            }
            // What was empty stays so.
            (Value::Bytes(place), vr) if place.is_empty() => {
                kept.put(tag, vr, &[]);
            }
            (_, b"UI") => {
                let uids = values::uids(&self.anonymizer.key, &view.text(tag).unwrap_or_default());
                kept.text(tag, b"UI", &uids);
            }
            (_, vr) => {
                kept.put(tag, vr, &values::dummy(vr));
            }
        }
        Ok(())
    }

    fn shift(
        &mut self,
        view: View<'_>,
        tag: Tag,
        element: &Element,
        action: Action,
        kept: &mut Elements,
    ) -> Result<()> {
        match &element.vr {
            b"DA" | b"DT" => match values::moved(&view.text(tag).unwrap_or_default(), self.days) {
                Some(moved) => {
                    kept.text(tag, &element.vr, &moved);
                }
                None => {
                    self.notes.push(format!("{} isn't a date that can be moved", dataset::name(tag)));
                    self.act(view, tag, element, action, kept)?;
                }
            },
            // Whole days leave times as they are.
            _ => self.copy(view, tag, element, kept)?,
        }
        Ok(())
    }

    /// A text without what identifies somebody; a sequence by the rules of what is in it.
    fn clean(&mut self, view: View<'_>, tag: Tag, element: &Element, kept: &mut Elements) -> Result<()> {
        if let Value::Items(_) = element.value {
            return self.copy(view, tag, element, kept);
        }
        let text = [b"AE", b"LO", b"SH", b"ST", b"LT", b"UT", b"UC"].contains(&&element.vr);
        match self.words.cleaned(view, tag).filter(|_| text) {
            Some(cleaned) => {
                kept.put(tag, &element.vr, &cleaned);
                Ok(())
            }
            None => {
                let action = profile::rule(tag).map_or(Action::Remove, |rule| rule.action);
                self.act(view, tag, element, action, kept)
            }
        }
    }
}

/// What a file says of the text in its picture.
fn burned_in(root: View<'_>) -> BurnedIn {
    let picture = [tags::PIXEL_DATA, tags::FLOAT_PIXEL_DATA, tags::DOUBLE_FLOAT_PIXEL_DATA];
    match root.text(tags::BURNED_IN_ANNOTATION).as_deref() {
        Some("YES") => return BurnedIn::Yes,
        Some("NO") => return BurnedIn::No,
        _ if !picture.iter().any(|&tag| root.has(tag)) => return BurnedIn::No,
        _ => {}
    }
    let modality = root.text(tags::MODALITY).unwrap_or_default();
    let class = root.text(tags::SOP_CLASS_UID).unwrap_or_default();
    let kinds = root.texts(tags::IMAGE_TYPE);
    if class.starts_with("1.2.840.10008.5.1.4.1.1.7") {
        BurnedIn::Perhaps("a secondary capture".to_owned())
    } else if SHOWING.contains(&modality.as_str()) {
        BurnedIn::Perhaps(format!("modality {modality}"))
    } else if kinds.iter().any(|kind| kind.contains("SCREEN") || kind.contains("REPORT")) {
        BurnedIn::Perhaps(format!("image type {}", kinds.join("\\")))
    } else {
        BurnedIn::No
    }
}
