//! `tomograd train` as a user runs it, and `predict` with what it leaves.

#[path = "common/folder.rs"]
mod folder;

use std::{fs, process::Command};

use folder::Folder;
use serde_json::{Value, json};
use tomograd::prelude::*;

fn tomograd(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tomograd")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A decathlon folder of six bright cubes, and a configuration for it.
fn cubes(name: &str) -> (Folder, Value) {
    let folder = Folder::new(&format!("train-{name}"));
    let mut training = Vec::new();
    for case in 0..6 {
        let inside = |at: usize| [at / 64, at / 8 % 8, at % 8].iter().all(|x| (1 + case % 3..5 + case % 3).contains(x));
        let values = |high: u8| (0..512).map(move |at| if inside(at) { high } else { (at % 7) as u8 * (high / 50) });
        let affine = tomograd::io::geometry::from_spacing([1.0; 3]).unwrap();
        for (part, high) in [("imagesTr", 200), ("labelsTr", 1)] {
            let voxels = Tensor::from_slice(&values(high).collect::<Vec<u8>>(), &[8; 3], Device::Cpu).unwrap();
            Volume::new(voxels, affine).unwrap().write(folder.at(&format!("data/{part}/cube_{case}.nii.gz"))).unwrap();
        }
        training.push(json!({"image": format!("./imagesTr/cube_{case}.nii.gz"), "label": format!("./labelsTr/cube_{case}.nii.gz")}));
    }
    let dataset = json!({"labels": {"0": "background", "1": "cube"}, "training": training});
    fs::write(folder.at("data/dataset.json"), dataset.to_string()).unwrap();
    let config = json!({
        "data": {"layout": "msd", "folder": "data"},
        "preparation": {"patch": [8, 8, 8], "orientation": "RAS", "overlap": 0.25},
        "network": {"network": "unet3d", "widths": [4, 8]},
        "training": {"epochs": 12, "batch": 1, "learning_rate": 0.02, "augment": false, "validate_every": 6},
        "out": "run",
    });
    (folder, config)
}

#[test]
fn a_configuration_trains_a_network_that_predicts() {
    let (folder, config) = cubes("learns");
    let file = folder.at("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let (code, out, error) = tomograd(&["train", &file, "--json"]);
    assert_eq!(code, 0, "{error}");
    let said: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert!(said["dice"].as_f64().unwrap() > 0.9, "{said}");
    let files = folder.files("run");
    for name in ["best.safetensors", "epochs.csv", "last.safetensors", "metrics.csv", "summary.csv"] {
        assert!(files.iter().any(|file| file == name), "{files:?}");
    }
    let (scan, masks) = (folder.at("data/imagesTr/cube_4.nii.gz"), folder.at("masks"));
    let (code, _, error) = tomograd(&["predict", &folder.at("run/best.safetensors"), &scan, "--out", &masks]);
    assert_eq!(code, 0, "{error}");
    let (code, out, _) = tomograd(&["evaluate", &masks, &folder.at("data/labelsTr"), "--json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    // The other five have no mask.
    assert!(code == 1 && said["cases"][0]["classes"]["1"]["dice"].as_f64().unwrap() > 0.9, "{said}");
    // Another run isn't overwritten; the same goes on where it is.
    let (code, _, error) = tomograd(&["train", &file]);
    assert!(code == 1 && error.contains("run"), "{error}");
    let (code, _, error) = tomograd(&["train", &file, "--resume"]);
    assert_eq!(code, 0, "{error}");
}

#[test]
fn a_configuration_that_is_wrong_says_where() {
    let (folder, config) = cubes("wrong");
    let file = folder.at("config.json");
    let (code, out, _) = tomograd(&["train", "--example"]);
    assert!(code == 0 && serde_json::from_str::<Value>(&out).is_ok());
    for (place, value, part) in [
        ("/data/folder", json!("nowhere"), "dataset.json"),
        ("/data/layout", json!("dicoms"), "unknown variant"),
        ("/preparation/patch", json!([8]), "a patch of 1 axes"),
        ("/preparation/orientation", json!("RAX"), "orientation"),
        ("/preparation/overlap", json!(1.5), "overlap"),
        ("/network/network", json!("unet3"), "unet3d"),
        ("/network/widths", json!("wide"), "widths"),
        ("/training/batch", json!(0), "batch"),
        ("/training/epochs", json!(-1), "`-1`"),
        ("/training/learning_rate", json!(-1.0), "rate"),
    ] {
        let mut wrong = config.clone();
        *wrong.pointer_mut(place).unwrap() = value;
        fs::write(&file, wrong.to_string()).unwrap();
        let (code, _, error) = tomograd(&["train", &file]);
        assert!(code == 1 && error.contains("config.json") && error.contains(part), "{place}: {error}");
        assert!(folder.files("run").is_empty(), "{place}");
    }
    assert_eq!(tomograd(&["train"]).0, 2);
}
