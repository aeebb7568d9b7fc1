//! `tomograd evaluate` as a user runs it.

#[path = "common/folder.rs"]
mod folder;

use std::{fs, path::Path, process::Command};

use folder::Folder;
use serde_json::Value;
use tomograd::prelude::*;

fn tomograd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).arg("evaluate").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Masks of 6 voxels of a millilitre each, by name, in two formats.
fn folders(name: &str) -> (Folder, [String; 2]) {
    let folder = Folder::new(&format!("evaluate-{name}"));
    let write = |path: &str, values: &[u8]| {
        let path = folder.at(path);
        let voxels = Tensor::from_slice(values, &[1, 1, 6], Device::Cpu).unwrap();
        let affine = tomograd::io::geometry::from_spacing([10.0; 3]).unwrap();
        Volume::new(voxels, affine).unwrap().write(path).unwrap();
    };
    write("masks/a.nii.gz", &[0, 7, 7, 7, 0, 0]);
    write("truth/a.nrrd", &[0, 0, 7, 7, 7, 7]);
    write("masks/b.nii.gz", &[2, 2, 0, 0, 7, 0]);
    write("truth/b.nrrd", &[2, 2, 0, 0, 7, 0]);
    let paths = ["masks", "truth"].map(|part| folder.at(part));
    (folder, paths)
}

