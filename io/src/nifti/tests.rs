use tomograd_core::{DType, Device, Tensor};

use super::*;

fn volume() -> Volume {
    let voxels = Tensor::arange(24, DType::I32, Device::Cpu).unwrap().reshape(&[2, 3, 4]).unwrap();
    Volume::new(voxels, [[-1.5, 0.0, 0.0, 10.0], [0.0, 0.0, 2.0, -20.0], [0.0, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
        .unwrap()
}

fn bytes(volume: &Volume) -> Vec<u8> {
    let mut bytes = Vec::new();
    volume.write_to(&mut bytes, false).unwrap();
    bytes
}

/// A header of `version` in either byte order, with `count` raw voxels of `stored`.
fn file(
    version: Version,
    big: bool,
    stored: Stored,
    sizes: &[usize],
    scaling: Option<[f64; 2]>,
    raw: &[u8],
) -> Vec<u8> {
    let source = volume();
    let mut header = Header::new(version);
    if big {
        header = header.swapped();
    }
    header.set(sizes, source.geometry(), Coding { stored, scaling: None }, false, 4).unwrap();
    if let Some(scaling) = scaling {
        header.set_scaling(scaling);
    }
    let mut bytes = header.bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend_from_slice(raw);
    bytes
}

#[test]
fn reads_what_it_writes() {
    let volume = volume();
    let back = Volume::from_bytes(&bytes(&volume)).unwrap();
    assert_eq!(back.geometry(), volume.geometry());
    assert_eq!(back.voxels().to_vec::<i32>().unwrap(), volume.voxels().to_vec::<i32>().unwrap());
    assert_eq!((back.orientation(), back.spacing()), ("LSA".to_owned(), [1.5, 0.5, 2.0]));
    for name in ["a.nii", "a.nii.gz"] {
        let path = std::env::temp_dir().join(format!("tomograd-{}-{name}", std::process::id()));
        volume.write(&path).unwrap();
        let back = Volume::read(&path).unwrap();
        assert_eq!(back.voxels().to_vec::<i32>().unwrap(), volume.voxels().to_vec::<i32>().unwrap());
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_file_that_was_read_is_written_the_same_to_the_byte() {
    let raw: Vec<u8> = (0..24 * 8).map(|i| (i * 37 % 256) as u8 & 0x3F).collect();
    for version in [Version::One, Version::Two] {
        for big in [false, true] {
            for stored in [2i16, 4, 8, 16, 64, 256, 512, 768, 1024, 1280].map(|code| Stored::from_code(code).unwrap()) {
                for scaling in [None, Some([0.25, -100.0])] {
                    let raw = &raw[..24 * stored.size()];
                    if scaling.is_some() && matches!(stored, Stored::F32 | Stored::F64 | Stored::I64 | Stored::U64) {
                        continue;
                    }
                    let original = file(version, big, stored, &[4, 3, 2], scaling, raw);
                    let volume = Volume::from_bytes(&original).unwrap();
                    assert!(bytes(&volume) == original, "{version:?} {big} {stored:?} {scaling:?}");
                }
            }
        }
    }
}

#[test]
fn a_mask_has_the_geometry_of_its_image() {
    let image =
        Volume::from_bytes(&file(Version::Two, true, Stored::I16, &[4, 3, 2], Some([2.0, 1.0]), &[1; 48])).unwrap();
    assert_eq!(image.stored_dtype(), "int16");
    let mask = image.with_voxels(Tensor::ones(&[2, 3, 4], DType::U8, Device::Cpu).unwrap()).unwrap();
    let back = Volume::from_bytes(&bytes(&mask)).unwrap();
    assert_eq!(back.geometry(), image.geometry());
    assert_eq!((back.stored_dtype(), back.voxels().dtype()), ("uint8", DType::U8));
    assert_eq!(back.voxels().to_vec::<u8>().unwrap(), [1; 24]);
}

#[test]
fn lies_are_errors_that_say_so() {
    let good = bytes(&volume());
    let refused = |changes: &[(usize, &[u8])], says: &str| {
        let mut bytes = good.clone();
        for (at, part) in changes {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        let error = Volume::from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{error:?} doesn't say {says:?}");
    };
    let most = 32767i16.to_le_bytes();
    // 32767³ voxels would be 141 TB.
    refused(&[(42, &most), (44, &most), (46, &most)], "the file holds at most 448 bytes");
    refused(&[(42, &(-4i16).to_le_bytes())], "axis 1 has -4 voxels");
    refused(&[(42, &[0, 0])], "axis 1 has 0 voxels");
    refused(&[(40, &[8, 0])], "8 axes");
    refused(&[(40, &[0, 0])], "0 axes");
    let seven: Vec<u8> =
        [7i16, 32767, 32767, 32767, 32767, 32767, 32767, 32767].iter().flat_map(|x| x.to_le_bytes()).collect();
    refused(&[(40, &seven)], "overflows");
    refused(&[(344, b"xyz")], "the magic");
    refused(&[(344, b"ni1")], "one file");
    refused(&[(0, &[1, 2, 3, 4])], "a header of");
    refused(&[(70, &32i16.to_le_bytes())], "complex numbers");
    refused(&[(70, &128i16.to_le_bytes())], "colours");
    refused(&[(70, &999i16.to_le_bytes())], "an unknown type");
    refused(&[(72, &8i16.to_le_bytes())], "8 bits a voxel of datatype int32");
    for offset in [f32::NAN, f32::INFINITY, -1.0, 0.0, 347.0, 352.5] {
        refused(&[(108, &offset.to_le_bytes())], "voxels from byte");
    }
    refused(&[(108, &1e12f32.to_le_bytes())], "the file holds at most 448 bytes");
    refused(&[(112, &2f32.to_le_bytes()), (116, &f32::NAN.to_le_bytes())], "a finite intercept");
    refused(&[(280, &f32::NAN.to_le_bytes())], "isn't finite");
    // A slope that isn't a number means no scaling, as nibabel has it.
    let mut bytes = good.clone();
    bytes[112..116].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(Volume::from_bytes(&bytes).unwrap().voxels().dtype(), DType::I32);
}

#[test]
fn every_truncation_is_an_error() {
    let volume = volume();
    let mut compressed = Vec::new();
    volume.write_to(&mut compressed, true).unwrap();
    for good in [bytes(&volume), compressed] {
        assert!(Volume::from_bytes(&good).is_ok());
        for end in 0..good.len() {
            assert!(Volume::from_bytes(&good[..end]).is_err(), "{end} of {}", good.len());
        }
    }
}

#[test]
fn a_compressed_file_is_checked_against_its_checksum() {
    let mut compressed = Vec::new();
    volume().write_to(&mut compressed, true).unwrap();
    let at = compressed.len() - 6;
    compressed[at] ^= 1;
    assert!(Volume::from_bytes(&compressed).is_err());
}

#[test]
fn an_axis_beyond_version_one_makes_version_two() {
    let volume = volume().with_voxels(Tensor::zeros(&[40_000, 2, 3, 4], DType::U8, Device::Cpu).unwrap()).unwrap();
    let bytes = bytes(&volume);
    assert_eq!(bytes[..4], 540i32.to_le_bytes());
    assert_eq!(Volume::from_bytes(&bytes).unwrap().voxels().shape(), [40_000, 2, 3, 4]);
}
