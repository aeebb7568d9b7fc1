//! The tape: an arena of the recorded operations, in the order in which they ran.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tomograd_core::{Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{Context, Forward, Meta, Op, Saved};

use crate::Var;

/// The recorded history of one pass. Clones are handles of the same history.
///
/// The nodes are stored in an arena, which is dropped without recursion even for a deep graph. A backward pass consumes the
/// history; a second backward pass, or a later operation on the tape's variables, is an error.
///
/// ```
/// use tomograd_autodiff::{Tape, methods::*};
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::Context;
/// let tape = Tape::recording(Context::default());
/// let x = tape.leaf(Tensor::from_slice(&[1.0f64, 2.0], &[2], Device::Cpu)?)?;
/// let loss = x.square()?.sum(..)?;
/// let gradients = tape.backward(&loss)?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>()?, [2.0, 4.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Tape(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    id: u64,
    pub(crate) context: Context,
    pub(crate) mode: Mode,
    parent: Option<Tape>,
    arena: Mutex<Arena>,
}

/// How a tape treats the operations that run on its variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing is recorded: inference.
    Off,
    /// Operations are recorded.
    Record,
    /// Only the variables of outer tapes that are used are noted: the first run of a checkpointed segment.
    Discover,
}

/// A reference to output `output` of node `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) output: usize,
}

#[derive(Default)]
pub(crate) struct Arena {
    pub(crate) nodes: Vec<Node>,
    pub(crate) used: bool,
    pub(crate) hooks: BTreeMap<usize, Hook>,
    /// Variables of outer tapes that were adopted, each with the leaf that represents it on this tape (none in mode
    /// `Discover`).
    pub(crate) adopted: Vec<(Var, Option<Place>)>,
}

pub(crate) type Hook = Box<dyn FnMut(&Tensor) -> Result<()> + Send>;

type Run = dyn Fn(&Tape, &[Var]) -> Result<Vec<Var>> + Send + Sync;

/// A checkpointed segment as a node of the tape.
pub(crate) struct Segment {
    pub run: Box<Run>,
    /// The segment's own inputs as values and places. A `Var` would hold its tape, which holds this node: a reference cycle.
    pub inputs: Vec<(Tensor, Option<Place>)>,
    /// The outputs of the outer tape that the segment uses: its inputs, and parameters that the closure captures.
    pub used: Vec<Place>,
}

pub(crate) enum Node {
    /// A variable without history whose gradient is wanted.
    Leaf,
    /// An operation and what its backward function needs.
    Operation(Box<Record>),
    /// A checkpointed segment, which the backward pass runs again.
    Segment(Box<Segment>),
}

pub(crate) struct Record {
    pub(crate) op: Arc<dyn Op>,
    /// The place of each input, where it has a history.
    pub(crate) inputs: Vec<Option<Place>>,
    pub(crate) saved_inputs: Vec<SavedInput>,
    pub(crate) kept: Kept,
}

/// What an operation's backward function gets besides the saved inputs.
#[derive(Clone)]
pub(crate) struct Kept {
    outputs: Vec<Option<Tensor>>,
    state: Vec<Tensor>,
    metas: Vec<Meta>,
    pub(crate) output_metas: Vec<Meta>,
}

impl Kept {
    pub(crate) fn input_metas(&self) -> &[Meta] {
        &self.metas
    }

    pub(crate) fn with_inputs(self, inputs: Vec<Option<Tensor>>) -> Saved {
        let Kept { outputs, state, metas, output_metas } = self;
        let mut saved = Saved::default();
        (saved.inputs, saved.outputs, saved.state) = (inputs, outputs, state);
        (saved.metas, saved.output_metas) = (metas, output_metas);
        saved
    }
}

