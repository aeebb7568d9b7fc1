//! Batches, prepared on a second thread.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor};

use crate::{
    Sample,
    transforms::{Compose, nth_use},
};

/// A numbered collection of cases.
pub trait Cases: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Case number `index`, prepared as far as it is the same in every epoch.
    ///
    /// # Errors
    /// When there is none of that number, or it can't be read.
    fn sample(&self, index: usize) -> Result<Sample>;

    /// The name of case number `index`, the same as that of its sample. A loader asks for those of the cases before the place
    /// where it resumes an epoch. Unless there is a quicker way, the sample is made for it.
    ///
    /// # Errors
    /// As [`Cases::sample`].
    fn name(&self, index: usize) -> Result<String> {
        Ok(self.sample(index)?.name)
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

fn missing(index: usize, count: usize) -> Error {
    Error::argument("case", format!("number {index} of {count}"))
}

/// What a training step takes.
#[derive(Clone, Debug)]
pub struct Batch {
    /// f32, `(N, C, D, H, W)` or `(N, C, H, W)`.
    pub image: Tensor,
    /// Class numbers, i64, `(N, D, H, W)` or `(N, H, W)`.
    pub label: Tensor,
    /// The names of the cases.
    pub names: Vec<String>,
}

impl Batch {
    /// Samples of one shape, all with a label, as a batch.
    ///
    /// # Errors
    /// When there is none, one has no label, or shapes differ; the error names the case.
    pub fn collate(samples: &[Sample]) -> Result<Self> {
        let first = samples.first().ok_or_else(|| Error::argument("batch", "no samples").expected("at least one"))?;
        first.dims("batch").map_err(|error| error.within(format!("case {}", first.name)))?;
        let spatial = &first.image.shape()[1..];
        let with_count = |shape: &[usize]| [&[samples.len()], shape].concat();
        let mut image = Tensor::zeros(&with_count(first.image.shape()), DType::F32, Device::Cpu)?;
        let mut label = Tensor::zeros(&with_count(spatial), DType::I64, Device::Cpu)?;
        let images = image.as_mut_slice::<f32>()?.chunks_exact_mut(first.image.count());
        let labels = label.as_mut_slice::<i64>()?.chunks_exact_mut(spatial.iter().product());
        for ((sample, image), label) in samples.iter().zip(images).zip(labels) {
            let of_case = |error: Error| error.within(format!("case {}", sample.name));
            sample.dims("batch").map_err(of_case)?;
            if sample.image.shape() != first.image.shape() {
                return Err(of_case(
                    Error::shape("batch", format!("another shape than that of case {}", first.name))
                        .expected("samples of one shape (see CropOrPad)")
                        .shapes([sample.image.shape(), first.image.shape()]),
                ));
            }
            let classes =
                sample.label.as_ref().ok_or_else(|| of_case(Error::argument("batch", "a sample without a label")))?;
            image.copy_from_slice(sample.image.contiguous()?.as_slice::<f32>()?);
            let classes = classes.contiguous()?;
            label.iter_mut().zip(classes.as_slice::<u8>()?).for_each(|(to, &from)| *to = i64::from(from));
        }
        Ok(Self { image, label, names: samples.iter().map(|sample| sample.name.clone()).collect() })
    }
}

/// Batches of shuffled, transformed cases. What a batch holds depends on the seed, the epoch and the step alone.
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
///         assert_eq!(batch?.image.shape(), [2, 1, 8, 8]);
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
}

/// How many finished batches may wait for the consumer.
const QUEUE: usize = 2;

impl Loader {
    /// Batches of `batch` cases, shuffled anew each epoch; the last batch of an epoch may be smaller.
    ///
    /// # Errors
    /// When there are no cases, or `batch` is 0.
    pub fn new(cases: Arc<dyn Cases>, batch: usize, seed: Seed) -> Result<Self> {
        if cases.is_empty() || batch == 0 {
            return Err(Error::argument("loader", format!("{} cases in batches of {batch}", cases.len()))
                .expected("at least one case, and batches of at least one"));
        }
        Ok(Self { cases, transforms: Arc::default(), batch, seed, shuffle: true, drop_last: false })
    }

    /// With these transforms of each case. Their random numbers are keyed by the seed, the epoch, the name of the case, and by
    /// how many places of the epoch before this one have a case of the same name: a case that comes twice is drawn twice.
    #[must_use]
    pub fn transforms(mut self, transforms: Compose) -> Self {
        self.transforms = Arc::new(transforms);
        self
    }

