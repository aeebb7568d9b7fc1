//! PyTorch files (`torch.save`): `.pth`, `.pt`, `.bin`, `.ckpt`. These are pickles, which can request a call of any function;
//! here a pickle is only read as data. Tensors, numbers, strings, bytes, lists, tuples, sets, dicts, and NumPy arrays and
//! scalars become values; any other class or function stays a name with its arguments, and is never resolved or called
//! ([`Contents::strict`] rejects files that contain any).
//!
//! Both containers are supported: zip archives (PyTorch 1.6 and later, including TorchScript) and the older format. The tar
//! archives of PyTorch before 0.1.10 are rejected.
//!
//! ```
//! # let checkpoint = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pytorch/nnunet.pth");
//! let contents = tomograd_io::pytorch::load(checkpoint)?;
//! assert!(contents.root().get("current_epoch").and_then(|epoch| epoch.as_i64()).is_some());
//! for tensor in contents.tensors()? {
//!     println!("{} {} {:?}", tensor.name(), tensor.stored(), tensor.shape());
//! }
//! # Ok::<(), tomograd_core::Error>(())
//! ```

mod flatten;
mod input;
mod legacy;
mod machine;
mod node;
mod reduce;
#[cfg(test)]
mod tests;
mod value;

use std::{collections::HashMap, path::Path, sync::Arc};

use tomograd_core::{Error, Result};
pub use value::{Kind, Object, Value};

pub(crate) use self::flatten::Flat;
use self::{
    input::Input,
    machine::Nodes,
    node::{Id, Node},
};
use crate::{
    blob::{Blob, Source},
    stored::{StoredDType, StoredTensor, View},
    zip::{self, Archive},
};

const OPERATION: &str = "pytorch";
/// Limit of the size of a compressed pickle: a multiple of its compressed size, and bytes that are always allowed.
const MOST_RATIO: u64 = 16;
const MOST_FREE: u64 = 1 << 16;

/// The contents of a PyTorch file. Tensors are read on request.
#[derive(Debug)]
pub struct Contents {
    nodes: Nodes,
    root: Id,
    storages: Storages,
    big_endian: bool,
}

/// The location of tensor data.
enum Storages {
    Archive { archive: Archive, folder: String },
    Places(HashMap<String, Blob>),
}

impl std::fmt::Debug for Storages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Archive { .. } => "a zip archive",
            Self::Places(_) => "the container before PyTorch 1.6",
        })
    }
}

/// Opens a file written by `torch.save`. The structure is read, but not the elements of tensors.
///
/// ```
/// use tomograd_io::pytorch;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pytorch/nnunet.pth");
/// let contents = pytorch::load(path)?;
/// let weight = &contents.tensors()?[0];
/// assert_eq!((weight.name(), weight.shape()), ("network_weights.0.weight", &[2, 1, 3, 3][..]));
/// let values = weight.read()?.to_vec::<f32>()?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the file can't be read or is malformed.
pub fn load(path: impl AsRef<Path>) -> Result<Contents> {
    let path = path.as_ref();
    open(&Source::open(path)?).map_err(|error| error.within(path.display().to_string()))
}

/// As [`load`], from bytes in memory.
///
/// ```
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pytorch/nnunet.pth");
/// let bytes = std::fs::read(path).unwrap(); // a download, an entry of an archive
/// let contents = tomograd_io::pytorch::from_bytes(bytes)?;
/// assert!(contents.root().get("network_weights").is_some());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// As [`load`].
pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Contents> {
    open(&Arc::new(Source::of(bytes)))
}

/// Fails if a pickle names classes or functions.
pub(crate) fn plain_data(globals: &[impl AsRef<str>]) -> Result<()> {
    if globals.is_empty() {
        return Ok(());
    }
    let first: Vec<&str> = globals.iter().take(5).map(AsRef::as_ref).collect();
    let more = globals.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::format(OPERATION, format!("the pickle names {}{more}", first.join(", ")))
        .expected("tensors and plain data alone"))
}

/// Whether these are the first bytes of a PyTorch file.
pub(crate) fn begins(first: &[u8]) -> bool {
    first.starts_with(&zip::MAGIC) || legacy::begins(first) || is_tar(first)
}

fn is_tar(first: &[u8]) -> bool {
    first.get(257..262) == Some(b"ustar")
}

