//! `tomograd dicom`: masks into segmentations and structure sets and back, reports, captures.

#[path = "../../io/tests/common/dicom.rs"]
mod files;
#[path = "common/folder.rs"]
mod folder;

use std::{fs, process::Command};

use files::{Slice, text};
use folder::Folder;
use tomograd::prelude::*;

/// Exit code, stdout and stderr of `tomograd dicom`.
fn dicom(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).arg("dicom").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A series, and a mask with labels 1 and 3 in its grid, its axes in another order.
fn prepared(folder: &Folder) -> (String, String) {
    for k in 0..3 {
        let slice = Slice {
            instance: format!("1.2.3.{k}"),
            position: Some([0.0, 0.0, 2.5 * f64::from(k)]),
            more: vec![text((0x20, 0x52), b"UI", "1.2.9")],
            ..Slice::default()
        };
        fs::write(folder.at(&format!("study/{k}")), slice.bytes()).unwrap();
    }
    let (study, mask) = (folder.at("study"), folder.at("mask.nii.gz"));
    let grid = Volume::read(&study).unwrap();
    let labels: Vec<u8> = (0..36).map(|i| [0, 1, 3, 0, 1][i % 5]).collect();
    let labels = Tensor::from_slice(&labels, &[3, 3, 4], Device::Cpu).unwrap();
    grid.with_voxels(labels).unwrap().reorient("RAS").unwrap().write(&mask).unwrap();
    (study, mask)
}

#[test]
fn masks_go_into_objects_and_come_back() {
    let folder = Folder::new("dicom-objects");
    let (study, mask) = prepared(&folder);
    let segments = folder.at("segments.json");
    fs::write(&segments, r#"[{"value": 1, "label": "Liver", "type": ["10200004", "SCT", "Liver"]}]"#).unwrap();
    let expected = Volume::read(&mask).unwrap().reorient("LPS").unwrap().voxels().to_vec_f64().unwrap();
    for kind in [&["seg"][..], &["seg", "--type", "label-map"], &["rtstruct"], &["rtstruct", "--holes", "xor"]] {
        let (object, back) = (folder.at("object.dcm"), folder.at("back.nii.gz"));
        let arguments =
            [kind, &[&mask, "--series", &study, "--out", &object, "--force", "--segments", &segments]].concat();
        let (code, out, error) = dicom(&arguments);
        assert_eq!((code, out.trim_end()), (0, &*format!("{object}  Liver, label 3")), "{error}");
        let (code, out, error) = dicom(&["masks", &object, "--series", &study, "--out", &back, "--force"]);
        assert!(
            code == 0 && out.contains("1 Liver, 14 voxels") && out.contains("2 label 3, 7 voxels"),
            "{out} {error}"
        );
        // Labels are the numbers of the structures.
        let found = Volume::read(&back).unwrap();
        let found = found.voxels().to_vec_f64().unwrap();
        assert!(found.iter().zip(&expected).all(|(found, label)| *found == [0.0, 1.0, 0.0, 2.0][*label as usize]));
        let each = folder.at("each");
        let one =
            ["masks", &object, "--series", &study, "--out", &each, "--each", "--name", "Liver", "--force", "--json"];
        let (code, out, error) = dicom(&one);
        assert!(code == 0 && out.contains("\"voxels\":14"), "{out} {error}");
        assert_eq!(folder.files("each"), ["1_Liver.nii.gz"]);
    }
}

#[test]
fn a_segmentation_is_measured_and_a_picture_captured() {
    let folder = Folder::new("dicom-report");
    let (study, mask) = prepared(&folder);
    let (seg, report, sheet) = (folder.at("seg.dcm"), folder.at("report.dcm"), folder.at("sheet.png"));
    dicom(&["seg", &mask, "--series", &study, "--out", &seg]);
    let (code, out, error) = dicom(&["report", &seg, "--series", &study, "--out", &report]);
    assert!(code == 0 && out.contains("label 1: 0.035 ml"), "{out} {error}");
    let (code, out, _) = dicom(&["report", &seg, "--series", &study, "--out", &report, "--force", "--json"]);
    assert!(code == 0 && out.contains("\"volume_mm3\":35.0"), "{out}");
    tomograd::io::write_rgb(std::path::Path::new(&sheet), 4, 2, &[7; 24]).unwrap();
    let capture = folder.at("capture.dcm");
    let (code, _, error) = dicom(&["capture", &sheet, "--series", &study, "--out", &capture]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(Volume::read(&capture).unwrap().voxels().to_vec::<u8>().unwrap(), [7; 24]);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = Folder::new("dicom-wrong");
    let (study, mask) = prepared(&folder);
    let seg = folder.at("seg.dcm");
    dicom(&["seg", &mask, "--series", &study, "--out", &seg]);
    // Another grid, a file that is there, a field that isn't known, a name that isn't there.
    let other = folder.at("other.nii.gz");
    let grid = tomograd::io::geometry::from_spacing([1.0; 3]).unwrap();
    Volume::new(Tensor::ones(&[3, 3, 4], DType::U8, Device::Cpu).unwrap(), grid).unwrap().write(&other).unwrap();
    let segments = folder.at("segments.json");
    fs::write(&segments, r#"[{"value": 1, "label": "Liver", "colour": "red"}]"#).unwrap();
    let new = folder.at("new.dcm");
    for (arguments, expected, message) in [
        (&["seg", &other, "--series", &study, "--out", &new][..], 1, "the grid of the series"),
        (&["seg", &mask, "--series", &study, "--out", &seg], 2, "is there already"),
        (&["seg", &mask, "--series", &study, "--out", &new, "--segments", &segments], 2, "unknown field `colour`"),
        (
            &["masks", &seg, "--series", &study, "--out", &folder.at("a.nii"), "--name", "x"],
            1,
            "expected one of label 1",
        ),
        (&["masks", &folder.at("study/0"), "--series", &study, "--out", &folder.at("a.nii")], 1, "an RT structure set"),
        (&["report", &mask, "--series", &study, "--out", &new], 1, "not a DICOM file"),
    ] {
        let (code, out, error) = dicom(arguments);
        assert!(code == expected && error.contains(message), "{arguments:?}: {code} {out} {error}");
    }
    assert!(!std::path::Path::new(&new).exists());
}
