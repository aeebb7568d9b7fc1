//! The small files that pydicom and its codecs wrote (tests/golden/dicom), against what pydicom reads in them.
#![cfg(feature = "dicom")]

use std::path::Path;

use serde_json::Value;
use tomograd_core::{DType, Tensor};
use tomograd_io::dicom;

fn fnv(bytes: &[u8]) -> String {
    let hashed = bytes
        .iter()
        .fold(0xCBF2_9CE4_8422_2325u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    format!("{hashed:016x}")
}

fn bytes(voxels: &Tensor) -> Vec<u8> {
    match voxels.dtype() {
        DType::U8 => voxels.to_vec::<u8>().unwrap(),
        DType::I32 => voxels.to_vec::<i32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F32 => voxels.to_vec::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => voxels.to_vec_f64().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

#[test]
fn every_file_is_read_as_pydicom_reads_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dicom");
    let Ok(text) = std::fs::read_to_string(folder.join("dicom.json")) else {
        return; // a packaged crate doesn't hold the files
    };
    let golden: Value = serde_json::from_str(&text).unwrap();
    let files = golden["files"].as_array().unwrap();
    assert!(files.len() > 40);
    let mut wrong = Vec::new();
    for said in files {
        let name = said["file"].as_str().unwrap();
        let volume = match dicom::read_file(folder.join(name)) {
            Ok(volume) => volume,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let voxels = volume.voxels();
        let shape: Vec<u64> = said["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap()).collect();
        assert_eq!(voxels.shape().iter().map(|&size| size as u64).collect::<Vec<_>>(), shape, "{name}");
        assert_eq!(voxels.dtype().to_string(), said["dtype"].as_str().unwrap(), "{name}");
        for (row, expected) in volume.affine().iter().zip(said["affine"].as_array().unwrap()) {
            for (a, b) in row.iter().zip(expected.as_array().unwrap()) {
                assert!((a - b.as_f64().unwrap()).abs() < 1e-9, "{name}: {:?}", volume.affine());
            }
        }
        if fnv(&bytes(voxels)) != said["fnv"].as_str().unwrap() {
            wrong.push(format!("{name}: other voxels"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
