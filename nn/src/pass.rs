//! One run through a network.

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

/// One run through a network. It keeps four things apart: training mode (batch statistics, dropout), recording (gradients),
/// the random stream, and precision. Saliency needs gradients without training; dropout at inference the reverse.
///
/// # Buffers
/// A layer reads a buffer by [`parameter`](Self::parameter) and changes it by [`update_buffer`](Self::update_buffer). It sees
/// what the pass has changed so far; the store itself changes when an optimizer carries the [`Update`] out.
///
/// # Forks
/// A [`fork`](Self::fork) sees what its pass had changed when it was forked off, and what it changes itself; passes don't see
/// what their forks change, so that forks can run at the same time. The update has the changes of a fork at the place where it
/// was forked off, and forks between two changes of their pass in the order of their indices.
///
/// # Stages
/// A pass that was asked for stages of the network by [`keep_stages`](Self::keep_stages) keeps their feature maps, and the
/// update of its backward run has their gradients. Where a network runs twice, the second run's are called `NAME.1`. They may
/// lie in checkpointed segments; forks keep none.
///
/// # Threads
/// A pass counts how often each layer asked it for random numbers, and lists the changes of buffers in their order: it goes from
/// one thread to another, but no two threads use it at a time, so that neither depends on which was faster. Each takes a fork.
///
/// ```compile_fail,E0277
/// fn shared_between_threads<T: Sync>() {}
/// shared_between_threads::<tomograd_nn::Pass>();
/// ```
pub struct Pass {
    pub(crate) tape: Tape,
    /// A variable for each parameter and buffer: leaves, or constants where nothing is to be learned.
    values: Arc<Vec<Var>>,
    pub(crate) outline: Arc<Outline>,
    pub(crate) training: bool,
    seed: Seed,
    pub(crate) branch: Shared,
    /// The branch of the pass that this one was forked from, at last: the one whose changes the update has.
    root: Shared,
    /// Whether this pass, and not one that it was forked from, owns the tape.
    owns_tape: bool,
    /// The stages to be kept, if any.
    pub(crate) watch: Option<Arc<Watch>>,
    /// The feature maps that were kept so far.
    pub(crate) maps: RefCell<Maps>,
    /// Not `Sync`.
    one_thread: PhantomData<Cell<()>>,
}

impl Pass {
    /// A pass of one's own making.
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

    /// A training pass: training mode, recording.
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

