//! Tensors that lie in a file until they are read, whatever the format.

mod dtype;
mod view;

use tomograd_core::{DType, Result, Tensor};

pub use dtype::StoredDType;
pub(crate) use view::View;

/// Bytes of a reason that are kept.
const MOST_WHY: usize = 300;

/// A tensor that lies in a file until it is read.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    name: String,
    view: View,
}

impl StoredTensor {
    pub(crate) fn new(name: String, view: View) -> Self {
        Self { name, view }
    }

    /// Its name.
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

    /// The type of the elements in the file.
    pub fn stored(&self) -> StoredDType {
        self.view.stored
    }

    /// The dtype that [`read`](Self::read) gives: the type of the elements in the file, or the next that holds them all.
    pub fn dtype(&self) -> DType {
        self.view.stored.dtype().unwrap_or(DType::F32)
    }

    /// Reads it from the file, into the host's memory. Where all of an entry of an archive is read, its checksum is compared.
    ///
    /// # Errors
    /// When the file can't be read or is damaged, an element is beyond the dtype, or memory runs out.
    pub fn read(&self) -> Result<Tensor> {
        self.view.read().map_err(|error| error.within(self.name.clone()))
    }
}

/// A tensor of a file that can't be read.
#[derive(Debug, Clone)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Skipped {
    pub(crate) fn new(name: &str, why: impl Into<String>) -> Self {
        let mut why = why.into();
        why.truncate(why.floor_char_boundary(MOST_WHY));
        Self { name: name.to_owned(), why }
    }
}
