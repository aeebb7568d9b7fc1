//! Checkpoints: a safetensors file with the weights, the network's configuration, the preparation of its images, the state of
//! the optimizer, and whatever else resuming needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use tomograd_core::{Device, Error, ErrorKind, Result, Seed, Tensor};
use tomograd_io::safetensors::{self, Contents};

use crate::{Optimizer, OptimizerState, Params};

/// The versions of the layout that can be read. Version 1: all parameters have made `tomograd.steps` steps. Version 2 adds
/// `tomograd.steps.others`, the step counts of parameters that differ. Version 3 adds further stores. A file is written with
/// the lowest version that can express it, so that older programs can read it where possible.
const VERSIONS: [&str; 3] = ["1", "2", "3"];
/// Prefixes of the tensors of the optimizer, of averages and of further stores, to tell them from weights.
pub(crate) const OPTIMIZER: &str = "optimizer/";
pub(crate) const AVERAGE: &str = "average/";
pub(crate) const STORE: &str = "store/";
/// Prefix of the metadata of a further store: `tomograd.store/NAME/tomograd.steps` is its `tomograd.steps`.
const STORE_NOTE: &str = "tomograd.store/";
const NOTE: &str = "tomograd.";
const VERSION: &str = "tomograd.version";
/// The metadata key of the network's configuration.
const CONFIG: &str = "config";
/// The metadata key of the preparation.
const PREPARATION: &str = "tomograd.preparation";
/// The metadata key of step counts that differ from `tomograd.steps`, by parameter name.
const OTHERS: &str = "tomograd.steps.others";

/// A checkpoint to be saved: weights under their state-dict names, and optional further contents.
///
/// ```
/// # use tomograd_core::{Device, Seed};
/// # use tomograd_nn::{AdamW, Checkpoint, Conv, Loaded, Params};
/// # let mut params = Params::new(Device::Cpu, Seed::new(1));
/// # Conv::new(params.root(), 1, 2, [3, 3])?;
/// # let mut optimizer = AdamW::new(&params, 1e-3)?;
/// # let path = std::env::temp_dir().join(format!("tomograd-checkpoint-doc-{}", std::process::id()));
/// let checkpoint = Checkpoint::new(&params).config(&[32, 64])?.preparation(&"none")?;
/// checkpoint.optimizer(&optimizer).random(Seed::new(1).at(7)).save(&path)?;
/// let mut loaded = Loaded::read(&path)?;
/// loaded.restore(&mut params)?;
/// loaded.restore_optimizer(&mut optimizer)?;
/// assert_eq!(loaded.config_as::<Vec<usize>>()?, [32, 64]);
/// assert_eq!(loaded.preparation(), Some("\"none\""));
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    weights: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
    average: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
    texts: BTreeMap<String, String>,
    /// The step counts of parameters that differ from that of most, by name.
    others: BTreeMap<String, u64>,
    /// Further stores, by name.
    stores: BTreeMap<String, Checkpoint>,
}

impl Checkpoint {
    /// A checkpoint of all parameters and buffers. It shares their memory until they change.
    pub fn new(params: &Params) -> Self {
        let mut checkpoint = Self {
            weights: prefixed("", params.state()),
            optimizer: Vec::new(),
            average: Vec::new(),
            metadata: BTreeMap::new(),
            texts: BTreeMap::new(),
            others: BTreeMap::new(),
            stores: BTreeMap::new(),
        };
        checkpoint.note(VERSION, VERSIONS[0]);
        checkpoint
    }

    /// Adds the configuration from which the network is built, as JSON.
    ///
    /// # Errors
    /// When it can't be serialised to JSON.
    pub fn config(mut self, config: &impl Serialize) -> Result<Self> {
        self.note(CONFIG, json("configuration", config)?);
        Ok(self)
    }

    /// Adds what prediction needs besides the network, as JSON: preprocessing, patch size, classes (the type
    /// `Preparation` of `tomograd-pipeline`). Programs that don't know this entry read the file as before.
    ///
    /// # Errors
    /// When it can't be serialised to JSON.
    pub fn preparation(mut self, preparation: &impl Serialize) -> Result<Self> {
        self.note(PREPARATION, json("preparation", preparation)?);
        Ok(self)
    }

