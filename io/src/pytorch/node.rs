//! What a pickle describes, as nodes that name one another by number: sharing and cycles stay as they are, and nothing
//! is recursive, so that neither depth nor repetition costs more than the pickle's own length.

use std::sync::Arc;

use crate::{blob::Blob, stored::StoredDType};

/// The number of a node.
pub(crate) type Id = u32;

#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, the least byte first.
    BigInt(Box<[u8]>),
    Float(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name, which is only a name here.
    Global(Arc<str>),
    Object(Box<Object>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    Array(Box<Array>),
}

/// What a pickle wants made by a class or function that isn't known.
#[derive(Debug)]
pub(crate) struct Object {
    /// The class or function.
    pub(crate) callee: Id,
    pub(crate) args: Option<Id>,
    pub(crate) state: Option<Id>,
    pub(crate) items: Vec<(Id, Id)>,
    pub(crate) list: Vec<Id>,
}

/// The memory of tensors, in an entry of the file.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) key: Arc<str>,
    /// None for bytes without a type.
    pub(crate) stored: Option<StoredDType>,
    /// Where it begins in the entry, in elements.
    pub(crate) base: u64,
}

/// A tensor of a storage.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) storage: Id,
    pub(crate) stored: StoredDType,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
    /// Why it can't be read although its place is known.
    pub(crate) unreadable: Option<&'static str>,
}

/// A NumPy array, whose elements stand in the pickle.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) stored: StoredDType,
    pub(crate) big_endian: bool,
    pub(crate) shape: Vec<usize>,
    /// Whether the first axis is the fastest.
    pub(crate) fortran: bool,
    pub(crate) blob: Blob,
}
