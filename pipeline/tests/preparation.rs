//! Files that say the same in other ways are prepared and segmented alike.

use std::path::{Path, PathBuf};

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::{Interpolation, Volume, geometry};
use tomograd_models::{Model, UNet3dConfig};
use tomograd_nn::Loaded;
use tomograd_pipeline::{
    Cases, Dataset, Preparation, Segment, Split, alignment, evaluate_volumes,
    preparation::{Channel, Intensity},
    transforms::{Compose, ZScore},
};

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/hippocampus");
const NAMES: [&str; 3] = ["background", "anterior", "posterior"];

/// As the example `unet3d` prepares its images.
fn preparation() -> Preparation {
    let preparation = Preparation::new([40, 56, 40], NAMES).unwrap();
    preparation.orientation("RAS").unwrap().spacing([1.0; 3]).unwrap()
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tomograd-preparation-{name}-{}", std::process::id()));
        for part in ["images", "labels"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn the_shipped_cases_are_prepared_as_by_transforms() -> Result<()> {
    let split = Split::read(Path::new(SHIPPED).join("split.txt"))?;
    let prepared = Dataset::prepared(SHIPPED, &preparation())?;
    let transformed = Dataset::open(SHIPPED, 3)?.prepare(Compose::new().then(ZScore::default())?);
    let bits = |image: &Tensor| image.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for names in [&split.train, &split.validation] {
        let [prepared, transformed] = [prepared.subset(names)?, transformed.subset(names)?];
        for index in 0..names.len() {
            let [a, b] = [prepared.sample(index)?, transformed.sample(index)?];
            assert_eq!((a.image()?.shape(), a.spacing(), &a.name), (b.image()?.shape(), b.spacing(), &b.name));
            assert!(bits(a.image()?) == bits(b.image()?), "{}", a.name);
            assert_eq!(a.label()?.to_vec::<u8>()?, b.label()?.to_vec::<u8>()?, "{}", a.name);
        }
    }
    Ok(())
}

#[test]
fn cases_of_other_grids_and_values_become_one_kind() -> Result<()> {
    let folder = Folder::new("kinds");
    let affine = [[-2.0, 0.0, 0.0, 9.0], [0.0, 1.0, 0.0, -4.0], [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]];
    let image = Tensor::normal(&[12, 8, 5], 40.0, 9.0, Seed::new(3), DType::F32, Device::Cpu)?;
    let values: Vec<i32> = (0..480).map(|i| [0, 17, 400][i / 7 % 3]).collect();
    let label = Volume::new(Tensor::from_slice(&values, &[12, 8, 5], Device::Cpu)?, affine)?;
    let image = Volume::new(image, affine)?;
    image.write(folder.0.join("images/a.nii.gz"))?;
    // The label's axes run otherwise.
    label.reorient("SPL")?.write(folder.0.join("labels/a.nii.gz"))?;
    let preparation =
        Preparation::new([8, 8, 8], NAMES)?.label_values(&[0, 17, 400])?.orientation("RAS")?.spacing([1.0; 3])?;
    let sample = Dataset::prepared(&folder.0, &preparation)?.sample(0)?;
    assert_eq!((sample.image()?.shape(), sample.spacing()), (&[1, 6, 8, 10][..], &[1.0; 3][..]));
    // What the file-wise calls give, and what the volumes' own methods do.
    assert_eq!(sample.image()?.to_vec::<f32>()?, preparation.image(&image)?.to_vec::<f32>()?);
    let found = sample.label()?.to_vec::<u8>()?;
    assert_eq!(found, preparation.label(&label)?.to_vec::<u8>()?);
    let by_hand = label.reorient("RAS")?.resample([1.0; 3], Interpolation::Nearest)?.voxels().to_vec::<i32>()?;
    assert_eq!(found.iter().map(|&class| [0, 17, 400][usize::from(class)]).collect::<Vec<_>>(), by_hand);

    // A value that no class has, and a NaN, are named with file and voxel.
    let other = Preparation::new([8, 8, 8], NAMES)?;
    let error = Dataset::prepared(&folder.0, &other)?.sample(0).unwrap_err().to_string();
    assert!(error.contains("labels/a.nii.gz: ") && error.contains("value 400 at voxel [0, 0, 0]"), "{error}");
    let mut voxels = image.voxels().clone();
    voxels.as_mut_slice::<f32>()?[3] = f32::NAN;
    Volume::new(voxels, affine)?.write(folder.0.join("images/a.nii.gz"))?;
    let error = Dataset::prepared(&folder.0, &preparation)?.sample(0).unwrap_err().to_string();
    assert!(error.contains("images/a.nii.gz: ") && error.contains("NaN at voxel [0, 0, 3]"), "{error}");
    Ok(())
}

#[test]
fn pairs_of_compressed_files_are_cases() -> Result<()> {
    let folder = Folder::new("pairs");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/nifti");
    for ending in ["hdr.gz", "img.gz"] {
        std::fs::copy(golden.join(format!("pair.{ending}")), folder.0.join(format!("images/a.{ending}"))).unwrap();
    }
    let image = Volume::read(golden.join("pair.hdr.gz"))?;
    let shape = image.voxels().shape();
    image
        .with_voxels(Tensor::zeros(&shape[shape.len() - 3..], DType::U8, Device::Cpu)?)?
        .write(folder.0.join("labels/a.nii"))?;
    let dataset = Dataset::open(&folder.0, 2)?;
    assert_eq!((dataset.names(), dataset.len()), (vec!["a".to_owned()], 1));
    let sample = dataset.sample(0)?;
    let found = sample.image()?;
    assert_eq!(found.to_vec_f64()?, image.voxels().to_vec_f64()?);
    Ok(())
}

/// Logits whose greatest one changes with the intensity, the first two by parts of it.
fn function(patches: &Tensor) -> Result<Tensor> {
    let values = patches.to_vec::<f32>()?;
    let size = patches.shape()[2..].iter().product::<usize>();
    let maps: [fn(f32) -> f32; 3] = [|_| 0.0, |x| x - 0.5, |x| 2.0 * x - 2.0];
    let of_patch =
        |patch: &[f32]| maps.into_iter().flat_map(|map| patch.iter().map(move |x| map(*x))).collect::<Vec<_>>();
    let logits: Vec<f32> = values.chunks_exact(size).flat_map(of_patch).collect();
    Tensor::from_slice(&logits, &[patches.shape()[0], 3, 40, 56, 40], Device::Cpu)
}

/// The bytes of a NIfTI-1 file of a volume.
fn bytes(volume: &Volume) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    volume.write_to(&mut bytes, false)?;
    Ok(bytes)
}

/// Multiplies numbers of 32 bits in a header.
fn scale(header: &mut [u8], at: impl IntoIterator<Item = usize>, factor: f32) {
    for at in at {
        let value = f32::from_le_bytes(header[at..at + 4].try_into().unwrap()) * factor;
        header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// The file in micrometres: spacing, offsets of the qform, rows of the sform, and the unit.
fn micrometres(volume: &Volume) -> Result<Volume> {
    let mut file = bytes(volume)?;
    scale(&mut file, (80..92).step_by(4).chain((268..280).step_by(4)).chain((280..328).step_by(4)), 1000.0);
    file[123] = file[123] & !7 | 3;
    Volume::from_bytes(&file)
}

/// The file of 16-bit integers, with the slope and the intercept that give the values of the volume back.
fn scaled_int16(volume: &Volume) -> Result<Volume> {
    let values = volume.voxels().to_vec_f64()?;
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let (slope, offset) = ((high - low) / 65000.0, (high + low) / 2.0);
    let mut file = bytes(volume)?;
    let start = f32::from_le_bytes(file[108..112].try_into().unwrap()) as usize;
    file.truncate(start);
    file[70..74].copy_from_slice(&[4, 0, 16, 0]);
    file[112..116].copy_from_slice(&(slope as f32).to_le_bytes());
    file[116..120].copy_from_slice(&(offset as f32).to_le_bytes());
    let stored = |value: &f64| (((value - offset) / slope).round() as i16).to_le_bytes();
    file.extend(values.iter().flat_map(stored));
    let volume = Volume::from_bytes(&file)?;
    assert_eq!(volume.stored_dtype(), "int16");
    Ok(volume)
}

#[test]
fn one_image_in_other_files_has_one_mask() -> Result<()> {
    for case in ["hippocampus_004", "hippocampus_025", "hippocampus_380"] {
        let original = Volume::read(Path::new(SHIPPED).join(format!("images/{case}.nii.gz")))?;
        assert_eq!((original.orientation().as_str(), original.spacing()), ("RAS", [1.0; 3]));
        let mask = preparation().segment(&original, function)?;
        let values = mask.voxels().to_vec::<u8>()?;
        assert!((0..3).all(|class| values.contains(&class)));
        for other in [original.reorient("LPS")?, original.reorient("SRA")?, original.reorient("PIL")?] {
            // As a file says it.
            let other = Volume::from_bytes(&bytes(&other)?)?;
            let found = preparation().segment(&other, function)?;
            assert_eq!((found.affine(), found.voxels().shape()), (other.affine(), other.voxels().shape()));
            assert_eq!(found.reorient("RAS")?.voxels().to_vec::<u8>()?, values, "{case} as {}", other.orientation());
        }
        let found = preparation().segment(&micrometres(&original)?, function)?;
        assert_eq!((found.voxels().to_vec::<u8>()?, found.spacing()), (values.clone(), [1.0; 3]));
        let integers = preparation().segment(&scaled_int16(&original)?, function)?.voxels().to_vec::<u8>()?;
        let equal = integers.iter().zip(&values).filter(|(a, b)| a == b).count();
        assert!(equal as f64 >= 0.999 * values.len() as f64, "{case}: {equal} of {}", values.len());
    }
    Ok(())
}

/// Two round shapes, one in the other, on a grid of this spacing over 38 × 52 × 36 mm.
fn shapes(spacing: [f64; 3]) -> Result<Volume> {
    let sizes: [usize; 3] = std::array::from_fn(|axis| ([38.0, 52.0, 36.0][axis] / spacing[axis]).round() as usize);
    let mut affine = geometry::from_spacing(spacing)?;
    // The middle of every grid is the origin.
    (0..3).for_each(|axis| affine[axis][3] = -(sizes[axis] as f64 - 1.0) / 2.0 * spacing[axis]);
    let [width, height, depth] = sizes;
    let value = |at: usize| {
        let voxel = [at % width, at / width % height, at / width / height].map(|index| index as f64);
        let [x, y, z] = geometry::apply(&affine, voxel);
        let square = |radii: [f64; 3]| (x / radii[0]).powi(2) + (y / radii[1]).powi(2) + (z / radii[2]).powi(2);
        (400.0 * (-square([9.0, 14.0, 8.0])).exp() + 300.0 * (-square([5.0, 6.0, 5.0])).exp()) as f32
    };
    let voxels: Vec<f32> = (0..sizes.iter().product()).map(value).collect();
    Volume::new(Tensor::from_slice(&voxels, &[depth, height, width], Device::Cpu)?, affine)
}

#[test]
fn a_finer_and_coarser_grid_has_the_mask_in_its_own_grid() -> Result<()> {
    let [original, other] = [shapes([1.0; 3])?, shapes([0.7, 1.3, 1.0])?];
    let masks = [preparation().segment(&original, function)?, preparation().segment(&other, function)?];
    assert_eq!((masks[1].affine(), masks[1].voxels().shape()), (other.affine(), other.voxels().shape()));
    let on_original = masks[1].resample_to(&original, Interpolation::Nearest)?;
    for (class, metrics) in evaluate_volumes(&on_original, &masks[0], 3, alignment::TOLERANCE)?.iter().enumerate() {
        assert!(metrics.dice >= 0.95, "class {}: {}", class + 1, metrics.dice);
    }
    Ok(())
}

#[test]
fn a_preparation_travels_with_its_network() -> Result<()> {
    let folder = Folder::new("travels");
    let path = folder.0.join("model.safetensors");
    let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![2, 4] };
    let bare = Model::new(&config, Device::Cpu, Seed::new(1))?;
    let scan = shapes([2.0; 3])?;
    for error in [bare.segment(&scan).err(), bare.preparation().err()] {
        assert!(error.is_some_and(|error| error.to_string().contains("Checkpoint::preparation")));
    }
    // A file that doesn't say it is read as ever.
    bare.checkpoint()?.save(&path)?;
    assert!(
        Loaded::read(&path)?.preparation().is_none() && Loaded::read(&path)?.preparation_as::<Preparation>().is_err()
    );
    assert!(Model::load(&path, Device::Cpu)?.preparation_json().is_none());

    let plain = Channel::new("t1", "MR").intensity(Intensity::default());
    let preparation = preparation().channels([plain])?.spacing([0.1 + 0.2, 2.0, 2.0])?;
    let model = bare.with_preparation(&preparation)?;
    model.checkpoint()?.save(&path)?;
    assert_eq!(Loaded::read(&path)?.preparation_as::<Preparation>()?, preparation);
    let loaded = Model::load(&path, Device::Cpu)?;
    assert_eq!(loaded.preparation()?, preparation);
    // And written again.
    loaded.checkpoint()?.save(&path)?;
    let again = Model::load(&path, Device::Cpu)?;
    assert_eq!(again.preparation()?, preparation);
    let masks = [model.segment(&scan)?, again.segment(&scan)?];
    assert_eq!(masks[0].voxels().to_vec::<u8>()?, masks[1].voxels().to_vec::<u8>()?);
    Ok(())
}
