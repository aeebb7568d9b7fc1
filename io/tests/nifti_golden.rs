//! The small files that nibabel wrote (tests/golden/nifti), against what nibabel reads in them.

use std::path::Path;

use serde_json::Value;
use tomograd_io::Volume;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn every_golden_file_is_read_as_nibabel_reads_it_and_written_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nifti");
    let Ok(text) = std::fs::read_to_string(folder.join("nifti.json")) else {
        return; // a packaged crate doesn't hold the files
    };
    let golden: Value = serde_json::from_str(&text).unwrap();
    let files = golden["files"].as_array().unwrap();
    assert!(files.len() > 20);
    for said in files {
        let name = said["file"].as_str().unwrap();
        let volume = Volume::read(folder.join(name)).unwrap();
        let info = volume.info().unwrap();
        let shape: Vec<f64> = info.shape.iter().map(|&size| size as f64).collect();
        assert_eq!(shape, numbers(&said["shape"]), "{name}");
        assert_eq!(info.stored, said["dtype"].as_str().unwrap(), "{name}");
        for (row, expected) in info.affine.iter().zip(said["affine"].as_array().unwrap()) {
            for (a, b) in row.iter().zip(numbers(expected)) {
                assert!((a - b).abs() < 1e-6, "{name}: {:?}", info.affine);
            }
        }
        assert_eq!(info.orientation, said["orientation"].as_str().unwrap(), "{name}");
        assert_eq!(i64::from(info.qform_code), said["qform_code"].as_i64().unwrap(), "{name}");
        assert_eq!(i64::from(info.sform_code), said["sform_code"].as_i64().unwrap(), "{name}");
        for (a, b) in info.spacing.iter().zip(numbers(&said["zooms"])) {
            assert!((a - b).abs() < 1e-6, "{name}: {:?}", info.spacing);
        }
        let values = volume.voxels().to_vec_f64().unwrap();
        // Large values of both signs cancel, so the error is one of the sum of sizes.
        let (sum, sizes) = (said["sum"].as_f64().unwrap(), values.iter().map(|x| x.abs()).sum::<f64>());
        assert!((info.sum - sum).abs() <= 1e-9 * sizes.max(1.0), "{name}: {} {sum}", info.sum);
        for sample in said["voxels"].as_array().unwrap() {
            let place = numbers(&sample[0]);
            let at = place.iter().zip(&info.shape).rev().fold(0, |at, (&i, &size)| at * size + i as usize);
            let expected = sample[1].as_f64().unwrap();
            // serde_json may miss the last bit of a number of 16 digits.
            assert!(
                (values[at] - expected).abs() <= 1e-15 * expected.abs(),
                "{name} {place:?}: {} {expected}",
                values[at]
            );
        }

        // Written back, it is the file that it was, but for the compression.
        let original = std::fs::read(folder.join(name)).unwrap();
        let mut written = Vec::new();
        volume.write_to(&mut written, false).unwrap();
        if name.ends_with(".nii") {
            let differing: Vec<usize> = (0..written.len()).filter(|&i| original.get(i) != Some(&written[i])).collect();
            // The affine of a file without forms is the header's own; all else is copied.
            assert!(differing.is_empty() && written.len() == original.len(), "{name}: bytes {differing:?} differ");
        }
        let back = Volume::from_bytes(&written).unwrap();
        assert_eq!(back.geometry(), volume.geometry(), "{name}");
        assert_eq!(back.voxels().to_vec_f64().unwrap(), values, "{name}");
    }
}

/// Units, forms that can't be one, pairs, colours and complex numbers: see `more` in nifti_fixtures.py.
#[test]
fn files_where_the_programs_differ_say_what_itk_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nifti");
    let Ok(text) = std::fs::read_to_string(folder.join("nifti.json")) else {
        return; // a packaged crate doesn't hold the files
    };
    let golden: Value = serde_json::from_str(&text).unwrap();
    let plain = Volume::read(folder.join("int16.nii")).unwrap().voxels().to_vec_f64().unwrap();
    let files = golden["more"].as_array().unwrap();
    assert!(files.len() > 10);
    for said in files {
        for name in said["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()) {
            let volume = Volume::read(folder.join(name)).unwrap();
            let shape: Vec<usize> = numbers(&said["shape"]).iter().map(|&size| size as usize).collect();
            assert_eq!((volume.stored_dtype(), volume.file_shape()), (said["stored"].as_str().unwrap(), shape.clone()));
            for (row, expected) in volume.affine().iter().zip(said["affine"].as_array().unwrap()) {
                for (a, b) in row.iter().zip(numbers(expected)) {
                    assert!((a - b).abs() < 2e-6, "{name}: {:?}", volume.affine());
                }
            }
            let values = volume.voxels().to_vec_f64().unwrap();
            let expected: Vec<f64> = match shape.get(3) {
                None => plain.clone(),
                Some(&channels) => (0..channels * 60).map(|at| (4 * (at % 60) + at / 60) as f64).collect(),
            };
            assert_eq!(values, expected, "{name}");
            // Written as one file it says the same, in millimetres (an unknown unit stays unknown).
            let mut written = Vec::new();
            volume.write_to(&mut written, false).unwrap();
            let back = Volume::from_bytes(&written).unwrap();
            assert_eq!((back.geometry(), back.stored_dtype()), (volume.geometry(), volume.stored_dtype()), "{name}");
            assert_eq!(back.voxels().to_vec_f64().unwrap(), values, "{name}");
            assert_eq!(written[123] & 7, if name.starts_with("m") { 2 } else { 0 }, "{name}");
        }
    }
}
