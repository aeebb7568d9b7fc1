//! Where a trainer's batches come from.

use tomograd_core::Result;

use crate::{Batch, Loader};

/// What a [`Trainer`](crate::Trainer) takes its batches from: a [`Loader`], [`Generated`] ones, or a source of one's own, as
/// pairs of batches of two loaders. A batch must depend on the epoch and its number alone, so that a resumed run sees the same.
pub trait Batches {
    /// What a step takes.
    type Batch;

    /// How many batches an epoch has.
    fn steps(&self) -> u64;

    /// The batches of an epoch from number `first` on; `steps` less `first` of them.
    fn batches(&self, epoch: u64, first: u64) -> impl Iterator<Item = Result<Self::Batch>>;

    /// What an error in a step says of its batch, as the names of the cases; nothing unless there is something to say.
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

/// Batches that a function makes of the epoch and the number in it.
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
    /// Epochs of `steps` batches, each `make(epoch, step)`, both counted from 0.
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
