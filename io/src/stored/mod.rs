//! Tensors that lie in a file until they are read, whatever the format.

mod dtype;
mod view;

use tomograd_core::{DType, Result, Tensor};

pub use dtype::StoredDType;
pub(crate) use view::View;

/// The maximum length of a reason in bytes.
const MOST_WHY: usize = 300;

/// A tensor in a file, not read yet.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    name: String,
    view: View,
}

impl StoredTensor {
    pub(crate) fn new(name: String, view: View) -> Self {
        Self { name, view }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.view.shape
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.view.shape.iter().product()
    }

    /// The element type in the file.
    pub fn stored(&self) -> StoredDType {
        self.view.stored
    }

    /// The dtype that [`read`](Self::read) returns: the element type of the file, or the next type that holds all its values.
    pub fn dtype(&self) -> DType {
        self.view.stored.dtype().unwrap_or(DType::F32)
    }

    /// Reads the tensor into host memory. If it is a whole entry of an archive, its checksum is verified.
    ///
    /// # Errors
    /// When the file can't be read or is damaged, a value is out of the range of the dtype, or memory runs out.
    pub fn read(&self) -> Result<Tensor> {
        self.view.read().map_err(|error| error.within(self.name.clone()))
    }
}

/// A tensor of a file that can't be read.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// The name.
    pub name: String,
    /// The reason.
    pub why: String,
}

impl Skipped {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        let mut why = why.into();
        why.truncate(why.floor_char_boundary(MOST_WHY));
        why.shrink_to_fit();
        Self { name: name.to_owned(), why }
    }
}
