use tomograd_core::{DType, Device, Tensor};

use super::*;
use crate::Interpolation;

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

/// A header of `version` in either byte order, with raw voxels of the datatype `code`.
fn file(version: Version, big: bool, code: i16, sizes: &[usize], scaling: Option<[f64; 2]>, raw: &[u8]) -> Vec<u8> {
    let coding = datatype::coding(code).unwrap();
    let source = volume();
    let mut header = Header::new(version);
    if big {
        header = header.swapped();
    }
    header.set(sizes, source.geometry(), coding, false, 4).unwrap();
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
    let raw: Vec<u8> = (0..24 * 16).map(|i| (i * 37 % 256) as u8 & 0x3F).collect();
    for version in [Version::One, Version::Two] {
        for big in [false, true] {
            for code in [2i16, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1792, 2304] {
                for (sizes, scaling) in [
                    (&[4, 3, 2][..], None),
                    (&[4, 3, 2], Some([0.25, -100.0])),
                    (&[4, 6], None),
                    (&[4, 3, 2, 1], None),
                    (&[4, 3, 1, 2], None),
                    (&[4, 3, 1, 2, 1], None),
                ] {
                    let raw = &raw[..24 * datatype::coding(code).unwrap().size()];
                    if scaling.is_some() && [16, 32, 64, 1024, 1280, 1792].contains(&code) {
                        continue;
                    }
                    let original = file(version, big, code, sizes, scaling, raw);
                    let volume = Volume::from_bytes(&original).unwrap();
                    assert!(bytes(&volume) == original, "{version:?} {big} {code} {sizes:?} {scaling:?}");
                    let (voxels, kept) = (volume.voxels(), sizes.len().max(3));
                    let of_file: Vec<usize> = voxels.shape().iter().rev().take(kept).copied().collect();
                    assert_eq!(of_file[..sizes.len()], *sizes, "{code}");
                }
            }
        }
    }
}

