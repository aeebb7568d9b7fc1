//! A run of a network as a list of operations: which layer each belongs to, which feed it, and at what resolution it works.

use std::{collections::BTreeMap, sync::Arc};

use tomograd::{
    kernels::{Context, Op},
    nn::Pass,
    prelude::*,
};

use super::super::measure;

/// What stands at a place of the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Role {
    Input(String),
    Output(String),
    Operation,
}

/// An operation on data (what is computed of parameters alone is left out), an input or an output.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) role: Role,
    /// `None` for inputs, outputs and checkpointed segments.
    pub(super) op: Option<Arc<dyn Op>>,
    /// The path of the layer: from the names of the parameters that it reads, or else that of its latest input.
    pub(super) path: Vec<String>,
    /// The operations that feed it, each once, in ascending order.
    pub(super) inputs: Vec<usize>,
    /// The shape of its first parameter with several axes; empty if it has none.
    pub(super) weight: Vec<usize>,
    /// The shape of the output.
    pub(super) shape: Vec<usize>,
    /// The resolution: how often the input was halved along each axis, about.
    pub(super) level: i32,
}

impl Operation {
    /// The operation's name; empty for inputs, outputs and checkpointed segments.
    pub(super) fn name(&self) -> &'static str {
        self.op.as_ref().map_or("", |op| op.name())
    }

    /// The operation as its own type.
    pub(super) fn downcast<T: Op>(&self) -> Option<&T> {
        let any: &dyn std::any::Any = &**self.op.as_ref()?;
        any.downcast_ref()
    }
}

/// The operations of a run on inputs of these shapes, in the order in which they run; outputs are at the end, the main one
/// first. The run is in inference mode, or in training mode if the network has more outputs there.
///
/// # Errors
/// When the network refuses a shape.
pub(super) fn operations(model: &Model, shapes: &[Vec<usize>]) -> Result<Vec<Operation>> {
    let inference = recorded(model, shapes, false)?;
    let outputs = |operations: &[Operation]| operations.iter().filter(|o| matches!(o.role, Role::Output(_))).count();
    match recorded(model, shapes, true) {
        Ok(training) if outputs(&training) > outputs(&inference) => Ok(training),
        _ => Ok(inference),
    }
}

fn recorded(model: &Model, shapes: &[Vec<usize>], training: bool) -> Result<Vec<Operation>> {
    let pass = Pass::new(model.params(), Seed::new(0), training, true, Context::default())?;
    let inputs = measure::inputs(model, shapes)?;
    let inputs = inputs.try_map(|value| pass.input_with_gradient(&value))?;
    let outputs = model.network().run(&inputs, &pass)?;

    let graph = pass.tape().graph()?;
    let parameters: BTreeMap<usize, &str> = pass.parameter_nodes().collect();
    let mut list: Vec<Operation> = Vec::new();
    // For each node of the graph: its place in the list if it depends on an input, else the parameters that it comes from.
    let mut places: Vec<Option<usize>> = Vec::new();
    let mut sources: Vec<Vec<&str>> = Vec::new();
    for (node, recorded) in graph.iter().enumerate() {
        let mut names = parameters.get(&node).map_or(Vec::new(), |name| vec![*name]);
        let mut place = None;
        if let Some((name, value)) = inputs.iter().find(|(_, input)| input.node() == Some((node, 0))) {
            place = Some(list.len());
            list.push(end(Role::Input(name.to_owned()), Vec::new(), value.shape()));
        } else {
            let fed: Vec<(usize, usize)> = recorded.inputs.iter().flatten().map(|&(from, _)| (from, 0)).collect();
            let mut data: Vec<usize> = fed.iter().filter_map(|&(from, _)| places[from]).collect();
            data.sort_unstable();
            data.dedup();
            for (from, _) in fed.iter().filter(|(from, _)| places[*from].is_none()) {
                names.extend(&sources[*from]);
            }
            if !data.is_empty() {
                let of_parameters = recorded
                    .inputs
                    .iter()
                    .zip(&recorded.input_metas)
                    .filter(|(input, _)| input.is_some_and(|(from, _)| places[from].is_none()));
                let weight = of_parameters.map(|(_, meta)| &meta.shape).find(|shape| shape.len() > 1);
                place = Some(list.len());
                list.push(Operation {
                    op: recorded.op.clone(),
                    path: names.first().map_or(Vec::new(), |name| layer(name)),
                    weight: weight.cloned().unwrap_or_default(),
                    ..end(Role::Operation, data, recorded.output_metas.first().map_or(&[][..], |meta| &meta.shape))
                });
            }
        }
        places.push(place);
        sources.push(names);
    }
    for (name, output) in outputs.iter() {
        let from = output.node().and_then(|(node, _)| places[node]);
        list.push(end(Role::Output(name.to_owned()), from.into_iter().collect(), output.shape()));
    }
    inherit_paths(&mut list);
    set_levels(&mut list);
    Ok(list)
}

fn end(role: Role, inputs: Vec<usize>, shape: &[usize]) -> Operation {
    Operation { role, op: None, path: Vec::new(), inputs, weight: Vec::new(), shape: shape.to_vec(), level: 0 }
}

/// The path of the layer that has a parameter: its name without the last part, if it has several.
fn layer(parameter: &str) -> Vec<String> {
    let mut parts: Vec<String> = parameter.split('.').map(str::to_owned).collect();
    if parts.len() > 1 {
        parts.pop();
    }
    parts
}

fn inherit_paths(list: &mut [Operation]) {
    for place in 0..list.len() {
        if list[place].path.is_empty() && list[place].role == Role::Operation {
            list[place].path = list[place].inputs.last().map_or(Vec::new(), |&from| list[from].path.clone());
        }
    }
}

/// Sets the level of each operation from the number of positions (voxels, tokens) at which it computes.
fn set_levels(list: &mut [Operation]) {
    let (mut whole, mut rank, mut batch) = (1.0, 1.0, 1.0);
    if let Some(input) = list.iter().find(|operation| matches!(operation.role, Role::Input(_))) {
        whole = product(input.shape.get(2..).unwrap_or_default());
        rank = input.shape.len().saturating_sub(2).max(1) as f64;
        batch = input.shape.first().copied().unwrap_or(1).max(1) as f64;
    }
    for place in 0..list.len() {
        let operation = &list[place];
        let shape = &operation.shape[..];
        let inherited = operation.inputs.iter().map(|&from| list[from].level).next().unwrap_or(0);
        let spatial = product(shape.get(2..).unwrap_or_default());
        let positions = match operation.name() {
            // Pooling and interpolation belong to the layer that comes next.
            "conv" | "conv_transpose" | "conv_norm_activation" | "norm" => Some(spatial),
            "linear" | "layer_norm" => shape.split_last().map(|(_, rest)| product(rest) / batch),
            _ => None,
        };
        // What has been pooled to one position stays beside what it was pooled from.
        list[place].level = match positions.filter(|&positions| positions > 1.5) {
            Some(positions) => ((whole / positions).log2() / rank).round() as i32,
            None => inherited,
        };
    }
}

fn product(sizes: &[usize]) -> f64 {
    sizes.iter().map(|&size| size as f64).product()
}
