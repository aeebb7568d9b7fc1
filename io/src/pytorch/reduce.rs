//! Calls of the few Python, NumPy and PyTorch functions that are known and give values. All others stay names with arguments.

use std::sync::Arc;

use tomograd_core::{Error, Result};

use super::{
    OPERATION,
    machine::{Machine, Nodes},
    node::{Array, Id, Node, Storage, Tensor},
};
use crate::{
    blob::{Blob, Source},
    stored::StoredDType,
};

/// Limit of the number of axes (NumPy's limit).
const MOST_AXES: usize = 64;

/// Limit of the length of a storage's key.
const MOST_KEY: usize = 256;

/// Names that strict mode accepts: functions that give values, and plain data of PyTorch and NumPy.
#[rustfmt::skip]
const KNOWN: [&str; 33] = [
    "collections.OrderedDict", "collections.defaultdict", "_codecs.encode",
    "builtins.set", "builtins.frozenset", "builtins.bytes", "builtins.bytearray", "builtins.complex",
    "builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str",
    "torch.Size", "torch.device", "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
    "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch._utils._rebuild_qtensor",
    "torch._tensor._rebuild_from_type_v2", "torch.storage.UntypedStorage", "torch.UntypedStorage",
    "numpy.core.multiarray._reconstruct", "numpy.core.multiarray.scalar", "numpy.core.numeric._frombuffer",
    "numpy.ndarray", "numpy.dtype", "numpy.dtypes",
];

/// A name in its current spelling, independent of the version of Python or NumPy.
fn modern(name: &str) -> String {
    match name.split_once('.') {
        Some(("__builtin__", rest)) => format!("builtins.{rest}"),
        Some(("numpy", rest)) if rest.starts_with("_core.") => format!("numpy.{}", rest.replacen("_core", "core", 1)),
        _ => name.to_owned(),
    }
}

/// Whether a name is known as plain data, so that nothing is lost if it isn't resolved.
pub(super) fn is_known(name: &str) -> bool {
    let name = modern(name);
    let torch = name.strip_prefix("torch.").unwrap_or_default();
    KNOWN.contains(&&name[..])
        || StoredDType::of_torch(torch).is_some()
        || StoredDType::of_torch_storage(torch).is_some()
        || (torch.starts_with("per_") || name.starts_with("numpy.dtypes."))
}

