//! How much memory a training on more cases than fit takes, in a process of its own since the pool counts for the whole process.

mod common;

use std::sync::Arc;

use common::Folder;
use tomograd_core::{DType, Device, Result, Seed, Tensor, memory};
use tomograd_io::{Volume, geometry};
use tomograd_pipeline::{
    Cache, Cases, Dataset, Loader, Preparation,
    transforms::{Compose, CropOrPad, RandomAffine},
};

const SIZE: usize = 64;
/// An f32 and a byte a voxel.
const CASE: usize = 5 * SIZE * SIZE * SIZE;

/// The most that the pool holds while two epochs of patches are read.
fn peak(folder: &Folder, cache: Cache, workers: usize, affine: bool) -> Result<(usize, Dataset)> {
    let dataset = Dataset::with_reader(folder, 2, |path| {
        // A label has one byte a voxel in its file, an image has what it is read as.
        let dtype = if path.parent().is_some_and(|part| part.ends_with("labels")) { DType::U8 } else { DType::F32 };
        Ok((Tensor::zeros(&[1, SIZE, SIZE, SIZE], dtype, Device::Cpu)?, vec![1.0; 3]))
    })?
    .cache(cache)?;
    let mut transforms = Compose::new();
    if affine {
        transforms = transforms.then(RandomAffine { probability: 1.0, ..RandomAffine::default() })?;
    }
    let transforms = transforms.then(CropOrPad::random([16; 3]))?;
    let loader = Loader::new(Arc::new(dataset.clone()), 1, Seed::new(0))?.transforms(transforms).workers(workers)?;
    memory::trim(Device::Cpu)?;
    memory::reset_peak(Device::Cpu)?;
    let before = memory::statistics(Device::Cpu)?.live;
    for batch in (0..2).flat_map(|epoch| loader.epoch(epoch)) {
        assert_eq!(batch?.image()?.shape(), [1, 1, 16, 16, 16]);
    }
    Ok((memory::statistics(Device::Cpu)?.peak - before, dataset))
}

/// 64 cases are trained on with room for 8.
#[test]
fn memory_stays_within_the_budget_and_a_case_for_each_worker() -> Result<()> {
    let folder = Folder::new("cache-memory");
    for case in 0..64 {
        folder.write(&format!("images/case_{case}"), [case]);
        folder.write(&format!("labels/case_{case}"), [case]);
    }
    let budget = 8 * CASE + 8 * 64;
    // Three batches of a worker, of an f32 and an i64 a voxel, and a patch.
    let batches = 4 * 12 * 16 * 16 * 16;
    // A worker's case, and while it is made its label a second time.
    let case = CASE + CASE / 5;
    for (workers, affine) in [(4, false), (2, true)] {
        // While it is moved, there are two of it.
        let bound = workers * (case + if affine { CASE } else { 0 } + batches);
        let (peak_of_memory, dataset) = peak(&folder, Cache::memory(budget as u64), workers, affine)?;
        let statistics = dataset.cache_statistics();
        assert!(statistics.most <= budget as u64 && statistics.most > 7 * CASE as u64, "{statistics:?}");
        assert!(statistics.misses >= 64 + 56, "{statistics:?}");
        assert!(peak_of_memory <= budget + bound, "{workers} workers: {peak_of_memory} of {budget} + {bound}");
        drop(dataset);
        if affine {
            continue;
        }

        // On disk, 64 cases within a budget for all: none of them stays in memory.
        let place = folder.0.join(format!("cache_{workers}_{affine}"));
        let (peak_of_disk, dataset) = peak(&folder, Cache::disk(&place, 1 << 30).version("zeros"), workers, affine)?;
        assert!(peak_of_disk <= bound, "{workers} workers: {peak_of_disk} of {bound}");
        assert_eq!((dataset.cache_statistics().hits, dataset.cache_statistics().misses), (64, 64));
        assert!(dataset.cache_statistics().bytes >= 64 * CASE as u64);
        std::fs::remove_dir_all(place).unwrap();
    }
    files_take_twice_a_case_and_the_cache_once()
}

/// What a case of NIfTI files takes that is turned and resampled, and then from the cache, whose files need no room beside it.
fn files_take_twice_a_case_and_the_cache_once() -> Result<()> {
    let folder = Folder::new("cache-files");
    for (part, dtype) in [("images", DType::I32), ("labels", DType::U8)] {
        std::fs::create_dir(folder.0.join(part)).unwrap();
        let voxels = Tensor::zeros(&[96, 128, 128], dtype, Device::Cpu)?;
        let volume = Volume::new(voxels, geometry::from_spacing([0.8, 0.8, 1.0])?)?;
        volume.write(folder.0.join(part).join("a.nii"))?;
    }
    let turned = Preparation::new([16; 3], ["background", "organ"])?.orientation("LPS")?;
    let resampled = turned.clone().spacing([0.8, 0.8, 0.9])?;
    for preparation in [None, Some(turned), Some(resampled)] {
        let mut dataset = Dataset::open(&folder, 2)?;
        if let Some(preparation) = &preparation {
            dataset = dataset.preparation(preparation)?;
        }
        let dataset = dataset.cache(Cache::disk(folder.0.join("cache"), 1 << 30))?;
        for most in [2.0, 1.1] {
            memory::trim(Device::Cpu)?;
            memory::reset_peak(Device::Cpu)?;
            let before = memory::statistics(Device::Cpu)?.live;
            let case = dataset.sample(0)?.bytes() as f64;
            let peak = (memory::statistics(Device::Cpu)?.peak - before) as f64;
            assert!(peak <= most * case, "{peak} of a case of {case}, {preparation:?}");
        }
        assert_eq!(dataset.cache_statistics().hits, 1);
    }
    Ok(())
}
