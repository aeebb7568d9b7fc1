//! Flattens a pickle to named tensors, where a name is the path of a tensor.

use std::collections::{BTreeMap, HashSet};

use tomograd_core::{Error, Result};

use super::{
    Contents, OPERATION,
    node::Id,
    value::{Kind, Value},
};
use crate::stored::{Skipped, StoredTensor};

/// Deeper values and longer names aren't part of a state dict.
const MOST_DEPTH: usize = 100;
const MOST_NAME: usize = 1024;
/// The number of metadata entries that are kept.
const MOST_METADATA: usize = 1000;
/// Limit of the average number of name bytes per value of the pickle.
const NAMES: usize = 128;

/// The result of flattening.
#[derive(Debug, Default)]
pub(crate) struct Flat {
    pub(crate) tensors: Vec<StoredTensor>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// Paths of objects of unknown classes, and the names of their classes.
    pub(crate) objects: Vec<(String, String)>,
}

/// A value to visit.
struct Next<'a> {
    value: Value<'a>,
    name: String,
    depth: usize,
    /// Whether it is the state of an object, for which a module's `_parameters` doesn't become part of names.
    attributes: bool,
}

pub(crate) fn flatten(contents: &Contents) -> Result<Flat> {
    let mut flat = Flat::default();
    let too_much = || Error::format(OPERATION, "the names of what the pickle holds take far more memory than itself");
    let (mut names, mut twice) = (HashSet::new(), HashSet::new());
    // A container that is referenced several times is visited once, so that sharing and cycles don't multiply the work.
    let mut seen: HashSet<Id> = HashSet::new();
    let mut left = (1usize << 16).saturating_add(NAMES.saturating_mul(contents.nodes.nodes.len()));
    let mut stack = vec![Next { value: contents.root(), name: String::new(), depth: 0, attributes: false }];
    while let Some(Next { value, name, depth, attributes }) = stack.pop() {
        let mut skip = |name: &str, why: String| flat.skipped.push(Skipped::new(name, why));
        match value.kind() {
            Kind::Tensor => match value.tensor(&name[..]) {
                _ if !names.insert(name.clone()) => {
                    skip(&name, "the name is given twice".to_owned());
                    twice.insert(name);
                }
                Ok(tensor) => {
                    left = left.checked_sub(16 * tensor.shape().len()).ok_or_else(too_much)?;
                    flat.tensors.push(tensor);
                }
                Err(error) => skip(&name, error.to_string()),
            },
            Kind::Dict | Kind::List | Kind::Tuple | Kind::Object => {
                if !seen.insert(value.id()) {
                    // Visited before: usually an empty container or a repeated hyperparameter.
                    continue;
                }
                if depth > MOST_DEPTH || name.len() > MOST_NAME {
                    skip(&name[..name.floor_char_boundary(100)], "nested too deeply, or too long a name".to_owned());
                    continue;
                }
                if depth == 1 && !name.is_empty() && flat.metadata.len() < MOST_METADATA {
                    flat.metadata.extend(value.without_tensors().map(|text| (name.clone(), text)));
                }
                let first = stack.len();
                let mut push = |key: &str, value: Value<'_>, elide: bool, attributes: bool| {
                    let name = match (elide, &name[..]) {
                        (true, name) => name.to_owned(),
                        (false, "") => key.to_owned(),
                        (false, name) => format!("{name}.{key}"),
                    };
                    left = left.checked_sub(name.len()).ok_or_else(too_much)?;
                    let value = Value::new(contents, value.id());
                    stack.push(Next { value, name, depth: depth + 1, attributes });
                    Ok::<_, Error>(())
                };
                if let Some(object) = value.as_object() {
                    if let Some(args) = object.args().filter(|args| args.members().next().is_some()) {
                        push("args", args, false, false)?;
                    }
                    if let Some(state) = object.state() {
                        push("", state, true, true)?;
                    }
                }
                for (key, value) in value.items() {
                    let key = key.key().unwrap_or_else(|| key.to_string());
                    let module = attributes && matches!(&key[..], "_parameters" | "_buffers" | "_modules");
                    push(&key, value, module, false)?;
                }
                for (i, value) in value.members().enumerate() {
                    push(&i.to_string(), value, false, false)?;
                }
                if let Some(object) = value.as_object() {
                    flat.objects.push((name, object.global().to_owned()));
                }
                stack.get_mut(first..).unwrap_or_default().reverse();
            }
            _ if depth <= 1 && flat.metadata.len() < MOST_METADATA => {
                flat.metadata.insert(name, value.to_string());
            }
            _ => {}
        }
    }
    // Python takes the last one of a dict; which one is meant by a path isn't known.
    flat.tensors.retain(|tensor| !twice.contains(tensor.name()));
    Ok(flat)
}
