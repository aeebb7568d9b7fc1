//! Ctrl-C: what is half written disappears, what is written is whole.
#![cfg(unix)]

#[path = "common/folder.rs"]
mod folder;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use folder::Folder;
use tomograd::prelude::*;

/// Runs the program, sends it a signal as soon as `when`, and gives its exit code.
fn interrupted(arguments: &[&str], signal: &str, when: impl Fn() -> bool) -> i32 {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tomograd"));
    let program = program.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let mut program = program.spawn().unwrap();
    let begun = Instant::now();
    while !when() {
        assert!(program.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing to interrupt");
        thread::sleep(Duration::from_millis(1));
    }
    let sent = Command::new("kill").args([format!("-{signal}"), program.id().to_string()]).status().unwrap();
    assert!(sent.success());
    program.wait().unwrap().code().unwrap()
}

/// Whether a file of a folder is under way.
fn under_way(folder: &Path) -> bool {
    let names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp"))
}

/// A volume of noise, whose compression takes a while.
fn noise(path: &str, size: usize) {
    let mut state = 1u64;
    let voxels: Vec<u8> = (0..size * size * size)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let voxels = Tensor::from_slice(&voxels, &[size; 3], Device::Cpu).unwrap();
    Volume::new(voxels, tomograd::io::geometry::from_spacing([1.0; 3]).unwrap()).unwrap().write(path).unwrap();
}

#[test]
fn a_conversion_leaves_no_half_file() {
    let folder = Folder::new("interrupted");
    let (input, output) = (folder.at("a.nii"), folder.at("out/b.nii.gz"));
    noise(&input, 400);
    fs::write(&output, "the file before").unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let arguments = ["convert", &input, &output, "--force"];
        assert_eq!(interrupted(&arguments, signal, || under_way(&folder.0.join("out"))), code);
        assert_eq!(folder.files("out"), ["b.nii.gz"]);
        assert_eq!(fs::read(&output).unwrap(), b"the file before");
    }
}

#[test]
fn a_prediction_leaves_whole_masks() {
    let folder = Folder::new("interrupted-predict");
    let preparation = Preparation::new([16, 16, 16], ["background", "organ"]).unwrap();
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 3] };
    let model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap().with_preparation(&preparation).unwrap();
    let checkpoint = folder.at("model.safetensors");
    model.checkpoint().unwrap().save(&checkpoint).unwrap();
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}.nii.gz")).collect();
    let first = folder.at(&format!("scans/{}", names[0]));
    noise(&first, 64);
    for name in &names[1..] {
        fs::copy(&first, folder.at(&format!("scans/{name}"))).unwrap();
    }
    let (scans, masks) = (folder.at("scans"), folder.0.join("masks"));
    let arguments = ["predict", &checkpoint, &scans, "--out", masks.to_str().unwrap()];
    assert_eq!(interrupted(&arguments, "INT", || masks.join(&names[1]).exists()), 130);
    let written = folder.files("masks");
    assert!(written.len() >= 2 && written.len() < names.len() && written == names[..written.len()], "{written:?}");
    for name in &written {
        assert_eq!(Volume::read(masks.join(name)).unwrap().voxels().shape(), [64; 3]);
    }
}