    /// Adds the optimizer's state and step counts.
    #[must_use]
    pub fn optimizer(mut self, optimizer: &dyn Optimizer) -> Self {
        let OptimizerState { tensors, steps, others } = optimizer.state();
        self.optimizer = prefixed(OPTIMIZER, tensors.iter().map(|(name, tensor)| (&name[..], tensor)));
        self.note("tomograd.optimizer", optimizer.kind());
        self.note("tomograd.steps", steps.to_string());
        self.note(VERSION, VERSIONS[usize::from(!others.is_empty())]);
        self.others = others;
        self
    }

    /// Adds a running average of the parameters.
    #[must_use]
    pub fn average(mut self, average: &Params) -> Self {
        self.average = prefixed(AVERAGE, average.state());
        self
    }

    /// Adds the random stream with which a resumed run continues.
    #[must_use]
    pub fn random(mut self, seed: Seed) -> Self {
        let [key, stream] = seed.to_words();
        self.note("tomograd.random", format!("{key} {stream}"));
        self
    }

    /// Adds a text entry, such as the epoch or the best score. The names `config` and `tomograd.…` are reserved.
    #[must_use]
    pub fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.texts.insert(name.to_owned(), text.into());
        self
    }

    /// Adds a further store, such as the discriminator of a GAN: its weights, and everything that was added to `store`
    /// (optimizer, average, random stream). [`Loaded::take_store`] returns it. Readers of the weights, such as `Model::load`,
    /// read those of the first store only.
    ///
    /// ```
    /// # use tomograd_core::{Device, Seed};
    /// # use tomograd_nn::{Checkpoint, Conv, Linear, Loaded, Params};
    /// # let mut generator = Params::new(Device::Cpu, Seed::new(1));
    /// # Conv::new(generator.root(), 1, 2, [3, 3])?;
    /// # let mut discriminator = Params::new(Device::Cpu, Seed::new(2));
    /// # Linear::new(discriminator.root(), 2, 1)?;
    /// # let path = std::env::temp_dir().join(format!("tomograd-stores-doc-{}", std::process::id()));
    /// Checkpoint::new(&generator).store("discriminator", Checkpoint::new(&discriminator)).save(&path)?;
    /// let mut loaded = Loaded::read(&path)?;
    /// loaded.restore(&mut generator)?;
    /// loaded.take_store("discriminator")?.restore(&mut discriminator)?;
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    #[must_use]
    pub fn store(mut self, name: &str, store: Checkpoint) -> Self {
        self.stores.insert(name.to_owned(), store);
        self
    }

    fn note(&mut self, name: &str, text: impl Into<String>) {
        self.metadata.insert(name.to_owned(), text.into());
    }

    /// Writes the file atomically: a failure leaves an existing file intact. The same state gives the same bytes.
    ///
    /// # Errors
    /// When a text, a parameter or a further store has a reserved name, or the file can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let Contents { mut tensors, mut metadata, .. } = self.contents()?;
        for (name, store) in &self.stores {
            if name.is_empty() || name.contains('/') || !store.stores.is_empty() || !store.texts.is_empty() {
                return Err(Error::argument("checkpoint", format!("the further store {name:?}")).expected(
                    "a name without /, and a checkpoint that has neither texts nor further stores of its own",
                ));
            }
            let Contents { tensors: own, metadata: notes, .. } = store.contents()?;
            tensors.extend(own.into_iter().map(|(tensor, value)| (format!("{STORE}{name}/{tensor}"), value)));
            metadata.extend(notes.into_iter().map(|(note, text)| (format!("{STORE_NOTE}{name}/{note}"), text)));
            metadata.insert(VERSION.to_owned(), VERSIONS[2].to_owned());
        }
        safetensors::save(path.as_ref(), &tensors, &metadata)
    }

    /// The tensors and texts of this store, without the further stores.
    fn contents(&self) -> Result<Contents> {
        let taken = |name: &str| name == CONFIG || name.starts_with(NOTE);
        let mut texts = self.texts.keys().filter(|name| taken(name));
        let own = |name: &str| [OPTIMIZER, AVERAGE, STORE].iter().any(|prefix| name.starts_with(prefix));
        let mut weights = self.weights.iter().map(|(name, _)| name).filter(|name| own(name));
        if let Some(name) = texts.next().or(weights.next()) {
            return Err(Error::new(ErrorKind::Name, "checkpoint", format!("{name} is a name of the checkpoint's own"))
                .expected("another name"));
        }
        let metadata = self.metadata.iter().chain(&self.texts);
        let mut metadata: BTreeMap<_, _> = metadata.map(|(name, text)| (name.clone(), text.clone())).collect();
        if !self.others.is_empty() {
            metadata.insert(OTHERS.to_owned(), json("numbers of steps", &self.others)?);
        }
        Ok(Contents {
            tensors: [&self.weights[..], &self.optimizer, &self.average].concat(),
            metadata,
            skipped: Vec::new(),
        })
    }
}

