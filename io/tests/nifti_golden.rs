//! Files made by nibabel, and what it says of them.

use std::path::Path;

use serde_json::Value;
use tomograd_io::Volume;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn check(volume: &Volume, expected: &Value, file: &str) {
    let mut shape = numbers(&expected["shape"]);
    while shape.len() < 3 {
        shape.push(1.0);
    }
    let ours: Vec<f64> = volume.voxels().shape().iter().rev().map(|&size| size as f64).collect();
    assert_eq!(ours, shape, "{file}");
    for (row, expected) in volume.affine().iter().zip(expected["affine"].as_array().unwrap()) {
        for (value, expected) in row.iter().zip(numbers(expected)) {
            // Quaternions and spacings are f32 in the file; nibabel computes with them in f64, as we do.
            assert!((value - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{file}: {value} {expected}");
        }
    }
    assert_eq!(volume.orientation(), expected["orientation"].as_str().unwrap(), "{file}");
    assert_eq!(volume.geometry().qform_code, expected["qform_code"].as_i64().unwrap() as i32, "{file}");
    assert_eq!(volume.geometry().sform_code, expected["sform_code"].as_i64().unwrap() as i32, "{file}");
    let values = volume.voxels().to_vec_f64().unwrap();
    let sum: f64 = values.iter().sum();
    let expected_sum = expected["sum"].as_f64().unwrap();
    let size: f64 = values.iter().map(|v| v.abs()).sum();
    assert!((sum - expected_sum).abs() <= 1e-6 * (1.0 + size), "{file}: sum {sum} {expected_sum}");
    for voxel in expected["voxels"].as_array().unwrap() {
        let (index, value) = (numbers(&voxel[0]), voxel[1].as_f64().unwrap());
        let (mut place, mut stride) = (0, 1);
        for (i, size) in index.iter().zip(&shape) {
            place += *i as usize * stride;
            stride *= *size as usize;
        }
        // Scaled values are f32.
        assert!((values[place] - value).abs() <= 1e-6 * (1.0 + value.abs()), "{file}: {} {value}", values[place]);
    }
}

#[test]
fn what_nibabel_wrote_is_read_as_nibabel_reads_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nifti");
    let list: Value = serde_json::from_slice(&std::fs::read(folder.join("nifti.json")).unwrap()).unwrap();
    let files = list["files"].as_array().unwrap();
    assert!(files.len() > 20);
    for expected in files {
        let file = expected["file"].as_str().unwrap();
        let volume = Volume::read(folder.join(file)).unwrap_or_else(|error| panic!("{error}"));
        check(&volume, expected, file);
        // Written and read again it is the same, codes and geometry too.
        let copy = std::env::temp_dir().join(format!("tomograd-golden-{}-{file}", std::process::id()));
        volume.write(&copy).unwrap();
        let again = Volume::read(&copy).unwrap();
        std::fs::remove_file(&copy).unwrap();
        check(&again, expected, file);
    }
}
