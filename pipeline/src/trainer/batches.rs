//! Sources of batches for a trainer.

use tomograd_core::Result;

use crate::{Batch, Loader};

/// A source of batches for a [`Trainer`](crate::Trainer): a [`Loader`], [`Generated`] batches, or a custom source, such as
/// pairs of batches of two loaders. A batch must depend only on the epoch and its index, so that a resumed run gets the same
/// batches.
pub trait Batches {
    /// The type of a batch.
    type Batch;

    /// The number of batches per epoch.
    fn steps(&self) -> u64;

    /// The batches of an epoch starting at index `first`; there are `steps` − `first`.
    fn batches(&self, epoch: u64, first: u64) -> impl Iterator<Item = Result<Self::Batch>>;

    /// A description of the batch for errors, such as the names of its cases; empty by default.
    fn describe(&self, _batch: &Self::Batch) -> String {
        String::new()
    }
}

impl Batches for Loader {
    type Batch = Batch;

    fn steps(&self) -> u64 {
        Loader::steps(self)
    }

    fn batches(&self, epoch: u64, first: u64) -> impl Iterator<Item = Result<Batch>> {
        self.resume(epoch, first)
    }

    fn describe(&self, batch: &Batch) -> String {
        format!("cases {}", batch.names.join(", "))
    }
}

/// Batches computed by a function of the epoch and the step.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Batches, Generated};
/// let seed = Seed::new(1);
/// let noise = Generated::new(3, move |epoch, step| {
///     Tensor::normal(&[8, 1], 0.0, 1.0, seed.at(epoch).at(step), DType::F32, Device::Cpu)
/// });
/// assert_eq!(noise.batches(0, 1).count(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct Generated<F> {
    steps: u64,
    make: F,
}

impl<B, F: Fn(u64, u64) -> Result<B>> Generated<F> {
    /// Epochs of `steps` batches `make(epoch, step)`, both counted from 0.
    pub fn new(steps: u64, make: F) -> Self {
        Self { steps, make }
    }
}

impl<B, F: Fn(u64, u64) -> Result<B>> Batches for Generated<F> {
    type Batch = B;

    fn steps(&self) -> u64 {
        self.steps
    }

    fn batches(&self, epoch: u64, first: u64) -> impl Iterator<Item = Result<B>> {
        (first..self.steps).map(move |step| (self.make)(epoch, step))
    }
}
