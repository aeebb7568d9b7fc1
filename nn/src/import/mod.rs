//! Importing weights of other programs: renaming, dtype conversion, adaptation to other input channels or classes.

mod adapt;
mod apply;
mod nearest;
mod report;

use tomograd_core::{Error, ErrorKind, Result};
use tomograd_io::{StoredTensor, Weights};

use self::report::Left;
pub use self::report::{ImportReport, Imported};
use crate::checkpoint::{AVERAGE, OPTIMIZER, STORE};

const OPERATION: &str = "import";

/// The plan of an import: which tensors of a file go where in a network. Each step works on the names that the previous steps
/// produced; no tensor is read before [`Params::import`](crate::Params::import).
///
/// Without further steps, names must match exactly. Shapes must be equal up to axes of size 1; dtypes are converted to
/// the parameters'.
///
/// ```
/// # use std::collections::BTreeMap;
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_io::{Weights, safetensors};
/// use tomograd_nn::{Import, Linear, Params};
/// # let path = std::env::temp_dir().join(format!("tomograd-import-doc-{}.safetensors", std::process::id()));
/// # let of = |shape: &[usize]| Tensor::ones(shape, DType::F16, Device::Cpu);
/// # let tensors = [("module.fc.weight".to_owned(), of(&[2, 3])?), ("module.fc.bias".to_owned(), of(&[2])?)];
/// # safetensors::save(&path, &tensors, &BTreeMap::new())?;
/// let mut params = Params::new(Device::Cpu, Seed::new(0));
/// Linear::new(params.root().at("head"), 3, 2)?;
///
/// let file = Weights::open(&path)?; // or a .pth, .pt, .bin, .ckpt, .index.json
/// let import = Import::of(&file)?.strip_prefix("module.").rename(|name| name.replace("fc.", "head."));
/// let report = params.import(&import)?;
/// assert_eq!(report.loaded.len(), 2);
/// assert_eq!(params.get("head.bias")?.to_vec::<f32>()?, [1.0, 1.0]);
/// println!("{report}");
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Import<'a> {
    named: Vec<Named<'a>>,
    skipped: Vec<Left>,
    partial: bool,
    channels: Vec<(String, usize)>,
    heads: Vec<Head>,
    /// The error of a step that failed, which [`Params::import`](crate::Params::import) reports.
    wrong: Option<String>,
}

/// A tensor of the file and its current name.
#[derive(Debug, Clone)]
struct Named<'a> {
    name: String,
    stored: &'a StoredTensor,
}

/// A layer whose number of classes differs from the file's: for each of its rows the row of the file, or none. Without `rows`
/// the whole layer keeps its values.
#[derive(Debug, Clone)]
struct Head {
    name: String,
    rows: Option<Vec<Option<usize>>>,
}

impl Head {
    fn has(&self, name: &str) -> bool {
        name.strip_prefix(&self.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl<'a> Import<'a> {
    /// All tensors of a file under their names in the file. For a checkpoint of this framework: the weights of the first
    /// store only.
    ///
    /// # Errors
    /// When the file has no tensor that can be read.
    pub fn of(weights: &'a Weights) -> Result<Self> {
        let own = weights.metadata().contains_key("tomograd.version");
        let of_checkpoint =
            |name: &str| own && [OPTIMIZER, AVERAGE, STORE].iter().any(|prefix| name.starts_with(prefix));
        let stored = weights.tensors().iter().filter(|stored| !of_checkpoint(stored.name()));
        let named: Vec<_> = stored.map(|stored| Named { name: stored.name().to_owned(), stored }).collect();
        let skipped: Vec<Left> =
            weights.skipped().iter().map(|skipped| Left::new(&skipped.name, skipped.why.clone())).collect();
        if named.is_empty() {
            let skipped = skipped.first().map_or(String::new(), |Left { name, why }| format!("; {name}: {why}"));
            return Err(Error::new(ErrorKind::Name, OPERATION, format!("the file has no tensors to read{skipped}")));
        }
        Ok(Self { named, skipped, partial: false, channels: Vec::new(), heads: Vec::new(), wrong: None })
    }

    /// Restricts the import to the part called `name` (`state_dict`, `network_weights`), and removes that prefix from the
    /// names.
    #[must_use]
    pub fn part(mut self, name: &str) -> Self {
        let prefix = format!("{name}.");
        if !self.named.iter().any(|named| named.name.starts_with(&prefix)) {
            let mut parts: Vec<&str> =
                self.named.iter().filter_map(|named| Some(named.name.split_once('.')?.0)).collect();
            parts.sort_unstable();
            parts.dedup();
            parts.truncate(8);
            self.wrong.get_or_insert(format!("the file has no part {name}; its parts are: {}", parts.join(", ")));
        }
        let inside = |mut named: Named<'a>| {
            named.name = named.name.strip_prefix(&prefix)?.to_owned();
            Some(named)
        };
        self.named = self.named.into_iter().filter_map(inside).collect();
        let inside = |left: Left| Some(Left::new(left.name.strip_prefix(&prefix)?, left.why));
        self.skipped = self.skipped.into_iter().filter_map(inside).collect();
        self
    }

    /// Removes `prefix` from the names that start with it (`module.` from data-parallel training in PyTorch).
    #[must_use]
    pub fn strip_prefix(self, prefix: &str) -> Self {
        self.rename(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned())
    }

    /// Renames every tensor by `rename`.
    #[must_use]
    pub fn rename(mut self, mut rename: impl FnMut(&str) -> String) -> Self {
        self.named.iter_mut().for_each(|named| named.name = rename(&named.name));
        self.skipped.iter_mut().for_each(|left| left.name = rename(&left.name));
        self
    }

    /// Excludes the tensors for whose names `skip` is true.
    #[must_use]
    pub fn skip(mut self, mut skip: impl FnMut(&str) -> bool) -> Self {
        let (skipped, named): (Vec<_>, Vec<_>) = self.named.into_iter().partition(|named| skip(&named.name));
        self.skipped.extend(skipped.iter().map(|named| Left::new(&named.name, "left out")));
        self.named = named;
        self
    }

    /// Allows missing and unexpected names: parameters that the file lacks keep their values, and tensors that the network
    /// lacks are ignored. A tensor whose name matches but whose shape doesn't is still an error, and so is a file with no
    /// matching name.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Adapts the convolution weight called `name`, W of shape (out, in, …), to `channels` input channels, as timm does:
    /// W′(o, 0) = Σ W(o, c) for one channel; otherwise the channels are repeated and rescaled,
    /// W′(o, c) = W(o, c mod in) · in / channels. For an input whose channels are all equal, the output stays the same if
    /// `channels` is 1 or a multiple of `in`.
    #[must_use]
    pub fn channels(mut self, name: &str, channels: usize) -> Self {
        self.channels.push((name.to_owned(), channels));
        self
    }

    /// Declares that the layer called `name` has other classes than the file's: its parameters keep their values.
    #[must_use]
    pub fn head(mut self, name: &str) -> Self {
        self.heads.push(Head { name: name.to_owned(), rows: None });
        self
    }

    /// Declares that the layer called `name` has other classes than the file's: row i of each parameter becomes the file's
    /// row `rows[i]`, or keeps its values if that is `None`.
    #[must_use]
    pub fn head_rows(mut self, name: &str, rows: &[Option<usize>]) -> Self {
        self.heads.push(Head { name: name.to_owned(), rows: Some(rows.to_vec()) });
        self
    }
}