    /// The cases in their own order.
    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.shuffle = false;
        self
    }

    /// Without the last batch of an epoch when it is smaller than the others.
    ///
    /// # Errors
    /// When no batch would be left.
    pub fn drop_last(mut self) -> Result<Self> {
        if self.cases.len() < self.batch {
            return Err(Error::argument("loader", format!("{} cases in batches of {}", self.cases.len(), self.batch))
                .expected("one whole batch at least, or the last one kept"));
        }
        self.drop_last = true;
        Ok(self)
    }

    /// How many batches an epoch has.
    pub fn steps(&self) -> u64 {
        let cases = self.cases.len();
        (if self.drop_last { cases / self.batch } else { cases.div_ceil(self.batch) }) as u64
    }

    /// The batches of one epoch.
    pub fn epoch(&self, epoch: u64) -> Epoch {
        self.resume(epoch, 0)
    }

    /// The batches of one epoch from number `step` on: for a run that goes on where another stopped.
    pub fn resume(&self, epoch: u64, step: u64) -> Epoch {
        let loader = self.clone();
        let (sender, receiver) = sync_channel(QUEUE);
        let name = format!("tomograd-loader-{epoch}");
        match std::thread::Builder::new().name(name).spawn(move || loader.work(epoch, step, &sender)) {
            Ok(worker) => Epoch { receiver: Some(receiver), worker: Some(worker), failure: None },
            Err(error) => Epoch {
                receiver: None,
                worker: None,
                failure: Some(Error::io("loader", "can't start the thread that prepares batches", error)),
            },
        }
    }

    /// Sends each batch until there are no more, one fails, or nobody listens.
    fn work(&self, epoch: u64, first: u64, sender: &SyncSender<Result<Batch>>) {
        let order = match self.order(epoch) {
            Ok(order) => order,
            Err(error) => {
                // Without a listener there is nobody to tell.
                let _ = sender.send(Err(error.within(format!("epoch {epoch}"))));
                return;
            }
        };
        let mut uses = Uses::default();
        for step in first..self.steps() {
            // Less than the number of cases.
            let start = step as usize * self.batch;
            let cases = &order[start..start.saturating_add(self.batch).min(order.len())];
            let passed = if step == first { &order[..start] } else { &[] };
            let batch = catch_unwind(AssertUnwindSafe(|| self.prepare(epoch, passed, cases, &mut uses)))
                .unwrap_or_else(|panic| Err(panic_error(&*panic)))
                .map_err(|error| error.within(format!("epoch {epoch}, step {step}")));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn order(&self, epoch: u64) -> Result<Vec<usize>> {
        if self.shuffle {
            self.seed.at(epoch).named("order").random().permutation(self.cases.len())
        } else {
            Ok((0..self.cases.len()).collect())
        }
    }

    /// The batch of `cases`; `passed` are those that come before in the epoch and that `uses` hasn't counted.
    fn prepare(&self, epoch: u64, passed: &[usize], cases: &[usize], uses: &mut Uses) -> Result<Batch> {
        let seed = self.seed.at(epoch).named("case");
        for &case in passed {
            uses.count(&self.cases.name(case)?);
        }
        let samples = cases.iter().map(|&case| {
            let sample = self.cases.sample(case)?;
            let seed = nth_use(seed.named(&sample.name), uses.count(&sample.name));
            self.transforms.apply(sample, seed)
        });
        Batch::collate(&samples.collect::<Result<Vec<_>>>()?)
    }
}

/// How often each name came in an epoch so far.
#[derive(Default)]
struct Uses(HashMap<String, usize>);

impl Uses {
    /// How often `name` came before this time.
    fn count(&mut self, name: &str) -> usize {
        let count = self.0.entry(name.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

fn panic_error(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    Error::new(ErrorKind::Panic, "loader", text.unwrap_or_else(|| "a panic without a text".into()))
}

/// The batches of one epoch, in order. After an error there are no more. Dropping it stops the thread.
pub struct Epoch {
    receiver: Option<Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
    failure: Option<Error>,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.failure.take().map(Err).or_else(|| self.receiver.as_ref()?.recv().ok())
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // Without a receiver the next send fails, and the thread ends.
        self.receiver = None;
        if let Some(worker) = self.worker.take() {
            // The thread catches panics of the cases; one elsewhere has been printed and has no reader any more.
            let _ = worker.join();
        }
    }
}
