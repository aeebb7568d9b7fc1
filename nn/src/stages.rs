//! Stages: points of a network whose feature maps can be requested by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tomograd_autodiff::{Tape, Var, methods::*};
use tomograd_core::{Error, ErrorKind, Result, Tensor, unknown_name};

use crate::{Named, Params, Pass, PerAxis, Scope, check, lock::lock, params::check_structure};

/// Information about a stage: a point of a network whose feature map can be requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    pub(crate) name: String,
    pub(crate) channels: usize,
    pub(crate) reduction: PerAxis,
}

impl StageInfo {
    /// The full name, such as `backbone.layer3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The channels of the feature map.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The downsampling factor of the feature map along each axis, relative to the network's input: the product of the
    /// preceding strides.
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
    /// The stages of the network, in the order of creation.
    pub fn stages(&self) -> &[StageInfo] {
        &self.stages
    }
}

impl Scope<'_> {
    /// Creates a stage: a point of the network whose feature map, with this number of channels and this downsampling factor,
    /// can be requested by name. [`Pass::stage`](crate::Pass::stage) marks the point in the forward pass.
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
    /// When there are no channels, the reduction of an axis is 0, or another stage has the name.
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

    /// Stages that were created in this scope, for a network that uses the feature maps of another one ([`Pass::collect`]):
    /// for a backbone in `scope.at("backbone")`, `scope.at("backbone").find_stages(&["layer3", "layer4"])` returns these two.
    ///
    /// # Errors
    /// When a stage doesn't exist; the error has the nearest name.
    pub fn find_stages(&self, names: &[&str]) -> Result<Vec<(Stage, StageInfo)>> {
        let structure = self.params.structure();
        let stages = &self.params.stages;
        let found = |name: &&str| {
            let index = find(stages, &self.full(name))?;
            Ok((Stage { structure, index }, stages[index].clone()))
        };
        names.iter().map(found).collect()
    }
}

/// The index of the stage called `name`.
fn find(stages: &[StageInfo], name: &str) -> Result<usize> {
    let known = || stages.iter().map(|stage| &stage.name[..]);
    known().position(|known| known == name).ok_or_else(|| unknown_name("stages", "stage", name, known()))
}

impl Pass {
    /// Keeps the feature maps of these stages of the network ([`Params::stages`]). Must be called before anything runs on the
    /// pass.
    ///
    /// # Errors
    /// When a stage doesn't exist; the error has the nearest name.
    pub fn keep_stages<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Result<Self> {
        let names: Vec<N> = names.into_iter().collect();
        let names = names.iter().map(AsRef::as_ref);
        self.watch = Some(Arc::new(Watch::new(&self.tape, &self.outline.stages, names)?));
        Ok(self)
    }

    /// Marks a stage in the forward pass: returns its feature map, and keeps it if the pass was asked to.
    ///
    /// # Errors
    /// When a stage to be kept is of another store, or memory runs out.
    pub fn stage(&self, stage: Stage, map: Var) -> Result<Var> {
        let collected = self.maps.borrow().collected.contains(&stage.index);
        if self.watch.is_none() && !collected {
            return Ok(map);
        }
        check_structure(self.outline.structure, stage.structure)?;
        let run = lock(&self.branch).run_of(stage.index);
        let stages = &self.outline.stages;
        if self.watch.as_ref().is_some_and(|watch| watch.wants(stage.index))
            && let Some(name) = stages.get(stage.index).map(|info| numbered(&info.name, run))
            && stages.iter().enumerate().any(|(index, info)| index != stage.index && info.name == name)
        {
            let what = format!("the run {run} of a stage would be called {name}, as another stage is");
            return Err(Error::new(ErrorKind::Name, "stage", what).expected("other names of stages"));
        }
        let map = match &self.watch {
            Some(watch) if watch.wants(stage.index) => watch.with_leaf(stage.index, run, map)?,
            _ if collected => map,
            _ => return Ok(map),
        };
        self.maps.borrow_mut().kept.push(Kept { stage: stage.index, run, map: map.clone() });
        Ok(map)
    }

