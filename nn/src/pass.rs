//! One run through a network.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tomograd_autodiff::{Tape, Var};
use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{Context, Precision};

use crate::{Module, Params, Slot, Update, params::check_slot};

/// One run through a network. It keeps four things apart: training mode (batch statistics, dropout), recording (gradients),
/// the random stream, and precision. Saliency needs gradients without training; dropout at inference the reverse.
pub struct Pass {
    structure: u64,
    tape: Tape,
    /// A variable for each parameter and buffer: leaves, or constants where nothing is to be learned.
    values: Arc<Vec<Var>>,
    frozen: Arc<Vec<bool>>,
    names: Arc<Vec<String>>,
    training: bool,
    seed: Seed,
    buffers: Arc<Mutex<BTreeMap<usize, Tensor>>>,
    /// Whether this pass, and not one that it was forked from, owns the tape.
    owns_tape: bool,
}

impl Pass {
    /// A pass of one's own making.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(params: &Params, seed: Seed, training: bool, recording: bool, context: Context) -> Result<Self> {
        let tape = if recording { Tape::recording(context) } else { Tape::off(context) };
        let frozen: Vec<bool> = params.entries.iter().map(|entry| entry.is_buffer || entry.frozen).collect();
        let values = variables(&tape, params.entries.iter().map(|entry| &entry.value), &frozen)?;
        Ok(Self {
            structure: params.structure(),
            tape,
            values,
            frozen: Arc::new(frozen),
            names: Arc::new(params.entries.iter().map(|entry| entry.name.clone()).collect()),
            training,
            seed,
            buffers: Arc::default(),
            owns_tape: true,
        })
    }

    /// A training pass: training mode, recording.
    ///
    /// # Errors
    /// When memory runs out.
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
        self.restart(if recording {
            Tape::recording(Context { inference: false, ..context })
        } else {
            Tape::off(context)
        })?;
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
        let context = Context { precision, ..*self.tape.context() };
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
        self.values = variables(&tape, self.values.iter().map(Var::value), &self.frozen)?;
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

    /// The random stream of the layer called `path`.
    pub fn random(&self, path: &str) -> Seed {
        self.seed.named(path)
    }

    /// The parameter or buffer in `slot`.
    ///
    /// # Errors
    /// When the slot is of another store, or the pass was used up.
    pub fn parameter(&self, slot: Slot) -> Result<Var> {
        check_slot(self.structure, slot)?;
        match self.values.get(slot.index) {
            Some(value) => self.tape.adopt(value),
            None => Err(Error::new(ErrorKind::Graph, "pass", "the pass was already used by a backward run")
                .expected("a new pass for each step")),
        }
    }

    /// Gives the buffer in `slot` a new value, to be carried out with the update.
    ///
    /// # Errors
    /// When the slot is of another store.
    pub fn update_buffer(&mut self, slot: Slot, value: Tensor) -> Result<()> {
        check_slot(self.structure, slot)?;
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).insert(slot.index, value);
        Ok(())
    }

    /// A pass over the same parameters, held constant, on a tape of one's own: for checking gradients of inputs.
    #[must_use]
    pub fn on(&self, tape: &Tape) -> Pass {
        let mut pass = self.on_tape(tape.clone(), self.seed);
        pass.values = Arc::new(self.values.iter().map(|value| tape.constant(value.value().clone())).collect());
        pass
    }

    /// A pass on a tape of one's own, over the same frozen parameters and buffers, but these for the others, in their order.
    pub(crate) fn with_learned(&self, tape: &Tape, learned: &[Var]) -> Pass {
        let mut pass = self.on(tape);
        let mut learned = learned.iter();
        let mut next = |(value, &frozen): (&Var, &bool)| match frozen {
            true => value.clone(),
            false => learned.next().unwrap_or(value).clone(),
        };
        pass.values = Arc::new(pass.values.iter().zip(self.frozen.iter()).map(&mut next).collect());
        pass
    }

    /// A pass for branch `index` of this one, on the same tape and with a random stream of its own.
    #[must_use]
    pub fn fork(&self, index: u64) -> Pass {
        self.on_tape(self.tape.clone(), self.seed.at(index))
    }

    fn on_tape(&self, tape: Tape, seed: Seed) -> Pass {
        Pass {
            structure: self.structure,
            tape,
            values: self.values.clone(),
            frozen: self.frozen.clone(),
            names: self.names.clone(),
            training: self.training,
            seed,
            buffers: self.buffers.clone(),
            owns_tape: false,
        }
    }

    /// Runs `module` without keeping its intermediate values; the backward run computes them again.
    ///
    /// # Errors
    /// When the module fails.
    pub fn checkpoint(&mut self, module: &Arc<dyn Module>, x: &Var) -> Result<Var> {
        let (module, outer) = (module.clone(), self.fork(0));
        let seed = self.seed;
        let mut outputs = self.tape.checkpoint(&[x], move |tape, inputs| {
            let mut pass = outer.on_tape(tape.clone(), seed);
            Ok(vec![module.forward(&inputs[0], &mut pass)?])
        })?;
        outputs.pop().ok_or_else(|| Error::argument("checkpoint", "the segment has no output"))
    }

    /// The gradients of `loss` and the new batch statistics. Frees the graph and lets go of the parameters, so that an
    /// optimizer changes them in place; the pass is used up.
    ///
    /// # Errors
    /// When the loss isn't one number of this pass, or the pass was used before.
    pub fn backward(&mut self, loss: &Var) -> Result<Update> {
        let mut gradients = self.tape.backward(loss)?;
        let taken: Vec<Option<Tensor>> = self.values.iter().map(|value| gradients.take(value)).collect();
        let buffers = std::mem::take(&mut *self.buffers.lock().unwrap_or_else(PoisonError::into_inner));
        self.values = Arc::default();
        Ok(Update::new(self.structure, self.names.clone(), self.frozen.clone(), taken, buffers, gradients))
    }
}

/// A variable for each value: a constant where it is frozen, else a leaf.
fn variables<'a>(tape: &Tape, values: impl Iterator<Item = &'a Tensor>, frozen: &[bool]) -> Result<Arc<Vec<Var>>> {
    let variable = |(value, &frozen): (&Tensor, &bool)| match frozen {
        true => Ok(tape.constant(value.clone())),
        false => tape.leaf(value.clone()),
    };
    Ok(Arc::new(values.zip(frozen).map(variable).collect::<Result<_>>()?))
}

impl Drop for Pass {
    /// A checkpointed segment holds a pass, and so its own tape: the circle is broken here.
    fn drop(&mut self) {
        if self.owns_tape {
            self.tape.clear();
        }
    }
}
