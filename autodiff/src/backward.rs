//! The backward pass: visits the tape's nodes from last to first and frees each one when it is done.

use std::collections::BTreeMap;

use tomograd_core::{Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{
    Context,
    elementwise::{BinaryFunction, Chain, ChainInPlace},
    methods::*,
    run_backward, run_recompute,
};

use crate::{
    Tape, Var,
    tape::{Hook, Node, Place, Record, SavedInput, used_up},
};

/// The gradients of a tape's leaves.
#[derive(Debug)]
pub struct Gradients {
    tape: Tape,
    by_leaf: BTreeMap<usize, Tensor>,
}

impl Gradients {
    /// The gradient of `leaf`; `None` when the loss doesn't depend on it, or it isn't a leaf of the tape.
    pub fn get(&self, leaf: &Var) -> Option<&Tensor> {
        self.by_leaf.get(&self.node(leaf)?)
    }

    /// The gradient of `leaf`, moved out of this collection.
    pub fn take(&mut self, leaf: &Var) -> Option<Tensor> {
        self.by_leaf.remove(&self.node(leaf)?)
    }

    fn node(&self, leaf: &Var) -> Option<usize> {
        leaf.place.filter(|_| leaf.tape.is(&self.tape)).map(|place| place.node)
    }

    pub(crate) fn take_place(&mut self, place: Place) -> Option<Tensor> {
        self.by_leaf.remove(&place.node)
    }
}

impl Tape {
    /// The gradients of `loss`, which must have one element, with respect to all leaves. Consumes the tape's history.
    ///
    /// # Errors
    /// When the loss has more than one element or no history on this tape, the tape was used before, or an operation fails.
    pub fn backward(&self, loss: &Var) -> Result<Gradients> {
        if loss.value.count() != 1 {
            return Err(Error::shape("backward", "the loss isn't a single number")
                .expected("one element (reduce it, or use backward_with)")
                .shapes([loss.shape()]));
        }
        let one = Tensor::ones(loss.shape(), loss.dtype(), loss.value.device())?;
        self.backward_with(&[(loss, one)])
    }

    /// The gradients of Σ ⟨output, cotangent⟩ with respect to all leaves. Consumes the tape's history.
    ///
    /// # Errors
    /// When an output has no history on this tape, the tape was used before, or an operation fails.
    pub fn backward_with(&self, outputs: &[(&Var, Tensor)]) -> Result<Gradients> {
        let start = |(output, cotangent): &(&Var, Tensor)| Ok((self.place_of(output)?, cotangent.clone()));
        self.backward_from(outputs.iter().map(start).collect::<Result<_>>()?)
    }

    pub(crate) fn place_of(&self, output: &Var) -> Result<Place> {
        output.place.filter(|_| output.tape.is(self)).ok_or_else(|| {
            Error::new(ErrorKind::Graph, "backward", "the output has no history on this tape")
                .expected("a variable computed, on a recording tape, from a leaf of it")
        })
    }

    /// [`backward_with`](Tape::backward_with), taking the cotangents by value.
    pub(crate) fn backward_from(&self, starts: Vec<(Place, Tensor)>) -> Result<Gradients> {
        let (nodes, hooks) = {
            let mut arena = self.arena();
            if std::mem::replace(&mut arena.used, true) {
                return Err(used_up());
            }
            (std::mem::take(&mut arena.nodes), std::mem::take(&mut arena.hooks))
        };
        let mut walk = Walk::new(self.0.context, nodes, hooks);
        for (place, cotangent) in starts {
            walk.add(place, cotangent)?;
        }
        walk.run(self)?;
        Ok(Gradients { tape: self.clone(), by_leaf: walk.leaves })
    }
}

struct Walk {
    context: Context,
    nodes: Vec<Option<Node>>,
    /// The gradients of each node's outputs, as accumulated so far.
    gradients: Vec<Vec<Option<Tensor>>>,
    /// Recomputed outputs, kept until the last operation that reads them has run.
    recomputed: BTreeMap<usize, Tensor>,
    /// For a node whose output is recomputed: the first operation on the tape that saved it, which reads it last in reverse
    /// order.
    last_reader: BTreeMap<usize, usize>,
    /// For a leaf with a hook: how many operations that use the leaf haven't run backward yet.
    pending: BTreeMap<usize, usize>,
    hooks: BTreeMap<usize, Hook>,
    leaves: BTreeMap<usize, Tensor>,
    sum: ChainInPlace,
}

impl Walk {
    fn new(context: Context, nodes: Vec<Node>, hooks: BTreeMap<usize, Hook>) -> Self {
        let mut pending: BTreeMap<usize, usize> = hooks.keys().map(|&leaf| (leaf, 0)).collect();
        for place in nodes.iter().flat_map(Node::inputs) {
            if let Some(count) = pending.get_mut(&place.node) {
                *count += 1;
            }
        }
        let mut last_reader = BTreeMap::new();
        for (id, node) in nodes.iter().enumerate() {
            for node in node.recomputed_inputs() {
                last_reader.entry(node).or_insert(id);
            }
        }
        Self {
            context,
            gradients: nodes.iter().map(|_| Vec::new()).collect(),
            nodes: nodes.into_iter().map(Some).collect(),
            recomputed: BTreeMap::new(),
            last_reader,
            pending,
            hooks,
            leaves: BTreeMap::new(),
            sum: ChainInPlace(Chain::binary(BinaryFunction::Add)),
        }
    }

    /// Adds to the gradient of an output. Called in node order, so the order of summation depends only on the graph.
    fn add(&mut self, place: Place, gradient: Tensor) -> Result<()> {
        let slots = &mut self.gradients[place.node];
        if slots.len() <= place.output {
            slots.resize(place.output + 1, None);
        }
        let slot = &mut slots[place.output];
        *slot = Some(match slot.take() {
            None => gradient,
            Some(mut sum) => match self.sum.run_if_alone(&mut sum, &[&gradient])? {
                true => sum,
                false => sum.add(&gradient)?,
            },
        });
        Ok(())
    }

    fn run(&mut self, tape: &Tape) -> Result<()> {
        for id in (0..self.nodes.len()).rev() {
            let Some(node) = self.nodes[id].take() else { continue };
            let mut gradients = std::mem::take(&mut self.gradients[id]);
            let inputs: Vec<Place> = node.inputs().collect();
            // All operations that read this node's output come later on the tape and have run backward already.
            self.recomputed.remove(&id);
            match node {
                Node::Leaf => {
                    if let Some(gradient) = gradients.pop().flatten() {
                        self.leaves.insert(id, gradient);
                    }
                    self.fire(id)?;
                }
                _ if gradients.iter().all(Option::is_none) => {}
                Node::Operation(record) => self.operation(id, *record, gradients)?,
                Node::Segment(segment) => {
                    for (place, gradient) in segment.backward(tape, gradients)? {
                        self.add(place, gradient)?;
                    }
                }
            }
            for place in inputs {
                self.finished_one_use(place.node)?;
            }
        }
        Ok(())
    }

    fn operation(&mut self, id: usize, record: Record, mut gradients: Vec<Option<Tensor>>) -> Result<()> {
        gradients.resize(record.kept.output_metas.len(), None);
        let needed: Vec<bool> = record.inputs.iter().map(Option::is_some).collect();
        let recomputed: Vec<usize> = record.recomputed_inputs().collect();
        let inputs = record
            .saved_inputs
            .into_iter()
            .map(|input| match input {
                SavedInput::Unneeded => Ok(None),
                SavedInput::Value(value) => Ok(Some(value)),
                SavedInput::Recomputed(node) => self.recompute(node).map(Some),
            })
            .collect::<Result<_>>()?;
        // From here on, recomputed outputs that no other operation reads are owned by this operation alone.
        for node in recomputed {
            if self.last_reader.get(&node) == Some(&id) {
                self.recomputed.remove(&node);
            }
        }
        let results = run_backward(&*record.op, record.kept.with_inputs(inputs), gradients, &needed, &self.context)?;
        for (place, gradient) in record.inputs.iter().zip(results) {
            if let (Some(place), Some(gradient)) = (place, gradient) {
                self.add(*place, gradient)?;
            }
        }
        Ok(())
    }

    /// Recomputes output 0 of `id` from what that node saved.
    fn recompute(&mut self, id: usize) -> Result<Tensor> {
        // A chain of recomputations is followed with an explicit stack: recursion could overflow the call stack on a long
        // chain.
        let mut wanted = vec![id];
        while let Some(&id) = wanted.last() {
            if self.recomputed.contains_key(&id) {
                wanted.pop();
                continue;
            }
            let freed = || Error::new(ErrorKind::Graph, "backward", "a value to be recomputed was freed");
            let Some(Node::Operation(record)) = &self.nodes[id] else { return Err(freed()) };
            let op = record.op.recompute().ok_or_else(freed)?;
            let before = wanted.len();
            let mut inputs = Vec::with_capacity(record.saved_inputs.len());
            for (index, input) in record.saved_inputs.iter().enumerate() {
                inputs.push(match input {
                    SavedInput::Value(value) => Some(value.clone()),
                    SavedInput::Recomputed(node) if op.reads_input(index) => {
                        let value = self.recomputed.get(node).cloned();
                        if value.is_none() {
                            wanted.push(*node);
                        }
                        value
                    }
                    _ => None,
                });
            }
            if wanted.len() > before {
                continue;
            }
            let value = run_recompute(op, &record.kept.clone().with_inputs(inputs), &self.context)?;
            self.recomputed.insert(id, value);
            wanted.pop();
        }
        self.recomputed
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::Graph, "backward", "a value couldn't be recomputed"))
    }

    /// Calls a leaf's hook once the last operation that uses the leaf has run backward.
    fn finished_one_use(&mut self, leaf: usize) -> Result<()> {
        let Some(count) = self.pending.get_mut(&leaf) else { return Ok(()) };
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
        if let Some(gradient) = self.gradients[leaf].first_mut().and_then(Option::take) {
            self.leaves.insert(leaf, gradient);
            // The leaf is finished: the main loop must not process it again.
            self.nodes[leaf] = None;
        }
        self.fire(leaf)
    }

    fn fire(&mut self, leaf: usize) -> Result<()> {
        match (self.hooks.get_mut(&leaf), self.leaves.get(&leaf)) {
            (Some(hook), Some(gradient)) => {
                hook(gradient)?;
                self.hooks.remove(&leaf);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    /// The nodes whose outputs are recomputed for this operation.
    fn recomputed_inputs(&self) -> impl Iterator<Item = usize> + '_ {
        self.saved_inputs.iter().filter_map(|input| match input {
            SavedInput::Recomputed(node) => Some(*node),
            _ => None,
        })
    }
}

impl Node {
    fn recomputed_inputs(&self) -> impl Iterator<Item = usize> + '_ {
        let record = match self {
            Node::Operation(record) => Some(record),
            _ => None,
        };
        record.into_iter().flat_map(|record| record.recomputed_inputs())
    }

    /// The outputs of other nodes to whose gradients this node adds.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Place> + '_ {
        let (record, segment) = match self {
            Node::Leaf => (None, None),
            Node::Operation(record) => (Some(record), None),
            Node::Segment(segment) => (None, Some(segment)),
        };
        record
            .into_iter()
            .flat_map(|record| record.inputs.iter().flatten().copied())
            .chain(segment.into_iter().flat_map(|segment| segment.places()))
    }
}
