//! De-identification: what stays, what goes, and that pixels are untouched. The rules of each attribute are compared with another program's by
//! `tests/golden/dicom_anonymize_check.py`.
#![cfg(feature = "dicom")]

#[path = "common/dicom.rs"]
mod common;

use std::{fs, path::Path};

use common::{Slice, element, file, sequence, short, text};
use tomograd_io::dicom::{Anonymized, Anonymizer, BurnedIn, Keep};

const KEY: &[u8] = b"0123456789abcdef";

fn basic() -> Anonymizer {
    Anonymizer::new(KEY).unwrap()
}

/// A slice with a name, dates, descriptions, private elements and references.
fn named(instance: &str, patient: &str) -> Slice {
    let reference =
        [text((8, 0x1150), b"UI", "1.2.840.10008.5.1.4.1.1.2"), text((8, 0x1155), b"UI", "1.2.3.1")].concat();
    let item = [text((8, 0x103E), b"LO", "for Doe"), text((0x10, 0x10), b"PN", "Doe^Jane"), reference].concat();
    Slice {
        instance: instance.to_owned(),
        more: vec![
            text((8, 0x20), b"DA", "20240229"),
            text((8, 0x80), b"LO", "St. Mary"),
            text((8, 0x103E), b"LO", "Abdomen of Doe, 3 mm"),
            text((9, 0x10), b"LO", "ACME"),
            text((9, 0x1001), b"LO", "private"),
            text((0x10, 0x10), b"PN", "Doe^Jane"),
            text((0x10, 0x20), b"LO", patient),
            text((0x10, 0x1010), b"AS", "042Y"),
            sequence((0x20, 0x9222), &[item]),
            text((0x28, 0x301), b"CS", "NO"),
            // Of no edition of the standard.
            text((0x28, 0x9FF8), b"LO", "unknown"),
        ],
        ..Slice::default()
    }
}

fn holds(done: &Anonymized, part: &str) -> bool {
    done.bytes.windows(part.len()).any(|bytes| bytes == part.as_bytes())
}

#[test]
fn what_identifies_goes_and_the_rest_stays() {
    let bytes = named("1.2.3.1", "4711").bytes();
    let done = basic().anonymize(bytes.clone()).unwrap();
    for gone in ["Doe", "Jane", "20240229", "Mary", "Abdomen", "ACME", "private", "4711", "042Y", "unknown", "1.2.3"] {
        assert!(!holds(&done, gone), "{gone}");
    }
    for stays in ["ORIGINAL\\PRIMARY\\AXIAL", "1.2.840.10008.5.1.4.1.1.2", "MONOCHROME2", &done.patient, &done.instance]
    {
        assert!(holds(&done, stays), "{stays}");
    }
    assert_eq!((done.burned_in.clone(), done.patient.len()), (BurnedIn::No, 12));
    assert!(done.notes.iter().any(|note| note.starts_with("1 attributes that the standard doesn't know")));
    // From the pixels' tag to the end.
    let pixels = bytes.windows(4).position(|part| part == [0xE0, 0x7F, 0x10, 0]).unwrap();
    assert!(done.bytes.ends_with(&bytes[pixels..]));
    // What was done can be done again.
    let again = Anonymizer::new(b"another key of bytes").unwrap().anonymize(done.bytes.clone()).unwrap();
    assert!(again.instance != done.instance && again.bytes.len() == done.bytes.len());
}

#[test]
fn a_key_maps_uids_patients_and_dates_alike_in_all_files() {
    let shifted = basic().keep(Keep::ShiftedDates);
    let [a, b, c] = [("1.2.3.1", "4711"), ("1.2.3.2", "4711"), ("1.2.3.3", "4712")]
        .map(|(instance, patient)| shifted.anonymize(named(instance, patient).bytes()).unwrap());
    assert!(a.study == b.study && a.series == b.series && a.instance != b.instance);
    assert!(a.patient == b.patient && a.patient != c.patient);
    // The second refers to the first.
    assert!(holds(&b, &a.instance));
    let date = |done: &Anonymized| {
        let at = done.bytes.windows(6).position(|part| part == b"\x08\0\x20\0DA").unwrap() + 8;
        String::from_utf8(done.bytes[at..at + 8].to_vec()).unwrap()
    };
    assert!(date(&a) == date(&b) && date(&a) != date(&c) && *date(&a) < *"20240229");
    let other = Anonymizer::new(b"0123456789abcdeg").unwrap().anonymize(named("1.2.3.1", "4711").bytes()).unwrap();
    assert!(other.instance != a.instance && other.patient != a.patient);
    Anonymizer::new(b"short").unwrap_err();
}