impl Nodes {
    /// The name of a class or function.
    pub(super) fn name(&self, id: Id) -> Option<&Arc<str>> {
        match self.get(id) {
            Node::Global(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn ids(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::Tuple(ids) => Some(ids),
            Node::List(ids) | Node::Set(ids) => Some(ids),
            _ => None,
        }
    }

    pub(super) fn text(&self, id: Id) -> Option<&Arc<str>> {
        match self.get(id) {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<u64> {
        match self.get(id) {
            Node::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<u64>> {
        self.ids(id).filter(|ids| ids.len() <= MOST_AXES)?.iter().map(|&id| self.size(id)).collect()
    }

    /// The arguments of `numpy.dtype` as a type and whether it is big-endian.
    fn numpy_dtype(&self, id: Id) -> Option<(StoredDType, bool)> {
        let Node::Object(object) = self.get(id) else { return None };
        self.name(object.callee).filter(|name| &***name == "numpy.dtype")?;
        let code = self.text(*self.ids(object.args?)?.first()?)?;
        let order = object.state.and_then(|state| self.text(*self.ids(state)?.get(1)?));
        let (order, code) = match code.strip_prefix(['<', '|', '=']).map_or_else(|| code.strip_prefix('>'), |_| None) {
            Some(code) => (true, code),
            None => (order.is_some_and(|order| &**order == ">"), code.trim_start_matches(['<', '|', '='])),
        };
        StoredDType::of_numpy(if code == "?" { "b1" } else { code }).map(|stored| (stored, order))
    }

    fn raw(&self, id: Id) -> Option<Arc<[u8]>> {
        match self.get(id) {
            Node::Bytes(bytes) => Some(bytes.clone()),
            // A Python 2 string.
            Node::Text(text) => Some(text.as_bytes().into()),
            _ => None,
        }
    }

    /// An array with the elements `raw`; `None` if it isn't numeric.
    fn array(&self, raw: Id, dtype: Id, shape: Id, fortran: bool) -> Option<Result<Node>> {
        let (stored, big_endian) = self.numpy_dtype(dtype)?;
        let shape = self.sizes(shape)?;
        let bytes = self.raw(raw)?;
        let count = shape.iter().try_fold(stored.bytes()? as u64, |count, &size| count.checked_mul(size));
        if count != Some(bytes.len() as u64) {
            return Some(Err(Error::format(OPERATION, format!("a NumPy array of shape {shape:?}, of {stored}"))
                .expected(format!("one of {} bytes", bytes.len()))));
        }
        let length = bytes.len() as u64;
        let blob = Blob::new(Arc::new(Source::of(bytes)), 0, length);
        let shape = shape.iter().map(|&size| size as usize).collect();
        Some(Ok(Node::Array(Box::new(Array { stored, big_endian, shape, fortran, blob }))))
    }

    /// A NumPy scalar as a Python number.
    fn scalar(&self, dtype: Id, raw: Id) -> Option<Node> {
        let (stored, big_endian) = self.numpy_dtype(dtype)?;
        let mut bytes = self.raw(raw)?.to_vec();
        if big_endian {
            bytes.reverse();
        }
        fn int<const N: usize>(bytes: &[u8], value: fn([u8; N]) -> i64) -> Option<Node> {
            Some(Node::Int(value(bytes.try_into().ok()?)))
        }
        match stored {
            StoredDType::F64 => Some(Node::Float(f64::from_le_bytes(bytes.try_into().ok()?))),
            StoredDType::F32 => Some(Node::Float(f32::from_le_bytes(bytes.try_into().ok()?).into())),
            StoredDType::F16 => Some(Node::Float(half::f16::from_le_bytes(bytes.try_into().ok()?).into())),
            StoredDType::I64 => int(&bytes, i64::from_le_bytes),
            StoredDType::I32 => int(&bytes, |x| i32::from_le_bytes(x).into()),
            StoredDType::I16 => int(&bytes, |x| i16::from_le_bytes(x).into()),
            StoredDType::I8 => int(&bytes, |x| i8::from_le_bytes(x).into()),
            StoredDType::U64 => {
                let number = u64::from_le_bytes(bytes.clone().try_into().ok()?);
                Some(i64::try_from(number).map_or_else(|_| Node::BigInt([&bytes[..], &[0]].concat().into()), Node::Int))
            }
            StoredDType::U32 => int(&bytes, |x| u32::from_le_bytes(x).into()),
            StoredDType::U16 => int(&bytes, |x| u16::from_le_bytes(x).into()),
            StoredDType::U8 => int(&bytes, |[x]: [u8; 1]| x.into()),
            StoredDType::Bool => Some(Node::Bool(*bytes.first()? != 0)),
            _ => None,
        }
    }
}

impl Machine<'_> {
    /// The result of `callee(*args)`: a value if the function and the form of its arguments are known, else an object with
    /// both.
    pub(super) fn reduce(&mut self, callee: Id, args: Id) -> Result<Id> {
        match self.known(callee, args)? {
            Some(made) => Ok(made),
            None => self.object(callee, Some(args)),
        }
    }

    /// `callee.__new__(callee, *args)`.
    pub(super) fn new_object(&mut self, callee: Id, args: Id) -> Result<Id> {
        let ordered = self.all.name(callee).is_some_and(|name| &**name == "collections.OrderedDict");
        if ordered { self.make(Node::Dict(Vec::new())) } else { self.object(callee, Some(args)) }
    }

    fn known(&mut self, callee: Id, args: Id) -> Result<Option<Id>> {
        // Name and arguments may come from the memo; reading them again and again is charged like memory.
        let ids = self.all.ids(args).unwrap_or_default();
        let work = self.all.name(callee).map_or(0, |name| name.len());
        let work = ids.iter().take(8).fold(work, |work, &id| work.saturating_add(cost(self.node(id))));
        self.charge(work)?;
        let (Some(name), Some(ids)) = (self.all.name(callee), self.all.ids(args)) else { return Ok(None) };
        let (name, count) = (modern(name), ids.len());
        let arg = |at: usize| ids.get(at).copied();
        let first = arg(0);
        let node = match &name[..] {
            "collections.OrderedDict" if count == 0 => Some(Node::Dict(Vec::new())),
            "collections.OrderedDict" => {
                let pairs = first.and_then(|list| self.all.ids(list)).map(|pairs| {
                    pairs.iter().map(|&pair| match self.all.ids(pair) {
                        Some(&[key, value]) => Some((key, value)),
                        _ => None,
                    })
                });
                pairs.and_then(Iterator::collect).map(Node::Dict)
            }
            "builtins.set" | "builtins.frozenset" if count == 0 => Some(Node::Set(Vec::new())),
            "builtins.set" | "builtins.frozenset" => {
                first.and_then(|list| self.all.ids(list)).map(|ids| Node::Set(ids.to_vec()))
            }
            "builtins.bytes" | "builtins.bytearray" if count == 0 => Some(Node::Bytes(Arc::new([]))),
            "builtins.bytearray" if count == 1 => {
                return Ok(first.filter(|&id| matches!(self.node(id), Node::Bytes(_))));
            }
            "_codecs.encode" | "builtins.bytearray" => self.latin_1(first, arg(1)),
            "torch.Size" if count == 1 => return Ok(first.filter(|&id| self.all.ids(id).is_some())),
            "torch.device" => {
                let kind = first.and_then(|id| self.all.text(id));
                match (kind, arg(1).and_then(|id| self.all.size(id))) {
                    (Some(kind), Some(index)) => Some(Node::Text(format!("{kind}:{index}").into())),
                    (Some(kind), None) => Some(Node::Text(kind.clone())),
                    _ => None,
                }
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                return Ok(first.filter(|&id| matches!(self.node(id), Node::Tensor(_))));
            }
            "torch._tensor._rebuild_from_type_v2" => match (first, arg(2)) {
                // A tensor subclass: its wrapped tensor. Nested wrappers stay objects.
                (Some(rebuild), Some(args)) if Some(rebuild) != Some(callee) => {
                    let inner = self.all.name(rebuild).is_some_and(|name| name.starts_with("torch._utils._rebuild_"));
                    return if inner { self.known(rebuild, args) } else { Ok(None) };
                }
                _ => None,
            },
            "torch._utils._rebuild_tensor"
            | "torch._utils._rebuild_tensor_v2"
            | "torch._utils._rebuild_tensor_v3"
            | "torch._utils._rebuild_qtensor" => self.tensor(&name, ids),
            "numpy.core.multiarray.scalar" => arg(1).zip(first).and_then(|(raw, dtype)| self.all.scalar(dtype, raw)),
            "numpy.core.numeric._frombuffer" => match *ids {
                [raw, dtype, shape, order] => {
                    let fortran = self.all.text(order).is_some_and(|order| &**order == "F");
                    self.all.array(raw, dtype, shape, fortran).transpose()?
                }
                _ => None,
            },
            _ => None,
        };
        let Some(node) = node else { return Ok(None) };
        self.charge(cost(&node))?;
        self.make(node).map(Some)
    }

    /// The bytes of a string that protocols before 3 use for bytes.
    fn latin_1(&self, text: Option<Id>, encoding: Option<Id>) -> Option<Node> {
        let encoding = self.all.text(encoding?)?;
        let text = self.all.text(text?)?;
        let latin = matches!(&**encoding, "latin1" | "latin-1");
        let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        bytes.filter(|_| latin).map(|bytes| Node::Bytes(bytes.into()))
    }

    /// `_rebuild_tensor…(storage, offset, sizes, strides, requires_grad, hooks, …)`.
    fn tensor(&self, name: &str, args: &[Id]) -> Option<Node> {
        let &[storage, offset, sizes, strides, ..] = args else { return None };
        let Node::Storage(place) = self.node(storage) else { return None };
        // Version 3 has the dtype as an argument, since its storage is untyped.
        let (named, more) = if name.ends_with("v3") {
            let dtype = self.all.name(*args.get(6)?)?;
            // An unknown dtype isn't U8: the tensor is skipped.
            (Some(StoredDType::of_torch(dtype.strip_prefix("torch.")?).unwrap_or(StoredDType::Unknown)), 7)
        } else {
            (None, 6)
        };
        let stored = named.or(place.stored).unwrap_or(StoredDType::U8);
        let (sizes, strides) = (self.all.sizes(sizes)?, self.all.sizes(strides)?);
        // Flags of tensors that represent negated or conjugated values.
        let negated = args.get(more).is_some_and(|&about| match self.node(about) {
            Node::Dict(items) => items.iter().any(|&(key, value)| {
                self.all.text(key).is_some_and(|key| &**key == "neg") && matches!(self.node(value), Node::Bool(true))
            }),
            _ => false,
        });
        (sizes.len() == strides.len())
            .then(|| {
                Node::Tensor(Box::new(Tensor {
                    storage,
                    stored,
                    offset: 0,
                    shape: sizes.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect(),
                    strides,
                    unreadable: negated.then_some("its elements are kept negated"),
                }))
            })
            .and_then(|node| match (node, self.all.size(offset)) {
                (Node::Tensor(mut tensor), Some(offset)) => {
                    tensor.offset = offset.saturating_add(place.base);
                    Some(Node::Tensor(tensor))
                }
                _ => None,
            })
    }

    /// Completes the array that `_reconstruct` created with `state`: (version, shape, dtype, Fortran order, bytes).
    pub(super) fn built_array(&mut self, target: Id, state: Id) -> Result<Option<Node>> {
        let Node::Object(object) = self.node(target) else { return Ok(None) };
        let begun =
            self.all.name(object.callee).is_some_and(|name| modern(name) == "numpy.core.multiarray._reconstruct");
        let (true, Some(&[_, shape, dtype, fortran, raw])) = (begun, self.all.ids(state)) else { return Ok(None) };
        let fortran = matches!(self.node(fortran), Node::Bool(true));
        let array = self.all.array(raw, dtype, shape, fortran).transpose()?;
        array.iter().try_for_each(|node| self.charge(cost(node)))?;
        Ok(array)
    }

    /// Resolves a persistent id: `("storage", class, key, location, elements[, view])`, or in old files
    /// `("module", class, file, source)`, which stands for its class.
    pub(super) fn persistent(&mut self, id: Id) -> Result<Id> {
        let wrong = || Error::format(OPERATION, "a persistent id that names no storage").expected("one of torch.save");
        let ids = self.all.ids(id).ok_or_else(wrong)?;
        let kind = ids.first().and_then(|&id| self.all.text(id)).ok_or_else(wrong)?;
        match (&**kind, ids) {
            ("module", &[_, class, ..]) => Ok(class),
            ("storage", &[_, class, key, _, _, ref view @ ..]) => {
                let class = self.all.name(class).ok_or_else(wrong)?;
                let name = class.rsplit('.').next().unwrap_or_default();
                let stored = StoredDType::of_torch_storage(name);
                if stored.is_none() && !name.starts_with("Untyped") {
                    let what = format!("a storage of the class {class:.100}");
                    return Err(Error::format(OPERATION, what).expected("a class of PyTorch's storages"));
                }
                let key = match self.node(key) {
                    Node::Text(key) => key.clone(),
                    Node::Int(key) => key.to_string().into(),
                    _ => return Err(wrong()),
                };
                if key.len() > MOST_KEY {
                    return Err(wrong());
                }
                // A view of another storage: (view key, offset, elements).
                let base = match view.first().map(|&view| (self.node(view), self.all.ids(view))) {
                    None | Some((Node::None, _)) => 0,
                    Some((_, Some(&[_, offset, _]))) => self.all.size(offset).ok_or_else(wrong)?,
                    Some(_) => return Err(wrong()),
                };
                self.charge(size_of::<Storage>())?;
                self.make(Node::Storage(Box::new(Storage { key, stored, base })))
            }
            _ => Err(wrong()),
        }
    }
}

/// The memory of a node besides the node itself.
fn cost(node: &Node) -> usize {
    match node {
        Node::Dict(items) => size_of_val(&items[..]),
        Node::Set(ids) | Node::List(ids) => size_of_val(&ids[..]),
        Node::Tuple(ids) => size_of_val(&ids[..]),
        Node::Text(text) => text.len(),
        Node::Bytes(bytes) => bytes.len(),
        Node::Tensor(tensor) => size_of::<Tensor>() + 16 * tensor.shape.len(),
        // The elements mostly share the pickle's bytes, but those of a Python 2 string are a copy.
        Node::Array(array) => size_of::<Array>() + 8 * array.shape.len() + array.blob.length as usize,
        _ => 0,
    }
}
