//! The small files that SimpleITK, pynrrd and tifffile wrote (tests/golden/formats), against what these read in them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tomograd_io::{Format, Volume, WriteOptions};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The files that this build reads, and what is in them; `None` in a packaged crate, which doesn't hold them.
fn golden() -> Option<(PathBuf, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/formats");
    let text = std::fs::read_to_string(folder.join("formats.json")).ok()?;
    let golden: Value = serde_json::from_str(&text).unwrap();
    let mut files = golden["files"].as_array().unwrap().clone();
    assert!(files.len() > 70, "{}", files.len());
    files.retain(|said| {
        let name = said["file"].as_str().unwrap();
        let ending = name.rsplit('.').next().unwrap();
        !(ending == "tif" && cfg!(not(feature = "tiff")) || ending == "jpg" && cfg!(not(feature = "jpeg")))
    });
    Some((folder, files))
}

fn close(volume: &Volume, expected: &Value, tolerance: f64) -> bool {
    let rows = volume.affine().iter().zip(expected.as_array().unwrap());
    rows.flat_map(|(row, expected)| row.iter().copied().zip(numbers(expected))).all(|(a, b)| (a - b).abs() <= tolerance)
}

#[test]
fn every_golden_file_is_read_as_its_writer_reads_it() {
    let Some((folder, files)) = golden() else { return };
    for said in &files {
        let name = said["file"].as_str().unwrap();
        let volume = Volume::read(folder.join(name)).unwrap();
        let shape: Vec<usize> = numbers(&said["shape"]).iter().map(|&size| size as usize).collect();
        assert_eq!(
            (volume.voxels().shape(), volume.stored_dtype()),
            (&shape[..], said["stored"].as_str().unwrap()),
            "{name}"
        );
        // ITK computes resolutions of TIFF in 32 bits.
        let tolerance = if name.ends_with(".tif") { 1e-7 } else { 1e-12 };
        assert!(close(&volume, &said["affine"], tolerance), "{name}: {:?}", volume.affine());
        let (values, expected) = (volume.voxels().to_vec_f64().unwrap(), numbers(&said["values"]));
        if name.ends_with(".jpg") {
            // Decoders may round a colour differently.
            let most = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(most <= 2.0, "{name}: {most}");
        } else {
            assert_eq!(values, expected, "{name}");
        }
        assert_eq!(volume.info().unwrap().format, volume.format().unwrap().name());
    }
}

#[test]
fn what_was_read_is_written_in_every_format() {
    let Some((folder, files)) = golden() else { return };
    let out = std::env::temp_dir().join(format!("tomograd-formats-{}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    let formats = [
        ("nii", Format::Nifti, 2e-6),
        ("nii.gz", Format::Nifti, 2e-6),
        ("nrrd", Format::Nrrd, 0.0),
        ("nhdr", Format::Nrrd, 0.0),
        ("mha", Format::MetaImage, 1e-14),
        ("mhd", Format::MetaImage, 1e-14),
    ];
    for said in &files {
        let name = said["file"].as_str().unwrap();
        let volume = Volume::read(folder.join(name)).unwrap();
        for (ending, format, tolerance) in formats {
            for compressed in [false, true] {
                let options = match ending {
                    "nii" | "nii.gz" => WriteOptions::default(),
                    _ => WriteOptions::default().compressed(compressed),
                };
                let path = out.join(format!("a.{ending}"));
                volume.write_with(&path, options).unwrap();
                let back = Volume::read(&path).unwrap();
                assert_eq!(back.format(), Some(format), "{name} as {ending}");
                assert_eq!(back.voxels().shape(), volume.voxels().shape(), "{name} as {ending}");
                assert_eq!(
                    back.voxels().to_vec_f64().unwrap(),
                    volume.voxels().to_vec_f64().unwrap(),
                    "{name}, {ending}"
                );
                let moved = back.affine().iter().flatten().zip(volume.affine().iter().flatten());
                let most = moved.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(most <= tolerance, "{name} as {ending}: {most}");
                // NIfTI has no vectors of a type of their own: they become a series.
                assert_eq!(back.stored_dtype(), volume.stored_dtype(), "{name} as {ending}");
                for file in Volume::files(&path, options).unwrap() {
                    std::fs::remove_file(file).unwrap();
                }
            }
        }
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 0, "{name}: more files than `files` said");
    }
    std::fs::remove_dir_all(out).unwrap();
}

/// PNG and TIFF hold what they can, to the voxel, and refuse all else by a clear error.
#[test]
fn pictures_are_written_or_refused() {
    let Some((folder, files)) = golden() else { return };
    let out = std::env::temp_dir().join(format!("tomograd-pictures-{}", std::process::id()));
    std::fs::create_dir_all(&out).unwrap();
    let (mut written, mut refused) = (0, 0);
    for said in &files {
        let name = said["file"].as_str().unwrap();
        let volume = Volume::read(folder.join(name)).unwrap();
        for ending in ["png", "tif"] {
            if ending == "tif" && cfg!(not(feature = "tiff")) {
                continue;
            }
            for compressed in [false, true] {
                let path = out.join(format!("a.{ending}"));
                match volume.write_with(&path, WriteOptions::default().compressed(compressed)) {
                    Ok(()) => {
                        let back = Volume::read(&path).unwrap();
                        assert_eq!(back.voxels().shape(), volume.voxels().shape(), "{name} as {ending}");
                        let [a, b] = [&back, &volume].map(|volume| volume.voxels().to_vec_f64().unwrap());
                        assert_eq!(a, b, "{name} as {ending}");
                        let [a, b] = [&back, &volume].map(Volume::spacing);
                        // PNG holds whole numbers of pixels a metre.
                        let depth = if ending == "png" { 2 } else { 3 };
                        let near = a.iter().zip(b).take(depth).all(|(a, b)| (a - b).abs() <= 1e-3 * b);
                        assert!(near, "{name} as {ending}: {a:?} {b:?}");
                        std::fs::remove_file(&path).unwrap();
                        written += 1;
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(
                            text.contains("expected") && text.contains(".nii.gz") && !path.exists(),
                            "{name}: {text}"
                        );
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(written > 20 && refused > 20, "{written} {refused}");
    std::fs::remove_dir_all(out).unwrap();
}
