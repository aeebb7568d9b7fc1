//! The program as a user runs it.

use std::{path::Path, process::Command};

fn tomograd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn info_prints_the_geometry() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/hippocampus/images");
    let mut files: Vec<_> = std::fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (code, out, _) = tomograd(&["info", files[0].to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("orientation  RAS") && out.contains("spacing      1.0000 x 1.0000 x 1.0000 mm"), "{out}");
}

#[test]
fn errors_are_one_clear_line() {
    let (code, _, error) = tomograd(&["info", "/nonexistent.nii"]);
    assert_eq!((code, error.lines().count()), (1, 1));
    assert!(error.contains("/nonexistent.nii"), "{error}");
    let (code, _, error) = tomograd(&["info", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!((code, error.lines().count()), (1, 1), "{error}");
    assert_eq!(tomograd(&["nonsense"]).0, 2);
}
