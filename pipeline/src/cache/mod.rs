//! Prepared cases that are kept, in memory or on disk, within a budget of bytes.
//!
//! What must lie in memory at once is the budget of a cache in memory, and for each worker of the loader the case that it has in
//! hand, a second one while a transform moves its voxels, and the batches that wait. A CT volume of 512×512×300 voxels has 78.6
//! million of them: 315 MB as f32 and 79 MB for its label, 393 MB together. A thousand are 393 GB, which lie on disk
//! (`Cache::disk(folder, 400 << 30)`) while 4 workers hold 4 · (393 + 393) MB = 3.1 GB, or 1.6 GB if the first transform is
//! [`CropOrPad`](crate::transforms::CropOrPad), which makes patches of the volumes; batches of patches are small beside that. That
//! is half of 8 GiB. In the first epoch each worker reads a file, turns and resamples it, for which it needs up to twice a case
//! (`tests/cache_memory.rs` holds it to that): 3.1 GB again. Whatever memory is free is used by the operating system to keep files
//! of the cache that were read, without a copy of this cache's own.

mod content;
mod digest;
mod disk;
mod format;
mod memory;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use tomograd_core::{Error, Result};

pub(crate) use self::disk::Key;
use self::{disk::Disk, memory::Memory};
use crate::Sample;

/// Where prepared cases are kept, and how many bytes of them; those that were used least recently leave first.
///
/// A cache in memory keeps samples as they are, in as many bytes as their voxels take. A cache on disk is a folder of files, one
/// a case, with the values as they lie in memory, so that reading one takes no decompression. A file's name is the SHA-256 of
/// all that the case follows from: the contents of its files, the preparation, the transforms of
/// [`Dataset::prepare`](crate::Dataset::prepare) and the version of this library; what changes any of these isn't served. A
/// source file is read for its digest once, and again when its length, its times or its place on the disk are others. A
/// file is written under another name and renamed, so that a process that ends while it writes leaves none that is half
/// written; several processes may use one folder at once, and keep its budget together; one that is damaged is made again.
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

/// What a cache holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Bytes of the cases that are kept. On disk, as of this process's last write.
    pub bytes: u64,
    /// The most that `bytes` has been.
    pub most: u64,
    /// How often a case was there.
    pub hits: u64,
    /// How often one wasn't.
    pub misses: u64,
}

impl Cache {
    /// In memory, as many cases as `bytes` hold. With 0 none is kept.
    pub fn memory(bytes: u64) -> Self {
        Self { place: Place::Memory, bytes, version: None }
    }

    /// On disk, in files of `folder` (which is made if it isn't there), as many cases as `bytes` hold. The folder is the cache's
    /// own: whatever has the ending `.case` in it may be removed.
    pub fn disk(folder: impl Into<PathBuf>, bytes: u64) -> Self {
        Self { place: Place::Disk(folder.into()), bytes, version: None }
    }

    /// With this text as part of what cases on disk follow from: it says what a reader or a transform of one's own does, and
    /// must change when that does.
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

/// A cache in use.
pub(crate) enum Store {
    Memory(Memory),
    Disk(Disk),
}

impl Store {
    pub(crate) fn unlimited() -> Self {
        Self::Memory(Memory::new(u64::MAX))
    }

    /// A number that no settings had before.
    pub(crate) fn new_settings() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// The case of that key: the kept one, or what `load` makes. Two threads may make the same case at once, and make it equal.
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

fn failed(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::io("cache", what, error)
}
