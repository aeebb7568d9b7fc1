//! Whole-slide images, compared with what tifffile reads of them (`tests/golden/slides.py`).
#![cfg(feature = "tiff")]

use std::{fs, path::PathBuf};

use serde_json::Value;
use tomograd_io::{Slide, Volume};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/slides"))
}

fn golden() -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join("slides.json")).unwrap()).unwrap()
}

fn whole(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
}

/// The samples of a volume of one plane, those of a pixel together, of every `steps` pixel.
fn samples(volume: &Volume, steps: &[usize]) -> Vec<i64> {
    let shape = volume.voxels().shape();
    let (height, width) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let values = volume.voxels().to_vec_f64().unwrap();
    let channels = values.len() / (height * width);
    let places = (0..height).step_by(steps[1]).flat_map(|y| (0..width).step_by(steps[0]).map(move |x| (y, x)));
    places
        .flat_map(|(y, x)| (0..channels).map(move |channel| (channel * height + y) * width + x))
        .map(|at| values[at] as i64)
        .collect()
}

#[test]
fn levels_and_regions_are_those_that_tifffile_reads() {
    let golden = golden();
    for (name, levels) in golden["files"].as_object().unwrap() {
        let lossy = name.contains("jpeg");
        if name.contains("jpeg2000") && !cfg!(feature = "dicom") || name.contains("_jpeg.") && !cfg!(feature = "jpeg") {
            let error = Slide::open(folder().join(name)).unwrap().read(0, None).unwrap_err().to_string();
            assert!(error.contains("feature"), "{error}");
            continue;
        }
        let slide = Slide::open(folder().join(name)).unwrap();
        let levels = levels.as_array().unwrap();
        assert_eq!(slide.levels().len(), levels.len(), "{name}");
        for (number, (level, expected)) in slide.levels().iter().zip(levels).enumerate() {
            let (size, region) = (whole(&expected["size"]), whole(&expected["region"]));
            assert_eq!((&level.size()[..], level.tile()), (&size[..], [48, 32]), "{name} {number}");
            let part = slide.read(number, Some(region[..].try_into().unwrap())).unwrap();
            let found = samples(&part, &whole(&expected["steps"]));
            let wanted: Vec<i64> = expected["pixels"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap()).collect();
            assert_eq!(found.len(), wanted.len(), "{name} {number}");
            // Decoders of JPEG differ in rounding, and in how they enlarge colours.
            let allowed = if lossy { 6 } else { 0 };
            let worst = found.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).max().unwrap();
            assert!(worst <= allowed, "{name} {number}: {worst}");
            let sum: i64 = samples(&part, &[1, 1]).iter().sum();
            let expected = expected["sum"].as_i64().unwrap();
            assert!(
                (sum - expected).abs() <= if lossy { expected / 200 } else { 0 },
                "{name} {number}: {sum} {expected}"
            );
            // Where a region begins makes no difference.
            let all = slide.read(number, None).unwrap();
            let (width, channels) = (level.size()[0], all.voxels().count() / (size[0] * size[1]));
            let all = samples(&all, &[1, 1]);
            let rows = (region[1]..region[1] + region[3]).map(|y| (y * width + region[0]) * channels);
            let cut: Vec<i64> = rows.flat_map(|at| all[at..at + region[2] * channels].to_vec()).collect();
            assert!(cut == samples(&part, &[1, 1]), "{name} {number}");
        }
    }
}

