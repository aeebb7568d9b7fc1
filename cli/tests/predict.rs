//! `tomograd predict` as a user runs it: which files it writes, and which it leaves alone.

#[path = "common/folder.rs"]
mod folder;

use std::{fs, path::Path, process::Command};

use folder::Folder;
use tomograd::{pipeline::preparation::Channel, prelude::*};

impl Folder {
    /// A checkpoint of a small network, its last bias `bias`.
    fn checkpoint(&self, in_channels: usize, bias: f64) -> String {
        let channels: Vec<Channel> = (0..in_channels).map(|i| Channel::new(format!("t{i}"), "MR")).collect();
        let preparation = Preparation::new([8, 8, 8], ["background", "organ"]).unwrap().channels(channels).unwrap();
        self.model(in_channels, bias, Some(preparation.orientation("RAS").unwrap()))
    }

    fn model(&self, in_channels: usize, bias: f64, preparation: Option<Preparation>) -> String {
        let config = UNet3dConfig { in_channels, classes: 2, widths: vec![2, 3] };
        let mut model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap();
        let value = Tensor::full(&[2], bias, DType::F32, Device::Cpu).unwrap();
        model.params_mut().set("head.bias", value).unwrap();
        let path = self.at(&format!("model-{in_channels}-{bias}-{}.safetensors", preparation.is_some()));
        if let Some(preparation) = preparation {
            model = model.with_preparation(&preparation).unwrap();
        }
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
        assert!(code == 2 && error.contains(pair[0].as_str()) && error.contains("give one file"), "{error}");
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
        ["text.nii: ", "expected NIfTI"],
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

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/hippocampus");

/// The example's own masks are those that the program makes from its checkpoint, byte for byte.
#[test]
fn the_example_and_the_program_write_the_same_masks() {
    let folder = Folder::new("example");
    let test = std::env::current_exe().unwrap();
    let example = test.parent().and_then(Path::parent).unwrap().join("examples/unet3d");
    assert!(example.exists(), "{} isn't there: cargo test --workspace builds it", example.display());
    let mut names: Vec<_> =
        fs::read_dir(Path::new(CASES).join("images")).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    // Of ten cases, numbers 4 and 9 validate.
    for part in ["images", "labels"] {
        for name in &names[..10] {
            let to = folder.at(&format!("data/{part}/{}", name.to_str().unwrap()));
            fs::copy(Path::new(CASES).join(part).join(name), to).unwrap();
        }
    }
    let (data, out) = (folder.at("data"), folder.at("run"));
    let mut run = Command::new(example);
    run.args(["--data", &data, "--out", &out, "--epochs", "2", "--widths", "4,8,16"]);
    assert!(run.output().unwrap().status.success());

    let masks = folder.files("run/masks");
    assert_eq!(masks.len(), 2);
    let inputs: Vec<String> = masks.iter().map(|name| folder.at(&format!("data/images/{name}"))).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let model = folder.at("run/last.safetensors");
    assert_eq!(predict(&model, &inputs, &folder.at("masks"), &[]), (0, String::new()));
    let read = |path: String| fs::read(path).unwrap();
    for name in &masks {
        assert!(read(folder.at(&format!("run/masks/{name}"))) == read(folder.at(&format!("masks/{name}"))), "{name}");
    }
    // In windows of another size, the masks are others, and it is said.
    let (code, said) = predict(&model, &inputs, &folder.at("others"), &["--patch", "64,64,64"]);
    assert_eq!((code, said.as_str()), (0, "tomograd: --patch 64,64,64 replaces 40,56,40 of the checkpoint\n"));
    assert!(
        masks
            .iter()
            .any(|name| { read(folder.at(&format!("others/{name}"))) != read(folder.at(&format!("masks/{name}"))) })
    );
}

#[test]
fn options_replace_what_the_checkpoint_says_and_say_so() {
    let folder = Folder::new("overrides");
    let (model, scan) = (folder.checkpoint(1, 0.0), folder.scan("a.nii", &SHAPE, 0.5));
    let options = [
        ("--overlap", "0.25", "0.5"),
        ("--mirroring", "true", "false"),
        ("--orientation", "LPS", "RAS"),
        ("--spacing", "2,2,2.5", "the file's own"),
        ("--normalise", "z-score-nonzero", "[{\"clip\":null,\"normalisation\":{\"z_score\":{\"nonzero\":false}}}]"),
        ("--classes", "0,300", "0,1"),
    ];
    let more: Vec<&str> = options.iter().flat_map(|(option, new, _)| [*option, *new]).collect();
    let (code, said) = predict(&model, &[&scan], &folder.at("masks"), &more);
    let expected: String = options
        .iter()
        .map(|(option, new, old)| format!("tomograd: {option} {new} replaces {old} of the checkpoint\n"))
        .collect();
    assert_eq!((code, said), (0, expected));
    let values = Volume::read(folder.at("masks/a.nii")).unwrap().voxels().to_vec_f64().unwrap();
    assert!(values.iter().all(|value| [0.0, 300.0].contains(value)), "{values:?}");
    for wrong in
        [["--overlap", "1"], ["--patch", "8,0,8"], ["--spacing", "1,1"], ["--orientation", "RAX"], ["--classes", "0"]]
    {
        let (code, error) = predict(&model, &[&scan], &folder.at("none"), &wrong);
        assert!(code == 2 && error.contains("expected"), "{wrong:?}: {error}");
        assert!(folder.files("none").is_empty());
    }
}

#[test]
fn a_checkpoint_without_a_preparation_needs_options() {
    let folder = Folder::new("former");
    let preparation = Preparation::new([8, 8, 8], ["background", "organ"]).unwrap();
    let (bare, whole) = (folder.model(1, 0.0, None), folder.model(1, 0.0, Some(preparation)));
    let scan = folder.scan("a.nii", &SHAPE, 0.5);
    let needed = ["--patch", "8,8,8", "--classes", "0,1", "--normalise", "z-score"];
    for given in [&[][..], &needed[..2], &needed[..4], &needed[2..], &["--orientation", "RAS"]] {
        let (code, error) = predict(&bare, &[&scan], &folder.at("masks"), given);
        assert_eq!((code, error.lines().count()), (2, 1), "{error}");
        assert!(["--patch", "--classes", "--normalise", &bare].iter().all(|part| error.contains(part)), "{error}");
    }
    assert!(folder.files("masks").is_empty());
    assert_eq!(predict(&bare, &[&scan], &folder.at("masks"), &needed), (0, String::new()));
    assert_eq!(predict(&whole, &[&scan], &folder.at("others"), &[]), (0, String::new()));
    assert!(fs::read(folder.at("masks/a.nii")).unwrap() == fs::read(folder.at("others/a.nii")).unwrap());

    // A preparation of a later version is the file's fault, not the command's.
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 3] };
    let model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap();
    let model = model.with_preparation(&serde_json::json!({"version": 2})).unwrap();
    let later = folder.at("later.safetensors");
    model.checkpoint().unwrap().save(&later).unwrap();
    let (code, error) = predict(&later, &[&scan], &folder.at("none"), &[]);
    assert!(code == 1 && error.contains("version 2") && error.contains("later.safetensors"), "{error}");
}

