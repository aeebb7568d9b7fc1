//! The public view of a value in a pickle.

use std::fmt::{self, Write};

use tomograd_core::Result;

use super::{
    Contents, StoredTensor,
    node::{self, Id, Node},
};

/// The limit of a value's one-line text in bytes.
const MOST: usize = 200;

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Python's `None`.
    None,
    /// A boolean.
    Bool,
    /// An integer of up to 64 bits.
    Int,
    /// A larger integer.
    BigInt,
    /// A floating-point number.
    Float,
    /// A string.
    Text,
    /// Bytes.
    Bytes,
    /// A list.
    List,
    /// A tuple.
    Tuple,
    /// A set.
    Set,
    /// A dict, including `OrderedDict`.
    Dict,
    /// A tensor, or a NumPy array.
    Tensor,
    /// A storage without a tensor.
    Storage,
    /// A class or function, as a name.
    Global,
    /// A call or instance of an unknown class or function.
    Object,
}

/// A value in a PyTorch file.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    contents: &'a Contents,
    id: Id,
}

/// A call or instance of an unknown class or function: its name and arguments.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    contents: &'a Contents,
    object: &'a node::Object,
}

impl<'a> Object<'a> {
    /// The name of the class or function, such as `argparse.Namespace`; empty if the callee isn't a plain name.
    pub fn global(&self) -> &'a str {
        self.contents.nodes.name(self.object.callee).map_or("", |name| name)
    }

    /// The arguments.
    pub fn args(&self) -> Option<Value<'a>> {
        self.object.args.map(|id| Value::new(self.contents, id))
    }

    /// The argument of its `__setstate__`, usually a dict of attributes.
    pub fn state(&self) -> Option<Value<'a>> {
        self.object.state.map(|id| Value::new(self.contents, id))
    }
}

impl<'a> Value<'a> {
    pub(super) fn new(contents: &'a Contents, id: Id) -> Self {
        Self { contents, id }
    }

    pub(super) fn id(&self) -> Id {
        self.id
    }

