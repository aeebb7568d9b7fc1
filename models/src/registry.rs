//! The registry of networks: builds a network from its configuration, which is plain data.
//!
//! A family of networks is a type that implements [`Config`], and a line in the list below. Its name is the `rename` of its
//! serde tag and is written nowhere else.

use std::{fmt, sync::LazyLock};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tomograd_core::{Error, Result, unknown_name};
use tomograd_nn::{Network, Scope};

use crate::{
    MeshNetConfig, ResNetConfig, UNet2dConfig, UNet3dConfig,
    config::{checked, json},
};

/// The list of all families.
static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    vec![
        Family::of::<UNet3dConfig>(),
        Family::of::<UNet2dConfig>(),
        Family::of::<MeshNetConfig>(),
        Family::of::<ResNetConfig>(),
    ]
});

/// The task of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// Segmentation: logits for each voxel.
    Segmentation,
    /// Classification: logits for each image.
    Classification,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segmentation => "segmentation",
            Self::Classification => "classification",
        })
    }
}

/// Information about a family of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// The task.
    pub task: Task,
    /// The supported numbers of spatial axes.
    pub ranks: &'static [usize],
    /// A one-line description.
    pub about: &'static str,
    /// The paper: authors, title, year, DOI or arXiv number.
    pub source: &'static str,
    /// The URL of the authors' code.
    pub code: Option<&'static str>,
    /// The licence of published weights.
    pub weights_licence: Option<&'static str>,
}

/// Mean and standard deviation of each channel, with which images are normalised for published weights: (x − mean) /
/// deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelStatistics {
    /// The means.
    pub mean: &'static [f64],
    /// The standard deviations.
    pub deviation: &'static [f64],
}

/// A named configuration.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Preset<C> {
    /// The name, unique within the family.
    pub name: &'static str,
    /// The configuration.
    pub config: C,
    /// The channel statistics with which images must be normalised for its published weights.
    pub channels: Option<ChannelStatistics>,
}

impl<C> Preset<C> {
    /// A preset without published weights.
    pub fn new(name: &'static str, config: C) -> Self {
        Self { name, config, channels: None }
    }
}

/// The configuration of a family of networks. Its serde tag stores the family's name under `network` in JSON.
///
/// ```
/// use tomograd_models::{UNet2dConfig, registry::Config};
/// assert_eq!(UNet2dConfig::preset("ronneberger2015")?, UNet2dConfig::new(2));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Config: Serialize + DeserializeOwned {
    /// The network that is built.
    type Network: Network + 'static;

    /// Information about the family.
    const CARD: Card;

    /// Named configurations, at least one; the first is the authors'.
    fn presets() -> Vec<Preset<Self>>;

    /// Creates the network's parameters in `scope`.
    ///
    /// # Errors
    /// When the configuration is invalid (the error names the field), or a name is taken.
    fn build(&self, scope: Scope<'_>) -> Result<Self::Network>;

    /// The configuration of the preset called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error has the nearest name.
    fn preset(name: &str) -> Result<Self> {
        find(Self::presets(), name).map(|preset| preset.config)
    }
}

fn find<C>(mut presets: Vec<Preset<C>>, name: &str) -> Result<Preset<C>> {
    match presets.iter().position(|preset| preset.name == name) {
        Some(place) => Ok(presets.swap_remove(place)),
        None => Err(unknown_name("registry", "preset", name, presets.iter().map(|preset| preset.name))),
    }
}

/// A family of networks in the registry.
pub struct Family {
    name: String,
    card: Card,
    presets: fn() -> Result<Vec<Preset<Value>>>,
    build: fn(Scope<'_>, &str, &Value) -> Result<Built>,
}

/// A network, and its configuration with all defaults.
pub type Built = (Box<dyn Network>, Value);

impl Family {
    fn of<C: Config>() -> Self {
        // The name is read from the JSON of a preset, so that it is written only in the serde attribute.
        let first = C::presets().first().and_then(|preset| json(&preset.config).ok());
        let name = first.as_ref().and_then(|config| config.get("network")?.as_str()).unwrap_or_default().to_owned();
        Self { name, card: C::CARD, presets: presets_of::<C>, build: build_of::<C> }
    }

    /// The name of the family, `network` in its configurations.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Information about the family.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The named configurations; the first is the authors'.
    ///
    /// # Errors
    /// Never in practice: configurations are plain data.
    pub fn presets(&self) -> Result<Vec<Preset<Value>>> {
        (self.presets)()
    }

    /// The preset called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error has the nearest name.
    pub fn preset(&self, name: &str) -> Result<Preset<Value>> {
        find(self.presets()?, name)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).field("card", &self.card).finish_non_exhaustive()
    }
}

fn presets_of<C: Config>() -> Result<Vec<Preset<Value>>> {
    let plain = |Preset { name, config, channels }: Preset<C>| Ok(Preset { name, config: json(&config)?, channels });
    C::presets().into_iter().map(plain).collect()
}

fn build_of<C: Config>(scope: Scope<'_>, name: &str, given: &Value) -> Result<Built> {
    let (config, full) = checked::<C>(name, given)?;
    Ok((Box::new(config.build(scope)?), full))
}

/// All families, in a fixed order.
///
/// ```
/// for family in tomograd_models::registry::families() {
///     println!("{} ({}): {}", family.name(), family.card().task, family.card().about);
/// }
/// ```
pub fn families() -> &'static [Family] {
    &FAMILIES
}

/// The family called `name`.
///
/// # Errors
/// When it doesn't exist; the error has the nearest name.
pub fn family(name: &str) -> Result<&'static Family> {
    let known = || families().iter().map(Family::name);
    families()
        .iter()
        .find(|family| family.name == name)
        .ok_or_else(|| unknown_name("registry", "network", name, known().collect::<Vec<_>>()))
}

/// Builds the network that `config` describes, and returns it with the configuration with all defaults.
///
/// # Errors
/// When `network` is missing or unknown, a field is unknown (at any depth; the error has the nearest name), missing or of
/// the wrong type, or the network rejects a value.
pub fn build(scope: Scope<'_>, config: &Value) -> Result<Built> {
    let Some(name) = config.get("network").and_then(Value::as_str) else {
        return Err(Error::argument("registry", "the configuration doesn't say which network it is of")
            .expected("a family's name under `network`"));
    };
    (family(name)?.build)(scope, name, config)
}
