//! `tomograd predict` as a user runs it: which files it writes, and which it leaves alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tomograd::prelude::*;

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tomograd-predict-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The files of a folder in it, none when it isn't there.
    fn files(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(name)).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A checkpoint of a small network, its last bias `bias`.
    fn checkpoint(&self, in_channels: usize, bias: f64) -> String {
        let config = UNet3dConfig { in_channels, classes: 2, widths: vec![2, 3] };
        let mut model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap();
        let value = Tensor::full(&[2], bias, DType::F32, Device::Cpu).unwrap();
        model.params_mut().set("head.bias", value).unwrap();
        let path = self.at(&format!("model-{in_channels}-{bias}.safetensors"));
        model.checkpoint().unwrap().save(&path).unwrap();
        path
    }

    /// A volume of this shape, its voxel (0, 0, 1) `odd`.
    fn scan(&self, name: &str, shape: &[usize], odd: f32) -> String {
        let mut voxels = Tensor::normal(shape, 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
        voxels.as_mut_slice::<f32>().unwrap()[1] = odd;
        let affine = [[-2.0, 0.0, 0.0, 5.0], [0.0, 1.5, 0.0, -3.0], [0.0, 0.0, 3.0, 1.0], [0.0, 0.0, 0.0, 1.0]];
        let path = self.at(name);
        Volume::new(voxels, affine).unwrap().write(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Exit code and stderr.
fn predict(checkpoint: &str, inputs: &[&str], out: &str, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tomograd"));
    command.args(["predict", checkpoint]).args(inputs).args(["--out", out]).args(more);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

const SHAPE: [usize; 3] = [3, 4, 5];

#[test]
fn masks_lie_on_their_images_and_are_not_overwritten() {
    let folder = Folder::new("masks");
    let model = folder.checkpoint(1, 0.0);
    let (first, second) = (folder.scan("a.nii.gz", &SHAPE, 0.5), folder.scan("b.nii", &SHAPE, 0.5));
    let out = folder.at("masks");
    assert_eq!(predict(&model, &[&first, &second], &out, &[]), (0, String::new()));
    assert_eq!(folder.files("masks"), ["a.nii.gz", "b.nii"]);
    let mask = Volume::read(Path::new(&out).join("a.nii.gz")).unwrap();
    let image = Volume::read(&first).unwrap();
    assert_eq!((mask.voxels().shape(), mask.affine()), (image.voxels().shape(), image.affine()));

    // A second run changes nothing unless it is asked to.
    let kept = Path::new(&out).join("b.nii");
    fs::write(&kept, "edited by hand").unwrap();
    fs::remove_file(Path::new(&out).join("a.nii.gz")).unwrap();
    let (code, error) = predict(&model, &[&first, &second], &out, &[]);
    assert!(code == 2 && error.contains("b.nii is there already") && error.contains("--overwrite"), "{error}");
    assert_eq!(
        (folder.files("masks"), fs::read(&kept).unwrap()),
        (vec!["b.nii".to_owned()], b"edited by hand".to_vec())
    );
    assert_eq!(predict(&model, &[&first, &second], &out, &["--overwrite"]).0, 0);
    assert!(Volume::read(&kept).is_ok() && folder.files("masks").len() == 2);
}

#[test]
fn one_mask_for_two_files_is_refused() {
    let folder = Folder::new("collide");
    let model = folder.checkpoint(1, 0.0);
    let out = folder.0.join("masks").to_str().unwrap().to_owned();
    let scan = |name: &str| folder.scan(name, &SHAPE, 0.5);
    let (x, y, upper) = (scan("x/s.nii.gz"), scan("y/s.nii.gz"), scan("z/S.NII.gz"));
    for pair in [[&x, &y], [&x, &upper], [&x, &x]] {
        let (code, error) = predict(&model, &[pair[0], pair[1]], &out, &["--overwrite"]);
        assert!(code == 2 && error.contains(pair[0].as_str()) && error.contains("one mask"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(!Path::new(&out).exists(), "nothing was done");
    // Two endings are two files.
    let plain = scan("x/s.nii");
    assert_eq!(predict(&model, &[&x, &plain], &out, &[]).0, 0);
    assert_eq!(folder.files("masks"), ["s.nii", "s.nii.gz"]);
}

#[test]
fn a_scan_is_never_replaced() {
    let folder = Folder::new("replace");
    let model = folder.checkpoint(1, 0.0);
    let scan = folder.scan("scans/a.nii", &SHAPE, 0.5);
    let other = folder.scan("others/b.nii", &SHAPE, 0.5);
    let before = fs::read(&scan).unwrap();
    for more in [&[][..], &["--overwrite"]] {
        let (code, error) = predict(&model, &[&other, &scan], &folder.at("scans"), more);
        assert!(code == 2 && error.contains("would replace"), "{error}");
    }
    // Not through a link either.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&scan, folder.at("links/a.nii")).unwrap();
        let (code, error) = predict(&model, &[&scan], &folder.at("links"), &["--overwrite"]);
        assert!(code == 2 && error.contains("would replace"), "{error}");
    }
    assert_eq!(fs::read(&scan).unwrap(), before);
    assert_eq!(folder.files("scans"), ["a.nii"]);
    // A file for a folder.
    assert_eq!(predict(&model, &[&scan], &other, &[]).0, 2);
    assert_eq!(predict(&model, &[".."], &folder.at("masks"), &[]).0, 2);
}

#[test]
fn a_bad_file_does_not_stop_the_others() {
    let folder = Folder::new("bad");
    let model = folder.checkpoint(1, 0.0);
    let scan = |name: &str, odd: f32| folder.scan(name, &SHAPE, odd);
    let (first, nan, infinite, last) =
        (scan("a.nii", 0.5), scan("nan.nii", f32::NAN), scan("infinite.nii", f32::INFINITY), scan("z.nii", 0.5));
    let text = folder.at("text.nii");
    fs::write(&text, "no volume").unwrap();
    let two = folder.scan("two.nii", &[2, 3, 4, 5], 0.5);
    let missing = folder.at("missing.nii");
    let (code, error) =
        predict(&model, &[&nan, &first, &text, &infinite, &two, &missing, &last], &folder.at("masks"), &[]);
    assert_eq!(code, 1);
    assert_eq!(folder.files("masks"), ["a.nii", "z.nii"]);
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 6, "{error}");
    for (line, parts) in lines.iter().zip([
        ["nan.nii: ", "NaN at voxel [0, 0, 1]"],
        ["text.nii: ", "nifti"],
        ["infinite.nii: ", "inf at voxel [0, 0, 1]"],
        ["two.nii: ", "an image of 2 channels; expected 1"],
        ["missing.nii: ", "No such file"],
        ["5 of 7 files failed: ", "two.nii"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    }
}

#[test]
fn weights_that_are_no_numbers_give_no_mask() {
    let folder = Folder::new("nan");
    let (model, scan) = (folder.checkpoint(1, f64::NAN), folder.scan("a.nii", &SHAPE, 0.5));
    let (code, error) = predict(&model, &[&scan], &folder.at("masks"), &[]);
    assert!(code == 1 && error.contains("a.nii: ") && error.contains("class 0 at voxel [0, 0, 0] is NaN"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(folder.files("masks").is_empty());
}

#[test]
fn volumes_of_four_axes_are_channels() {
    let folder = Folder::new("channels");
    let (model, scan) = (folder.checkpoint(2, 0.0), folder.scan("a.nii", &[2, 3, 4, 5], 0.5));
    assert_eq!(predict(&model, &[&scan], &folder.at("masks"), &[]), (0, String::new()));
    assert_eq!(Volume::read(folder.at("masks/a.nii")).unwrap().voxels().shape(), SHAPE);
    // One volume under a fourth axis is one channel.
    let single = folder.scan("single.nii", &[1, 3, 4, 5], 0.5);
    assert_eq!(predict(&folder.checkpoint(1, 0.0), &[&single], &folder.at("masks"), &[]), (0, String::new()));
}
