//! The program as a user runs it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

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
    assert!(out.contains("orientation  RAS") && out.contains("spacing      1.0000 × 1.0000 × 1.0000 mm"), "{out}");
}

#[test]
fn info_lists_the_tensors_of_weights() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../io/tests/pytorch");
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (code, out, error) = tomograd(&["info", &path("nnunet.pth")]);
    assert_eq!(code, 0, "{error}");
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |line: &[&str]| assert!(lines.iter().any(|found| found == line), "{line:?} isn't in\n{out}");
    has(&["tensor", "network_weights.0.weight", "F32", "(2,", "1,", "3,", "3)"]);
    has(&["object", "custom:", "__main__.Custom,", "not", "resolved"]);
    has(&["metadata", "current_epoch:", "1000"]);
    assert!(lines.last().unwrap().starts_with(&["total"]), "{out}");
    let (code, out, _) = tomograd(&["info", &path("dtypes.safetensors")]);
    assert!(code == 0 && out.contains("skipped   complex64: ") && out.contains("metadata  format: pt"), "{out}");
    assert_eq!(tomograd(&["info", &path("model.safetensors.index.json")]).0, 0);
    let (code, _, error) = tomograd(&["info", "--strict", &path("nnunet.pth")]);
    assert!(code == 1 && error.contains("__main__.Custom") && error.lines().count() == 1, "{error}");
    assert_eq!(tomograd(&["info", "--strict", &path("optimizer.pt")]).0, 0);
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

#[test]
fn profile_prints_what_took_the_most_time() {
    let folder = std::env::temp_dir().join(format!("tomograd-profile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (trace, other) = (folder.join("trace.json"), folder.join("other.json"));
    let event = |name: &str, duration: f64| {
        format!(
            "{{\"name\":\"{name}\",\"cat\":\"forward\",\"ph\":\"X\",\"ts\":0,\"dur\":{duration},\"pid\":1,\"tid\":1,\
             \"args\":{{\"path\":\"dense\",\"shapes\":\"(2)\",\"flops\":2e6,\"bytes\":1e6,\"share_of_peak\":0.5}}}},\n"
        )
    };
    let lines = ["[\n".to_owned(), event("add", 1000.0), event("conv", 3000.0), event("conv", 3000.0)];
    std::fs::write(&trace, lines.concat()).unwrap();
    let (code, out, error) = tomograd(&["profile", trace.to_str().unwrap(), "--by-shape"]);
    assert_eq!(code, 0, "{error}");
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    // Two calls of 3 ms, 86 % of all; 4 MFLOP and 2 MB in 6 ms.
    assert_eq!(rows[1], ["conv", "forward", "dense", "2", "6.000", "85.7%", "0.7", "0.3", "50%", "(2)"], "{out}");
    assert_eq!(rows[3], ["all", "3", "7.000"], "{out}");
    std::fs::write(&other, "nothing of the kind").unwrap();
    let (code, _, error) = tomograd(&["profile", other.to_str().unwrap()]);
    assert!(code == 1 && error.contains("line 1") && error.lines().count() == 1, "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_reader_that_goes_is_no_error() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tomograd"));
    let mut program = program.args(["zoo", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(program.stdout.take());
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
