//! The program where it can't do its work: what it says, and how it ends.

use std::process::{Command, Output};

use tomograd_core::Device;

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_tomograd-gpu")).args(arguments).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn without_a_gpu_it_says_what_is_missing_and_ends_with_2() {
    if Device::Cuda(0).check("test").is_ok() {
        eprintln!("left out: this machine has a GPU");
        return;
    }
    for arguments in [&[][..], &["--out", "table.md"], &["part", "--name", "bits", "--from", "1"]] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.starts_with("tomograd-gpu: device: cuda:0 can't be used: "), "{arguments:?}: {text}");
        assert!(text.contains("expected "), "{text}");
    }
    assert!(!std::path::Path::new("table.md").exists());
}

#[test]
fn what_it_does_not_know_is_an_error() {
    let (code, text) = run(&["--size", "3"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("--size; expected --out VALUE, --python VALUE"), "{text}");
    let (code, text) = run(&["part", "--name", "lunch"]);
    assert_eq!((code, text.contains("no part lunch")), (Some(1), true), "{text}");
    let (code, text) = run(&["pack"]);
    assert_eq!((code, text.contains("--out PROGRAM")), (Some(1), true), "{text}");
    let (code, text) = run(&["--help"]);
    assert_eq!((code, text.contains("--python PATH")), (Some(0), true), "{text}");
}
