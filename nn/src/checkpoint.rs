//! Checkpoints: a safetensors file with the weights, the network's configuration, the optimizer's state, and what else a
//! resume needs.

use std::{collections::BTreeMap, path::Path};

use serde::{Serialize, de::DeserializeOwned};
use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};
use tomograd_io::safetensors;

use crate::{Optimizer, Params};

/// The version of the layout below; a file with another one is refused.
const VERSION: &str = "1";
/// In front of the names of the optimizer's tensors and of averages, so that they can't be taken for weights.
const OPTIMIZER: &str = "optimizer/";
const AVERAGE: &str = "average/";

/// A checkpoint to be saved: weights under their state-dict names, and whatever else is added.
///
/// ```
/// # use tomograd_core::{Device, Seed};
/// # use tomograd_nn::{AdamW, Checkpoint, Conv, Group, Loaded, Params};
/// # let mut params = Params::new(Device::Cpu, Seed::new(1));
/// # Conv::new(params.root(), 1, 2, &[3, 3])?.build()?;
/// # let mut optimizer = AdamW::new(&params, |_| Group::rate(1e-3))?;
/// # let path = std::env::temp_dir().join(format!("tomograd-checkpoint-doc-{}", std::process::id()));
/// Checkpoint::new(&params).config(&[32, 64])?.optimizer(&optimizer).random(Seed::new(1).at(7)).save(&path)?;
/// let mut loaded = Loaded::read(&path)?;
/// loaded.restore(&mut params)?;
/// loaded.restore_optimizer(&mut optimizer)?;
/// assert_eq!(loaded.config_as::<Vec<usize>>()?, [32, 64]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    tensors: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A checkpoint of all parameters and buffers. It shares their memory until they change.
    pub fn new(params: &Params) -> Self {
        let metadata = BTreeMap::from([("tomograd.version".to_owned(), VERSION.to_owned())]);
        Self { tensors: prefixed("", params.state()), metadata }
    }

    /// With the configuration that the network is built from, as JSON.
    ///
    /// # Errors
    /// When it has no JSON.
    pub fn config(self, config: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(config)
            .map_err(|error| Error::argument("checkpoint", "the configuration has no JSON").source(error))?;
        Ok(self.text("config", text))
    }

    /// With the optimizer's state and number of steps.
    #[must_use]
    pub fn optimizer(mut self, optimizer: &dyn Optimizer) -> Self {
        let (state, steps) = optimizer.state();
        self.tensors.extend(prefixed(OPTIMIZER, state.iter().map(|(name, tensor)| (&name[..], tensor))));
        self.text("tomograd.optimizer", optimizer.kind()).text("tomograd.steps", steps.to_string())
    }

    /// With a running average of the parameters.
    #[must_use]
    pub fn average(mut self, average: &Params) -> Self {
        self.tensors.extend(prefixed(AVERAGE, average.state()));
        self
    }

    /// With the random stream to go on with.
    #[must_use]
    pub fn random(self, seed: Seed) -> Self {
        let [key, stream] = seed.to_words();
        self.text("tomograd.random", format!("{key} {stream}"))
    }

    /// With a text of one's own: the epoch, the best score.
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
    average: Vec<(String, Tensor)>,
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
                .expected(format!(
                    "version {VERSION} (io::safetensors and Params::load read weights of other programs)"
                ))
                .within(path.as_ref().display().to_string()));
        }
        let [mut weights, mut optimizer, mut average] = [Vec::new(), Vec::new(), Vec::new()];
        for (name, tensor) in contents.tensors {
            if let Some(name) = name.strip_prefix(OPTIMIZER) {
                optimizer.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(AVERAGE) {
                average.push((name.to_owned(), tensor));
            } else {
                weights.push((name, tensor));
            }
        }
        Ok(Self { weights, optimizer, average, metadata: contents.metadata })
    }

    /// The text called `name`.
    ///
    /// # Errors
    /// When the checkpoint has none.
    pub fn text(&self, name: &str) -> Result<&str> {
        let missing = || Error::new(ErrorKind::Name, "checkpoint", format!("the checkpoint has no {name}"));
        self.metadata.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// The network's configuration.
    ///
    /// # Errors
    /// When there is none, or it isn't a `T`.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.text("config")?)
            .map_err(|error| Error::format("checkpoint", format!("the configuration doesn't fit: {error}")))
    }

    /// The random stream to go on with.
    ///
    /// # Errors
    /// When there is none.
    pub fn random(&self) -> Result<Seed> {
        let text = self.text("tomograd.random")?;
        let (key, stream) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Seed::from_words([number(key)?, number(stream)?]))
    }

    /// Names and values of parameters and buffers.
    pub fn state(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.weights.iter().map(|(name, tensor)| (&name[..], tensor))
    }

    /// Gives the weights to `params`, which must have exactly the same names.
    ///
    /// # Errors
    /// When names or shapes differ; then nothing is changed.
    pub fn restore(&self, params: &mut Params) -> Result<()> {
        params.load(self.weights.iter().cloned())
    }

    /// Gives the running average to `average`, a replica of the parameters.
    ///
    /// # Errors
    /// When the checkpoint has none, or names or shapes differ.
    pub fn restore_average(&self, average: &mut Params) -> Result<()> {
        average.load(self.average.iter().cloned())
    }

    /// Gives the state to `optimizer`; afterwards this holds it no more, so that a step changes it in place.
    ///
    /// # Errors
    /// When the checkpoint has no state, or one that doesn't fit.
    pub fn restore_optimizer(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        let kind = self.text("tomograd.optimizer")?;
        if kind != optimizer.kind() {
            return Err(Error::argument("checkpoint", format!("the optimizer is {}", optimizer.kind()))
                .expected(format!("{kind}, as in the file")));
        }
        let steps = number(self.text("tomograd.steps")?)?;
        optimizer.load_state(std::mem::take(&mut self.optimizer), steps)
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::format("checkpoint", format!("{text:?} isn't a number")))
}

fn prefixed<'a>(prefix: &str, state: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Vec<(String, Tensor)> {
    state.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}