#[test]
fn what_files_say_of_themselves_is_found() {
    let open = |name: &str| Slide::open(folder().join(name)).unwrap();
    let svs = open("svs_deflate.svs");
    assert_eq!((svs.kind(), svs.micrometres(), svs.others()), ("Aperio SVS", Some([0.499; 2]), 2));
    assert_eq!(svs.levels()[2].compression(), "deflate");
    let [x, y] = svs.levels()[2].downsample();
    assert!((x - 150.0 / 37.0).abs() < 1e-12 && (y - 115.0 / 28.0).abs() < 1e-12);
    let ome = open("ome_raw.tif");
    assert_eq!((ome.kind(), ome.micrometres(), ome.others()), ("OME-TIFF", Some([0.25, 0.5]), 0));
    let part = ome.read(1, Some([3, 4, 5, 6])).unwrap();
    let spacing = part.spacing();
    assert!((spacing[0] - 0.0005).abs() < 1e-9 && (spacing[1] - 0.0005 * 115.0 / 57.0).abs() < 1e-9, "{spacing:?}");
    assert_eq!((part.voxels().shape(), part.stored_dtype()), (&[3, 1, 6, 5][..], "rgb24"));
    let plain = open("plain.tif");
    assert_eq!((plain.kind(), plain.levels().len(), plain.micrometres()), ("tiled TIFF", 1, Some([0.25, 0.5])));
    assert_eq!(open("ome_grey16.tif").read(0, None).unwrap().stored_dtype(), "uint16");
}

#[test]
fn what_isnt_there_is_an_error() {
    let slide = Slide::open(folder().join("ome_raw.tif")).unwrap();
    for (level, region, said) in [
        (3, None, "0 to 2"),
        (0, Some([0, 0, 0, 1]), "a part of 150 × 115"),
        (0, Some([149, 0, 2, 1]), "a part of 150 × 115"),
        (0, Some([0, usize::MAX, 1, 2]), "a part of 150 × 115"),
        (2, Some([0, 0, 38, 1]), "a part of 37 × 28"),
    ] {
        let error = slide.read(level, region).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("ome_raw.tif"), "{error}");
    }
    // Not tiled, not TIFF, not there.
    let other = |name: &str| Slide::open(folder().join(name)).unwrap_err().to_string();
    assert!(other("../formats/itk_deflate.tif").contains("isn't tiled"));
    let cmyk = other("cmyk.tif");
    assert!(cmyk.contains("photometric 5") && cmyk.contains("grey or RGB"), "{cmyk}");
    assert!(other("slides.json").contains("isn't TIFF"));
    assert!(other("none.svs").contains("none.svs"));
    // As a volume, a file of several sizes names the way.
    let error = Volume::read(folder().join("svs_deflate.svs")).unwrap_err().to_string();
    assert!(error.contains("--level"), "{error}");
}

#[test]
fn changed_bytes_are_read_or_refused() {
    let path = std::env::temp_dir().join(format!("tomograd-slides-{}.tif", std::process::id()));
    let count: u64 = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(3000);
    let names: Vec<String> = golden()["files"].as_object().unwrap().keys().cloned().collect();
    let files: Vec<Vec<u8>> = names.iter().map(|name| fs::read(folder().join(name)).unwrap()).collect();
    let (mut opened, mut read) = (0, 0);
    for i in 0..count {
        let mut random = tomograd_core::Seed::new(20_261_128).at(i).random();
        let mut below = |most: usize| (random.uniform_in(0.0, most as f64) as usize).min(most - 1);
        let mut bytes = files[below(files.len())].clone();
        for _ in 0..1 + below(4) {
            // Half of the changes are in the directory at the start.
            let at = if below(2) == 0 { below(bytes.len().min(600)) } else { below(bytes.len()) };
            bytes[at] = below(256) as u8;
        }
        if below(8) == 0 {
            bytes.truncate(1 + below(bytes.len()));
        }
        fs::write(&path, &bytes).unwrap();
        let Ok(slide) = Slide::open(&path) else { continue };
        opened += 1;
        for (number, level) in slide.levels().iter().enumerate() {
            let [width, height] = level.size().map(|side| side.min(200));
            read += usize::from(slide.read(number, Some([0, 0, width, height])).is_ok());
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(opened > 0 && read > 0 && opened < count, "{opened} {read}");
}