#[test]
fn a_mask_has_the_geometry_of_its_image() {
    let image = Volume::from_bytes(&file(Version::Two, true, 4, &[4, 3, 2], Some([2.0, 1.0]), &[1; 48])).unwrap();
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
    refused(&[(344, b"ni1")], "another file");
    refused(&[(344, &[0; 4])], "Analyze 7.5");
    refused(&[(0, &[1, 2, 3, 4])], "begins with the bytes 01 02 03 04");
    refused(&[(70, &32i16.to_le_bytes())], "32 bits a voxel of datatype complex64");
    refused(&[(70, &128i16.to_le_bytes()), (72, &[0, 0]), (40, &[7, 0])], "7 axes and 3 channels");
    refused(&[(70, &2048i16.to_le_bytes())], "complex numbers of 256 bits");
    refused(&[(70, &999i16.to_le_bytes())], "an unknown type");
    refused(&[(72, &8i16.to_le_bytes())], "8 bits a voxel of datatype int32");
    for offset in [f32::NAN, f32::INFINITY, -1.0, 0.0, 347.0, 352.5] {
        refused(&[(108, &offset.to_le_bytes())], "voxels from byte");
    }
    refused(&[(108, &1e12f32.to_le_bytes())], "the file holds at most 448 bytes");
    refused(&[(112, &2f32.to_le_bytes()), (116, &f32::NAN.to_le_bytes())], "a finite intercept");
    // A slope of NaN means no scaling, as in nibabel.
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

#[test]
fn version_two_says_what_the_file_of_version_one_did() {
    for big in [false, true] {
        let mut original = file(Version::One, big, 4, &[4, 3, 2], Some([0.5, 0.0]), &[1; 48]);
        let order = |number: [u8; 4]| if big { number.into_iter().rev().collect::<Vec<u8>>() } else { number.to_vec() };
        let intent = if big { [3, 234] } else { [234, 3] }; // 1002, a label
        let changes: [(usize, &[u8]); 5] = [
            (56, &order(7f32.to_le_bytes())),
            (68, &intent),
            (124, &order(900f32.to_le_bytes())),
            (148, b"what it is"),
            (328, b"a name"),
        ];
        for (at, part) in changes {
            original[at..at + part.len()].copy_from_slice(part);
        }
        let image = Volume::from_bytes(&original).unwrap();
        assert_eq!(bytes(&image), original);
        // An offset beyond the range of 32-bit floats.
        let mut affine = *image.affine();
        affine[1][3] = 1e60;
        let onto = Volume::new(Tensor::zeros(&[2, 3, 4], DType::U8, Device::Cpu).unwrap(), affine).unwrap();
        let written = bytes(&image.resample_to(&onto, Interpolation::Nearest).unwrap());
        let number = |at: usize| {
            let bytes: [u8; 8] = written[at..at + 8].try_into().unwrap();
            if big { f64::from_be_bytes(bytes) } else { f64::from_le_bytes(bytes) }
        };
        let wide: Vec<u8> = if big { vec![0, 0, 3, 234] } else { vec![234, 3, 0, 0] };
        assert_eq!((number(80), number(176), number(192)), (7.0, 0.5, 900.0));
        assert_eq!(written[504..508], wide[..]);
        assert!(written[240..].starts_with(b"what it is\0") && written[508..].starts_with(b"a name\0"));
        let back = Volume::from_bytes(&written).unwrap();
        assert_eq!((back.stored_dtype(), back.affine()), ("int16", &affine));
    }
}

/// The bytes of a header of version one, changed at places, before voxels of int32.
fn changed(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = bytes(&volume());
    for (at, part) in changes {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    bytes
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_form_that_cant_be_one_isnt_used() {
    let sform = bytes(&volume())[280..328].to_vec();
    let row = |n: usize| sform[16 * n..16 * (n + 1)].to_vec();
    // A qform with code 1 besides the sform: no rotation, offset (1, 2, 3); pixdim is 1.5, 0.5 and 2.
    let with_qform: (usize, &[u8]) = (252, &1i16.to_le_bytes());
    let quaternion = floats(&[0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    let quaternion: (usize, &[u8]) = (256, &quaternion);
    let of_qform = [[1.5, 0.0, 0.0, 1.0], [0.0, 0.5, 0.0, 2.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
    let of_spacing = crate::geometry::centred(&[4, 3, 2], [1.5, 0.5, 2.0]).unwrap();
    let nan = floats(&[f32::NAN]);
    let infinite = floats(&[f32::INFINITY]);
    for (name, (at, wrong)) in [
        ("zero", (280usize, &[0u8; 48][..])),
        ("NaN", (280, &nan)),
        ("infinite offset", (292, &infinite)),
        ("two rows alike", (296, &row(0))),
        ("a row of zeros", (312, &[0; 16])),
    ] {
        let read = Volume::from_bytes(&changed(&[(at, wrong), with_qform, quaternion])).unwrap();
        assert_eq!(*read.affine(), of_qform, "{name}");
        assert_eq!((read.geometry().qform_code, read.geometry().sform_code), (1, 0), "{name}");
        // The written file has the same geometry in programs that would have used the sform.
        let back = Volume::from_bytes(&bytes(&read)).unwrap();
        assert_eq!(back.geometry(), read.geometry(), "{name}");
        let read = Volume::from_bytes(&changed(&[(at, wrong)])).unwrap();
        assert_eq!((*read.affine(), read.geometry().sform_code), (of_spacing, 0), "{name}");
    }
    // The same for the qform.
    for (name, at) in [("quaternion", 256usize), ("offset", 268)] {
        for wrong in [&nan, &infinite] {
            let bytes = changed(&[(280, &[0; 48]), with_qform, quaternion, (at, wrong)]);
            let read = Volume::from_bytes(&bytes).unwrap();
            assert_eq!((*read.affine(), read.geometry().qform_code), (of_spacing, 0), "{name}");
        }
    }
    // A quaternion that is too long is normalised; a spacing of 0 is taken as 1, and its sign is ignored.
    let long = floats(&[2.0, 0.0, 0.0]);
    let read = Volume::from_bytes(&changed(&[(280, &[0; 48]), with_qform, quaternion, (256, &long)])).unwrap();
    assert_eq!(read.affine()[1], [0.0, -0.5, 0.0, 2.0]);
    let steps = floats(&[0.0, -0.5]);
    let read = Volume::from_bytes(&changed(&[(280, &[0; 48]), with_qform, quaternion, (80, &steps)])).unwrap();
    assert_eq!(read.spacing(), [1.0, 0.5, 2.0]);
    // A NaN spacing is ignored if there is an sform, and an error otherwise.
    let read = Volume::from_bytes(&changed(&[(80, &nan)])).unwrap();
    assert_eq!((read.affine(), read.geometry().pixdim[1]), (volume().affine(), 1.5));
    let error = Volume::from_bytes(&changed(&[(280, &[0; 48]), with_qform, quaternion, (80, &nan)])).unwrap_err();
    assert!(error.to_string().contains("neither sform, qform nor spacing"), "{error}");
}

#[test]
fn lengths_are_millimetres_whatever_the_unit() {
    let reference =
        Volume::from_bytes(&changed(&[(252, &1i16.to_le_bytes()), (268, &floats(&[1.0, 2.0, 3.0]))])).unwrap();
    for (unit, factor) in [(0u8, 1.0f32), (1, 1e-3), (2, 1.0), (3, 1e3), (5, 1.0)] {
        // Time units stay as they are.
        for time in [0u8, 8, 16] {
            let scaled = |values: &[f64]| floats(&values.iter().map(|&v| v as f32 * factor).collect::<Vec<_>>());
            let geometry = reference.geometry();
            let file = changed(&[
                (123, &[unit | time]),
                (252, &1i16.to_le_bytes()),
                (80, &scaled(&geometry.pixdim[1..4])),
                (92, &floats(&[2.5])),
                (268, &scaled(&[1.0, 2.0, 3.0])),
                (280, &scaled(geometry.sform.as_flattened())),
            ]);
            let read = Volume::from_bytes(&file).unwrap();
            for (a, b) in read.affine().iter().flatten().zip(reference.affine().iter().flatten()) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "unit {unit}: {:?}", read.affine());
            }
            assert_eq!(read.geometry().pixdim[4], 2.5);
            for (a, b) in read.geometry().quaternion.iter().zip([0.0, 0.0, 0.0, 1.0, 2.0, 3.0]) {
                assert!((a - b).abs() < 1e-6);
            }
            let converted = matches!(unit, 1 | 3);
            assert_eq!(read.geometry().units, if converted { 2 | time } else { unit | time });
            let written = bytes(&read);
            assert!(converted || written == file);
            assert_eq!(written[123], read.geometry().units);
            assert_eq!(Volume::from_bytes(&written).unwrap().geometry(), read.geometry());
        }
    }
}

#[test]
fn both_forms_move_with_the_voxels() {
    // The qform is rotated by 90 degrees against the sform and has other offsets.
    let half = std::f32::consts::FRAC_1_SQRT_2;
    let file = changed(&[(252, &1i16.to_le_bytes()), (256, &floats(&[0.0, 0.0, half, 1.0, 2.0, 3.0]))]);
    let original = Volume::from_bytes(&file).unwrap();
    let corners: Vec<[f64; 3]> = (0..8usize).map(|c| [c & 1, c >> 1 & 1, c >> 2].map(|at| at as f64)).collect();
    let other = Volume::new(Tensor::zeros(&[3, 5, 4], DType::U8, Device::Cpu).unwrap(), *original.affine()).unwrap();
    for moved in [
        original.reorient("RAS").unwrap(),
        original.reorient("IPL").unwrap(),
        original.resample([0.7, 0.9, 1.1], crate::Interpolation::Nearest).unwrap(),
    ] {
        assert_eq!((moved.geometry().qform_code, moved.geometry().sform_code), (1, 2));
        let read = Volume::from_bytes(&bytes(&moved)).unwrap();
        assert_eq!((read.geometry().qform_code, read.geometry().sform_code), (1, 2));
        // Sform and qform move by the same map of voxel indices.
        let to_old = crate::geometry::inverse(original.affine()).unwrap();
        for &corner in &corners {
            let old = crate::geometry::apply(&to_old, crate::geometry::apply(read.affine(), corner));
            let before = crate::geometry::apply(&original.geometry().qform_affine().unwrap(), old);
            let after = crate::geometry::apply(&read.geometry().qform_affine().unwrap(), corner);
            for (a, b) in before.iter().zip(after) {
                assert!((a - b).abs() < 1e-5, "{before:?} {after:?}");
            }
        }
    }
    // After resampling to another grid, the matrices are those of that grid.
    let onto = original.resample_to(&other, crate::Interpolation::Nearest).unwrap();
    assert_eq!((onto.geometry().qform_code, onto.affine()), (0, other.affine()));
}

#[test]
fn a_mask_says_nothing_of_its_image_but_the_place() {
    // Intent "z score" (5) with a parameter and a name, a display range, a description, slice timing, an extension.
    let mut file = changed(&[
        (40, &4i16.to_le_bytes()),
        (48, &1i16.to_le_bytes()),
        (56, &floats(&[3.0])),
        (68, &5i16.to_le_bytes()),
        (124, &floats(&[9.0, 1.0])),
        (122, &[1]),
        (148, b"contrast 1"),
        (328, b"Zscore"),
        (108, &floats(&[368.0])),
    ]);
    let mut extension = vec![1, 0, 0, 0, 16, 0, 0, 0, 6, 0, 0, 0];
    extension.resize(20, b'x');
    file.splice(348..352, extension);
    let image = Volume::from_bytes(&file).unwrap();
    assert!(bytes(&image) == file);
    let mask = image.with_voxels(Tensor::ones(&[2, 3, 4], DType::U8, Device::Cpu).unwrap()).unwrap();
    let written = bytes(&mask);
    // Only sizes, forms, units and codes remain.
    let empty = |range: std::ops::Range<usize>| written[range].iter().all(|&byte| byte == 0);
    assert!(empty(56..70) && empty(74..76) && empty(116..123) && empty(124..252) && empty(328..344));
    assert_eq!(written.len(), 352 + 24);
    assert_eq!(Volume::from_bytes(&written).unwrap().geometry(), image.geometry());
    // Reorienting and resampling keep the image's own values, so the metadata about them stays.
    for moved in [
        image.reorient("RAS").unwrap(),
        image.resample([3.0; 3], crate::Interpolation::Nearest).unwrap(),
        image.resample_to(&mask, crate::Interpolation::Nearest).unwrap(),
    ] {
        assert_eq!(bytes(&moved)[328..334], *b"Zscore");
    }
}

#[test]
fn labels_on_the_grid_of_an_image_of_another_type_are_what_they_were() {
    let image = Volume::from_bytes(&file(Version::One, true, 4, &[4, 3, 2], Some([2.0, 1.0]), &[1; 48])).unwrap();
    let labels = image.with_voxels(Tensor::ones(&[2, 3, 4], DType::U8, Device::Cpu).unwrap()).unwrap();
    let labels = Volume::from_bytes(&bytes(&labels)).unwrap();
    let onto = labels.resample_to(&image, crate::Interpolation::Nearest).unwrap();
    let back = Volume::from_bytes(&bytes(&onto)).unwrap();
    assert_eq!((back.stored_dtype(), back.voxels().to_vec::<u8>().unwrap()), ("uint8", vec![1; 24]));
    assert_eq!(back.geometry(), image.geometry());
}

#[test]
fn what_cant_be_read_isnt_written() {
    let voxels = |shape: &[usize]| Tensor::zeros(shape, DType::U8, Device::Cpu).unwrap();
    let plain = crate::geometry::from_spacing([1.0; 3]).unwrap();
    for shape in [&[0, 3, 2][..], &[3, 0, 2], &[2, 3, 2, 0], &[3, 2], &[5], &[1; 8]] {
        assert!(Volume::new(voxels(shape), plain).is_err(), "{shape:?}");
    }
    let with = |row: usize, column: usize, value: f64| {
        let mut affine = plain;
        affine[row][column] = value;
        Volume::new(voxels(&[2, 3, 4]), affine)
    };
    for (row, column, value) in [(0, 0, f64::NAN), (1, 3, f64::INFINITY), (2, 2, 0.0), (3, 0, 1.0), (3, 3, 0.0)] {
        assert!(with(row, column, value).is_err(), "{row} {column} {value}");
    }
    let volume = with(0, 0, 1.0).unwrap();
    assert!(volume.with_voxels(voxels(&[0, 2, 3, 4])).is_err());
    // Values beyond the range of 32-bit floats are written in version 2.
    for (row, column, value) in [(0, 0, 1e-60), (1, 3, 1e60), (2, 2, 1e60)] {
        let volume = with(row, column, value).unwrap();
        let written = bytes(&volume);
        assert_eq!(written[..4], 540i32.to_le_bytes());
        assert_eq!(Volume::from_bytes(&written).unwrap().affine(), volume.affine(), "{value}");
    }
    for name in ["x.dat", "x", "x.nii.bz2", "x.gz", "x.hdr", "x.img", "x.img.gz", "x.nii.gz.tmp", "nii"] {
        let path = std::env::temp_dir().join(format!("tomograd-{}-{name}", std::process::id()));
        let error = volume.write(&path).unwrap_err().to_string();
        assert!(error.contains(".nii.gz") && !path.exists(), "{error}");
    }
    let path = std::env::temp_dir().join(format!("tomograd-{}-UPPER.NII.GZ", std::process::id()));
    volume.write(&path).unwrap();
    assert!(crate::gzip::is_compressed(&std::fs::read(&path).unwrap()));
    assert!(Volume::read(&path).is_ok());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn colours_and_complex_numbers_are_channels() {
    let raw: Vec<u8> = (0..96).collect();
    let rgb = Volume::from_bytes(&file(Version::One, false, 128, &[4, 3, 2], Some([2.0, 1.0]), &raw[..72])).unwrap();
    assert_eq!((rgb.voxels().shape(), rgb.voxels().dtype()), (&[3, 2, 3, 4][..], DType::U8));
    assert_eq!((rgb.stored_dtype(), rgb.file_shape()), ("rgb24", vec![4, 3, 2, 3]));
    let values = rgb.voxels().to_vec::<u8>().unwrap();
    // Voxel n has the values 3 n, 3 n + 1, 3 n + 2; RGB isn't scaled.
    assert!((0..3).all(|c| (0..24).all(|n| values[c * 24 + n] as usize == 3 * n + c)));
    let turned = rgb.reorient("RAS").unwrap();
    let back = Volume::from_bytes(&bytes(&turned)).unwrap();
    assert_eq!((back.stored_dtype(), back.voxels().shape()), ("rgb24", turned.voxels().shape()));
    assert_eq!(back.voxels().to_vec::<u8>().unwrap(), turned.voxels().to_vec::<u8>().unwrap());
    // Interpolated values are written as floating point, no longer as 8-bit RGB.
    let fine = rgb.resample([1.0; 3], crate::Interpolation::Linear).unwrap();
    let back = Volume::from_bytes(&bytes(&fine)).unwrap();
    assert_eq!((back.stored_dtype(), back.voxels().shape()[0]), ("float32", 3));
    let rgba = Volume::from_bytes(&file(Version::Two, true, 2304, &[4, 6], None, &raw)).unwrap();
    assert_eq!((rgba.stored_dtype(), rgba.voxels().shape()), ("rgba32", &[4, 1, 6, 4][..]));

    // Scaling applies to both parts, as the format requires.
    let raw: Vec<u8> = (0..48).flat_map(|i| (i as f32 * 0.5).to_be_bytes()).collect();
    let complex = Volume::from_bytes(&file(Version::One, true, 32, &[4, 3, 2], Some([2.0, 1.0]), &raw)).unwrap();
    assert_eq!((complex.stored_dtype(), complex.voxels().shape()), ("complex64", &[2, 2, 3, 4][..]));
    let values = complex.voxels().to_vec::<f32>().unwrap();
    assert!((0..2).all(|c| (0..24).all(|n| values[c * 24 + n] == (2 * n + c) as f32 + 1.0)));
}

#[test]
fn the_files_of_a_pair_are_read_and_written_as_one() {
    let single = changed(&[]);
    let mut header = changed(&[(344, b"ni1\0"), (108, &[0; 4])])[..348].to_vec();
    let image = single[352..].to_vec();
    let compress = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    for (header, image) in [
        (header.clone(), image.clone()),
        (compress(&header), compress(&image)),
        (header.clone(), compress(&image)),
        ([&header[..], &[0; 4]].concat(), image.clone()),
    ] {
        let volume = Volume::from_pair(&header, &image).unwrap();
        assert!(bytes(&volume) == single);
        assert!(Volume::from_bytes(&header).is_err());
        assert!(Volume::from_pair(&header, &image[..image.len() - 1]).is_err());
        assert!(Volume::from_pair(&header[..header.len() / 2], &image).is_err());
    }
    // A voxel offset in the voxel file, and an extension after the header.
    header[108..112].copy_from_slice(&16f32.to_le_bytes());
    let mut extension = vec![1, 0, 0, 0, 16, 0, 0, 0, 6, 0, 0, 0];
    extension.resize(20, b'x');
    let moved = Volume::from_pair(&[header, extension].concat(), &[&[9; 16], &image[..]].concat()).unwrap();
    assert_eq!(moved.voxels().to_vec::<i32>().unwrap(), volume().voxels().to_vec::<i32>().unwrap());
    assert_eq!(bytes(&moved).len(), 348 + 20 + 96);
    assert_eq!(Volume::from_bytes(&bytes(&moved)).unwrap().geometry(), volume().geometry());
    // A single file is recognised by its content, whatever its name.
    assert!(Volume::from_pair(&single, &[]).is_ok());

    let folder = std::env::temp_dir().join(format!("tomograd-{}-pair", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let header = changed(&[(344, b"ni1\0"), (108, &[0; 4])])[..348].to_vec();
    for (header_name, image_name) in
        [("a.hdr", "a.img"), ("b.hdr.gz", "b.img.gz"), ("c.hdr", "c.img.gz"), ("D.HDR", "D.IMG")]
    {
        let gz = |name: &str, bytes: &[u8]| if name.ends_with("gz") { compress(bytes) } else { bytes.to_vec() };
        std::fs::write(folder.join(header_name), gz(header_name, &header)).unwrap();
        let alone = Volume::read(folder.join(header_name)).unwrap_err().to_string();
        assert!(alone.contains(&image_name.to_lowercase()[1..5]) || alone.contains(".IMG"), "{alone}");
        std::fs::write(folder.join(image_name), gz(image_name, &image)).unwrap();
        for name in [header_name, image_name] {
            assert!(bytes(&Volume::read(folder.join(name)).unwrap()) == single, "{name}");
        }
    }
    assert!(Volume::read(folder.join("none.img")).is_err());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_end_of_a_file_is_looked_at() {
    let mut compressed = Vec::new();
    volume().write_to(&mut compressed, true).unwrap();
    let expected = volume().voxels().to_vec::<i32>().unwrap();
    let read = |bytes: &[u8]| Volume::from_bytes(bytes).map(|volume| volume.voxels().to_vec::<i32>().unwrap());
    // Zeros, as `tar` leaves them; an empty member; nothing else.
    let mut nothing = GzEncoder::new(Vec::new(), Compression::fast());
    nothing.write_all(&[]).unwrap();
    let nothing = nothing.finish().unwrap();
    for after in [&[0; 512][..], &[0], &nothing] {
        assert_eq!(read(&[&compressed, after].concat()).unwrap(), expected);
    }
    for after in [&b"x"[..], &[0x1F], &[0x1F, 0x8B], &[0, 0, 1], &[0xFF; 512]] {
        assert!(read(&[&compressed, after].concat()).is_err(), "{after:?}");
    }
    // Bytes after the voxels are ignored, as in nibabel and ITK.
    assert_eq!(read(&[&bytes(&volume())[..], b"more"].concat()).unwrap(), expected);
    let with = |count: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&bytes(&volume())).unwrap();
        encoder.write_all(&(0..count).map(|i| (i * i / 7) as u8).collect::<Vec<_>>()).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(read(&with(1 << 24)).unwrap(), expected);
    let error = read(&with((1 << 24) + 1)).unwrap_err().to_string();
    assert!(error.contains("follow the voxels"), "{error}");
    // Damage after the voxels is detected.
    let mut late = with(1 << 20);
    let at = late.len() - 100;
    late[at] ^= 1;
    assert!(read(&late).is_err());
}

#[test]
fn scaling_keeps_neighbouring_numbers_apart() {
    let raw: Vec<u8> = [1i16, 2, 3, -32768].iter().flat_map(|x| x.to_le_bytes()).collect();
    // In f32, the first three would round to the same value.
    let read = |scaling| Volume::from_bytes(&file(Version::One, false, 4, &[4, 1, 1], Some(scaling), &raw)).unwrap();
    let volume = read([1.0, 1e9]);
    assert_eq!(volume.voxels().dtype(), DType::F64);
    assert_eq!(volume.voxels().to_vec::<f64>().unwrap()[..3], [1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]);
    // Values beyond the range of f32 don't become infinite.
    let large = f64::from(1e36f32);
    assert_eq!(read([large, 0.0]).voxels().to_vec_f64().unwrap()[3], -32768.0 * large);
    assert_eq!(read([0.5, 1.0]).voxels().dtype(), DType::F32);
    let raw = floats(&[1e30, f32::INFINITY, 1.0, 1.0]);
    let scaled = |slope| Volume::from_bytes(&file(Version::One, false, 16, &[4, 1, 1], Some([slope, 0.0]), &raw));
    assert!(scaled(1e20).unwrap_err().to_string().contains("can't hold"));
    assert_eq!(scaled(2.0).unwrap().voxels().to_vec_f64().unwrap()[1], f64::INFINITY);
}

#[test]
fn a_header_that_was_changed_as_text_is_told() {
    let mut bytes = file(Version::Two, false, 4, &[4, 3, 2], None, &[1; 48]);
    assert!(Volume::from_bytes(&bytes).is_ok());
    bytes[8..10].copy_from_slice(b"\n\n");
    assert!(Volume::from_bytes(&bytes).unwrap_err().to_string().contains("as text"));
}
