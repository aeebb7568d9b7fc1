//! What a pass does with buffers and random streams, and in which order.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{Context, elementwise::Increment, run};

use crate::{check, lock::lock, params::blend};

/// How a pass changes a buffer. It says what becomes of the value that is there, not what the value will be: so a layer that
/// runs twice, and passes that began at one start and are added, change the buffer one after the other.
#[derive(Debug, Clone)]
pub enum BufferChange {
    /// old + weight · (value − old), with a weight from 0 to 1: a running average takes up what a batch has.
    Blend {
        /// What the batch has, like the buffer.
        value: Tensor,
        /// Its weight.
        weight: f64,
    },
    /// old + number, for a buffer of i64.
    Count(i64),
    /// A value that takes the old one's place, like the buffer.
    Set(Tensor),
}

impl BufferChange {
    /// That the change can be made to a buffer like `buffer`.
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

/// A buffer, by its place in the store, and a change of it.
pub(crate) type Change = (usize, BufferChange);

/// What the buffer at `index` is after those of `changes` that are its own; `None` when there are none.
pub(crate) fn changed<'a>(
    index: usize,
    start: &Tensor,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<Option<Tensor>> {
    changes
        .filter(|(other, _)| *other == index)
        .try_fold(None, |value: Option<Tensor>, (_, change)| change.apply(value.as_ref().unwrap_or(start)).map(Some))
}

/// A branch that several may hold, since a pass knows its forks.
pub(crate) type Shared = Arc<Mutex<Branch>>;

/// A pass, or a fork of one: what it has changed and drawn so far.
#[derive(Debug, Default)]
pub(crate) struct Branch {
    /// What had been changed when the branch began.
    inherited: Vec<Change>,
    events: Vec<Event>,
    /// How often each name has asked for a random stream.
    calls: BTreeMap<String, u64>,
    /// How often each index was forked off.
    forks: BTreeMap<u64, u64>,
    /// How often the pass came by each stage that it keeps.
    runs: BTreeMap<usize, u64>,
}

#[derive(Debug)]
enum Event {
    Change(Change),
    Fork(u64, Shared),
}

impl Branch {
    /// What this branch sees: what had been changed when it began, and its own changes. Those of its forks, which may be at
    /// work at the same time, it doesn't.
    fn seen(&self) -> impl Iterator<Item = &Change> {
        let own = self.events.iter().filter_map(|event| match event {
            Event::Change(change) => Some(change),
            Event::Fork(..) => None,
        });
        self.inherited.iter().chain(own)
    }

    /// The changes of the buffer at `index` that the branch sees.
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

    /// A branch that begins here, and the number of earlier ones with this index.
    pub(crate) fn fork(&mut self, index: u64) -> (Shared, u64) {
        let inherited = self.seen().cloned().collect();
        let branch = Arc::new(Mutex::new(Branch { inherited, ..Branch::default() }));
        self.events.push(Event::Fork(index, branch.clone()));
        let calls = self.forks.entry(index).and_modify(|calls| *calls += 1).or_insert(0);
        (branch, *calls)
    }

    /// A branch in the same state, from which this one hears nothing.
    pub(crate) fn copy(&self) -> Branch {
        Branch {
            inherited: self.seen().cloned().collect(),
            events: Vec::new(),
            calls: self.calls.clone(),
            forks: self.forks.clone(),
            runs: self.runs.clone(),
        }
    }

    /// Goes on where `other`, which began as a [`copy`](Self::copy), has ended.
    pub(crate) fn go_on_from(&mut self, other: Branch) {
        self.events.extend(other.events);
        self.calls = other.calls;
        self.forks = other.forks;
        self.runs = other.runs;
    }

    /// All changes of this branch and its forks. Those of a fork stand where it was forked off; forks between the same two
    /// changes, which may have been forked off by several threads, stand in the order of their indices.
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
