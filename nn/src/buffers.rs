//! Changes of buffers and random streams in a pass and its forks, and their order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{Context, elementwise::Increment, run};

use crate::{check, lock::lock, params::blend};

/// A change that a pass makes to a buffer. It describes the change, not the new value, so that the changes of a layer that
/// runs twice, and those of passes that started from the same store and are added, apply one after the other.
#[derive(Debug, Clone)]
pub enum BufferChange {
    /// old + weight · (value − old), with a weight from 0 to 1: the update of a running average.
    Blend {
        /// The statistic of the batch; shape and dtype as the buffer's.
        value: Tensor,
        /// The weight of `value`, PyTorch's `momentum`.
        weight: f64,
    },
    /// old + number, for an i64 buffer.
    Count(i64),
    /// Replaces the old value; shape and dtype as the buffer's.
    Set(Tensor),
}

impl BufferChange {
    /// Checks that the change can be applied to `buffer`.
    pub(crate) fn check(&self, buffer: &Tensor) -> Result<()> {
        let value = match self {
            BufferChange::Blend { value, weight } => {
                check::number("update_buffer", "the weight", *weight, 0.0..=1.0)?;
                if !buffer.dtype().is_float() {
                    return Err(Error::new(
                        ErrorKind::DType,
                        "update_buffer",
                        format!("{} is blended", buffer.dtype()),
                    )
                    .expected("a floating-point buffer"));
                }
                value
            }
            BufferChange::Count(_) if buffer.dtype() == DType::I64 => return Ok(()),
            BufferChange::Count(_) => {
                return Err(Error::new(ErrorKind::DType, "update_buffer", format!("{} counts", buffer.dtype()))
                    .expected("a buffer of i64"));
            }
            BufferChange::Set(value) => value,
        };
        if value.shape() != buffer.shape() || value.dtype() != buffer.dtype() || value.device() != buffer.device() {
            return Err(Error::shape("update_buffer", format!("the value is {value:?}"))
                .expected(format!("one like the buffer, {buffer:?}")));
        }
        Ok(())
    }

    pub(crate) fn apply(&self, old: &Tensor) -> Result<Tensor> {
        match self {
            BufferChange::Blend { value, weight } => blend(old, value, *weight),
            BufferChange::Count(number) => {
                let mut outputs = run(&Increment(*number), &[old], &Context::default())?.outputs;
                outputs.pop().ok_or_else(|| Error::argument("update_buffer", "the count has no value"))
            }
            BufferChange::Set(value) => value.contiguous(),
        }
    }
}

/// The index of a buffer in the store, and a change of it.
pub(crate) type Change = (usize, BufferChange);

/// The value of the buffer at `index` after those of `changes` that concern it; `None` if there are none.
pub(crate) fn changed<'a>(
    index: usize,
    start: &Tensor,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<Option<Tensor>> {
    changes
        .filter(|(other, _)| *other == index)
        .try_fold(None, |value: Option<Tensor>, (_, change)| change.apply(value.as_ref().unwrap_or(start)).map(Some))
}

/// Shared, because a pass holds the branches of its forks.
pub(crate) type Shared = Arc<Mutex<Branch>>;

/// The state of a pass or of a fork: the changes and random draws so far.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    /// The changes that were visible when the branch began.
    inherited: Vec<Change>,
    events: Vec<Event>,
    /// The number of random streams that each name has requested.
    calls: BTreeMap<String, u64>,
    /// The number of forks made with each index.
    forks: BTreeMap<u64, u64>,
    /// The number of runs of each stage that the pass keeps.
    runs: BTreeMap<usize, u64>,
}

#[derive(Debug)]
enum Event {
    Change(Change),
    Fork(u64, Shared),
}

impl Branch {
    /// The changes visible to this branch: the inherited ones and its own. Changes of its forks are not, since forks may run
    /// at the same time.
    fn seen(&self) -> impl Iterator<Item = &Change> {
        let own = self.events.iter().filter_map(|event| match event {
            Event::Change(change) => Some(change),
            Event::Fork(..) => None,
        });
        self.inherited.iter().chain(own)
    }

    /// The changes of the buffer at `index` that are visible to this branch.
    pub(crate) fn seen_of(&self, index: usize) -> Vec<Change> {
        self.seen().filter(|(other, _)| *other == index).cloned().collect()
    }

    pub(crate) fn change(&mut self, change: Change) {
        self.events.push(Event::Change(change));
    }

    /// The number of earlier calls for `name`.
    pub(crate) fn call(&mut self, name: &str) -> u64 {
        match self.calls.get_mut(name) {
            Some(calls) => {
                *calls += 1;
                *calls
            }
            None => {
                self.calls.insert(name.to_owned(), 0);
                0
            }
        }
    }

    /// The number of earlier runs of `stage`.
    pub(crate) fn run_of(&mut self, stage: usize) -> u64 {
        let runs = self.runs.entry(stage).or_insert(0);
        *runs += 1;
        *runs - 1
    }

    /// Creates a fork; also returns the number of earlier forks with this index.
    pub(crate) fn fork(&mut self, index: u64) -> (Shared, u64) {
        let inherited = self.seen().cloned().collect();
        let branch = Arc::new(Mutex::new(Branch { inherited, ..Branch::default() }));
        self.events.push(Event::Fork(index, branch.clone()));
        let calls = self.forks.entry(index).and_modify(|calls| *calls += 1).or_insert(0);
        (branch, *calls)
    }

    /// An independent branch in the same state; its later changes don't affect this one.
    pub(crate) fn copy(&self) -> Branch {
        Branch {
            inherited: self.seen().cloned().collect(),
            events: Vec::new(),
            calls: self.calls.clone(),
            forks: self.forks.clone(),
            runs: self.runs.clone(),
        }
    }

    /// Takes over the final state of `other`, which was created by [`copy`](Self::copy).
    pub(crate) fn go_on_from(&mut self, other: Branch) {
        self.events.extend(other.events);
        self.calls = other.calls;
        self.forks = other.forks;
        self.runs = other.runs;
    }

    /// All changes of this branch and its forks. The changes of a fork are inserted where it was forked off; forks made
    /// between the same two changes, possibly by several threads, are ordered by index.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let (mut all, mut forks) = (Vec::new(), Vec::new());
        let settle = |forks: &mut Vec<(u64, &Shared)>, all: &mut Vec<Change>| {
            forks.sort_by_key(|&(index, _)| index);
            forks.drain(..).for_each(|(_, branch)| all.extend(lock(branch).changes()));
        };
        for event in &self.events {
            match event {
                Event::Fork(index, branch) => forks.push((*index, branch)),
                Event::Change(change) => {
                    settle(&mut forks, &mut all);
                    all.push(change.clone());
                }
            }
        }
        settle(&mut forks, &mut all);
        all
    }
}