    fn node(&self) -> &'a Node {
        self.contents.nodes.get(self.id)
    }

    /// The kind of this value.
    pub fn kind(&self) -> Kind {
        match self.node() {
            Node::None => Kind::None,
            Node::Storage(_) => Kind::Storage,
            Node::Bool(_) => Kind::Bool,
            Node::Int(_) => Kind::Int,
            Node::BigInt(_) => Kind::BigInt,
            Node::Float(_) => Kind::Float,
            Node::Text(_) => Kind::Text,
            Node::Bytes(_) => Kind::Bytes,
            Node::List(_) => Kind::List,
            Node::Tuple(_) => Kind::Tuple,
            Node::Set(_) => Kind::Set,
            Node::Dict(_) => Kind::Dict,
            Node::Tensor(_) | Node::Array(_) => Kind::Tensor,
            Node::Global(_) => Kind::Global,
            Node::Object(_) => Kind::Object,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Node::Bool(value) = self.node() { Some(*value) } else { None }
    }

    /// The value of an integer that fits into 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Node::Int(value) = self.node() { Some(*value) } else { None }
    }

    /// The value of a number; integers are rounded to f64 if necessary.
    pub fn as_f64(&self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The string.
    pub fn as_text(&self) -> Option<&'a str> {
        if let Node::Text(text) = self.node() { Some(text) } else { None }
    }

    /// The bytes; for a larger integer those of its two's complement in little-endian order.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self.node() {
            Node::Bytes(bytes) => Some(bytes),
            Node::BigInt(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The name of a class or function.
    pub fn as_global(&self) -> Option<&'a str> {
        self.contents.nodes.name(self.id).map(|name| &**name)
    }

    /// The value as an object of an unknown class or function.
    pub fn as_object(&self) -> Option<Object<'a>> {
        if let Node::Object(object) = self.node() { Some(Object { contents: self.contents, object }) } else { None }
    }

    /// The members of a list, tuple or set, and the list items of an object; empty for other values.
    pub fn members(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let ids = match self.node() {
            Node::Object(object) => &object.list[..],
            _ => self.contents.nodes.ids(self.id).unwrap_or_default(),
        };
        let contents = self.contents;
        ids.iter().map(move |&id| Value { contents, id })
    }

    /// The keys and values of a dict, and the dict items of an object; empty for other values.
    pub fn items(&self) -> impl DoubleEndedIterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let items = match self.node() {
            Node::Dict(items) => &items[..],
            Node::Object(object) => &object.items[..],
            _ => &[],
        };
        let contents = self.contents;
        items.iter().map(move |&(key, value)| (Value { contents, id: key }, Value { contents, id: value }))
    }

    /// Looks up `key`: a dict key (a string, or an integer in decimal), an index of a list or tuple, or an attribute
    /// of an object.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let found = self.items().rev().find(|(name, _)| name.key().is_some_and(|name| name == key));
        found.map(|(_, value)| value).or_else(|| match self.as_object() {
            // The state is a dict, so that the recursion ends here.
            Some(object) => object.state().filter(|state| state.kind() == Kind::Dict).and_then(|state| state.get(key)),
            None => self.members().nth(key.parse().ok()?),
        })
    }

    /// Looks up several keys in sequence.
    pub fn path<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Option<Value<'a>> {
        keys.into_iter().try_fold(*self, |value, key| value.get(key))
    }

    /// The value as a part of a name.
    pub(super) fn key(&self) -> Option<String> {
        match self.node() {
            Node::Text(text) => Some(text.to_string()),
            Node::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The tensor under the name `name`; it isn't read yet.
    ///
    /// # Errors
    /// When the value isn't a tensor, or is one that can't be read.
    pub fn tensor(&self, name: impl Into<String>) -> Result<StoredTensor> {
        Ok(StoredTensor::new(name.into(), self.contents.view(self.id)?))
    }

    /// The value in one line, unless that contains a tensor.
    pub(super) fn without_tensors(&self) -> Option<String> {
        let mut short = Short { text: String::new(), most: MOST, plain: true, full: false };
        let whole = self.describe(&mut short, 0).is_ok();
        (whole || short.full).then(|| if whole { short.text } else { short.text + "…" })
    }

    fn describe(&self, out: &mut Short, depth: usize) -> fmt::Result {
        if depth > 4 {
            return out.write_str("…");
        }
        let list = |out: &mut Short, open: &str, members: &mut dyn Iterator<Item = Value<'a>>, close: &str| {
            out.write_str(open)?;
            for (i, member) in members.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                member.describe(out, depth + 1)?;
            }
            out.write_str(close)
        };
        match self.node() {
            Node::None => out.write_str("None"),
            Node::Bool(value) => out.write_str(if *value { "True" } else { "False" }),
            Node::Int(value) => write!(out, "{value}"),
            Node::BigInt(bytes) => write!(out, "an integer of {} bytes", bytes.len()),
            Node::Float(value) => write!(out, "{value}"),
            Node::Text(text) if depth == 0 => out.write_str(text),
            Node::Text(text) => write!(out, "'{text}'"),
            Node::Bytes(bytes) => write!(out, "{} bytes", bytes.len()),
            Node::List(_) => list(out, "[", &mut self.members(), "]"),
            Node::Tuple(_) => list(out, "(", &mut self.members(), ")"),
            Node::Set(_) => list(out, "{", &mut self.members(), "}"),
            Node::Dict(items) => {
                out.write_str("{")?;
                for (i, (key, value)) in items.iter().enumerate() {
                    out.write_str(if i > 0 { ", " } else { "" })?;
                    Value::new(self.contents, *key).describe(out, depth + 1)?;
                    out.write_str(": ")?;
                    Value::new(self.contents, *value).describe(out, depth + 1)?;
                }
                out.write_str("}")
            }
            Node::Global(name) => write!(out, "<{name}>"),
            Node::Object(object) => {
                write!(out, "<{}>", self.contents.nodes.name(object.callee).map_or("object", |name| name))?;
                object.args.map_or(Ok(()), |args| Value::new(self.contents, args).describe(out, depth + 1))?;
                object.state.map_or(Ok(()), |state| Value::new(self.contents, state).describe(out, depth + 1))
            }
            Node::Storage(storage) => write!(out, "storage {}", storage.key),
            Node::Tensor(_) | Node::Array(_) if out.plain => Err(fmt::Error),
            Node::Tensor(tensor) => write!(out, "a tensor of {} {:?}", tensor.stored, tensor.shape),
            Node::Array(array) => write!(out, "an array of {} {:?}", array.stored, array.shape),
        }
    }
}

/// Text of limited length; an attempt to exceed the limit is an error, which stops the formatting.
struct Short {
    text: String,
    most: usize,
    /// Whether a tensor is an error too.
    plain: bool,
    /// Whether the limit was reached.
    full: bool,
}

impl Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            if self.text.len() + character.len_utf8() > self.most {
                self.full = true;
                return Err(fmt::Error);
            }
            self.text.push(if character.is_control() { ' ' } else { character });
        }
        Ok(())
    }
}

impl fmt::Display for Value<'_> {
    /// One line of at most about 200 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut short = Short { text: String::new(), most: MOST, plain: false, full: false };
        let whole = self.describe(&mut short, 0).is_ok();
        f.write_str(&short.text)?;
        if whole { Ok(()) } else { f.write_str("…") }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {self}", self.kind())
    }
}
