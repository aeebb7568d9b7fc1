//! Images and labels as NIfTI files that lie on each other, or don't.

use std::path::{Path, PathBuf};

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::{Volume, geometry::Affine};
use tomograd_pipeline::{Cases, Dataset, Sample, evaluate, evaluate_volumes};

/// A folder of one case that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, image: &Volume, label: &Volume) -> Result<Self> {
        let folder = Self(std::env::temp_dir().join(format!("tomograd-geometry-{name}-{}", std::process::id())));
        for (part, volume) in [("images", image), ("labels", label)] {
            std::fs::create_dir_all(folder.0.join(part)).unwrap();
            volume.write(folder.0.join(part).join("case.nii.gz"))?;
        }
        Ok(folder)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn read(name: &str, image: &Volume, label: &Volume) -> Result<Sample> {
    let folder = Folder::new(name, image, label)?;
    Dataset::open(folder.path(), 4)?.sample(0)
}

/// An oblique grid with voxels of three sizes.
const AFFINE: Affine = [[0.9, -0.3, 0.2, -20.0], [0.25, 1.9, 0.35, 31.0], [-0.1, -0.5, 2.8, 7.5], [0.0, 0.0, 0.0, 1.0]];

fn image() -> Volume {
    let voxels = Tensor::normal(&[3, 4, 5], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu).unwrap();
    Volume::new(voxels, AFFINE).unwrap()
}

fn label() -> Volume {
    let values: Vec<u8> = (0..60).map(|i| (i * 7 % 4) as u8).collect();
    Volume::new(Tensor::from_slice(&values, &[3, 4, 5], Device::Cpu).unwrap(), AFFINE).unwrap()
}

/// The label with `shift` voxels added to where its voxel (i, j, k) lies.
fn shifted(shift: [f64; 3]) -> Volume {
    let mut affine = AFFINE;
    for row in affine.iter_mut().take(3) {
        row[3] += (0..3).map(|axis| row[axis] * shift[axis]).sum::<f64>();
    }
    Volume::new(label().voxels().clone(), affine).unwrap()
}

#[test]
fn a_turned_label_is_turned_back() -> Result<()> {
    let expected = label().voxels().to_vec::<u8>()?;
    // All 48 turns of a grid.
    let mut turns = 0;
    for order in ["RAS", "RSA", "ARS", "ASR", "SRA", "SAR"] {
        for flips in 0..8 {
            let other = |letter: char| match letter {
                'R' => 'L',
                'A' => 'P',
                _ => 'I',
            };
            let codes: String =
                order.chars().enumerate().map(|(i, c)| if flips >> i & 1 == 1 { other(c) } else { c }).collect();
            let turned = label().reorient(&codes)?;
            turns += usize::from(turned.affine() != &AFFINE);
            let sample = read("turned", &image(), &turned)?;
            assert_eq!(sample.label()?.to_vec::<u8>()?, expected, "{codes}");
            let expected = evaluate(label().voxels(), label().voxels(), sample.spacing(), 4)?;
            assert_eq!(evaluate_volumes(&turned, &label(), 4, 0.01)?, expected, "{codes}");
        }
    }
    assert_eq!(turns, 47);
    Ok(())
}

#[test]
fn labels_turned_by_nibabel_lie_on_their_images() -> Result<()> {
    let dataset = Dataset::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/alignment"), 5)?;
    assert_eq!(dataset.names(), ["cycled", "half_turn", "mirrored", "straight", "swapped"]);
    for index in 0..dataset.len() {
        let sample = dataset.sample(index)?;
        let [depth, height, width] = [5, 3, 4];
        let expected: Vec<u8> = (0..depth * height * width)
            .map(|at| (7 * (at % width) + 3 * (at / width % height) + at / (width * height)) as u8 % 5)
            .collect();
        assert_eq!(sample.image()?.shape(), [1, depth, height, width]);
        assert_eq!(sample.label()?.to_vec::<u8>()?, expected, "{}", sample.name);
    }
    Ok(())
}

