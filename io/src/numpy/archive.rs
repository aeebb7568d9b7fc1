//! `.npz` files, which are zip archives of arrays.

use std::path::Path;

use tomograd_core::{Error, ErrorKind, Result, Tensor};

use super::{OPERATION, read_array};
use crate::{blob::Source, zip::Archive};

/// An `.npz` archive; arrays are read one at a time.
///
/// ```
/// use tomograd_io::numpy::Npz;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/numpy/medmnist.npz");
/// let archive = Npz::open(path)?;
/// assert!(archive.names().contains(&"train_images"));
/// assert_eq!(archive.array("train_images")?.shape(), [4, 5, 6]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Npz {
    place: String,
    archive: Archive,
}

impl Npz {
    /// Opens the archive and reads the list of arrays.
    ///
    /// # Errors
    /// When the file can't be read or isn't a single-part zip archive.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let place = path.as_ref().display().to_string();
        let archive = Source::open(path.as_ref()).and_then(|source| Archive::open(&source));
        match archive {
            Ok(archive) => Ok(Self { place, archive }),
            Err(error) => Err(error.within(place)),
        }
    }

    /// The names of the arrays, in the order of the archive.
    pub fn names(&self) -> Vec<&str> {
        self.archive.names().map(array_name).collect()
    }

    /// Reads the array of that name.
    ///
    /// # Errors
    /// When it doesn't exist, is damaged, contradicts its header, or has an unsupported element type.
    pub fn array(&self, name: &str) -> Result<Tensor> {
        let Some(entry) = self.archive.names().find(|entry| array_name(entry) == name) else {
            return Err(Error::new(ErrorKind::Name, OPERATION, format!("no array is called {name:?}"))
                .expected(format!("one of {}", self.names().join(", ")))
                .within(&self.place));
        };
        let read = || {
            let blob = self.archive.blob(entry)?;
            let mut reader = blob.reader()?;
            let array = read_array(&mut reader, blob.size())?;
            reader.finish()?;
            Ok(array)
        };
        read().map_err(|error: Error| error.within(name).within(&self.place))
    }
}

/// The name of an entry without the extension `.npy`.
fn array_name(entry: &str) -> &str {
    entry.strip_suffix(".npy").unwrap_or(entry)
}
