//! What loaders and sliding windows take from the pool, in a process of its own since the pool counts for the whole process.

use std::sync::Arc;

use tomograd_core::{DType, Device, Result, Seed, Tensor, pool};
use tomograd_pipeline::{
    Loader, Sample, SlidingWindow,
    transforms::{Compose, CropOrPad, Flip, RandomAffine},
};

/// The most that the labels of a volume of this depth take beside it, in bytes.
fn peak_of_windows(depth: usize) -> Result<usize> {
    let image = Tensor::zeros(&[1, depth, 48, 48], DType::F32, Device::Cpu)?;
    let before = pool::statistics(Device::Cpu)?.live;
    pool::reset_peak(Device::Cpu)?;
    let four_classes = |patches: &Tensor| patches.expand(&[1, 4, 16, 16, 16])?.copy();
    let labels = SlidingWindow::new([16; 3]).labels(&image, four_classes)?;
    Ok(pool::statistics(Device::Cpu)?.peak - before - labels.count())
}

#[test]
fn memory_stays_within_its_bounds() -> Result<()> {
    // A slab of four classes, a patch, and its logits; the pool rounds blocks up.
    let bound = 4 * (4 * 16 * 48 * 48 + (1 + 4) * 16 * 16 * 16);
    let (shallow, deep) = (peak_of_windows(32)?, peak_of_windows(320)?);
    assert!(deep <= bound + bound / 4, "{deep} bytes of {bound}");
    assert!(deep <= shallow + shallow / 4, "{shallow} bytes for 32 planes, {deep} for 320");

    // After the first epoch, a loader lives on what the pool has kept.
    let image = Tensor::zeros(&[1, 40, 40, 40], DType::F32, Device::Cpu)?;
    let label = Tensor::zeros(&[40, 40, 40], DType::U8, Device::Cpu)?;
    let cases = (0..8).map(|i| Sample::new(format!("case_{i}"), &image, Some(&label))).collect::<Result<Vec<_>>>()?;
    let affine = RandomAffine { probability: 1.0, ..RandomAffine::default() };
    let transforms = Compose::new().then(affine).then(CropOrPad::random([32; 3])).then(Flip::default());
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
