//! `tomograd convert` and `tomograd view` as a user runs them.

#[path = "common/folder.rs"]
mod folder;

use std::{fs, path::Path, process::Command};

use folder::Folder;
use tomograd::prelude::*;

impl Folder {
    /// A scan of (5, 4, 3) voxels that runs to the left, back and head.
    fn scan(&self, name: &str) -> String {
        let voxels = Tensor::arange(60, DType::I32, Device::Cpu).unwrap().reshape(&[5, 4, 3]).unwrap();
        let affine = [[-1.0, 0.0, 0.0, 7.0], [0.0, -1.5, 0.0, 8.0], [0.0, 0.0, 2.0, 9.0], [0.0, 0.0, 0.0, 1.0]];
        let path = self.at(name);
        Volume::new(voxels, affine).unwrap().write(&path).unwrap();
        path
    }
}

/// Exit code, standard output and standard error.
fn tomograd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).args(arguments).env("COLUMNS", "40").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn any_format_becomes_any_other() {
    let folder = Folder::new("any");
    let mut input = folder.scan("a.nii.gz");
    let first = Volume::read(&input).unwrap();
    for (at, ending) in ["nrrd", "mha", "nhdr", "mhd", "nii", "nii.gz"].into_iter().enumerate() {
        let output = folder.at(&format!("b{at}.{ending}"));
        let (code, out, error) = tomograd(&["convert", &input, &output]);
        assert_eq!((code, &error[..]), (0, ""));
        assert!(out.starts_with(&output) && out.contains("3 × 4 × 5, 1.0000 × 1.5000 × 2.0000 mm, LPS"), "{out}");
        let volume = Volume::read(&output).unwrap();
        assert_eq!(volume.voxels().to_vec::<i32>().unwrap(), first.voxels().to_vec::<i32>().unwrap());
        assert_eq!(volume.affine(), first.affine(), "{ending}");
        input = output;
    }
}

#[test]
fn orientation_and_spacing_are_as_asked() {
    let folder = Folder::new("turned");
    let (input, output) = (folder.scan("a.nrrd"), folder.at("b.mha"));
    let (code, out, error) = tomograd(&[
        "convert",
        &input,
        &output,
        "--orientation",
        "RAS",
        "--spacing",
        "1,1,1",
        "--interpolation",
        "nearest",
        "--json",
    ]);
    assert_eq!(code, 0, "{error}");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&said["orientation"], &said["format"]), (&"RAS".into(), &"MetaImage".into()));
    assert_eq!(said["spacing"], serde_json::json!([1.0, 1.0, 1.0]));
    let expected = Volume::read(&input).unwrap().reorient("RAS").unwrap();
    let expected = expected.resample([1.0; 3], tomograd::io::Interpolation::Nearest).unwrap();
    let volume = Volume::read(&output).unwrap();
    assert_eq!(volume.voxels().to_vec::<i32>().unwrap(), expected.voxels().to_vec::<i32>().unwrap());
    assert_eq!((volume.stored_dtype(), volume.voxels().shape()), ("int32", &[10, 6, 3][..]));
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let folder = Folder::new("kept");
    let input = folder.scan("a.nii");
    let (output, data) = (folder.at("b.mhd"), folder.at("b.zraw"));
    // The data file of a header counts too.
    for kept in [&output, &data] {
        fs::write(kept, "edited by hand").unwrap();
        let (code, _, error) = tomograd(&["convert", &input, &output]);
        assert!(code == 2 && error.contains(kept.as_str()) && error.contains("--force"), "{error}");
        assert_eq!(fs::read(kept).unwrap(), b"edited by hand");
        fs::remove_file(kept).unwrap();
    }
    fs::write(&output, "edited by hand").unwrap();
    assert_eq!(tomograd(&["convert", &input, &output, "--force"]).0, 0);
    assert_eq!(folder.files(""), ["a.nii", "b.mhd", "b.zraw"]);
    // Never the input.
    let (code, _, error) = tomograd(&["convert", &input, &input, "--force"]);
    assert!(code == 2 && error.contains("is the input"), "{error}");
}

