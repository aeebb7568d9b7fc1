//! The recorded operations as data, for drawing and inspecting networks.

use std::sync::Arc;

use tomograd_core::{Result, Tensor};
use tomograd_kernels::{Meta, Op};

use crate::{
    Tape, Var,
    tape::{Node, Place, used_up},
};

/// A node of the graph that a [`Tape`] has recorded: a leaf or an operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GraphNode {
    /// The operation; `None` for a leaf, and for a checkpointed segment, whose operations aren't recorded.
    pub op: Option<Arc<dyn Op>>,
    /// The inputs, each as (node, output of that node); `None` for a constant. A leaf has none.
    pub inputs: Vec<Option<(usize, usize)>>,
    /// Shape, dtype and device of each input of an operation.
    pub input_metas: Vec<Meta>,
    /// Shape, dtype and device of each output of an operation.
    pub output_metas: Vec<Meta>,
}

impl Tape {
    /// All leaves and operations recorded so far, in the order in which they ran; an index in this list is what
    /// [`Var::node`] returns.
    ///
    /// ```
    /// use tomograd_autodiff::{Tape, methods::*};
    /// use tomograd_core::{DType, Device, Tensor};
    /// let tape = Tape::recording(Default::default());
    /// let x = tape.leaf(Tensor::zeros(&[2, 3], DType::F32, Device::Meta)?)?;
    /// let y = x.relu()?.mul(&x)?;
    /// let graph = tape.graph()?;
    /// let (product, _) = y.node().unwrap();
    /// assert_eq!(graph[product].op.as_ref().unwrap().name(), "mul");
    /// assert_eq!(graph[product].inputs, [Some((1, 0)), x.node()]);
    /// assert_eq!(graph[product].output_metas[0].shape, [2, 3]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a backward pass has consumed the tape.
    pub fn graph(&self) -> Result<Vec<GraphNode>> {
        let arena = self.arena();
        if arena.used {
            return Err(used_up());
        }
        Ok(arena.nodes.iter().map(described).collect())
    }
}

impl Var {
    /// The node of the [graph](Tape::graph) of this variable's tape that made it, and which of the node's outputs it is;
    /// `None` for a constant.
    pub fn node(&self) -> Option<(usize, usize)> {
        self.place.map(pair)
    }
}

fn pair(place: Place) -> (usize, usize) {
    (place.node, place.output)
}

fn described(node: &Node) -> GraphNode {
    let of = |op, places: &[Option<Place>], input_metas: &[Meta], output_metas: &[Meta]| GraphNode {
        op,
        inputs: places.iter().map(|place| place.map(pair)).collect(),
        input_metas: input_metas.to_vec(),
        output_metas: output_metas.to_vec(),
    };
    match node {
        Node::Leaf => of(None, &[], &[], &[]),
        Node::Operation(record) => {
            of(Some(record.op.clone()), &record.inputs, record.kept.input_metas(), &record.kept.output_metas)
        }
        Node::Segment(segment) => {
            let own: Vec<Meta> = segment.inputs.iter().map(|(value, _): &(Tensor, _)| Meta::from(value)).collect();
            let places: Vec<Option<Place>> = segment.used.iter().copied().map(Some).collect();
            of(None, &places, &own, &[])
        }
    }
}