#[test]
fn folders_ensembles_and_slabs() {
    let folder = Folder::new("folders");
    let (model, second) = (folder.checkpoint(1, 0.0), folder.checkpoint(1, 0.5));
    for name in ["scans/a.nii", "scans/b.nrrd", "scans/c.nii.gz"] {
        folder.scan(name, &[12, 9, 10], 0.5);
    }
    fs::write(folder.at("scans/notes.txt"), "no volume").unwrap();
    fs::write(folder.at("scans/.hidden.nii"), "no volume").unwrap();
    fs::write(folder.at("scans/d.nii"), "no volume").unwrap();
    let (scans, out) = (folder.at("scans"), folder.at("masks"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tomograd"));
    command.args(["predict", &model, &scans, "--out", &out, "--json"]);
    let output = command.output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said["failed"][0].as_str().unwrap().ends_with("d.nii") && said["failed"].as_array().unwrap().len() == 1);
    assert_eq!(folder.files("masks"), ["a.nii", "b.nii.gz", "c.nii.gz"]);
    // The volume of a class is that of its voxels: 2 × 1.5 × 3 mm each.
    let inside = |path: &str| {
        let mask = Volume::read(path).unwrap();
        mask.voxels().to_vec_f64().unwrap()
    };
    let count = inside(&folder.at("masks/a.nii")).iter().filter(|value| **value == 1.0).count();
    let volume = said["masks"][0]["volumes_ml"]["organ"].as_f64().unwrap();
    assert!((volume - count as f64 * 0.009).abs() < 1e-9, "{said}");
    assert!(said["seconds"]["total"].as_f64().unwrap() > 0.0);

    // Slab by slab the mask is the same.
    fs::remove_file(folder.at("scans/d.nii")).unwrap();
    let (scan, slabs) = (folder.at("scans/a.nii"), folder.at("slabs"));
    assert_eq!(predict(&model, &[&scan], &slabs, &["--slabs"]), (0, String::new()));
    assert_eq!(fs::read(folder.at("slabs/a.nii")).unwrap(), fs::read(folder.at("masks/a.nii")).unwrap());
    let (code, error) = predict(&model, &[&folder.at("scans/c.nii.gz")], &slabs, &["--slabs"]);
    assert!(code == 1 && error.contains("can be read in part"), "{error}");

    // An ensemble of a network with itself decides as it does.
    let twice = folder.at("twice");
    assert_eq!(predict(&model, &[&scan], &twice, &["--ensemble", &model]).0, 0);
    assert_eq!(inside(&folder.at("twice/a.nii")), inside(&folder.at("masks/a.nii")));
    assert_eq!(predict(&model, &[&scan], &folder.at("both"), &["--ensemble", &second]).0, 0);
    // A checkpoint isn't overwritten, whichever it is.
    let renamed = folder.at("models/a.nii");
    fs::rename(&second, &renamed).unwrap();
    let (code, error) = predict(&model, &[&scan], &folder.at("models"), &["--ensemble", &renamed, "--overwrite"]);
    assert!(code == 2 && error.contains("would replace"), "{error}");
}

#[test]
fn an_interrupted_run_leaves_whole_files() {
    let folder = Folder::new("interrupted");
    let model = folder.checkpoint(1, 0.0);
    for number in 0..40 {
        folder.scan(&format!("scans/{number:02}.nii.gz"), &[24, 24, 24], 0.5);
    }
    let (scans, out) = (folder.at("scans"), folder.at("masks"));
    let mut running = Command::new(env!("CARGO_BIN_EXE_tomograd"))
        .args(["predict", &model, &scans, "--out", &out])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while folder.files("masks").iter().filter(|name| !name.starts_with('.')).count() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(running.try_wait().unwrap().is_none_or(|status| status.success()));
    }
    // As Ctrl-C does, without a chance to clean up.
    running.kill().unwrap();
    running.wait().unwrap();
    let masks: Vec<String> = folder.files("masks").into_iter().filter(|name| !name.starts_with('.')).collect();
    for name in &masks {
        assert_eq!(Volume::read(Path::new(&out).join(name)).unwrap().voxels().shape(), [24; 3], "{name}");
    }
}