#[test]
fn command_lines_that_make_no_sense_read_nothing() {
    let folder = Folder::new("senseless");
    let input = folder.scan("a.nii");
    let output = folder.at("b.nii");
    for arguments in [
        &["convert", &input, &folder.at("b.dat")][..],
        &["convert", &input, &output, "--orientation", "RAR"],
        &["convert", &input, &output, "--spacing", "1,1"],
        &["convert", &input, &output, "--spacing", "1,0,1"],
        &["convert", &input, &output, "--spacing", "1,nan,1"],
        &["convert", &input],
        &["view", &input, "--window", "1"],
        &["view", &input, "--window", "1,0"],
        &["view", &input, "--slices", "0"],
        &["view", &input, "--out", &folder.at("b.tif")],
        &["view", &input, "--out", &input],
    ] {
        let (code, _, error) = tomograd(arguments);
        assert!(code == 2 && !error.is_empty(), "{arguments:?}: {error}");
    }
    // What is wrong in a file is another matter.
    let broken = folder.at("broken.nrrd");
    fs::write(&broken, "NRRD0004\ntype: short\n").unwrap();
    for arguments in [&["convert", &broken, &output][..], &["view", &broken], &["convert", &folder.at("none"), &output]]
    {
        let (code, _, error) = tomograd(arguments);
        assert!(code == 1 && error.lines().count() == 1, "{arguments:?}: {error}");
    }
    assert_eq!(folder.files(""), ["a.nii", "broken.nrrd"]);
}

#[test]
fn all_volumes_of_a_folder_are_converted() {
    let folder = Folder::new("all");
    for name in ["in/a.nii.gz", "in/b.1.mha", "in/c.nhdr"] {
        folder.scan(name);
    }
    fs::write(folder.at("in/broken.nii"), "nothing of the kind").unwrap();
    fs::write(folder.at("in/notes.txt"), "of the study").unwrap();
    let (input, out) = (folder.at("in"), folder.0.join("out").to_str().unwrap().to_owned());
    for (arguments, said) in [
        (&["--format", "dat"][..], "isn't named as a format"),
        (&["--format", "nrrd", "--stack", "1"], "--format alone"),
        (&["--format", "nrrd", "--level", "1"], "--format alone"),
        (&["--format", "nrrd", "--spacing", "1,1"], "x, y and z"),
    ] {
        let (code, _, error) = tomograd(&[&["convert", &input, &out], arguments].concat());
        assert!(code == 2 && error.contains(said) && !Path::new(&out).exists(), "{arguments:?}: {error}");
    }
    let (code, text, error) = tomograd(&["convert", &input, &out, "--format", ".nrrd", "--orientation", "RAS"]);
    assert!(code == 1 && error.contains("1 of 4 files failed: ") && error.contains("broken.nii"), "{error}");
    assert!(
        text.lines().count() == 3
            && text.lines().all(|line| line.ends_with("NRRD, 3 × 4 × 5, 1.0000 × 1.5000 × 2.0000 mm, RAS")),
        "{text}"
    );
    assert_eq!(folder.files("out"), ["a.nrrd", "b.1.nrrd", "c.nrrd"]);
    let expected = Volume::read(folder.at("in/a.nii.gz")).unwrap().reorient("RAS").unwrap();
    let volume = Volume::read(folder.at("out/b.1.nrrd")).unwrap();
    assert_eq!(volume.voxels().to_vec::<i32>().unwrap(), expected.voxels().to_vec::<i32>().unwrap());
    // Nothing is overwritten, and no input ever.
    let (code, _, error) = tomograd(&["convert", &input, &out, "--format", "nrrd"]);
    assert!(code == 2 && error.contains("is there already") && error.contains("--force"), "{error}");
    let (code, _, error) = tomograd(&["convert", &input, &input, "--format", "mha", "--force"]);
    assert!(code == 2 && error.contains("b.1.mha, which is read"), "{error}");
    let (code, text, _) = tomograd(&["convert", &input, &out, "--format", "nrrd", "--force", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, said["converted"].as_array().unwrap().len()), (1, 3));
    assert_eq!(said["converted"][1]["files"][0], folder.at("out/b.1.nrrd"));
    assert_eq!(said["failed"].as_array().unwrap().len(), 1);
}

