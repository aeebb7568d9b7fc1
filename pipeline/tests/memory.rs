//! What loaders and sliding windows take from the pool, in a process of its own since the pool counts for the whole process.

use std::sync::Arc;

use tomograd_core::{DType, Device, Result, Seed, Tensor, memory};
use tomograd_io::{Volume, geometry};
use tomograd_pipeline::{
    Loader, Preparation, Sample, SlidingWindow,
    transforms::{Compose, CropOrPad, Flip, RandomAffine},
};

/// The most that the labels of a volume of this depth take beside it, and the bound, in bytes.
fn windows(depth: usize, window: &SlidingWindow) -> Result<(usize, usize)> {
    let image = Tensor::zeros(&[1, depth, 64, 64], DType::F32, Device::Cpu)?;
    // What an earlier call left could be taken in place of a block of the right size.
    memory::trim(Device::Cpu)?;
    let before = memory::statistics(Device::Cpu)?.live;
    memory::reset_peak(Device::Cpu)?;
    let four_classes = |patches: &Tensor| patches.expand(&[patches.shape()[0], 4, 16, 16, 16])?.copy();
    window.labels(&image, four_classes)?;
    let peak = memory::statistics(Device::Cpu)?.peak - before;
    Ok((peak, window.memory_bound(1, 4, &[depth, 64, 64])?))
}

/// The most that a segmentation of a volume of this depth takes beside it, its f32 copies, turned and resampled, and its masks,
/// turned and turned back.
fn segmentation(depth: usize, spacing: Option<[f64; 3]>) -> Result<usize> {
    let affine = geometry::from_orientation("LPS")?;
    let volume = Volume::new(Tensor::zeros(&[depth, 64, 64], DType::F32, Device::Cpu)?, affine)?;
    let mut preparation = Preparation::new([16; 3], ["0", "1", "2", "3"])?.orientation("RAS")?;
    preparation.spacing = spacing;
    memory::trim(Device::Cpu)?;
    let before = memory::statistics(Device::Cpu)?.live;
    memory::reset_peak(Device::Cpu)?;
    preparation.segment(&volume, |patches| patches.expand(&[patches.shape()[0], 4, 16, 16, 16])?.copy())?;
    let peak = memory::statistics(Device::Cpu)?.peak - before;
    let voxels = depth * 64 * 64;
    let image = if spacing.is_some() { voxels / 2 } else { voxels };
    // While logits are made, the prepared image lives, and the labels of the volume.
    Ok(peak.saturating_sub((4 * image + voxels).max(4 * (voxels + image))))
}

#[test]
fn memory_stays_within_its_bounds() -> Result<()> {
    // All blocks are of sizes that the pool doesn't round up, so that the bound is the peak to the byte.
    let half = SlidingWindow::new([16; 3])?;
    let one_row = half.clone().overlap(0.0)?.batch(1000)?;
    for (depth, window) in [
        (32, half.clone()),
        (320, half.clone()),
        (8, half.clone().batch(3)?),
        (32, half.mirroring(true).batch(2)?),
        (32, one_row),
    ] {
        let (peak, bound) = windows(depth, &window)?;
        assert_eq!(peak, bound, "{depth} planes, {window:?}");
    }

    // A whole segmentation: beside the volume, which is turned and resampled as f32, only what labels take, whatever the depth.
    for (spacing, planes) in [(None, 0), (Some([1.0, 1.0, 2.0]), 2)] {
        let extra: Vec<usize> =
            [32, 320].map(|depth| segmentation(depth, spacing)).into_iter().collect::<Result<_>>()?;
        let window = SlidingWindow::new([16; 3])?;
        // The mask itself is in the bound of the labels; two planes of four maps, and one of one map.
        let bound = window.memory_bound(1, 4, &[16, 64, 64])? - 16 * 64 * 64 + planes * 4 * 4 * 64 * 64 + 4 * 64 * 64;
        assert!(extra.iter().all(|&extra| extra <= bound), "{spacing:?}: {extra:?} of {bound}");
    }

    // After the first epoch, a loader lives on what the pool has kept.
    let image = Tensor::zeros(&[1, 40, 40, 40], DType::F32, Device::Cpu)?;
    let label = Tensor::zeros(&[40, 40, 40], DType::U8, Device::Cpu)?;
    let cases = (0..8).map(|i| Sample::new(format!("case_{i}"), &image, Some(&label))).collect::<Result<Vec<_>>>()?;
    let affine = RandomAffine { probability: 1.0, ..RandomAffine::default() };
    let transforms = Compose::new().then(affine)?.then(CropOrPad::random([32; 3]))?.then(Flip::default())?;
    let loader = Loader::new(Arc::new(cases), 2, Seed::new(0))?.transforms(transforms);
    // Keeping all batches is the most that any timing of the consumer can take.
    drop(loader.epoch(0).collect::<Result<Vec<_>>>()?);
    let requests = || memory::statistics(Device::Cpu).map(|statistics| statistics.system_allocations);
    let before = requests()?;
    for batch in (1..4).flat_map(|epoch| loader.epoch(epoch)) {
        batch?;
    }
    assert_eq!(requests()?, before);
    Ok(())
}