/// A checkpoint that has been read.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Checkpoint, Linear, Loaded, Params};
/// # let path = std::env::temp_dir().join(format!("tomograd-loaded-doc-{}", std::process::id()));
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// Linear::new(params.root().at("fc"), 3, 2)?;
/// Checkpoint::new(&params).text("epoch", "7").save(&path)?;
/// let loaded = Loaded::read(&path)?;
/// assert_eq!(loaded.text("epoch")?, "7");
/// assert_eq!(loaded.state().map(|(name, _)| name).collect::<Vec<_>>(), ["fc.weight", "fc.bias"]);
/// loaded.restore(&mut params)?;
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Loaded {
    weights: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
    average: Vec<(String, Tensor)>,
    /// The tensors of further stores, as `NAME/TENSOR`.
    stores: Vec<(String, Tensor)>,
    metadata: BTreeMap<String, String>,
}

impl Loaded {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When the file can't be read, isn't a checkpoint, or is of another version.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let contents = safetensors::load(path.as_ref())?;
        let version = contents.metadata.get(VERSION).map_or("none", String::as_str);
        if !VERSIONS.contains(&version) {
            return Err(Error::format("checkpoint", format!("version {version}"))
                .expected(format!(
                    "version {} (io::Weights and Params::import read weights of other programs)",
                    VERSIONS.join(", ")
                ))
                .within(path.as_ref().display().to_string()));
        }
        Ok(Self::of(contents.tensors, contents.metadata))
    }

    fn of(tensors: Vec<(String, Tensor)>, metadata: BTreeMap<String, String>) -> Self {
        let mut loaded =
            Self { weights: Vec::new(), optimizer: Vec::new(), average: Vec::new(), stores: Vec::new(), metadata };
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(OPTIMIZER) {
                loaded.optimizer.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(AVERAGE) {
                loaded.average.push((name.to_owned(), tensor));
            } else if let Some(name) = name.strip_prefix(STORE) {
                loaded.stores.push((name.to_owned(), tensor));
            } else {
                loaded.weights.push((name, tensor));
            }
        }
        loaded
    }

    /// Removes and returns the further store called `name` ([`Checkpoint::store`]).
    ///
    /// # Errors
    /// When there is no such store; the error lists the existing ones.
    pub fn take_store(&mut self, name: &str) -> Result<Loaded> {
        let prefix = format!("{STORE_NOTE}{name}/");
        let note = |(note, text): (&String, &String)| Some((note.strip_prefix(&prefix)?.to_owned(), text.clone()));
        let metadata: BTreeMap<String, String> = self.metadata.iter().filter_map(note).collect();
        if !metadata.contains_key(VERSION) {
            let store =
                |note: &'_ String| note.strip_prefix(STORE_NOTE)?.split_once('/').map(|(name, _)| name.to_owned());
            let names: BTreeSet<String> = self.metadata.keys().filter_map(store).collect();
            let names = Vec::from_iter(names);
            return Err(Error::new(ErrorKind::Name, "checkpoint", format!("the checkpoint has no store {name:?}"))
                .expected(format!("one of [{}]", names.join(", "))));
        }
        self.metadata.retain(|note, _| !note.starts_with(&prefix));
        let prefix = format!("{name}/");
        let (own, others) =
            std::mem::take(&mut self.stores).into_iter().partition(|(name, _)| name.starts_with(&prefix));
        self.stores = others;
        let own: Vec<(String, Tensor)> = own;
        let own = own.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect();
        Ok(Self::of(own, metadata))
    }

    /// The text entry called `name`.
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
    /// When there is none, or it can't be deserialised as `T`.
    pub fn config_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.text(CONFIG)?)
            .map_err(|error| Error::format("checkpoint", format!("the configuration doesn't fit: {error}")))
    }

    /// What prediction needs besides the network, as JSON; `None` if the file has no such entry.
    pub fn preparation(&self) -> Option<&str> {
        self.metadata.get(PREPARATION).map(String::as_str)
    }

    /// What prediction needs besides the network, deserialised.
    ///
    /// # Errors
    /// When there is none, or it can't be deserialised as `T`.
    pub fn preparation_as<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(self.text(PREPARATION)?)
            .map_err(|error| Error::format("checkpoint", format!("the preparation doesn't fit: {error}")))
    }

    /// The random stream with which a resumed run continues.
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

    /// Loads the weights into `params`, which must have exactly the same names.
    ///
    /// # Errors
    /// When names or shapes differ; then nothing is changed.
    pub fn restore(&self, params: &mut Params) -> Result<()> {
        params.load(on(params.device(), &self.weights)?)
    }

    /// Loads the running average into `average`, a replica of the parameters.
    ///
    /// # Errors
    /// When the checkpoint has none, or names or shapes differ.
    pub fn restore_average(&self, average: &mut Params) -> Result<()> {
        average.load(on(average.device(), &self.average)?)
    }

    /// The checkpoint with its running average in place of the weights, for prediction:
    /// `Model::of(&Loaded::read(file)?.averaged()?, device)`.
    ///
    /// # Errors
    /// When it has none.
    pub fn averaged(mut self) -> Result<Self> {
        if self.average.is_empty() {
            return Err(Error::new(ErrorKind::Name, "checkpoint", "the checkpoint has no running average"));
        }
        self.weights = std::mem::take(&mut self.average);
        Ok(self)
    }

    /// Moves the state into `optimizer`, so that it is the only owner and can update the tensors in place.
    ///
    /// # Errors
    /// When the checkpoint has no state, or one that doesn't fit; then nothing is changed.
    pub fn restore_optimizer(&mut self, optimizer: &mut dyn Optimizer) -> Result<()> {
        let kind = self.text("tomograd.optimizer")?;
        if kind != optimizer.kind() {
            return Err(Error::argument("checkpoint", format!("the optimizer is {}", optimizer.kind()))
                .expected(format!("{kind}, as in the file")));
        }
        let steps = number(self.text("tomograd.steps")?)?;
        // Version 2 always has the other step counts; if they were missing, all parameters would silently get the common
        // count.
        let others = if self.text(VERSION)? == VERSIONS[1] || self.metadata.contains_key(OTHERS) {
            serde_json::from_str(self.text(OTHERS)?)
                .map_err(|error| Error::format("checkpoint", format!("the numbers of steps can't be read: {error}")))?
        } else {
            BTreeMap::new()
        };
        optimizer.load_state(OptimizerState { tensors: self.optimizer.clone(), steps, others })?;
        self.optimizer = Vec::new();
        Ok(())
    }
}

/// The tensors on `device`.
fn on(device: Device, tensors: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), tensor.to(device)?))).collect()
}

fn json(what: &str, value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::argument("checkpoint", format!("the {what} has no JSON")).source(error))
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Error::format("checkpoint", format!("{text:?} isn't a number")))
}

fn prefixed<'a>(prefix: &str, state: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Vec<(String, Tensor)> {
    state.map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect()
}