#[test]
fn classes_and_cases_have_their_numbers() {
    let (folder, [masks, truth]) = folders("numbers");
    let csv = folder.at("cases.csv");
    let arguments = [&masks, &truth, "--tolerance", "10", "--json", "--csv", &csv];
    let (code, out, error) = tomograd(&arguments);
    assert_eq!((code, &error[..]), (0, ""));
    let said: Value = serde_json::from_str(&out).unwrap();
    let case = &said["cases"][0];
    assert_eq!((&case["case"], &case["classes"]["7"]["dice"]), (&"a".into(), &(4.0 / 7.0).into()));
    assert_eq!(case["classes"]["7"]["surface_dice"], 6.0 / 7.0);
    assert_eq!(
        (&case["classes"]["7"]["volume_ml"], &case["classes"]["7"]["true_volume_ml"]),
        (&3.0.into(), &4.0.into())
    );
    // Neither mask of the first case has the class 2.
    assert_eq!((&case["classes"]["2"]["dice"], &case["classes"]["2"]["volume_ml"]), (&Value::Null, &0.0.into()));
    let class = &said["classes"][1];
    assert_eq!((&class["class"], &class["quantities"]["dice"]["defined"]), (&"7".into(), &2.into()));
    let mean = (4.0 / 7.0 + 1.0) / 2.0;
    assert!((class["quantities"]["dice"]["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
    let interval = &class["quantities"]["dice"]["interval"];
    assert!((interval[0].as_f64().unwrap() - 4.0 / 7.0).abs() < 1e-12 && interval[1] == 1.0, "{interval}");
    let table = fs::read_to_string(&csv).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "case,class,dice,iou,surface_dice,hd95,assd,volume_ml,true_volume_ml");
    assert_eq!((lines.len(), lines[1]), (5, "a,2,,,,,,0,0"));
    assert!(lines[2].starts_with("a,7,0.571") && lines[4].starts_with("b,7,1,1,1,0,0,1,1"), "{table}");
    // A second run keeps the file.
    let (code, _, error) = tomograd(&arguments);
    assert!(code == 2 && error.contains("--force"), "{error}");

    let named = [&masks, &truth, "--labels", "7,9", "--names", "liver,spleen"];
    let (code, out, _) = tomograd(&named);
    assert!(code == 0 && out.contains("liver") && !out.lines().any(|line| line.starts_with('2')), "{out}");
    assert_eq!(folder.files(""), ["cases.csv", "masks", "truth"]);
    let spleen = out.lines().find(|line| line.starts_with("spleen  dice")).unwrap();
    assert!(spleen.contains("NaN") && spleen.ends_with(" 0"), "{spleen}");
}

#[test]
fn a_bad_case_is_named_and_the_others_count() {
    let (_folder, [masks, truth]) = folders("bad");
    fs::write(Path::new(&truth).join("c.nii"), "nothing").unwrap();
    fs::write(Path::new(&masks).join("d.nii.gz"), "nothing").unwrap();
    fs::remove_file(Path::new(&masks).join("b.nii.gz")).unwrap();
    let (code, out, error) = tomograd(&[&masks, &truth]);
    assert_eq!(code, 1);
    assert!(out.contains("0.5714"), "{out}");
    assert!(error.contains("d has no truth") && error.contains("2 of 3 files failed: b, c"), "{error}");
    // A single pair.
    let files = [Path::new(&masks).join("a.nii.gz"), Path::new(&truth).join("a.nrrd")];
    let (code, out, _) = tomograd(&[files[0].to_str().unwrap(), files[1].to_str().unwrap()]);
    assert!(code == 0 && out.contains("0.5714"), "{out}");
    for wrong in [
        &["--labels", "0,1"][..],
        &["--labels", "1,1"],
        &["--labels", "1", "--names", "a,b"],
        &["--tolerance=-1"],
        &["--tolerance", "nan"],
        &["--resamples", "0"],
        &["--names", "a"],
    ] {
        assert_eq!(tomograd(&[&[&masks[..], &truth], wrong].concat()).0, 2, "{wrong:?}");
    }
}

#[test]
fn the_page_needs_nothing_and_shows_the_worst_case_first() {
    let folder = Folder::new("evaluate-page");
    let mask = |path: &str, offset: usize| {
        let inside = |at: usize| {
            let [z, y, x] = [at / 144, at / 12 % 12, at % 12];
            u8::from((3..9).contains(&z) && (3..9).contains(&y) && (2 + offset..6 + offset).contains(&x))
        };
        let voxels = Tensor::from_slice(&(0..12 * 12 * 12).map(inside).collect::<Vec<_>>(), &[12; 3], Device::Cpu);
        let affine = tomograd::io::geometry::from_spacing([1.0; 3]).unwrap();
        Volume::new(voxels.unwrap(), affine).unwrap().write(folder.at(path)).unwrap();
    };
    // A name that would be markup.
    for (name, offset) in [("good", 0), ("x<script>alert(1)<", 3), ("middle", 1)] {
        mask(&format!("truth/{name}.nii.gz"), 0);
        mask(&format!("masks/{name}.nii.gz"), offset);
        mask(&format!("images/{name}.nii.gz"), 0);
    }
    let [masks, truth, images, html] = ["masks", "truth", "images", "report.html"].map(|part| folder.at(part));
    let named = ["--labels", "1", "--names", "a\"<b>&", "--html", &html, "--images", &images];
    let (code, _, error) = tomograd(&[&[&masks[..], &truth][..], &named].concat());
    assert_eq!((code, &error[..]), (0, ""));
    let page = fs::read_to_string(&html).unwrap();
    assert!(!page.contains("<script") && !page.contains("<b>") && page.contains("a&quot;&lt;b&gt;&amp;"));
    // Nothing is fetched: no address, and what has a source has its bytes.
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("url("));
    assert!(page.matches("src=\"").count() == 9 && page.matches("src=\"data:image/png;base64,iVBOR").count() == 9);
    let place = |name: &str| page.find(&format!("<h3>{name}")).unwrap();
    assert!(place("x&lt;script") < place("middle") && place("middle") < place("good"));
    // Three box plots and the volumes of one class.
    assert_eq!((page.matches("<svg").count(), page.matches("</svg>").count()), (4, 4));
    let (code, out, _) = tomograd(&[&masks, &truth, "--json", "--html", &html]);
    assert_eq!((code, &out[..]), (2, ""));
    let (code, out, _) = tomograd(&[&masks, &truth, "--json", "--html", &html, "--force", "--pictures", "1"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, fs::read_to_string(&html).unwrap().matches("<img").count()), (0, 3));
    // 144 voxels of 1728; shifted by 0, 1 and 3 of 4 columns.
    let matrix = &said["confusion"]["voxels_by_truth_and_prediction"];
    assert_eq!(*matrix, serde_json::json!([[3 * 1584 - 144, 144], [144, 3 * 144 - 144]]));
    let agreement = &said["classes"][0]["volume_difference_ml"];
    assert_eq!(*agreement, serde_json::json!({"bias": 0.0, "limits_of_agreement": [0.0, 0.0], "cases": 3}));
}
