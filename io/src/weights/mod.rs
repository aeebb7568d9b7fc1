//! Named tensors of a weights file in any supported format.

mod index;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use tomograd_core::{Error, ErrorKind, Result};

use crate::{
    blob::Source,
    pytorch, safetensors,
    stored::{Skipped, StoredTensor},
};

const OPERATION: &str = "weights";

/// The named tensors of a file: `.safetensors`, the index of sharded weights (`model.safetensors.index.json`,
/// `pytorch_model.bin.index.json`), and files of `torch.save` (`.pth`, `.pt`, `.bin`, `.ckpt`). The format is detected from
/// the content, not the name. Tensors are read on request.
///
/// ```
/// use std::collections::BTreeMap;
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::{Weights, safetensors};
/// # let path = std::env::temp_dir().join(format!("tomograd-weights-doc-{}.safetensors", std::process::id()));
/// let bias = Tensor::ones(&[3], DType::F32, Device::Cpu)?;
/// safetensors::save(&path, &[("conv.bias".to_owned(), bias)], &BTreeMap::new())?;
/// let weights = Weights::open(&path)?;
/// assert_eq!(weights.tensors()[0].name(), "conv.bias");
/// assert_eq!(weights.get("conv.bias")?.read()?.to_vec::<f32>()?, [1.0; 3]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Weights {
    tensors: Vec<StoredTensor>,
    by_name: HashMap<String, usize>,
    skipped: Vec<Skipped>,
    metadata: BTreeMap<String, String>,
    objects: Vec<(String, String)>,
    globals: Vec<String>,
}

impl Weights {
    /// Opens a file. Names and offsets are read, but not the elements.
    ///
    /// # Errors
    /// When the file can't be read, has another format, or is malformed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let source = Source::open(path)?;
        let first = source.bytes(0, source.length().min(512))?;
        // The length of a safetensors header may begin like JSON, but ends with zeros, which JSON doesn't have.
        let index = first.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') && !first.contains(&0);
        let weights = if index { index::open(&source, path) } else { Self::of(&source, &first) };
        weights.map_err(|error| error.within(path.display().to_string()))
    }

    /// The tensors of one file.
    fn of(source: &Arc<Source>, first: &[u8]) -> Result<Self> {
        let opens = first.get(8..).and_then(|rest| rest.iter().find(|byte| !byte.is_ascii_whitespace()));
        // Before pickles: a header of 640 bytes begins like one.
        let safe = first.get(4..8) == Some(&[0; 4]) && opens == Some(&b'{');
        if !safe && pytorch::begins(first) {
            let contents = pytorch::open(source)?;
            let globals = contents.globals().map(str::to_owned).collect();
            let pytorch::Flat { tensors, skipped, metadata, objects } = contents.flat()?;
            return Ok(Self { skipped, metadata, objects, globals, ..Self::named(tensors) });
        }
        if opens != Some(&b'{') {
            return Err(Error::format(OPERATION, "a file of another format")
                .expected("safetensors, the index of one in several parts, or a file of torch.save"));
        }
        let (tensors, skipped, metadata) = safetensors::stored(source)?;
        Ok(Self { skipped, metadata, ..Self::named(tensors) })
    }

    fn named(tensors: Vec<StoredTensor>) -> Self {
        let by_name = tensors.iter().enumerate().map(|(i, tensor)| (tensor.name().to_owned(), i)).collect();
        Self { tensors, by_name, ..Self::default() }
    }

    /// Returns the weights if a PyTorch file names no classes or functions other than those of plain data.
    ///
    /// # Errors
    /// Otherwise; the error has the first name.
    pub fn strict(self) -> Result<Self> {
        pytorch::plain_data(&self.globals)?;
        Ok(self)
    }

    /// All readable tensors, in the order of the file.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// When it doesn't exist or can't be read.
    pub fn get(&self, name: &str) -> Result<&StoredTensor> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index)).ok_or_else(|| {
            let what = match self.skipped.iter().find(|skipped| skipped.name == name) {
                Some(skipped) => format!("{name} can't be read: {}", skipped.why),
                None => format!("nothing is called {name}"),
            };
            Error::new(ErrorKind::Name, OPERATION, what)
        })
    }

    /// Tensors that can't be read, with the reasons.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Metadata: text by name. For a PyTorch file: short texts of the top-level values that aren't tensors.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Objects of unknown classes: their paths and the names of their classes.
    pub fn objects(&self) -> &[(String, String)] {
        &self.objects
    }

    /// The unknown classes and functions that a PyTorch file names. None was resolved or called.
    pub fn globals(&self) -> &[String] {
        &self.globals
    }
}
