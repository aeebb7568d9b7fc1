//! Runs the example `classify` as a process: it imports, trains, draws heat maps, and gives the same bytes with any
//! number of threads.

use std::{fs, path::Path, process::Command};

/// What the example prints and writes in a short run: the weights without and with transfer, and the heat maps.
fn run(out: &Path, threads: &str) -> (String, [Vec<u8>; 3]) {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/classify");
    assert!(program.exists(), "{} isn't there: cargo test builds it", program.display());
    let output = Command::new(program)
        .args(["--epochs", "2", "--frozen", "1", "--threads", threads, "--out"])
        .arg(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = ["random/last.safetensors", "imported/last.safetensors", "grad_cam.svg"];
    (String::from_utf8(output.stdout).unwrap(), files.map(|name| fs::read(out.join(name)).unwrap()))
}

#[test]
fn a_short_run_imports_trains_and_draws_the_same_with_any_number_of_threads() {
    let folder = std::env::temp_dir().join(format!("tomograd-classify-{}", std::process::id()));
    let (text, files) = run(&folder.join("one"), "1");
    for expected in [
        "200 training, 100 validation and 624 test images",
        "3 channels to 1",
        "fc.weight",
        "keeps its values: other classes",
        "random weights: AUC 0.",
        "imported weights: AUC 0.",
    ] {
        assert!(text.contains(expected), "{expected:?} isn't in:\n{text}");
    }
    let sheet = String::from_utf8(files[2].clone()).unwrap();
    assert_eq!((sheet.matches("<image ").count(), sheet.matches("true: ").count()), (24, 12));
    let (_, again) = run(&folder.join("three"), "3");
    assert!(files == again, "three threads give other files");
    fs::remove_dir_all(folder).unwrap();
}