    /// Runs a part of a network, and returns its result with the feature maps of these stages (of the last run, if a stage
    /// ran several times), for a decoder on the features of a backbone. The maps are part of the graph, even if they come
    /// from checkpointed segments.
    ///
    /// ```
    /// use tomograd_autodiff::{Var, methods::*};
    /// use tomograd_core::{DType, Device, Result, Seed, Tensor};
    /// use tomograd_nn::{Conv, Kernel, Module, Params, Pass, Scope, Stage};
    ///
    /// struct Encoder(Conv, Stage, Conv, Stage);
    ///
    /// impl Encoder {
    ///     fn new(mut scope: Scope<'_>) -> Result<Self> {
    ///         let half = Kernel::d2(2).stride(2);
    ///         let fine = Conv::new(scope.at("fine"), 1, 4, half.clone())?;
    ///         let first = scope.stage("fine", 4, 2)?;
    ///         let coarse = Conv::new(scope.at("coarse"), 4, 8, half)?;
    ///         Ok(Self(fine, first, coarse, scope.stage("coarse", 8, 4)?))
    ///     }
    /// }
    ///
    /// impl Module for Encoder {
    ///     fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
    ///         let x = pass.stage(self.1, self.0.forward(x, pass)?.relu()?)?;
    ///         pass.stage(self.3, self.2.forward(&x, pass)?.relu()?)
    ///     }
    /// }
    ///
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let mut scope = params.root();
    /// let encoder = Encoder::new(scope.at("encoder"))?;
    /// let found = scope.at("encoder").find_stages(&["fine", "coarse"])?;
    /// assert_eq!(found[1].1.channels(), 8);
    /// let stages: Vec<Stage> = found.into_iter().map(|(stage, _)| stage).collect();
    /// let pass = Pass::eval(&params)?;
    /// let image = pass.input(&Tensor::ones(&[1, 1, 8, 8], DType::F32, Device::Cpu)?);
    /// let (_, maps) = pass.collect(&stages, || encoder.forward(&image, &pass))?; // in the forward run of a decoder
    /// assert_eq!(maps[0].shape(), [1, 4, 4, 4]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `run` fails or doesn't reach a stage, or a stage is of another store.
    pub fn collect<T>(&self, stages: &[Stage], run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Var>)> {
        stages.iter().try_for_each(|stage| check_structure(self.outline.structure, stage.structure))?;
        let (outside, start) = {
            let mut maps = self.maps.borrow_mut();
            let outside = maps.collected.clone();
            maps.collected.extend(stages.iter().map(|stage| stage.index));
            (outside, maps.kept.len())
        };
        let result = run();
        let mut maps = self.maps.borrow_mut();
        maps.collected = outside;
        let mut own = maps.kept.split_off(start);
        let result = result?;
        let map = |stage: &Stage| {
            let kept = own.iter().rev().find(|kept| kept.stage == stage.index);
            kept.map(|kept| kept.map.clone()).ok_or_else(|| self.not_come_by(stage.index))
        };
        let collected = stages.iter().map(map).collect::<Result<Vec<Var>>>()?;
        // A caller that requested the same stages gets them too.
        let outside = &maps.collected;
        own.retain(|kept| outside.contains(&kept.stage) || self.watch.as_ref().is_some_and(|w| w.wants(kept.stage)));
        maps.kept.extend(own);
        Ok((result, collected))
    }

    fn not_come_by(&self, stage: usize) -> Error {
        let name = self.outline.stages.get(stage).map_or("made after the pass", StageInfo::name);
        Error::new(ErrorKind::Name, "stages", format!("the pass hasn't come by the stage {name}"))
            .expected("a network that ran on this pass, not on a fork of it")
    }

    /// The feature maps of the requested stages, in the order of the request. A loss may be computed from them.
    ///
    /// # Errors
    /// When the pass didn't reach one of them.
    pub fn stages(&self) -> Result<Named<Var>> {
        let (mut named, maps) = (Named::new(), self.maps.borrow());
        for &stage in self.watch.iter().flat_map(|watch| &watch.wanted) {
            let mut of_stage: Vec<&Kept> = maps.kept.iter().filter(|kept| kept.stage == stage).collect();
            if of_stage.is_empty() {
                return Err(self.not_come_by(stage));
            }
            of_stage.sort_by_key(|kept| kept.run);
            for kept in of_stage {
                named.insert(numbered(&self.outline.stages[stage].name, kept.run), kept.map.clone());
            }
        }
        Ok(named)
    }
}

/// The stages that a pass keeps, and the leaves that receive their gradients.
pub(crate) struct Watch {
    /// The tape on which the backward pass starts; a checkpointed segment has another one.
    tape: Tape,
    /// Indices in the list of stages, in the order of the request.
    wanted: Vec<usize>,
    /// A leaf of −0 for each stage and run, which is added to the feature map without changing a bit. Its gradient is that of
    /// the feature map, even if a checkpointed segment recomputes the map.
    leaves: Mutex<BTreeMap<(usize, u64), Var>>,
}

/// A kept feature map: its stage, the number of the run, and the map.
pub(crate) struct Kept {
    pub(crate) stage: usize,
    pub(crate) run: u64,
    pub(crate) map: Var,
}

/// The feature maps of a pass or of a checkpointed segment.
#[derive(Default)]
pub(crate) struct Maps {
    /// Requested stages in addition to those of the [`Watch`].
    pub(crate) collected: Vec<usize>,
    /// In the order of creation.
    pub(crate) kept: Vec<Kept>,
}

impl Watch {
    /// # Errors
    /// When a name isn't that of a stage.
    pub(crate) fn new<'a>(tape: &Tape, stages: &[StageInfo], names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut wanted = Vec::new();
        for name in names {
            let index = find(stages, name)?;
            if !wanted.contains(&index) {
                wanted.push(index);
            }
        }
        Ok(Self { tape: tape.clone(), wanted, leaves: Mutex::default() })
    }

    /// The same stages, for a pass that restarts on another tape.
    pub(crate) fn on(&self, tape: &Tape) -> Self {
        Self { tape: tape.clone(), wanted: self.wanted.clone(), leaves: Mutex::default() }
    }

    pub(crate) fn wants(&self, stage: usize) -> bool {
        self.wanted.contains(&stage)
    }

    /// `map` plus the leaf that receives its gradient, if the pass records.
    ///
    /// # Errors
    /// When memory runs out.
    pub(crate) fn with_leaf(&self, stage: usize, run: u64, map: Var) -> Result<Var> {
        if !self.tape.is_recording() {
            return Ok(map);
        }
        let known = lock(&self.leaves).get(&(stage, run)).filter(|leaf| leaf.shape() == map.shape()).cloned();
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

    /// The leaves, under the names that [`Pass::stages`] uses.
    pub(crate) fn leaves(&self, stages: &[StageInfo]) -> Named<Var> {
        let leaves = lock(&self.leaves);
        leaves.iter().map(|(&(stage, run), leaf)| (numbered(&stages[stage].name, run), leaf.clone())).collect()
    }
}

/// A stage that runs several times in a pass gets a numbered name for each later run.
fn numbered(name: &str, run: u64) -> String {
    if run == 0 { name.to_owned() } else { format!("{name}.{run}") }
}