#[test]
fn options_keep_what_they_say() {
    let with = |keep| basic().keep(keep).anonymize(named("1.2.3.1", "4711").bytes()).unwrap();
    for (keep, stays, code) in [
        (Keep::Uids, "1.2.3.1", "113110"),
        (Keep::Institution, "St. Mary", "113112"),
        (Keep::PatientCharacteristics, "042Y", "113108"),
        (Keep::Dates, "20240229", "113106"),
        // Without the name that stands elsewhere.
        (Keep::Descriptions, "Abdomen of *, 3 mm", "113105"),
    ] {
        let done = with(keep);
        assert!(holds(&done, stays) && holds(&done, code) && !holds(&done, "Doe"), "{keep:?}");
    }
    let done = basic().keep_private("ACME").anonymize(named("1.2.3.1", "4711").bytes()).unwrap();
    assert!(holds(&done, "ACME") && holds(&done, "private") && holds(&done, "113111"));
    let done = basic().keep_private("OTHER").anonymize(named("1.2.3.1", "4711").bytes()).unwrap();
    assert!(!holds(&done, "ACME") && !holds(&done, "private"));
}

#[test]
fn what_pixels_may_show_is_said() {
    let slice = |said: &str, class: &str| {
        let annotation = if said.is_empty() { Vec::new() } else { text((0x28, 0x301), b"CS", said) };
        let elements = [
            text((8, 0x16), b"UI", class),
            text((8, 0x18), b"UI", "1.2.3"),
            text((8, 0x60), b"CS", "US"),
            annotation,
            element((0x7FE0, 0x10), b"OW", &[1, 2]),
        ];
        basic().anonymize(file(&elements)).unwrap().burned_in
    };
    assert_eq!(slice("YES", "1.2.840.10008.5.1.4.1.1.6.1"), BurnedIn::Yes);
    assert_eq!(slice("NO", "1.2.840.10008.5.1.4.1.1.6.1"), BurnedIn::No);
    assert_eq!(slice("", "1.2.840.10008.5.1.4.1.1.6.1"), BurnedIn::Perhaps("modality US".to_owned()));
    assert_eq!(slice("", "1.2.840.10008.5.1.4.1.1.7"), BurnedIn::Perhaps("a secondary capture".to_owned()));
}

#[test]
fn every_encoding_keeps_its_transfer_syntax_and_pixels() {
    let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dicom")) else {
        return; // In a packaged crate the folder isn't there.
    };
    let mut count = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "dcm") {
            continue;
        }
        let before = tomograd_io::dicom::read_file(&path).unwrap();
        let done = basic().read(&path).unwrap_or_else(|error| panic!("{error}"));
        let after = tomograd_io::dicom::read_bytes(&done.bytes).unwrap_or_else(|error| panic!("{path:?} {error}"));
        assert_eq!(after.voxels().to_vec_f64().unwrap(), before.voxels().to_vec_f64().unwrap(), "{path:?}");
        assert_eq!(after.affine(), before.affine(), "{path:?}");
        count += 1;
    }
    assert!(count > 40);
}

#[test]
fn what_cannot_be_done_is_an_error() {
    for (bytes, wanted) in [
        (b"text".to_vec(), "not a DICOM file"),
        (file(&[short((0x28, 0x10), 1)]), "SOPClassUID is missing"),
        (file(&[sequence((4, 0x1220), &[])]), "a DICOMDIR"),
    ] {
        let error = basic().anonymize(bytes).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
