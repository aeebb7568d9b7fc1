//! Stages: places in a network whose feature maps can be asked for by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tomograd_autodiff::{Tape, Var};
use tomograd_core::{Error, ErrorKind, Result, Tensor, unknown_name};

use crate::{Named, PerAxis};

/// What is known of a stage of a network: a place whose feature map can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    pub(crate) name: String,
    pub(crate) channels: usize,
    pub(crate) reduction: PerAxis,
}

impl StageInfo {
    /// The full name, as those of parameters are: `backbone.layer3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The channels of the feature map.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How many voxels of the network's input a voxel of the feature map stands for along an axis: the product of the strides
    /// before it.
    pub fn reduction(&self) -> &PerAxis {
        &self.reduction
    }
}

/// A stage that was made by [`Scope::stage`](crate::Scope::stage); [`Pass::stage`](crate::Pass::stage) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    pub(crate) structure: u64,
    pub(crate) index: usize,
}

/// Which stages a pass keeps, and the leaves that take up their gradients.
pub(crate) struct Watch {
    /// The tape that the backward run begins on; a checkpointed segment has another one.
    tape: Tape,
    /// Places in the list of stages, in the order of asking.
    wanted: Vec<usize>,
    /// A leaf of −0 for each stage and run, which is added to the feature map and changes no bit of it. Its gradient is that of
    /// the feature map, also where a checkpointed segment computes that a second time.
    leaves: Mutex<BTreeMap<(usize, u64), Var>>,
}

/// A feature map that was kept: its stage, the number of its run, and the map.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) stage: usize,
    pub(crate) run: u64,
    pub(crate) map: Var,
}

/// The feature maps of a pass, in the order of their making.
pub(crate) type Maps = Arc<Mutex<Vec<Kept>>>;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one push or insert, so it is whole even after a panic elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// # Errors
    /// When a name is none of a stage.
    pub(crate) fn new<'a>(tape: &Tape, stages: &[StageInfo], names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut wanted = Vec::new();
        for name in names {
            let known = || stages.iter().map(|stage| &stage.name[..]);
            let Some(index) = known().position(|known| known == name) else {
                return Err(unknown_name("keep_stages", "stage", name, known()));
            };
            if !wanted.contains(&index) {
                wanted.push(index);
            }
        }
        Ok(Self { tape: tape.clone(), wanted, leaves: Mutex::default() })
    }

    /// The same, for a pass that begins anew on another tape.
    pub(crate) fn on(&self, tape: &Tape) -> Self {
        Self { tape: tape.clone(), wanted: self.wanted.clone(), leaves: Mutex::default() }
    }

    pub(crate) fn wants(&self, stage: usize) -> bool {
        self.wanted.contains(&stage)
    }

    /// `map`, with the leaf that takes up its gradient if the pass records.
    ///
    /// # Errors
    /// When memory runs out.
    pub(crate) fn with_leaf(&self, stage: usize, run: u64, map: Var) -> Result<Var> {
        if !self.tape.is_recording() {
            return Ok(map);
        }
        let known = lock(&self.leaves).get(&(stage, run)).cloned();
        let leaf = match known {
            Some(leaf) => leaf,
            None => {
                let zeros = Tensor::full(map.shape(), -0.0, map.dtype(), map.value().device())?;
                let leaf = self.tape.leaf(zeros)?;
                lock(&self.leaves).insert((stage, run), leaf.clone());
                leaf
            }
        };
        use tomograd_kernels::methods::Pairs as _;
        map.add(&leaf)
    }

    /// What is in `maps`, by name.
    ///
    /// # Errors
    /// When a stage that was asked for isn't there.
    pub(crate) fn named(&self, stages: &[StageInfo], maps: &[Kept]) -> Result<Named<Var>> {
        let mut named = Named::new();
        for &stage in &self.wanted {
            let mut of_stage: Vec<&Kept> = maps.iter().filter(|kept| kept.stage == stage).collect();
            if of_stage.is_empty() {
                let what = format!("the pass hasn't come by the stage {}", stages[stage].name);
                return Err(Error::new(ErrorKind::Name, "stages", what)
                    .expected("a network that ran on this pass, not on a fork of it"));
            }
            of_stage.sort_by_key(|kept| kept.run);
            for kept in of_stage {
                named.insert(numbered(&stages[stage].name, kept.run), kept.map.clone());
            }
        }
        Ok(named)
    }

    /// The leaves, by the names that [`Watch::named`] gives.
    pub(crate) fn leaves(&self, stages: &[StageInfo]) -> Named<Var> {
        let leaves = lock(&self.leaves);
        leaves.iter().map(|(&(stage, run), leaf)| (numbered(&stages[stage].name, run), leaf.clone())).collect()
    }
}

/// A network that runs twice in a pass comes by its stages twice.
fn numbered(name: &str, run: u64) -> String {
    if run == 0 { name.to_owned() } else { format!("{name}.{run}") }
}
