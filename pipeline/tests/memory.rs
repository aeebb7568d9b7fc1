//! What loaders and sliding windows take from the pool, in a process of its own since the pool counts for the whole process.

use std::sync::Arc;

use tomograd_core::{DType, Device, Result, Seed, Tensor, pool};
use tomograd_pipeline::{
    Loader, Sample, SlidingWindow,
    transforms::{Compose, CropOrPad, Flip, RandomAffine},
};

/// The most that the labels of a volume of this depth take beside it, and the bound, in bytes.
fn windows(depth: usize, window: &SlidingWindow) -> Result<(usize, usize)> {
    let image = Tensor::zeros(&[1, depth, 64, 64], DType::F32, Device::Cpu)?;
    // What an earlier call left could be taken in place of a block of the right size.
    pool::trim(Device::Cpu)?;
    let before = pool::statistics(Device::Cpu)?.live;
    pool::reset_peak(Device::Cpu)?;
    let four_classes = |patches: &Tensor| patches.expand(&[patches.shape()[0], 4, 16, 16, 16])?.copy();
    window.labels(&image, four_classes)?;
    let peak = pool::statistics(Device::Cpu)?.peak - before;
    Ok((peak, window.memory_bound(1, 4, &[depth, 64, 64])?))
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

    // After the first epoch, a loader lives on what the pool has kept.
    let image = Tensor::zeros(&[1, 40, 40, 40], DType::F32, Device::Cpu)?;
    let label = Tensor::zeros(&[40, 40, 40], DType::U8, Device::Cpu)?;
    let cases = (0..8).map(|i| Sample::new(format!("case_{i}"), &image, Some(&label))).collect::<Result<Vec<_>>>()?;
    let affine = RandomAffine { probability: 1.0, ..RandomAffine::default() };
    let transforms = Compose::new().then(affine)?.then(CropOrPad::random([32; 3]))?.then(Flip::default())?;
    let loader = Loader::new(Arc::new(cases), 2, Seed::new(0))?.transforms(transforms);
    // Keeping all batches is the most that any timing of the consumer can take.
    drop(loader.epoch(0).collect::<Result<Vec<_>>>()?);
    let requests = || pool::statistics(Device::Cpu).map(|statistics| statistics.system_allocations);
    let before = requests()?;
    for batch in (1..4).flat_map(|epoch| loader.epoch(epoch)) {
        batch?;
    }
    assert_eq!(requests()?, before);
    Ok(())
}
