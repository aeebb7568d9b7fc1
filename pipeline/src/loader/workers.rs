//! The worker threads that prepare the batches of an epoch.

use std::{
    any::Any,
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use tomograd_core::{Error, ErrorKind, Result};

use super::{Batch, Loader};
use crate::transforms::nth_use;

/// The number of finished batches per worker that may wait for the consumer.
const PREFETCH: usize = 2;

/// The batches of one epoch, in order. After an error there are no more. Dropping the iterator stops the threads.
pub struct Epoch {
    /// One queue per worker: batch `i` comes from worker `i` modulo the number of workers.
    queues: Vec<Receiver<Result<Batch>>>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    next: usize,
    failure: Option<Error>,
}

impl Epoch {
    /// Starts the workers at batch number `first` of an epoch.
    pub(super) fn start(loader: &Loader, epoch: u64, first: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut this = Self { queues: Vec::new(), threads: Vec::new(), stop, next: 0, failure: None };
        let order = match loader.order(epoch) {
            Ok(order) => Arc::new(order),
            Err(error) => {
                this.failure = Some(error.within(format!("epoch {epoch}")));
                return this;
            }
        };
        // At most as many workers as batches.
        let workers = (loader.workers as u64).min(loader.steps().saturating_sub(first));
        for number in 0..workers {
            let (sender, receiver) = sync_channel(PREFETCH);
            let mut worker = Worker {
                loader: loader.clone(),
                epoch,
                order: order.clone(),
                counted: 0,
                uses: HashMap::new(),
                stop: this.stop.clone(),
            };
            let work = move || worker.work((first + number..worker.loader.steps()).step_by(workers as usize), &sender);
            match Builder::new().name(format!("tomograd-loader-{epoch}-{number}")).spawn(work) {
                Ok(thread) => {
                    this.queues.push(receiver);
                    this.threads.push(thread);
                }
                Err(error) => {
                    this.queues.clear();
                    this.failure = Some(Error::io("loader", "can't start a thread that prepares batches", error));
                    return this;
                }
            }
        }
        this
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let worker = self.next.checked_rem(self.queues.len())?;
        let batch = self.queues[worker].recv().ok()?;
        self.next += 1;
        if batch.is_err() {
            self.stop.store(true, Ordering::Relaxed);
            self.queues.clear();
        }
        Some(batch)
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // Workers check this before each case; without a receiver their next send fails.
        self.stop.store(true, Ordering::Relaxed);
        self.queues.clear();
        for thread in self.threads.drain(..) {
            // Panics of cases are caught in the thread; any other has been printed, and there is nothing to return it to.
            let _ = thread.join();
        }
    }
}

struct Worker {
    loader: Loader,
    epoch: u64,
    /// The order of the cases in the epoch.
    order: Arc<Vec<usize>>,
    /// The number of cases that `uses` includes.
    counted: usize,
    /// The number of occurrences of each name in the epoch so far.
    uses: HashMap<String, usize>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Sends these batches until there are no more, one fails, or the receiver is gone.
    fn work(&mut self, steps: impl Iterator<Item = u64>, sender: &SyncSender<Result<Batch>>) {
        for step in steps {
            let batch = catch_unwind(AssertUnwindSafe(|| self.prepare(step)))
                .unwrap_or_else(|panic| Err(panic_error(&*panic)))
                .map_err(|error| error.within(format!("epoch {}, step {step}", self.epoch)));
            let failed = batch.is_err();
            if self.stop.load(Ordering::Relaxed) || sender.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn prepare(&mut self, step: u64) -> Result<Batch> {
        let Loader { cases, transforms, batch, seed, .. } = self.loader.clone();
        // Less than the number of cases, so no overflow.
        let start = step as usize * batch;
        let end = start.saturating_add(batch).min(self.order.len());
        let order = self.order.clone();
        // The cases that other workers prepare, or that an earlier run has prepared.
        for &case in &order[self.counted..start] {
            self.count(cases.name(case)?);
        }
        self.counted = end;
        let seed = seed.at(self.epoch).named("case");
        let samples = order[start..end].iter().map(|&case| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Argument, "loader", "stopped"));
            }
            let sample = cases.sample(case)?;
            // Not the sample's name, which a transform may have changed.
            let name = cases.name(case)?;
            let seed = nth_use(seed.named(&name), self.count(name));
            transforms.apply(sample, seed)
        });
        Batch::collate(&samples.collect::<Result<Vec<_>>>()?)?.to(self.loader.device)
    }

    /// The number of earlier occurrences of `name`.
    fn count(&mut self, name: String) -> usize {
        let count = self.uses.entry(name).or_default();
        *count += 1;
        *count - 1
    }
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref().cloned());
    Error::new(ErrorKind::Panic, "loader", text.unwrap_or_else(|| "a panic without a text".into()))
}
