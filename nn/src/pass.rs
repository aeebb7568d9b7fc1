//! One forward pass through a network, with its backward pass.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    sync::{Arc, Mutex},
};

use tomograd_autodiff::{Tape, Var};
use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{Context, Precision};

use crate::{
    Module, Named, Params, Slot, Update,
    buffers::{Branch, BufferChange, Shared, changed},
    lock::lock,
    params::{Outline, check_structure},
    stages::{Kept, Maps, Watch},
};

/// One forward (and backward) pass through a network. It separates four settings: training mode (batch statistics, dropout),
/// recording (gradients), the random stream, and precision. Saliency maps need gradients without training mode; Monte Carlo
/// dropout needs dropout without gradients.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_kernels::methods::*;
/// use tomograd_nn::{Linear, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = Linear::new(params.root(), 2, 1)?;
/// let x = Tensor::ones(&[1, 2], DType::F32, Device::Cpu)?;
/// let training = Pass::train(&params, Seed::new(2))?;
/// let loss = layer.forward(&training.input(&x), &training)?.sum(..)?;
/// assert_eq!(training.backward(loss)?.gradient("weight").unwrap().to_vec::<f32>()?, [1.0, 1.0]);
/// let saliency = Pass::eval(&params)?.recording(true)?; // gradients without training mode
/// let input = saliency.input_with_gradient(&x)?;
/// let loss = layer.forward(&input, &saliency)?.sum(..)?;
/// assert!(saliency.backward(loss)?.input_gradient(&input).is_some());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Buffers
/// A layer reads a buffer by [`parameter`](Self::parameter) and changes it by [`update_buffer`](Self::update_buffer). It sees
/// the changes of this pass so far; the store itself changes when an optimizer applies the [`Update`].
///
/// # Forks
/// A [`fork`](Self::fork) sees its own changes, and those that its pass had made before the fork. A pass doesn't see changes
/// of its forks, so that forks can run at the same time. In the update, the changes of a fork are inserted where it was
/// forked off; forks made between the same two changes of their pass are ordered by index.
///
/// # Stages
/// A pass that was given stages by [`keep_stages`](Self::keep_stages) keeps their feature maps, and the update of its
/// backward pass has their gradients. If a network runs twice, the maps of the second run are called `NAME.1`. Stages may be
/// in checkpointed segments; forks keep none.
///
/// # Threads
/// A pass counts the random streams that each layer requests, and orders the changes of buffers. So it can be moved between
/// threads, but not shared: results would depend on timing. Each thread takes a fork.
///
/// ```compile_fail,E0277
/// fn shared_between_threads<T: Sync>() {}
/// shared_between_threads::<tomograd_nn::Pass>();
/// ```
pub struct Pass {
    pub(crate) tape: Tape,
    /// A variable for each parameter and buffer: a leaf, or a constant if it is frozen or a buffer.
    values: Arc<Vec<Var>>,
    pub(crate) outline: Arc<Outline>,
    pub(crate) training: bool,
    seed: Seed,
    pub(crate) branch: Shared,
    /// The branch of the outermost pass, whose changes the update has.
    root: Shared,
    /// Whether this pass owns the tape; a fork doesn't.
    owns_tape: bool,
    /// The stages to keep, if any.
    pub(crate) watch: Option<Arc<Watch>>,
    /// The feature maps kept so far.
    pub(crate) maps: RefCell<Maps>,
    /// Makes the type `!Sync`.
    one_thread: PhantomData<Cell<()>>,
}

impl Pass {
    /// A pass with these settings.
    ///
    /// # Errors
    /// When memory runs out, or batch norms are folded in a training pass.
    pub fn new(params: &Params, seed: Seed, training: bool, recording: bool, context: Context) -> Result<Self> {
        let tape = if recording { Tape::recording(context) } else { Tape::off(context) };
        let outline = Outline::of(params);
        outline.folds.check(training)?;
        let values = variables(&tape, params.entries.iter().map(|entry| &entry.value), &outline.constant)?;
        let branch = Shared::default();
        let (outline, root) = (Arc::new(outline), branch.clone());
        Ok(Self {
            tape,
            values,
            outline,
            training,
            seed,
            branch,
            root,
            owns_tape: true,
            watch: None,
            maps: RefCell::default(),
            one_thread: PhantomData,
        })
    }

