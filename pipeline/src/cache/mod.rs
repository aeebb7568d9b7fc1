//! Caches of prepared cases, in memory or on disk, within a budget of bytes.
//!
//! The memory needed at once is the budget of a memory cache, and for each loader worker the case that it works on, a second
//! copy while a spatial transform runs, and the batches in its queue. A CT volume of 512×512×300 voxels has 78.6 million of
//! them: 315 MB as f32 and 79 MB for its label, 393 MB together. A thousand such cases take 393 GB on disk
//! (`Cache::disk(folder, 400 << 30)`), while 4 workers need 4 · (393 + 393) MB = 3.1 GB, or 1.6 GB if the first transform is
//! [`CropOrPad`](crate::transforms::CropOrPad), which cuts patches from the volumes; batches of patches are small in
//! comparison. In the first epoch, each worker reads, reorients and resamples a file, which takes up to twice the size of a
//! case (`tests/cache_memory.rs` checks that): 3.1 GB again. The operating system uses free memory as its page cache for the
//! files, without another copy in this process.

mod content;
mod disk;
mod format;
mod memory;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tomograd_core::{Error, Result};

pub(crate) use self::disk::Key;
use self::{disk::Disk, memory::Memory};
use crate::Sample;

/// The settings of a cache: where prepared cases are kept, and the budget in bytes. The least recently used cases are evicted
/// first.
///
/// A memory cache keeps samples as they are, and its size is that of their voxels. A disk cache is a folder with one file per
/// case, in memory layout and uncompressed, so that reading is fast. The file name is the SHA-256 of everything that
/// determines the case: the contents of the source files, the preparation, the transforms of
/// [`Dataset::prepare`](crate::Dataset::prepare) and the version of this library; if any of these changes, the old file isn't
/// used. A source file is read once for its digest, and again when its length, timestamps or inode change. Cache files are
/// written to a temporary name and renamed, so that an interrupted process leaves no partial file. Several processes may
/// share a folder and its budget. Damaged files are replaced.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{Cache, Cases, Dataset};
/// let images = Tensor::zeros(&[10, 8, 8], DType::F32, Device::Cpu)?;
/// let cases = Dataset::arrays("case", &images, None)?.cache(Cache::memory(1000))?;
/// for index in 0..10 {
///     cases.sample(index)?;
/// }
/// assert!(cases.cache_statistics().bytes <= 1000);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cache {
    place: Place,
    bytes: u64,
    version: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Memory,
    Disk(PathBuf),
}

/// The size and the hits and misses of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// The total size of the cached cases in bytes; for a disk cache, as of this process's last write.
    pub bytes: u64,
    /// The maximum of `bytes`.
    pub most: u64,
    /// The number of cache hits.
    pub hits: u64,
    /// The number of cache misses.
    pub misses: u64,
}

impl Cache {
    /// A memory cache of at most `bytes`. With 0, nothing is cached.
    pub fn memory(bytes: u64) -> Self {
        Self { place: Place::Memory, bytes, version: None }
    }

    /// A disk cache of at most `bytes` in `folder`, which is created if necessary. The folder must be used for nothing else:
    /// any file with the extension `.case` may be removed.
    pub fn disk(folder: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { place: Place::Disk(folder.into()), bytes, version: None }
    }

    /// Adds `text` to the keys of a disk cache: a version of custom readers or transforms, which must change when they
    /// do.
    #[must_use]
    pub fn version(self, text: impl Into<String>) -> Self {
        Self { version: Some(text.into()), ..self }
    }

    pub(crate) fn open(self) -> Result<Store> {
        Ok(match self.place {
            Place::Memory => Store::Memory(Memory::new(self.bytes)),
            Place::Disk(folder) => Store::Disk(Disk::open(folder, self.bytes, self.version)?),
        })
    }
}

/// An open cache.
pub(crate) enum Store {
    Memory(Memory),
    Disk(Disk),
}

impl Store {
    pub(crate) fn unlimited() -> Self {
        Self::Memory(Memory::new(u64::MAX))
    }

    /// A new identifier of dataset settings.
    pub(crate) fn new_settings() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// The case with this key: from the cache, or from `load`. Two threads may load the same case at the same time, with
    /// equal results.
    pub(crate) fn get(
        &self,
        key: memory::Key,
        disk_key: impl FnOnce() -> Result<Key>,
        load: impl FnOnce() -> Result<Sample>,
    ) -> Result<Sample> {
        match self {
            Self::Memory(memory) => memory.get(key, load),
            Self::Disk(disk) => disk.get(&disk_key()?, load),
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        match self {
            Self::Memory(memory) => memory.statistics(),
            Self::Disk(disk) => disk.statistics(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoning is ignored: nothing panics while the lock is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::io("cache", what, error)
}
