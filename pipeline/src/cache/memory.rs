//! The memory cache of cases.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use tomograd_core::Result;

use super::{Statistics, locked};
use crate::Sample;

/// The settings of a dataset, the case's index, and the number of earlier cases with the same name.
pub(crate) type Key = (u64, usize, usize);

pub(crate) struct Memory {
    budget: u64,
    sizes: Mutex<Sizes>,
}

#[derive(Default)]
struct Sizes {
    /// The sample, its size in bytes, and the time of its last use.
    cases: HashMap<Key, (Sample, u64, u64)>,
    /// The keys in order of their last use.
    order: BTreeMap<u64, Key>,
    now: u64,
    statistics: Statistics,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, sizes: Mutex::default() }
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        locked(&self.sizes)
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.sizes().statistics
    }

    pub(super) fn get(&self, key: Key, load: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
        if let Some(sample) = self.sizes().find(key) {
            return Ok(sample);
        }
        // The lock isn't held while the sample is loaded.
        let sample = load()?;
        self.sizes().keep(key, &sample, self.budget);
        Ok(sample)
    }
}

impl Sizes {
    fn find(&mut self, key: Key) -> Option<Sample> {
        let Some((sample, _, used)) = self.cases.get_mut(&key) else {
            self.statistics.misses += 1;
            return None;
        };
        self.statistics.hits += 1;
        self.order.remove(used);
        self.now += 1;
        *used = self.now;
        self.order.insert(self.now, key);
        Some(sample.clone())
    }

    fn keep(&mut self, key: Key, sample: &Sample, budget: u64) {
        let bytes = sample.bytes() as u64;
        // A sample larger than the budget would evict all others without fitting.
        if bytes > budget || self.cases.contains_key(&key) {
            return;
        }
        while self.statistics.bytes > budget - bytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            if let Some((_, bytes, _)) = self.cases.remove(&oldest) {
                self.statistics.bytes -= bytes;
            }
        }
        self.now += 1;
        self.order.insert(self.now, key);
        self.cases.insert(key, (sample.clone(), bytes, self.now));
        self.statistics.bytes += bytes;
        self.statistics.most = self.statistics.most.max(self.statistics.bytes);
    }
}
