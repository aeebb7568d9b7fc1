//! Batches, prefetched by worker threads.

mod batch;
mod workers;

use std::sync::Arc;

use tomograd_core::{Device, Error, Result, Seed};

pub use self::{
    batch::{Batch, Collated},
    workers::Epoch,
};
use crate::{Sample, transforms::Compose};

/// An indexed collection of cases, as PyTorch's map-style `Dataset`.
///
/// ```
/// use std::sync::Arc;
/// use tomograd_core::{DType, Device, Result, Seed, Tensor};
/// use tomograd_pipeline::{Cases, Loader, Sample};
/// struct Phantoms;
/// impl Cases for Phantoms {
///     fn len(&self) -> usize {
///         4
///     }
///     fn sample(&self, index: usize) -> Result<Sample> {
///         Sample::new(format!("phantom_{index}"), &Tensor::full(&[1, 8, 8], index as f64, DType::F32, Device::Cpu)?, None)
///     }
/// }
/// let loader = Loader::new(Arc::new(Phantoms), 2, Seed::new(1))?;
/// assert_eq!(loader.epoch(0).count(), 2);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Cases: Send + Sync {
    /// The number of cases.
    fn len(&self) -> usize;

    /// Whether there are no cases.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Case number `index`, with all preparation that is the same in every epoch.
    ///
    /// # Errors
    /// When the index is out of range, or the case can't be read.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// The name by which the random numbers of case number `index` are keyed, mostly that of its sample. A loader that resumes within
    /// an epoch, or has several workers, requests the names of cases that it doesn't load. By default it has the number in it.
    ///
    /// # Errors
    /// As [`Cases::sample`].
    fn name(&self, index: usize) -> Result<String> {
        Ok(format!("case_{index}"))
    }
}

impl Cases for Vec<Sample> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.get(index).cloned().ok_or_else(|| missing(index, self.as_slice().len()))
    }

    fn name(&self, index: usize) -> Result<String> {
        self.get(index).map(|sample| sample.name.clone()).ok_or_else(|| missing(index, self.as_slice().len()))
    }
}

pub(crate) fn missing(index: usize, count: usize) -> Error {
    Error::argument("case", format!("number {index} of {count}"))
}

/// Shuffled, transformed and batched cases. The contents of a batch depend on the seed, the epoch and the step only, not on
/// the number of workers.
///
/// ```
/// use std::sync::Arc;
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Loader, Sample, transforms::{Compose, Flip}};
/// let image = Tensor::zeros(&[1, 8, 8], DType::F32, Device::Cpu)?;
/// let label = Tensor::zeros(&[8, 8], DType::U8, Device::Cpu)?;
/// let cases = vec![Sample::new("a", &image, Some(&label))?, Sample::new("b", &image, Some(&label))?];
/// let loader = Loader::new(Arc::new(cases), 2, Seed::new(7))?.transforms(Compose::new().then(Flip::default())?);
/// for epoch in 0..3 {
///     for batch in loader.epoch(epoch) {
///         assert_eq!(batch?.image()?.shape(), [2, 1, 8, 8]);
///     }
/// }
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    cases: Arc<dyn Cases>,
    transforms: Arc<Compose>,
    batch: usize,
    seed: Seed,
    shuffle: bool,
    drop_last: bool,
    workers: usize,
    device: Device,
}

/// The largest number of worker threads.
const MOST_WORKERS: usize = 256;

impl Loader {
    /// Batches of `batch` cases, shuffled anew in each epoch; the last batch of an epoch may be smaller.
    ///
    /// # Errors
    /// When there are no cases, or `batch` is 0.
    pub fn new(cases: Arc<dyn Cases>, batch: usize, seed: Seed) -> Result<Self> {
        if cases.is_empty() || batch == 0 {
            return Err(Error::argument("loader", format!("{} cases in batches of {batch}", cases.len()))
                .expected("at least one case, and batches of at least one"));
        }
        Ok(Self {
            cases,
            transforms: Arc::default(),
            batch,
            seed,
            shuffle: true,
            drop_last: false,
            workers: 1,
            device: Device::Cpu,
        })
    }

    /// Sets the transforms of each case. Their random numbers depend on the seed, the epoch, the name of the case, and the
    /// number of earlier occurrences of the name in the epoch, so that a repeated case is augmented differently.
    #[must_use]
    pub fn transforms(mut self, transforms: Compose) -> Self {
        self.transforms = Arc::new(transforms);
        self
    }

    /// Disables shuffling.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.shuffle = false;
        self
    }

    /// Drops the last batch of an epoch if it is smaller than the others.
    ///
    /// # Errors
    /// When no batch would remain.
    pub fn drop_last(mut self) -> Result<Self> {
        if self.cases.len() < self.batch {
            return Err(Error::argument("loader", format!("{} cases in batches of {}", self.cases.len(), self.batch))
                .expected("one whole batch at least, or the last one kept"));
        }
        self.drop_last = true;
        Ok(self)
    }

    /// Sets the number of worker threads, by default one. The batches and their order don't depend on it.
    ///
    /// Each worker prepares one batch and may have two finished ones in its queue. Each of several workers also requests the
    /// names of the cases that the others prepare ([`Cases::name`]).
    ///
    /// # Errors
    /// When `workers` isn't 1 to 256.
    pub fn workers(mut self, workers: usize) -> Result<Self> {
        if !(1..=MOST_WORKERS).contains(&workers) {
            return Err(
                Error::argument("loader", format!("{workers} workers")).expected(format!("1 to {MOST_WORKERS}"))
            );
        }
        self.workers = workers;
        Ok(self)
    }

    /// Sets the device of the batches, by default [`Device::Cpu`]: that of the network. Cases are prepared on the CPU, and the
    /// worker that has prepared a batch copies it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_pipeline::{Loader, Sample};
    /// let cases = vec![Sample::new("a", &Tensor::zeros(&[1, 8, 8], DType::F32, Device::Cpu)?, None)?];
    /// let loader = Loader::new(Arc::new(cases), 1, Seed::new(7))?.device(Device::Meta);
    /// for batch in loader.epoch(0) {
    ///     assert_eq!(batch?.image()?.device(), Device::Meta);
    /// }
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The number of batches per epoch.
    pub fn steps(&self) -> u64 {
        let cases = self.cases.len();
        (if self.drop_last { cases / self.batch } else { cases.div_ceil(self.batch) }) as u64
    }

    /// The batches of one epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.resume(epoch, 0)
    }

    /// The batches of one epoch starting at `step`, to resume a run.
    pub fn resume(&self, epoch: u64, step: u64) -> Epoch {
        Epoch::start(self, epoch, step)
    }

    fn order(&self, epoch: u64) -> Result<Vec<usize>> {
        if self.shuffle {
            self.seed.at(epoch).named("order").random().permutation(self.cases.len())
        } else {
            Ok((0..self.cases.len()).collect())
        }
    }
}