pub(crate) fn open(source: &Arc<Source>) -> Result<Contents> {
    let mut nodes = Nodes::default();
    let first = source.bytes(0, source.length().min(512))?;
    if !first.starts_with(&zip::MAGIC) {
        if is_tar(&first) {
            return Err(Error::format(OPERATION, "a tar archive, as PyTorch before 0.1.10 wrote them")
                .expected("a file written anew by torch.save of a later version"));
        }
        if !legacy::begins(&first) {
            return Err(Error::format(OPERATION, "neither a zip archive nor a pickle").expected("a file of torch.save"));
        }
        let (root, blobs) = legacy::open(source, &mut nodes)?;
        return Ok(Contents { nodes, root, storages: Storages::Places(blobs), big_endian: false });
    }
    let archive = Archive::open(source)?;
    // If there are several, the outermost one.
    let folders = archive.names().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = folders.filter(|folder| folder.matches('/').count() <= 1).min_by_key(|folder| folder.len());
    let folder = folder
        .map(str::to_owned)
        .ok_or_else(|| Error::format(OPERATION, "the archive has no data.pkl").expected("an archive of torch.save"))?;
    let pickle = archive.blob(&format!("{folder}data.pkl"))?;
    let most = MOST_FREE + MOST_RATIO.saturating_mul(pickle.length);
    if pickle.deflated.is_some_and(|size| size > most) {
        return Err(Error::format(OPERATION, format!("a compressed pickle of {} bytes", pickle.size()))
            .expected(format!("at most {most}")));
    }
    let pickle = pickle.bytes().map_err(|error| error.within("data.pkl"))?;
    let length = pickle.len() as u64;
    let root = machine::read(&mut Input::new(Arc::new(Source::of(pickle)), 0, length), &mut nodes)?;
    let order = format!("{folder}byteorder");
    let big_endian = archive.names().any(|name| name == order) && {
        let order = archive.blob(&order)?;
        let order = if order.size() <= 6 { order.bytes()? } else { Vec::new() };
        match &order[..] {
            b"big" => true,
            b"little" => false,
            _ => return Err(Error::format(OPERATION, "an unknown byte order").expected("little or big")),
        }
    };
    Ok(Contents { nodes, root, storages: Storages::Archive { archive, folder }, big_endian })
}

impl Contents {
    /// The saved object.
    pub fn root(&self) -> Value<'_> {
        Value::new(self, self.root)
    }

    /// All tensors and NumPy arrays, named by their path: dict keys, list indices and object attributes, joined by `.`
    /// (`state_dict.conv.weight`). A module that was saved as a whole gets the names of its state dict. Unreadable tensors
    /// (complex and quantised numbers, storages that aren't in the file) are left out; [`Weights`](crate::Weights) lists
    /// them.
    ///
    /// # Errors
    /// When the names would take far more memory than the file.
    pub fn tensors(&self) -> Result<Vec<StoredTensor>> {
        Ok(self.flat()?.tensors)
    }

    /// Names of the classes and functions in the file that aren't known as plain data, sorted.
    pub fn globals(&self) -> impl Iterator<Item = &str> {
        self.nodes.globals.iter().map(|name| &**name).filter(|name| !reduce::is_known(name))
    }

    /// Returns the contents if all classes and functions in the file are known as plain data.
    ///
    /// # Errors
    /// Otherwise; the error has the first name.
    pub fn strict(self) -> Result<Self> {
        plain_data(&self.globals().collect::<Vec<_>>())?;
        Ok(self)
    }

    pub(crate) fn flat(&self) -> Result<Flat> {
        flatten::flatten(self)
    }

    /// The location of a tensor's elements.
    fn view(&self, id: Id) -> Result<View> {
        match self.nodes.get(id) {
            Node::Tensor(tensor) => {
                let Node::Storage(storage) = self.nodes.get(tensor.storage) else {
                    return Err(Error::format(OPERATION, "a tensor without a storage"));
                };
                if let Some(why) = tensor.unreadable {
                    return Err(Error::format(OPERATION, why));
                }
                let blob = match &self.storages {
                    Storages::Archive { archive, folder } => {
                        let old = format!("{folder}data/{}", storage.key);
                        archive.blob(&old)?
                    }
                    Storages::Places(places) => places.get(&*storage.key).cloned().ok_or_else(|| {
                        Error::format(OPERATION, format!("storage {} isn't in the file", storage.key))
                    })?,
                };
                checked(View {
                    blob,
                    stored: tensor.stored,
                    big_endian: self.big_endian,
                    offset: tensor.offset,
                    shape: tensor.shape.clone(),
                    strides: tensor.strides.clone(),
                })
            }
            Node::Array(array) => checked(View {
                blob: array.blob.clone(),
                stored: array.stored,
                big_endian: array.big_endian,
                offset: 0,
                shape: array.shape.clone(),
                strides: strides(&array.shape, array.fortran),
            }),
            _ => Err(Error::format(OPERATION, "this value is no tensor")),
        }
    }
}

/// Checks that a view is readable and inside its storage.
fn checked(view: View) -> Result<View> {
    view.check()?;
    if view.stored.dtype().is_none() {
        let what = if matches!(view.stored, StoredDType::QI8 | StoredDType::QU8 | StoredDType::QI32) {
            "a quantised tensor, of"
        } else {
            "elements of the type"
        };
        return Err(
            Error::format(OPERATION, format!("{what} {}", view.stored)).expected("a type that a tensor can hold")
        );
    }
    Ok(view)
}

/// Contiguous strides, in row-major or Fortran order.
fn strides(shape: &[usize], fortran: bool) -> Vec<u64> {
    let mut strides = vec![1u64; shape.len()];
    let mut stride = 1u64;
    let mut set = |(to, &size): (&mut u64, &usize)| {
        *to = stride;
        stride = stride.saturating_mul(size.max(1) as u64);
    };
    let axes = strides.iter_mut().zip(shape);
    if fortran {
        axes.for_each(&mut set)
    } else {
        axes.rev().for_each(&mut set)
    }
    strides
}