#[test]
fn a_picture_loses_its_place_and_says_so() {
    let folder = Folder::new("picture");
    let input = folder.scan("a.nii");
    let (code, out, error) = tomograd(&["convert", &input, &folder.at("b.tif"), "--json"]);
    assert_eq!((code, &error[..]), (0, ""));
    assert!(out.contains("TIFF doesn't hold orientation and origin"), "{out}");
    let (code, _, error) = tomograd(&["convert", &folder.at("b.tif"), &folder.at("c.nrrd")]);
    assert!(code == 0 && error.contains("taken as LPS"), "{error}");
    let (code, text, error) = tomograd(&["convert", &folder.at("c.nrrd"), &folder.at("d.jpg"), "--json"]);
    assert!(code == 1 && text.is_empty() && error.contains("one plane"), "{error}");
    // Five planes are no PNG.
    let (code, _, error) = tomograd(&["convert", &input, &folder.at("b.png")]);
    assert!(code == 1 && error.contains("one plane"), "{error}");
    assert_eq!(folder.files(""), ["a.nii", "b.tif", "c.nrrd"]);
}

/// A head in LPS: the left half is bright, and the label lies at its front.
fn head(folder: &Folder) -> (String, String) {
    let shape = [8usize, 10, 12];
    let place = |at: usize| [at % 12, at / 12 % 10, at / 120];
    let bright: Vec<f32> = (0..960).map(|at| if place(at)[0] >= 6 { 100.0 } else { 0.0 }).collect();
    let label: Vec<u8> = (0..960).map(|at| u8::from(place(at)[0] < 5 && place(at)[1] < 5)).collect();
    let affine = [[-2.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    let image = Volume::new(Tensor::from_slice(&bright, &shape, Device::Cpu).unwrap(), affine).unwrap();
    let mask = image.with_voxels(Tensor::from_slice(&label, &shape, Device::Cpu).unwrap()).unwrap();
    let (image_path, mask_path) = (folder.at("head.nii.gz"), folder.at("mask.mha"));
    // The file's axes are others: what is shown doesn't depend on them.
    image.reorient("SAR").unwrap().write(&image_path).unwrap();
    mask.reorient("PIR").unwrap().write(&mask_path).unwrap();
    (image_path, mask_path)
}

#[test]
fn levels_of_slides_are_listed_and_converted() {
    let folder = Folder::new("slide");
    let slide = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/slides/svs_deflate.svs");
    let (code, out, error) = tomograd(&["info", slide]);
    assert_eq!((code, &error[..]), (0, ""));
    for part in [
        "format    Aperio SVS",
        "level 0   150 × 115, 1:1.00, 0.4990 × 0.4990 µm, tiles of 48 × 32, deflate",
        "level 2   37 × 28, 1:4.05",
        "2 other pictures",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (whole, part) = (folder.at("whole.png"), folder.at("part.png"));
    assert_eq!(tomograd(&["convert", slide, &whole, "--level", "1"]).0, 0);
    assert_eq!(tomograd(&["convert", slide, &part, "--level", "1", "--region", "10,20,50,30"]).0, 0);
    let [whole, part] = [whole, part].map(|path| tomograd::io::read_png(Path::new(&path)).unwrap());
    assert_eq!((whole.shape(), part.shape()), (&[3, 57, 75][..], &[3, 30, 50][..]));
    let cut = whole.narrow(1, 20, 30).unwrap().narrow(2, 10, 50).unwrap();
    assert_eq!(part.to_vec::<u8>().unwrap(), cut.to_vec::<u8>().unwrap());
    let none = folder.at("none.png");
    let (code, _, error) = tomograd(&["convert", slide, &none, "--region", "1,2,3"]);
    assert!(code == 2 && error.contains("x, y, width and height"), "{error}");
    let (code, _, error) = tomograd(&["convert", slide, &none, "--level", "3"]);
    assert!(code == 1 && error.contains("0 to 2"), "{error}");
    let (code, _, error) = tomograd(&["convert", slide, &none]);
    assert!(code == 1 && error.contains("--level"), "{error}");
}

#[test]
fn slices_lie_as_a_radiologist_sees_them() {
    let folder = Folder::new("view");
    let (image, mask) = head(&folder);
    let out = folder.at("sheet.png");
    let arguments =
        ["view", &image, "--mask", &mask, "--out", &out, "--window", "50,100", "--plane", "axial", "--width", "122"];
    let (code, said, error) = tomograd(&arguments);
    assert_eq!((code, &error[..]), (0, ""));
    assert!(said.contains("120 × 100 pixels"), "{said}");
    let picture = tomograd::io::read_png(Path::new(&out)).unwrap();
    assert_eq!(picture.shape(), [3, 100, 120]);
    let pixels = picture.to_vec::<u8>().unwrap();
    let at = |column: usize, row: usize| [0, 1, 2].map(|channel| pixels[(channel * 100 + row) * 120 + column]);
    // The patient's left is on the right of the picture, and bright.
    assert_eq!((at(110, 70), at(20, 90)), ([255; 3], [0; 3]));
    // The label is on the patient's right and at the front: its border runs down at column 49, and across at row 49.
    assert_eq!((at(49, 20), at(20, 49)), ([255, 70, 50], [255, 70, 50]));
    assert_eq!((at(51, 20), at(20, 51), at(30, 30)), ([0; 3], [0; 3], [0; 3]));
    // The letter R on the left side.
    assert_eq!(at(3, 50), [255; 3]);
    let (code, _, error) = tomograd(&arguments);
    assert!(code == 2 && error.contains("is there already"), "{error}");
    // The same as JPEG, nearly.
    let near = folder.at("sheet.jpg");
    let arguments =
        ["view", &image, "--mask", &mask, "--out", &near, "--window", "50,100", "--plane", "axial", "--width", "122"];
    assert_eq!(tomograd(&arguments).0, 0);
    let (read, pixels) = (Volume::read(&near).unwrap(), picture.to_vec::<u8>().unwrap());
    assert_eq!((read.voxels().shape(), read.stored_dtype()), (&[3, 1, 100, 120][..], "rgb24"));
    let differences =
        read.voxels().to_vec::<u8>().unwrap().into_iter().zip(pixels).map(|(a, b)| f64::from(a.abs_diff(b)));
    assert!(differences.sum::<f64>() / 36_000.0 < 4.0);
    // And converted: what is lost is said.
    let (code, text, error) = tomograd(&["convert", &near, &folder.at("again.jpeg"), "--json"]);
    assert!(code == 0 && text.contains("JPEG changes values a little"), "{text}{error}");
    // All planes: the head is 24 × 20 × 32 mm.
    fs::remove_file(&out).unwrap();
    let (code, said, error) = tomograd(&["view", &image, "--out", &out, "--slices", "2"]);
    assert!(code == 0 && said.contains("482 × 844 pixels"), "{said}{error}");
}

#[test]
fn the_terminal_shows_two_pixels_a_character() {
    let folder = Folder::new("terminal");
    let (image, _) = head(&folder);
    let (code, out, error) = tomograd(&["view", &image, "--plane", "coronal", "--window", "50,100"]);
    assert_eq!((code, &error[..]), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    // 24 × 32 mm in 38 columns at most: the longer side, 32 mm, has 38 pixels.
    assert_eq!((lines.len(), lines[3].chars().filter(|c| *c == '▀').count()), (19, 29));
    assert!(lines[3].starts_with("\x1b[38;2;0;0;0;48;2;0;0;0m▀") && lines[3].ends_with("▀\x1b[0m"), "{:?}", lines[3]);
    assert!(lines[3].contains("\x1b[38;2;255;255;255;48;2;255;255;255m"));
}

#[test]
fn shells_and_manuals_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = tomograd(&["completions", shell]);
        assert!(code == 0 && out.contains("convert") && out.contains("--orientation") | out.contains("orientation"));
    }
    let (code, out, _) = tomograd(&["man", "convert"]);
    assert!(code == 0 && out.starts_with(".ie") && out.contains("orientation"), "{out}");
    assert!(tomograd(&["man"]).1.contains("convert"));
    let (code, _, error) = tomograd(&["man", "nonsense"]);
    assert!(code == 2 && error.contains("predict"), "{error}");
}
