//! The description of a family of networks, and the deserialisation of its configuration with helpful errors.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tomograd_core::{Error, Result, unknown_name};
use tomograd_nn::{Network, Scope};

/// The task of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// Segmentation: logits for each voxel.
    Segmentation,
    /// Classification: logits for each image.
    Classification,
    /// Regression: numbers for each image.
    Regression,
    /// Reconstruction of the image, such as that of an autoencoder.
    Reconstruction,
    /// Generation of images from random numbers.
    Generation,
    /// Discrimination: whether images, or their patches, are real or generated.
    Discrimination,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segmentation => "segmentation",
            Self::Classification => "classification",
            Self::Regression => "regression",
            Self::Reconstruction => "reconstruction",
            Self::Generation => "generation",
            Self::Discrimination => "discrimination",
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
    /// The spatial size of the images for which it was published, where that isn't a usual size of its family.
    pub size: Option<Vec<usize>>,
    /// The preset's own source, where the family's is another.
    pub source: Option<&'static str>,
}

impl<C> Preset<C> {
    /// A preset without published weights, of the family's source and a usual size.
    pub fn new(name: &'static str, config: C) -> Self {
        Self { name, config, channels: None, size: None, source: None }
    }

    /// Sets the spatial size of the images for which it was published.
    #[must_use]
    pub fn size(self, size: impl Into<Vec<usize>>) -> Self {
        Self { size: Some(size.into()), ..self }
    }

    /// Sets its own source: authors, title, year, DOI or arXiv number.
    #[must_use]
    pub fn source(self, source: &'static str) -> Self {
        Self { source: Some(source), ..self }
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

pub(crate) fn find<C>(mut presets: Vec<Preset<C>>, name: &str) -> Result<Preset<C>> {
    match presets.iter().position(|preset| preset.name == name) {
        Some(place) => Ok(presets.swap_remove(place)),
        None => Err(unknown_name("registry", "preset", name, presets.iter().map(|preset| preset.name))),
    }
}

pub(crate) fn json(plain: &impl Serialize) -> Result<Value> {
    serde_json::to_value(plain).map_err(|error| Error::argument("registry", "it has no JSON").source(error))
}

/// The configuration that `given` describes, and its JSON with all defaults.
pub(crate) fn checked<C: Config>(name: &str, given: &Value) -> Result<(C, Value)> {
    let config: C = match serde_path_to_error::deserialize(given) {
        Ok(config) => config,
        Err(error) => {
            // A missing field is often a misspelt one, so unknown fields are reported first.
            if let Some(preset) = C::presets().first() {
                known_fields(given, &json(&preset.config)?, name)?;
            }
            let (path, cause) = (error.path().to_string(), error.into_inner());
            let field = if path == "." { String::new() } else { format!("{path}: ") };
            return Err(Error::argument(
                "registry",
                format!("the configuration of {name} doesn't fit: {field}{cause}"),
            )
            .source(cause));
        }
    };
    let full = json(&config)?;
    known_fields(given, &full, name)?;
    Ok((config, full))
}

/// Checks that `full` has all fields of `given`, at any depth: serde would silently ignore a misspelt optional field.
fn known_fields(given: &Value, full: &Value, place: &str) -> Result<()> {
    match (given, full) {
        (Value::Object(given), Value::Object(full)) => {
            given.iter().try_for_each(|(field, value)| match full.get(field) {
                Some(known) => known_fields(value, known, &format!("{place}.{field}")),
                None => {
                    let known: Vec<&str> =
                        full.keys().map(String::as_str).filter(|&known| known != "network").collect();
                    Err(unknown_name("registry", "field", field, known).within(place))
                }
            })
        }
        (Value::Array(given), Value::Array(full)) => {
            let mut pairs = given.iter().zip(full).enumerate();
            pairs.try_for_each(|(at, (given, full))| known_fields(given, full, &format!("{place}[{at}]")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unknown_field_at_any_depth_is_named_with_the_nearest() {
        let full = json!({"network": "x", "stem": {"width": 3}, "blocks": [{"kernel": 3, "act": {"slope": 0.1}}]});
        assert!(known_fields(&json!({"network": "x", "blocks": [{"act": {}}]}), &full, "x").is_ok());
        for (given, expected) in [
            (json!({"stem": {"widht": 1}}), "x.stem: registry: no field is called widht, did you mean width?"),
            (
                json!({"blocks": [{"kernle": 1}]}),
                "x.blocks[0]: registry: no field is called kernle, did you mean kernel?",
            ),
            (json!({"blocks": [{"act": {"slop": 1}}]}), "x.blocks[0].act: registry: no field is called slop"),
            (json!({"nonsense": 1}), "x: registry: no field is called nonsense; expected one of "),
        ] {
            let error = known_fields(&given, &full, "x").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
