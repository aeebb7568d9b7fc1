//! Checkpoints: a safetensors file with the weights, the optimizer's state, and what a resume needs.

use std::{collections::BTreeMap, path::Path};

use tomograd_core::{Error, ErrorKind, Result, Tensor};
use tomograd_io::safetensors;

use crate::{Optimizer, Params};

/// The version of the layout below; a file with another one is refused.
const VERSION: &str = "1";
/// In front of the names of the optimizer's tensors, so that they can't be taken for weights.
const OPTIMIZER: &str = "optimizer/";

/// A checkpoint to be saved: weights, and whatever else is added.
pub struct Checkpoint {
    tensors: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A checkpoint of all parameters and buffers. It shares their memory until they change.
    pub fn new(params: &Params) -> Self {
        let tensors = params.state().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        Self { tensors, metadata: BTreeMap::from([("tomograd.version".to_owned(), VERSION.to_owned())]) }
    }

    /// With the optimizer's state and number of steps.
    #[must_use]
    pub fn optimizer(mut self, optimizer: &dyn Optimizer) -> Self {
        let (state, steps) = optimizer.state();
        self.tensors.extend(state.into_iter().map(|(name, tensor)| (format!("{OPTIMIZER}{name}"), tensor)));
        self.metadata.insert("tomograd.steps".to_owned(), steps.to_string());
        self
    }

    /// With a text of one's own: the network's name and config, the epoch, the seed.
    #[must_use]
    pub fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.metadata.insert(name.to_owned(), text.into());
        self
    }

    /// Writes the file; the same state gives the same bytes, and a failure leaves an earlier file whole.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        safetensors::save(path.as_ref(), &self.tensors, &self.metadata)
    }
}

/// A checkpoint that was read.
#[derive(Debug)]
pub struct Loaded {
    weights: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl Loaded {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When the file can't be read, isn't a checkpoint, or is of another version.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let contents = safetensors::load(path.as_ref())?;
        let version = contents.metadata.get("tomograd.version").map_or("none", String::as_str);
        if version != VERSION {
            return Err(Error::format("checkpoint", format!("version {version}"))
                .expected(format!("version {VERSION}"))
                .within(path.as_ref().display().to_string()));
        }
        let (optimizer, weights): (Vec<_>, Vec<_>) =
            contents.tensors.into_iter().partition(|(name, _)| name.starts_with(OPTIMIZER));
        let optimizer = optimizer
            .into_iter()
            .map(|(name, tensor)| (name.trim_start_matches(OPTIMIZER).to_owned(), tensor))
            .collect();
        Ok(Self { weights, optimizer, metadata: contents.metadata })
    }

    /// The text called `name`.
    ///
    /// # Errors
    /// When the checkpoint has none.
    pub fn text(&self, name: &str) -> Result<&str> {
        let missing = || Error::new(ErrorKind::Name, "checkpoint", format!("the checkpoint has no {name}"));
        self.metadata.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// Gives the weights to `params`, which must have exactly the same names.
    ///
    /// # Errors
    /// When names or shapes differ.
    pub fn restore(&self, params: &mut Params) -> Result<()> {
        params.load(self.weights.iter().cloned())
    }

    /// Gives the state to `optimizer`; afterwards this holds it no more, so that a step changes it in place.
    ///
    /// # Errors
    /// When the checkpoint has no state, or one that doesn't fit.
    pub fn restore_optimizer(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        let steps = self.text("tomograd.steps")?.parse();
        let steps = steps.map_err(|_| Error::format("checkpoint", "the number of steps isn't a number"))?;
        optimizer.load_state(std::mem::take(&mut self.optimizer), steps)
    }
}
