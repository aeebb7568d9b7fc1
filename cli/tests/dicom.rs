//! `tomograd info`, `convert` and `predict` of DICOM folders.

#[path = "../../io/tests/common/dicom.rs"]
mod files;
#[path = "common/folder.rs"]
mod folder;

use std::{fs, path::Path, process::Command};

use files::Slice;
use folder::Folder;
use tomograd::prelude::*;

/// Exit code, stdout and stderr.
fn tomograd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

impl Folder {
    /// A folder of slices at these places, in an order of names that isn't theirs.
    fn series(&self, name: &str, series: &'static str, places: &[f64]) -> String {
        fs::create_dir_all(self.at(name)).unwrap();
        for (i, &z) in places.iter().enumerate() {
            let instance = format!("1.2.{series}.{i}");
            let slice =
                Slice { series, instance, position: Some([0.0, 0.0, z]), value: 100 * i as i16, ..Slice::default() };
            fs::write(self.at(&format!("{name}/{series}-{}", 9 - i)), slice.bytes()).unwrap();
        }
        self.at(name)
    }
}

#[test]
fn a_folder_lists_its_series_and_converts() {
    let folder = Folder::new("dicom-convert");
    let study = folder.series("study", "1.2.3", &[0.0, 2.5, 5.0]);
    let (code, listed, _) = tomograd(&["info", &study]);
    assert_eq!(code, 0);
    for part in ["series 7", "CT", "(3 files)", "1.2.3", "4 × 3 × 3", "0.5000 × 2.0000 × 2.5000 mm", "LPS", "1 series"]
    {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let out = folder.at("scan.nii.gz");
    let (code, _, error) = tomograd(&["convert", &study, &out]);
    assert_eq!(code, 0, "{error}");
    let scan = Volume::read(&out).unwrap();
    assert_eq!((scan.stored_dtype(), scan.spacing()), ("int16", [0.5, 2.0, 2.5]));
    let values = scan.voxels().to_vec_f64().unwrap();
    assert_eq!([values[0], values[12], values[24]], [0.0, 100.0, 200.0]);

    // A second series, which has a gap: nothing is chosen in silence.
    folder.series("study", "1.2.4", &[0.0, 1.0, 2.0, 4.0]);
    let (code, _, error) = tomograd(&["convert", &study, &out, "--force"]);
    assert!(code == 1 && error.contains("2 series") && error.contains("1.2.4"), "{error}");
    let (code, _, error) = tomograd(&["convert", &study, &out, "--force", "--series", "1.2.4"]);
    assert!(code == 1 && error.contains("1 slices are missing"), "{error}");
    let gaps = ["convert", &study, &out, "--force", "--series", "1.2.4", "--stack", "1", "--interpolate-gaps"];
    let (code, _, error) = tomograd(&gaps);
    assert!(code == 0 && error.contains("1 slices are missing"), "{error}");
    let firsts: Vec<f64> = Volume::read(&out).unwrap().voxels().to_vec_f64().unwrap().into_iter().step_by(12).collect();
    assert_eq!(firsts, [0.0, 100.0, 200.0, 250.0, 300.0]);
    let (code, _, error) = tomograd(&["convert", &study, &out, "--force", "--series", "1.2.3", "--stack", "2"]);
    assert!(code == 1 && error.contains("stack 2; expected 1 to 1"), "{error}");
    // All series, of which one has a gap.
    let (code, _, error) = tomograd(&["convert", &study, &folder.at("all"), "--format", "nii.gz"]);
    assert!(code == 1 && error.contains("1 slices are missing") && error.contains("1 of 2 files failed"), "{error}");
    assert_eq!(folder.files("all"), ["study_1.2.3_1.nii.gz"]);
    let gaps = ["convert", &study, &folder.at("all"), "--format", "nii.gz", "--interpolate-gaps", "--force"];
    assert_eq!(tomograd(&gaps).0, 0);
    assert_eq!(folder.files("all"), ["study_1.2.3_1.nii.gz", "study_1.2.4_1.nii.gz"]);
}

#[test]
fn a_series_becomes_a_segmentation() {
    let folder = Folder::new("dicom-predict");
    let study = folder.series("study", "1.2.3", &[0.0, 2.5, 5.0]);
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 3] };
    let preparation = Preparation::new([8, 8, 8], ["background", "organ"]).unwrap().orientation("RAS").unwrap();
    let mut model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap().with_preparation(&preparation).unwrap();
    // Every voxel is of the second class.
    for (name, value) in [("head.weight", [0.0; 4].to_vec()), ("head.bias", vec![0.0, 5.0])] {
        let shape: Vec<usize> = if name == "head.bias" { vec![2] } else { vec![2, 2, 1, 1, 1] };
        let value: Vec<f32> = value.into_iter().map(|x: f64| x as f32).collect();
        model.params_mut().set(name, Tensor::from_slice(&value, &shape, Device::Cpu).unwrap()).unwrap();
    }
    let checkpoint = folder.at("model.safetensors");
    model.checkpoint().unwrap().save(&checkpoint).unwrap();
    let out = folder.at("masks");
    let (code, _, error) = tomograd(&["predict", &checkpoint, &study, "--out", &out, "--dicom-seg"]);
    assert_eq!(code, 0, "{error}");
    let listing = tomograd::io::dicom::Listing::open(Path::new(&out).join("study.dcm")).unwrap();
    let series = listing.only().unwrap();
    assert_eq!((series.modality(), series.study_uid()), ("SEG", "1.2"));
    let mask = series.stack().unwrap().read().unwrap();
    assert_eq!((mask.voxels().to_vec::<u8>().unwrap(), mask.spacing()), (vec![1; 36], [0.5, 2.0, 2.5]));
    // As NIfTI, without the option.
    let (code, _, error) = tomograd(&["predict", &checkpoint, &study, "--out", &out]);
    assert_eq!(code, 0, "{error}");
    let mask = Volume::read(Path::new(&out).join("study.nii.gz")).unwrap();
    assert_eq!(mask.affine(), Volume::read(&study).unwrap().affine());
    assert_eq!(folder.files("masks"), ["study.dcm", "study.nii.gz"]);
}
