//! The values of a pickle as nodes that refer to each other by index. Sharing and cycles are preserved, and nothing is
//! recursive, so that the cost of depth and repetition is limited by the length of the pickle.

use std::sync::Arc;

use crate::{blob::Blob, stored::StoredDType};

/// The index of a node.
pub(crate) type Id = u32;

#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian.
    BigInt(Box<[u8]>),
    Float(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, as a name only.
    Global(Arc<str>),
    Object(Box<Object>),
    Storage(Box<Storage>),
    Tensor(Box<Tensor>),
    Array(Box<Array>),
}

/// A call or instance of an unknown class or function, which isn't executed.
#[derive(Debug)]
pub(crate) struct Object {
    /// The class or function.
    pub(crate) callee: Id,
    pub(crate) args: Option<Id>,
    pub(crate) state: Option<Id>,
    pub(crate) items: Vec<(Id, Id)>,
    pub(crate) list: Vec<Id>,
}

/// A storage of tensors, in an entry of the file.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) key: Arc<str>,
    /// `None` for an untyped storage.
    pub(crate) stored: Option<StoredDType>,
    /// Its offset in the entry, in elements.
    pub(crate) base: u64,
}

/// A tensor: a view of a storage.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) storage: Id,
    pub(crate) stored: StoredDType,
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    pub(crate) strides: Vec<u64>,
    /// The reason why it can't be read, if it can't although its location is known.
    pub(crate) unreadable: Option<&'static str>,
}

/// A NumPy array, whose elements are in the pickle.
#[derive(Debug)]
pub(crate) struct Array {
    pub(crate) stored: StoredDType,
    pub(crate) big_endian: bool,
    pub(crate) shape: Vec<usize>,
    /// Whether it is in Fortran order.
    pub(crate) fortran: bool,
    pub(crate) blob: Blob,
}
