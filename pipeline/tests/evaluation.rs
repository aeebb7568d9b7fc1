//! The metrics of a network on a dataset: by prepared cases and by files, for labels and images as they are.

mod common;

use common::Folder;
use tomograd_autodiff::methods::*;
use tomograd_core::{Result, Tensor};
use tomograd_pipeline::{Dataset, Field, Preparation, Report, Sample, preparation::Channel};

/// A network that finds class 1 where the first channel is above its mean, and never another class.
fn bright(classes: usize) -> impl FnMut(&Tensor) -> Result<Tensor> {
    move |patches| {
        let bright = patches.narrow(1, 0, 1)?;
        let (dark, never) = (bright.mul(0.0)?, bright.mul(0.0)?.sub(1e6)?);
        let maps: Vec<&Tensor> = [&dark, &bright].into_iter().chain(std::iter::repeat_n(&never, classes - 2)).collect();
        Tensor::concat(&maps, 1)
    }
}

fn image() -> Vec<u8> {
    (0..64).map(|i| if i % 4 < 2 { 200 } else { 0 }).collect()
}

fn label(value: u8) -> Vec<u8> {
    image().into_iter().map(|voxel| if voxel > 0 { value } else { 0 }).collect()
}

/// The Dice of class 1, by prepared cases and by files.
fn dice(preparation: &Preparation, dataset: &Dataset) -> Result<[f64; 2]> {
    let classes = preparation.classes.len();
    let of = |report: Report| Ok(report.class_mean(1, |metrics| metrics.dice)?.value);
    let prepared = of(preparation.evaluate(dataset, bright(classes))?)?;
    Ok([prepared, of(preparation.evaluate_files(dataset, bright(classes), |_| Ok(()))?)?])
}

#[test]
fn files_hold_the_label_values_of_the_preparation() -> Result<()> {
    let folder = Folder::new("evaluation-values");
    folder.voxels("images/a.nii.gz", &image(), [4, 4, 4], 1.0);
    for (value, names, values) in
        [(5, &["background", "liver"][..], &[0, 5][..]), (2, &["background", "liver", "tumour"], &[0, 2, 1])]
    {
        folder.voxels("labels/a.nii.gz", &label(value), [4, 4, 4], 1.0);
        let preparation = Preparation::new([4, 4, 4], names.iter().copied())?.label_values(values)?;
        assert_eq!(dice(&preparation, &Dataset::prepared(&folder, &preparation)?)?, [1.0; 2], "{names:?}");
    }
    Ok(())
}

#[test]
fn files_are_read_as_the_dataset_reads_them() -> Result<()> {
    let folder = Folder::new("evaluation-channels");
    for file in ["images/a_t1.nii.gz", "images/a_t2.nii.gz"] {
        folder.voxels(file, &image(), [4, 4, 4], 1.0);
    }
    folder.voxels("labels/a.nii.gz", &label(1), [4, 4, 4], 1.0);
    let channels = [Channel::new("t1", "MR"), Channel::new("t2", "MR")];
    let preparation = Preparation::new([4, 4, 4], ["background", "bright"])?.channels(channels)?;
    let dataset = Dataset::open_channels(&folder, &["_t1", "_t2"], 2)?.preparation(&preparation)?;
    assert_eq!(dice(&preparation, &dataset)?, [1.0; 2]);

    // The label's grid is off by up to 0.15 voxels, which the dataset allows.
    let folder = Folder::new("evaluation-tolerance");
    folder.voxels("images/a.nii.gz", &image(), [4, 4, 4], 1.0);
    folder.voxels("labels/a.nii.gz", &label(1), [4, 4, 4], 1.05);
    let preparation = Preparation::new([4, 4, 4], ["background", "bright"])?;
    let dataset = Dataset::prepared(&folder, &preparation)?.alignment_tolerance(0.5)?;
    assert_eq!(dice(&preparation, &dataset)?, [1.0; 2]);
    Ok(())
}

#[test]
fn of_several_labels_the_one_called_label_counts() -> Result<()> {
    let grid = |values: &[u8]| Tensor::from_slice(values, &[4, 4, 4], tomograd_core::Device::Cpu);
    let volume = grid(&image())?.converted(tomograd_core::DType::F32)?.reshape(&[1, 4, 4, 4])?;
    let sample = Sample::new("a", &volume, None)?
        .with("brain", Field::Label(grid(&[0; 64])?))?
        .with("label", Field::Label(grid(&label(1))?))?;
    let preparation = Preparation::new([4, 4, 4], ["background", "bright"])?;
    let report = preparation.evaluate(&vec![sample], bright(2))?;
    assert_eq!(report.class_mean(1, |metrics| metrics.dice)?.value, 1.0);
    Ok(())
}