/// How the tape keeps an input for the backward pass.
pub(crate) enum SavedInput {
    Unneeded,
    Value(Tensor),
    /// The input is output 0 of this node and is recomputed when needed.
    Recomputed(usize),
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Tape {
    fn new(context: Context, mode: Mode, parent: Option<Tape>) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Shared { id, context, mode, parent, arena: Mutex::default() }))
    }

    /// A tape that records the operations on its variables.
    pub fn recording(context: Context) -> Self {
        Self::new(context, Mode::Record, None)
    }

    /// A tape that records nothing: for inference.
    pub fn off(context: Context) -> Self {
        Self::new(context.inference(true), Mode::Off, None)
    }

    pub(crate) fn child(&self, mode: Mode) -> Self {
        Self::new(self.0.context, mode, Some(self.clone()))
    }

    /// Whether operations are recorded.
    pub fn is_recording(&self) -> bool {
        self.0.mode == Mode::Record
    }

    /// The execution options of operations on this tape's variables.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// The number of leaves and operations recorded so far.
    pub fn node_count(&self) -> usize {
        self.arena().nodes.len()
    }

    /// Frees the history without a backward pass. The tape can't be used afterwards.
    pub fn clear(&self) {
        let (nodes, hooks) = {
            let mut arena = self.arena();
            arena.used = true;
            (std::mem::take(&mut arena.nodes), std::mem::take(&mut arena.hooks))
        };
        // The drop happens outside of the lock: dropping variables that a checkpointed segment holds may take the same lock.
        drop((nodes, hooks));
    }

    /// Whether both are handles of the same tape.
    pub fn is(&self, other: &Tape) -> bool {
        self.0.id == other.0.id
    }

    pub(crate) fn arena(&self) -> MutexGuard<'_, Arena> {
        // Every change of the arena is a single push or take, so it is consistent even after a panic in another thread.
        self.0.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A variable without history.
    pub fn constant(&self, value: Tensor) -> Var {
        Var { value, tape: self.clone(), place: None }
    }

    /// A variable that gets a gradient if the tape records: a parameter, or an input whose gradient is wanted.
    ///
    /// # Errors
    /// When a backward pass has consumed the tape, or the value isn't floating point.
    pub fn leaf(&self, value: Tensor) -> Result<Var> {
        if !value.dtype().is_float() {
            return Err(Error::new(ErrorKind::DType, "leaf", format!("{} has no gradient", value.dtype()))
                .expected("a floating-point dtype"));
        }
        if !self.is_recording() {
            return Ok(self.constant(value));
        }
        let place = self.push(Node::Leaf)?;
        Ok(Var { value, tape: self.clone(), place: Some(place) })
    }

    /// Registers `hook`, which the backward pass calls with the gradient of `leaf` as soon as that is complete. The order of
    /// hooks depends only on the graph.
    ///
    /// # Errors
    /// When `leaf` isn't a leaf of this tape.
    pub fn on_gradient(&self, leaf: &Var, hook: impl FnMut(&Tensor) -> Result<()> + Send + 'static) -> Result<()> {
        let mut arena = self.arena();
        match leaf.place {
            Some(place) if leaf.tape.is(self) && matches!(arena.nodes.get(place.node), Some(Node::Leaf)) => {
                arena.hooks.insert(place.node, Box::new(hook));
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Graph, "on_gradient", "the variable isn't a leaf of this tape")),
        }
    }

    pub(crate) fn push(&self, node: Node) -> Result<Place> {
        let mut arena = self.arena();
        if arena.used {
            return Err(used_up());
        }
        arena.nodes.push(node);
        Ok(Place { node: arena.nodes.len() - 1, output: 0 })
    }

    /// The variable on this tape that represents `var` of an outer tape (`var` itself if it is on this tape).
    ///
    /// # Errors
    /// When `var` is neither on this tape nor on one of its outer tapes.
    pub fn adopt(&self, var: &Var) -> Result<Var> {
        if var.tape.is(self) {
            return Ok(var.clone());
        }
        if !self.descends_from(&var.tape) {
            return Err(Error::new(ErrorKind::Graph, "adopt", "variables of two passes are mixed")
                .expected("variables made by one pass"));
        }
        if var.place.is_none() {
            return Ok(self.constant(var.value.clone()));
        }
        // Through all tapes between, each of which hands the gradient on to the one outside of it.
        let outside = match &self.0.parent {
            Some(parent) if !var.tape.is(parent) => Some(parent.adopt(var)?),
            _ => None,
        };
        let var = outside.as_ref().unwrap_or(var);
        let Some(place) = var.place else { return Ok(self.constant(var.value.clone())) };
        let mut arena = self.arena();
        let known = arena.adopted.iter().find(|(known, _)| known.tape.is(&var.tape) && known.place == Some(place));
        if let Some((_, own)) = known {
            return Ok(Var { value: var.value.clone(), tape: self.clone(), place: *own });
        }
        if arena.used {
            return Err(used_up());
        }
        let own = self.is_recording().then(|| {
            arena.nodes.push(Node::Leaf);
            Place { node: arena.nodes.len() - 1, output: 0 }
        });
        arena.adopted.push((var.clone(), own));
        Ok(Var { value: var.value.clone(), tape: self.clone(), place: own })
    }

    fn descends_from(&self, ancestor: &Tape) -> bool {
        let mut tape = self.0.parent.as_ref();
        while let Some(parent) = tape {
            if parent.is(ancestor) {
                return true;
            }
            tape = parent.0.parent.as_ref();
        }
        false
    }

    /// The innermost tape of `vars`; `None` if `vars` is empty.
    pub(crate) fn innermost(vars: &[&Var]) -> Option<Tape> {
        let mut tape = &vars.first()?.tape;
        for var in vars {
            if var.tape.descends_from(tape) {
                tape = &var.tape;
            }
        }
        Some(tape.clone())
    }

    /// Records `op`, if this tape records and an input has a history, and wraps its outputs in variables.
    pub(crate) fn record(&self, op: Arc<dyn Op>, inputs: &[Var], forward: Forward) -> Result<Vec<Var>> {
        let wrap = |place: Option<usize>| {
            move |(output, value): (usize, Tensor)| {
                let place = place.filter(|_| value.dtype().is_float()).map(|node| Place { node, output });
                Var { value, tape: self.clone(), place }
            }
        };
        if !self.is_recording() || inputs.iter().all(|var| var.place.is_none()) {
            if self.arena().used {
                return Err(used_up());
            }
            return Ok(forward.outputs.into_iter().enumerate().map(wrap(None)).collect());
        }
        let mut arena = self.arena();
        if arena.used {
            return Err(used_up());
        }
        let saved_inputs = inputs
            .iter()
            .enumerate()
            .map(|(index, var)| match var.place {
                _ if !op.saves_input(index) => SavedInput::Unneeded,
                Some(Place { node, output: 0 }) if arena.nodes[node].recomputes() => SavedInput::Recomputed(node),
                _ => SavedInput::Value(var.value.clone()),
            })
            .collect();
        let record = Record {
            inputs: inputs.iter().map(|var| var.place).collect(),
            saved_inputs,
            kept: Kept {
                outputs: forward
                    .outputs
                    .iter()
                    .enumerate()
                    .map(|(k, value)| op.saves_output(k).then(|| value.clone()))
                    .collect(),
                state: forward.state,
                metas: inputs.iter().map(|var| Meta::from(&var.value)).collect(),
                output_metas: forward.outputs.iter().map(Meta::from).collect(),
            },
            op,
        };
        arena.nodes.push(Node::Operation(Box::new(record)));
        let node = arena.nodes.len() - 1;
        Ok(forward.outputs.into_iter().enumerate().map(wrap(Some(node))).collect())
    }
}

impl Node {
    fn recomputes(&self) -> bool {
        matches!(self, Node::Operation(record) if record.op.recompute().is_some())
    }
}

#[cold]
pub(crate) fn used_up() -> Error {
    Error::new(ErrorKind::Graph, "tape", "the graph was already used by a backward run, which freed it")
        .expected("one backward run a pass; make a new pass")
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({}, {:?})", self.0.id, self.0.mode)
    }
}