    /// The same pass, with or without gradients. To be called before anything runs on the pass.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn recording(mut self, recording: bool) -> Result<Self> {
        let context = *self.tape.context();
        self.restart(if recording { Tape::recording(context.inference(false)) } else { Tape::off(context) })?;
        Ok(self)
    }

    /// The same pass, with its layers behaving as in training or not.
    #[must_use]
    pub fn training(mut self, training: bool) -> Self {
        self.training = training;
        self
    }

    /// The same pass, with kernels as exact as this. To be called before anything runs on the pass.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn precision(mut self, precision: Precision) -> Result<Self> {
        let context = self.tape.context().precision(precision);
        self.restart(if self.tape.is_recording() { Tape::recording(context) } else { Tape::off(context) })?;
        Ok(self)
    }

    /// The same pass, with this random stream.
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

    /// An input, without a gradient.
    pub fn input(&self, value: &Tensor) -> Var {
        self.tape.constant(value.clone())
    }

    /// An input whose gradient is wanted; [`Update::input_gradient`] gives it.
    ///
    /// # Errors
    /// When the dtype isn't floating point.
    pub fn input_with_gradient(&self, value: &Tensor) -> Result<Var> {
        self.tape.leaf(value.clone())
    }

    /// The tape that the pass records on.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Whether layers behave as in training.
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// A random stream for the layer called `path`. Each call gives another one, which follows from the pass's seed, the path
    /// and the number of the call for this path; a [`checkpoint`](Self::checkpoint) that is computed again gets the same ones.
    pub fn random(&self, path: &str) -> Seed {
        numbered(self.seed.named(path), lock(&self.branch).call(path))
    }

    /// The parameter in `slot`, or the buffer as the pass has changed it so far.
    ///
    /// # Errors
    /// When the slot is of another store, the graph was used up, or memory runs out.
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

    /// The error, with the path of the layer that `slot` is a parameter of: `enc.2.conv: …`.
    pub(crate) fn within(&self, slot: Slot, error: Error) -> Error {
        let name = self.outline.names.get(slot.index).filter(|_| self.outline.structure == slot.structure());
        match name.and_then(|name| name.rsplit_once('.')) {
            Some((path, _)) => error.within(path),
            None => error,
        }
    }

    /// What is in `slot` at the start of the pass.
    fn value(&self, slot: Slot) -> Result<&Var> {
        check_structure(self.outline.structure, slot.structure())?;
        self.values.get(slot.index).ok_or_else(|| {
            Error::new(ErrorKind::Name, "pass", "the parameter was made after the pass")
                .expected("a pass that begins when the network is whole")
        })
    }

    /// Changes the buffer in `slot`: at once for whoever reads it in this pass, and in the store with the update.
    ///
    /// # Errors
    /// When the slot is of another store or isn't a buffer's, or the change doesn't fit the buffer.
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

    /// A pass over the same parameters, held constant, on a tape of one's own: for checking gradients of inputs. It draws
    /// the random numbers that this one would draw next, and leaves no trace here.
    #[must_use]
    pub fn on(&self, tape: &Tape) -> Pass {
        let mut pass = self.copy_on(tape);
        pass.watch = None;
        pass.maps.borrow_mut().collected.clear();
        pass.values = Arc::new(self.values.iter().map(|value| tape.constant(value.value().clone())).collect());
        pass
    }

    /// A pass on a tape of one's own, over the same frozen parameters and buffers, but these for the others, in their order.
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

    /// A pass for branch `index` of this one, on the same tape and with a random stream of its own: another one too than that
    /// of an earlier fork with this index.
    #[must_use]
    pub fn fork(&self, index: u64) -> Pass {
        let (branch, call) = lock(&self.branch).fork(index);
        self.with_branch(&self.tape, numbered(self.seed.at(index), call), branch, self.root.clone())
    }

    /// A pass in the same state, of which this one hears nothing.
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

    /// Runs `module` without keeping its intermediate values; the backward run computes them again, with the random numbers
    /// and the buffers of the first time, and without changing buffers a second time. Stages that the pass keeps are outputs of
    /// the segment too.
    ///
    /// # Errors
    /// When the module fails.
    pub fn checkpoint(&self, module: &Arc<dyn Module>, x: &Var) -> Result<Var> {
        // The lock is for the tape, which may be shared; the segment runs on one thread at a time.
        let (module, start) = (module.clone(), Mutex::new(self.copy_on(&self.tape)));
        // Where the first run leaves what it did. That of the second run is known already.
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

    /// The gradients of `loss` and the changes of buffers. Takes the pass, frees its graph and lets go of the parameters, so that
    /// an optimizer changes them in place. A second backward run of one pass doesn't compile:
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
    /// When the loss isn't one number of this pass, or a fork of the pass has run backward before.
    pub fn backward(self, loss: Var) -> Result<Update> {
        let mut gradients = self.tape.backward(&loss)?;
        let taken: Vec<Option<Tensor>> = self.values.iter().map(|value| gradients.take(value)).collect();
        let changes = lock(&self.root).changes();
        let leaves = self.watch.as_ref().map_or_else(Named::new, |watch| watch.leaves(&self.outline.stages));
        let stages = leaves.into_iter().map(|(name, leaf)| (name, gradients.take(&leaf))).collect();
        Ok(Update::new(self.outline.clone(), taken, changes, gradients, stages))
    }
}

/// What a segment's first run left behind: its changes, and the stages that it kept with the numbers of their runs.
type End = (Branch, Vec<(usize, u64)>);

/// `seed` for the first call, a stream of its own for each later one.
fn numbered(seed: Seed, call: u64) -> Seed {
    if call == 0 { seed } else { seed.named("call").at(call) }
}

/// A variable for each value: a constant where nothing is to be learned, else a leaf.
fn variables<'a>(tape: &Tape, values: impl Iterator<Item = &'a Tensor>, constant: &[bool]) -> Result<Arc<Vec<Var>>> {
    let variable = |(value, &constant): (&Tensor, &bool)| match constant {
        true => Ok(tape.constant(value.clone())),
        false => tape.leaf(value.clone()),
    };
    Ok(Arc::new(values.zip(constant).map(variable).collect::<Result<_>>()?))
}

impl Drop for Pass {
    /// A checkpointed segment holds a pass, and so its own tape: the circle is broken here.
    fn drop(&mut self) {
        if self.owns_tape {
            self.tape.clear();
        }
    }
}