#[test]
fn a_label_elsewhere_is_refused_with_both_affines() -> Result<()> {
    for (shift, ok) in [
        ([0.009, 0.0, 0.0], true),
        ([0.0, 0.0, -0.011], false),
        ([0.006, 0.006, 0.006], false),
        ([1.0, 0.0, 0.0], false),
    ] {
        let found = read("shifted", &image(), &shifted(shift));
        assert_eq!(found.is_ok(), ok, "{shift:?}: {:?}", found.err());
        assert_eq!(evaluate_volumes(&shifted(shift), &label(), 4, 0.01).is_ok(), ok);
    }
    let error = read("elsewhere", &image(), &shifted([0.0, 2.0, 0.0])).unwrap_err().to_string();
    for part in [
        "labels/case.nii.gz: ",
        "a corner lies 2.000 voxels beside that of the image",
        "[0.90000, -0.30000",
        "-20.00000]",
        "-20.60000]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Mirrored about the origin of the world and not about its own middle.
    let mut mirrored = AFFINE;
    mirrored.iter_mut().for_each(|row| row[0] = -row[0]);
    assert!(read("mirrored", &image(), &Volume::new(label().voxels().clone(), mirrored)?).is_err());
    // Turned by 2 degrees about the first corner, which stays.
    let (sine, cosine) = 2f64.to_radians().sin_cos();
    let mut turned = AFFINE;
    for axis in 0..3 {
        (turned[0][axis], turned[1][axis]) =
            (cosine * AFFINE[0][axis] - sine * AFFINE[1][axis], sine * AFFINE[0][axis] + cosine * AFFINE[1][axis]);
    }
    assert!(read("rotated", &image(), &Volume::new(label().voxels().clone(), turned)?).is_err());
    // One axis of the label along two of the image.
    let mut sheared = AFFINE;
    sheared.iter_mut().take(3).for_each(|row| row[1] = row[0] * 2.0 + row[1] * 0.1);
    assert!(read("sheared", &image(), &Volume::new(label().voxels().clone(), sheared)?).is_err());
    Ok(())
}

#[test]
fn the_tolerance_is_an_option() -> Result<()> {
    let folder = Folder::new("tolerance", &image(), &shifted([0.0, 0.4, 0.0]))?;
    let dataset = Dataset::open(folder.path(), 4)?;
    assert!(dataset.sample(0).is_err());
    assert!(dataset.clone().alignment_tolerance(0.5)?.sample(0).is_ok());
    for wrong in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(dataset.clone().alignment_tolerance(wrong).is_err());
        assert!(evaluate_volumes(&label(), &label(), 4, wrong).is_err());
    }
    Ok(())
}

#[test]
fn one_slice_has_a_thickness() -> Result<()> {
    let slice = |affine: Affine| {
        let values = [0u8, 1, 2, 3, 0, 1];
        Volume::new(Tensor::from_slice(&values, &[1, 2, 3], Device::Cpu)?, affine)
    };
    let scaled = |factor: f64| {
        let mut affine = AFFINE;
        affine.iter_mut().for_each(|row| row[2] *= factor);
        affine
    };
    assert!(read("slice", &slice(AFFINE)?, &slice(AFFINE)?).is_ok());
    assert!(read("slice_back", &slice(AFFINE)?, &slice(scaled(-1.0))?).is_ok());
    assert!(read("slice_thick", &slice(AFFINE)?, &slice(scaled(1.5))?).is_err());
    Ok(())
}

#[test]
fn volumes_of_four_axes_are_channels() -> Result<()> {
    let values: Vec<i32> = (0..120).collect();
    let two = Volume::new(Tensor::from_slice(&values, &[2, 3, 4, 5], Device::Cpu)?, AFFINE)?;
    let sample = read("channels", &two, &label())?;
    assert_eq!(sample.image()?.shape(), [2, 3, 4, 5]);
    assert_eq!(sample.image()?.to_vec::<f32>()?, (0..120).map(|v| v as f32).collect::<Vec<_>>());
    assert_eq!(sample.spacing().len(), 3);

    // A label of one volume under a fourth axis is a label; one of two isn't.
    let one = Volume::new(label().voxels().unsqueeze(0)?, AFFINE)?;
    assert_eq!(read("label_4d", &image(), &one)?.label()?.shape(), [3, 4, 5]);
    let both = Tensor::zeros(&[2, 3, 4, 5], DType::U8, Device::Cpu)?;
    let error = read("labels_4d", &image(), &Volume::new(both, AFFINE)?).unwrap_err().to_string();
    assert!(error.contains("a label of 2 volumes"), "{error}");

    // Five axes hold channels only when one of the last two is 1.
    let five = |shape: [usize; 5]| Volume::new(Tensor::zeros(&shape, DType::F32, Device::Cpu)?, AFFINE);
    assert_eq!(read("vectors", &five([3, 1, 3, 4, 5])?, &label())?.image()?.shape(), [3, 3, 4, 5]);
    let error = read("series", &five([2, 2, 3, 4, 5])?, &label()).unwrap_err().to_string();
    assert!(error.contains("2 axes beyond the spatial ones"), "{error}");
    Ok(())
}

#[test]
fn pictures_have_colours_and_class_numbers() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("tomograd-pictures-{}", std::process::id()));
    for part in ["images", "labels"] {
        std::fs::create_dir_all(folder.join(part)).unwrap();
    }
    tomograd_io::write_rgb(&folder.join("images/a.png"), 2, 1, &[1, 2, 3, 4, 5, 6])?;
    tomograd_io::write_gray(&folder.join("labels/a.PNG"), 2, 1, &[0, 3])?;
    let sample = Dataset::open(&folder, 4)?.sample(0);
    let refused = Dataset::open(&folder, 3)?.sample(0);
    std::fs::remove_dir_all(&folder).unwrap();
    let sample = sample?;
    assert_eq!(
        (sample.image()?.shape(), sample.image()?.to_vec::<f32>()?),
        (&[3, 1, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
    );
    assert_eq!((sample.label()?.to_vec::<u8>()?, sample.spacing()), (vec![0, 3], &[1.0; 2][..]));
    assert!(refused.unwrap_err().to_string().contains("value 3 at voxel [0, 1]"));
    Ok(())
}

#[test]
fn other_shapes_are_refused() -> Result<()> {
    let small = Volume::new(Tensor::zeros(&[3, 4, 4], DType::U8, Device::Cpu)?, AFFINE)?;
    let error = read("small", &image(), &small).unwrap_err().to_string();
    assert!(error.contains("another spatial shape than that of the image"), "{error}");
    Ok(())
}
