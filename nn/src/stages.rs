//! Stages: places in a network whose feature maps can be asked for by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tomograd_autodiff::{Tape, Var, methods::*};
use tomograd_core::{Error, ErrorKind, Result, Tensor, unknown_name};

use crate::{Named, Params, Pass, PerAxis, Scope, buffers, check, params::check_structure};

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

impl Params {
    /// The stages of the network, places whose feature maps a pass can keep, in the order of their making.
    pub fn stages(&self) -> &[StageInfo] {
        &self.stages
    }
}

impl Scope<'_> {
    /// Makes a stage: a place in the network whose feature map, of so many channels and with such a reduction, can be asked for
    /// under this name. [`Pass::stage`](crate::Pass::stage) marks the place in a forward run.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_kernels::methods::*;
    /// use tomograd_nn::{Conv, Kernel, Module, Params, Pass};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let mut scope = params.root();
    /// let stem = Conv::new(scope.at("stem"), 1, 4, Kernel::d2(3).stride(2).padding(1))?;
    /// let stage = scope.stage("stem", 4, 2)?;
    ///
    /// let pass = Pass::train(&params, Seed::new(2))?.keep_stages(["stem"])?;
    /// let image = pass.input(&Tensor::ones(&[1, 1, 6, 6], DType::F32, Device::Cpu)?);
    /// let y = pass.stage(stage, stem.forward(&image, &pass)?)?; // one line in a network's forward run
    /// assert_eq!(pass.stages()?.get("stem")?.shape(), [1, 4, 3, 3]);
    /// let update = pass.backward(y.mean(..)?)?;
    /// assert_eq!(update.stage_gradient("stem")?.to_vec::<f32>()?, [1.0 / 36.0; 36]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there are no channels, the reduction is 0 along an axis, or another stage has the name.
    pub fn stage(&mut self, name: &str, channels: usize, reduction: impl Into<PerAxis>) -> Result<Stage> {
        let (name, reduction) = (self.full(name), reduction.into());
        check::sizes("stage", "channels", &[channels]).map_err(|error| error.within(name.clone()))?;
        check::sizes("stage", "the reduction", reduction.given()).map_err(|error| error.within(name.clone()))?;
        self.params.check_own(&name)?;
        if self.params.stages.iter().any(|stage| stage.name == name) {
            return Err(Error::new(ErrorKind::Name, "stage", format!("the name {name} is given twice"))
                .expected("a name of its own for each stage"));
        }
        self.params.stages.push(StageInfo { name, channels, reduction });
        Ok(Stage { structure: self.params.structure(), index: self.params.stages.len() - 1 })
    }
}

impl Pass {
    /// The same pass, which keeps the feature maps of these stages of the network ([`Params::stages`]). To be called before
    /// anything runs on the pass.
    ///
    /// # Errors
    /// When there is no stage of a name; the error has the nearest one.
    pub fn keep_stages<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Self> {
        let names: Vec<N> = names.into_iter().collect();
        let names = names.iter().map(AsRef::as_ref);
        self.watch = Some(Arc::new(Watch::new(&self.tape, &self.outline.stages, names)?));
        Ok(self)
    }

    /// Marks a stage in a network's forward run: gives its feature map as it is, and keeps it if the pass was asked to.
    ///
    /// # Errors
    /// When a stage that is to be kept is one of another store, or memory runs out.
    pub fn stage(&self, stage: Stage, map: Var) -> Result<Var> {
        let Some(watch) = &self.watch else { return Ok(map) };
        check_structure(self.outline.structure, stage.structure)?;
        if !watch.wants(stage.index) {
            return Ok(map);
        }
        let run = buffers::lock(&self.branch).run_of(stage.index);
        let map = watch.with_leaf(stage.index, run, map)?;
        lock(&self.maps).push(Kept { stage: stage.index, run, map: map.clone() });
        Ok(map)
    }

    /// The feature maps of the stages that the pass was asked for, in the order of asking. A loss may be computed of them.
    ///
    /// # Errors
    /// When the pass hasn't come by one of them.
    pub fn stages(&self) -> Result<Named<Var>> {
        match &self.watch {
            Some(watch) => watch.named(&self.outline.stages, &lock(&self.maps)),
            None => Ok(Named::new()),
        }
    }
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