    /// A training pass: training mode and recording.
    ///
    /// # Errors
    /// When memory runs out, or batch norms are folded ([`Params::fold_batch_norm`]).
    pub fn train(params: &Params, seed: Seed) -> Result<Self> {
        Self::new(params, seed, true, true, Context::default())
    }

    /// An inference pass: neither training mode nor recording.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn eval(params: &Params) -> Result<Self> {
        Self::new(params, Seed::new(0), false, false, Context::default())
    }

    /// Sets whether gradients are recorded. Must be called before anything runs on the pass.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn recording(mut self, recording: bool) -> Result<Self> {
        let context = *self.tape.context();
        self.restart(if recording { Tape::recording(context.inference(false)) } else { Tape::off(context) })?;
        Ok(self)
    }

    /// Sets whether layers are in training mode.
    #[must_use]
    pub fn training(mut self, training: bool) -> Self {
        self.training = training;
        self
    }

    /// Sets the precision of the kernels. Must be called before anything runs on the pass.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn precision(mut self, precision: Precision) -> Result<Self> {
        let context = self.tape.context().precision(precision);
        self.restart(if self.tape.is_recording() { Tape::recording(context) } else { Tape::off(context) })?;
        Ok(self)
    }

    /// Sets the random stream.
    #[must_use]
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    fn restart(&mut self, tape: Tape) -> Result<()> {
        self.values = variables(&tape, self.values.iter().map(Var::value), &self.outline.constant)?;
        self.watch = self.watch.take().map(|watch| Arc::new(watch.on(&tape)));
        self.tape = tape;
        Ok(())
    }

    /// An input without gradient.
    pub fn input(&self, value: &Tensor) -> Var {
        self.tape.constant(value.clone())
    }

    /// An input with gradient; [`Update::input_gradient`] returns it.
    ///
    /// # Errors
    /// When the dtype isn't floating point.
    pub fn input_with_gradient(&self, value: &Tensor) -> Result<Var> {
        self.tape.leaf(value.clone())
    }

    /// The tape on which the pass records.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The parameters that are variables of the tape, each with its name and its node in the [graph](Tape::graph) of the
    /// tape: which operation reads which parameter.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Seed, Tensor};
    /// use tomograd_nn::{Linear, Module, Params, Pass};
    /// let mut params = Params::new(Device::Meta, Seed::new(0));
    /// let layer = Linear::new(params.root().at("fc"), 3, 2)?;
    /// let pass = Pass::train(&params, Seed::new(0))?;
    /// let y = layer.forward(&pass.input(&Tensor::zeros(&[1, 3], DType::F32, Device::Meta)?), &pass)?;
    /// let (weight, _) = pass.parameter_nodes().find(|(_, name)| *name == "fc.weight").unwrap();
    /// let linear = &pass.tape().graph()?[y.node().unwrap().0];
    /// assert_eq!(linear.inputs[1], Some((weight, 0)));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    pub fn parameter_nodes(&self) -> impl Iterator<Item = (usize, &str)> {
        let named = self.values.iter().zip(&self.outline.names);
        named.filter_map(|(value, name)| Some((value.node()?.0, name.as_str())))
    }

    /// Whether layers are in training mode.
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// A random stream for the layer called `path`. Each call returns another one, which depends on the seed of the pass, the
    /// path and the number of earlier calls for this path. The recomputation of a [`checkpoint`](Self::checkpoint) gets the
    /// same ones.
    pub fn random(&self, path: &str) -> Seed {
        numbered(self.seed.named(path), lock(&self.branch).call(path))
    }

    /// The parameter in `slot`, or the buffer with the changes of this pass so far.
    ///
    /// # Errors
    /// When the slot is of another store, the graph has been freed, or memory runs out.
    pub fn parameter(&self, slot: Slot) -> Result<Var> {
        let value = self.value(slot)?;
        if !self.outline.buffers[slot.index] {
            return self.tape.adopt(value);
        }
        let changes = lock(&self.branch).seen_of(slot.index);
        match changed(slot.index, value.value(), changes.iter())? {
            Some(changed) => Ok(self.tape.constant(changed)),
            None => self.tape.adopt(value),
        }
    }

    /// Adds the path of the layer that has the parameter in `slot` to an error: `enc.2.conv: …`.
    pub(crate) fn within(&self, slot: Slot, error: Error) -> Error {
        let name = self.outline.names.get(slot.index).filter(|_| self.outline.structure == slot.structure());
        match name.and_then(|name| name.rsplit_once('.')) {
            Some((path, _)) => error.within(path),
            None => error,
        }
    }

    /// The value in `slot` at the start of the pass.
    fn value(&self, slot: Slot) -> Result<&Var> {
        check_structure(self.outline.structure, slot.structure())?;
        self.values.get(slot.index).ok_or_else(|| {
            Error::new(ErrorKind::Name, "pass", "the parameter was made after the pass")
                .expected("a pass that begins when the network is whole")
        })
    }

    /// Changes the buffer in `slot`: immediately for readers in this pass, and in the store when the update is applied.
    ///
    /// # Errors
    /// When the slot is of another store or isn't a buffer, or the change doesn't fit the buffer.
    pub fn update_buffer(&self, slot: Slot, change: BufferChange) -> Result<()> {
        let value = self.value(slot)?.value();
        let name = &self.outline.names[slot.index];
        if !self.outline.buffers[slot.index] {
            return Err(Error::new(ErrorKind::Name, "update_buffer", format!("{name} is a parameter"))
                .expected("a buffer; optimizers change parameters"));
        }
        change.check(value).map_err(|error| error.within(name.clone()))?;
        lock(&self.branch).change((slot.index, change));
        Ok(())
    }

    /// A pass on another tape over the same parameters as constants, for checking gradients of inputs. It draws the random
    /// numbers that this pass would draw next, and doesn't affect this pass.
    #[must_use]
    pub fn on(&self, tape: &Tape) -> Pass {
        let mut pass = self.copy_on(tape);
        pass.watch = None;
        pass.maps.borrow_mut().collected.clear();
        pass.values = Arc::new(self.values.iter().map(|value| tape.constant(value.value().clone())).collect());
        pass
    }

    /// A pass on another tape, with `learned` in place of the parameters that aren't frozen, in order.
    pub(crate) fn with_learned(&self, tape: &Tape, learned: &[Var]) -> Pass {
        let mut pass = self.on(tape);
        let mut learned = learned.iter();
        let mut next = |(value, &constant): (&Var, &bool)| match constant {
            true => value.clone(),
            false => learned.next().unwrap_or(value).clone(),
        };
        pass.values = Arc::new(pass.values.iter().zip(&self.outline.constant).map(&mut next).collect());
        pass
    }

    /// A pass for branch `index` of this one, on the same tape and with its own random stream, which also differs from that
    /// of an earlier fork with the same index.
    #[must_use]
    pub fn fork(&self, index: u64) -> Pass {
        let (branch, call) = lock(&self.branch).fork(index);
        self.with_branch(&self.tape, numbered(self.seed.at(index), call), branch, self.root.clone())
    }

    /// A pass in the same state that doesn't affect this one.
    fn copy_on(&self, tape: &Tape) -> Pass {
        let branch = Arc::new(Mutex::new(lock(&self.branch).copy()));
        let mut pass = self.with_branch(tape, self.seed, branch.clone(), branch);
        pass.watch = self.watch.clone();
        pass.maps.borrow_mut().collected = self.maps.borrow().collected.clone();
        pass
    }

    fn with_branch(&self, tape: &Tape, seed: Seed, branch: Shared, root: Shared) -> Pass {
        Pass {
            tape: tape.clone(),
            values: self.values.clone(),
            outline: self.outline.clone(),
            training: self.training,
            seed,
            branch,
            root,
            owns_tape: false,
            watch: None,
            maps: RefCell::default(),
            one_thread: PhantomData,
        }
    }

    /// Activation checkpointing: runs `module` without saving its intermediate values. The backward pass recomputes them with
    /// the same random numbers and buffers, without changing buffers a second time. Stages that the pass keeps become outputs
    /// of the segment.
    ///
    /// # Errors
    /// When the module fails.
    pub fn checkpoint(&self, module: &Arc<dyn Module>, x: &Var) -> Result<Var> {
        // The mutex is needed because the tape may be shared; the segment runs on one thread at a time.
        let (module, start) = (module.clone(), Mutex::new(self.copy_on(&self.tape)));
        // Receives the final state of the first run; the recomputation's is the same and is discarded.
        let end: Arc<Mutex<Option<End>>> = Arc::default();
        let left = end.clone();
        let mut outputs = self.tape.checkpoint(&[x], move |tape, inputs| {
            let pass = lock(&start).copy_on(tape);
            let y = module.forward(&inputs[0], &pass)?;
            let maps = std::mem::take(&mut pass.maps.borrow_mut().kept);
            let kept = maps.iter().map(|kept| (kept.stage, kept.run)).collect();
            *lock(&left) = Some((std::mem::take(&mut *lock(&pass.branch)), kept));
            Ok(maps.into_iter().map(|kept| kept.map).chain([y]).collect())
        })?;
        let y = outputs.pop().ok_or_else(|| Error::argument("checkpoint", "the segment has no output"))?;
        if let Some((branch, kept)) = lock(&end).take() {
            lock(&self.branch).go_on_from(branch);
            let maps = kept.into_iter().zip(outputs).map(|((stage, run), map)| Kept { stage, run, map });
            self.maps.borrow_mut().kept.extend(maps);
        }
        Ok(y)
    }

    /// Computes the gradients of `loss`, and returns them with the changes of buffers. It consumes the pass, frees its graph
    /// and releases the parameters, so that an optimizer can change them in place. A second backward pass doesn't compile:
    ///
    /// ```compile_fail,E0382
    /// # use tomograd_core::{Device, Seed};
    /// # use tomograd_nn::{Params, Pass, init::Init};
    /// let mut params = Params::new(Device::Cpu, Seed::new(1));
    /// let weight = params.root().parameter("w", &[3], Init::Normal(1.0))?;
    /// let pass = Pass::train(&params, Seed::new(2))?;
    /// let loss = pass.parameter(weight)?.sum(..)?;
    /// let first = pass.backward(loss.clone())?;
    /// let second = pass.backward(loss)?; // use of moved value: `pass`
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the loss isn't a scalar of this pass, or a fork of the pass has already run backward.
    pub fn backward(self, loss: Var) -> Result<Update> {
        let mut gradients = self.tape.backward(&loss)?;
        let taken: Vec<Option<Tensor>> = self.values.iter().map(|value| gradients.take(value)).collect();
        let changes = lock(&self.root).changes();
        let leaves = self.watch.as_ref().map_or_else(Named::new, |watch| watch.leaves(&self.outline.stages));
        let stages = leaves.into_iter().map(|(name, leaf)| (name, gradients.take(&leaf))).collect();
        Ok(Update::new(self.outline.clone(), taken, changes, gradients, stages))
    }
}

/// The final state of a segment's first run: its branch, and the stages that it kept with their run numbers.
type End = (Branch, Vec<(usize, u64)>);

/// `seed` for the first call, and a separate stream for each later one.
fn numbered(seed: Seed, call: u64) -> Seed {
    if call == 0 { seed } else { seed.named("call").at(call) }
}

/// A variable for each value: a constant where `constant` is true, else a leaf.
fn variables<'a>(tape: &Tape, values: impl Iterator<Item = &'a Tensor>, constant: &[bool]) -> Result<Arc<Vec<Var>>> {
    let variable = |(value, &constant): (&Tensor, &bool)| match constant {
        true => Ok(tape.constant(value.clone())),
        false => tape.leaf(value.clone()),
    };
    Ok(Arc::new(values.zip(constant).map(variable).collect::<Result<_>>()?))
}

impl Drop for Pass {
    /// A checkpointed segment holds a pass, and so its own tape; this breaks the reference cycle.
    fn drop(&mut self) {
        if self.owns_tape {
            self.tape.clear();
        }
    }
}
