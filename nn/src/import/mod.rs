//! Weights of other programs: names mapped, dtypes converted, layers for other channels or classes adapted.

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

/// What of a file goes where in a network. Each step works on the names that those before have left; nothing is read until
/// [`Params::import`](crate::Params::import).
///
/// Without further steps the names must be exactly the network's. Shapes must be equal but for axes of size 1; a dtype is
/// converted to the parameter's.
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
    /// What a step could not do.
    wrong: Option<String>,
}

/// A tensor of the file and the name that it has by now.
#[derive(Debug, Clone)]
struct Named<'a> {
    name: String,
    stored: &'a StoredTensor,
}

/// A layer for other classes than the file's: for each of its rows the file's, or none; without rows all keep their values.
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
    /// All tensors of a file, under their names there; of a checkpoint of this framework the weights alone, and of
    /// several stores those of the first.
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

    /// Only what lies in the part called `name` (`state_dict`, `network_weights`), under the names that it has there.
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
        self.skipped.retain(|left| left.name.starts_with(&prefix));
        self
    }

    /// Takes `prefix` from the names that begin with it (`module.` of a network that was trained on several devices).
    #[must_use]
    pub fn strip_prefix(self, prefix: &str) -> Self {
        self.rename(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned())
    }

    /// Gives every tensor the name that `rename` makes of its own.
    #[must_use]
    pub fn rename(mut self, mut rename: impl FnMut(&str) -> String) -> Self {
        self.named.iter_mut().for_each(|named| named.name = rename(&named.name));
        self
    }

    /// Leaves out the tensors for whose names `skip` is true.
    #[must_use]
    pub fn skip(mut self, mut skip: impl FnMut(&str) -> bool) -> Self {
        let (skipped, named): (Vec<_>, Vec<_>) = self.named.into_iter().partition(|named| skip(&named.name));
        self.skipped.extend(skipped.iter().map(|named| Left::new(&named.name, "left out")));
        self.named = named;
        self
    }

    /// Takes what fits: parameters that the file doesn't have keep their values, tensors that the network doesn't have are
    /// left. A tensor of a parameter's name and another shape is an error all the same, and so is a file of which nothing fits.
    #[must_use]
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// The convolution's weight called `name`, W of (out, in, …), for `channels` of the input instead of `in`. As timm does:
    /// for one channel W′(o, 0) = Σ W(o, c), for others the channels are repeated and rescaled,
    /// W′(o, c) = W(o, c mod in) · in / channels. An input whose channels are all alike gives the same output as before
    /// where `channels` is 1 or a multiple of `in`.
    #[must_use]
    pub fn channels(mut self, name: &str, channels: usize) -> Self {
        self.channels.push((name.to_owned(), channels));
        self
    }

    /// The layer called `name` has other classes than the file's: its parameters keep their values.
    #[must_use]
    pub fn head(mut self, name: &str) -> Self {
        self.heads.push(Head { name: name.to_owned(), rows: None });
        self
    }

    /// The layer called `name` has other classes than the file's: of its parameters, row i of the first axis becomes the
    /// file's row `rows[i]`, or keeps its values where that is none.
    #[must_use]
    pub fn head_rows(mut self, name: &str, rows: &[Option<usize>]) -> Self {
        self.heads.push(Head { name: name.to_owned(), rows: Some(rows.to_vec()) });
        self
    }
}
