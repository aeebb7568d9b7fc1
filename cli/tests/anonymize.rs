//! `tomograd anonymize`.

#[path = "../../io/tests/common/dicom.rs"]
mod files;
#[path = "common/folder.rs"]
mod folder;

use std::{fs, process::Command};

use files::{Slice, text};
use folder::Folder;

/// Exit code, stdout and stderr.
fn anonymize(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).arg("anonymize").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn slice(instance: &str, patient: &str, burned: &str) -> Vec<u8> {
    let more = vec![
        text((0x10, 0x10), b"PN", "Doe^Jane"),
        text((0x10, 0x20), b"LO", patient),
        text((0x28, 0x301), b"CS", burned),
    ];
    Slice { instance: instance.to_owned(), more, ..Slice::default() }.bytes()
}

#[test]
fn a_folder_is_done_and_what_fails_is_named() {
    let folder = Folder::new("anonymize");
    for (name, bytes) in [
        ("in/Doe Jane/1", slice("1.2.3.1", "4711", "NO")),
        ("in/Doe Jane/2", slice("1.2.3.2", "4711", "NO")),
        ("in/other", slice("1.2.3.3", "4712", "NO")),
        ("in/broken.dcm", slice("1.2.3.4", "4712", "NO")[..300].to_vec()),
        ("in/shown", slice("1.2.3.5", "4712", "YES")),
        ("in/notes.txt", b"of the study".to_vec()),
    ] {
        fs::write(folder.at(name), bytes).unwrap();
    }
    let (key, out) = (folder.at("key"), folder.at("out"));
    fs::write(&key, "0123456789abcdef").unwrap();
    let (code, written, error) = anonymize(&[&folder.at("in"), &out, "--key-file", &key]);
    assert_eq!(code, 1, "{error}");
    assert_eq!(written.lines().count(), 3, "{written}");
    for part in [
        "2 of 5 files failed",
        "broken.dcm",
        "in/shown: anonymize: the file says that its pixels show text",
        "1 files aren't",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let patients = folder.files("out");
    assert!(patients.len() == 2 && !written.contains("Doe"), "{written}");
    for line in written.lines() {
        let bytes = fs::read(line).unwrap();
        assert!(!bytes.windows(3).any(|part| part == b"Doe") && !bytes.windows(4).any(|part| part == b"4711"));
    }
    // Nothing is overwritten; with the option, the same key gives the same.
    let (code, again, error) = anonymize(&[&folder.at("in"), &out, "--key-file", &key]);
    assert!(code == 1 && again.is_empty() && error.contains("is there already"), "{error}");
    let (code, again, error) = anonymize(&[&folder.at("in"), &out, "--key-file", &key, "--force", "--burned-in"]);
    assert!(code == 1 && again.lines().count() == 4 && error.contains("BurnedInAnnotation is YES"), "{error}");
    // A key of its own gives other names.
    let (_, other, _) = anonymize(&[&folder.at("in"), &folder.at("second"), "--json"]);
    assert!(other.contains("\"written\"") && !other.contains(&patients[0]), "{other}");
}

#[test]
fn a_file_is_done() {
    let folder = Folder::new("anonymize-file");
    let (input, output) = (folder.at("a.dcm"), folder.at("b.dcm"));
    fs::write(&input, slice("1.2.3.1", "4711", "NO")).unwrap();
    let (code, written, error) = anonymize(&[&input, &output, "--keep", "shifted-dates,device"]);
    assert_eq!((code, written.trim()), (0, &output[..]), "{error}");
    for arguments in [
        &[&input[..], &output][..],
        &[&input, &input, "--force"],
        &[&input, folder.0.to_str().unwrap(), "--force"],
        &[folder.0.to_str().unwrap(), &folder.at("inside"), "--force"],
        &[&input, &output, "--force", "--key-file", &input, "--keep", "everything"],
        &[&folder.at("none"), &output],
    ] {
        let (code, written, error) = anonymize(arguments);
        assert!(code == 2 && written.is_empty() && !error.is_empty(), "{arguments:?}: {error}");
    }
    let (code, _, error) = anonymize(&[&input, &output, "--force"]);
    assert_eq!(code, 0, "{error}");
}
