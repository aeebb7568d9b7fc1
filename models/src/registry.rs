//! The registry of networks: builds a network from its configuration, which is plain data.
//!
//! A family of networks is a type that implements [`Config`], and a line in the list below. Its name is the `rename` of its
//! serde tag and is written nowhere else.

use std::{fmt, sync::LazyLock};

use serde_json::Value;
use tomograd_core::{Error, Result, unknown_name};
use tomograd_nn::{Network, Scope};

pub use crate::config::{Card, ChannelStatistics, Config, Preset, Task};
use crate::{
    AlexNetConfig, AttentionGatedUNetConfig, AttentionUNetConfig, AutoEncoderConfig, BasicUNetConfig,
    BasicUNetPlusPlusConfig, ConvNeXtConfig, DenseNetConfig, DiscriminatorConfig, DynUNetConfig, EfficientNetConfig,
    FcnConfig, FullyConnectedNetConfig, GeneratorConfig, GoogLeNetConfig, HalfUNetConfig, InceptionV3Config,
    MeshNetConfig, MonaiClassifierConfig, MonaiUNetConfig, MultiScalePatchDiscriminatorConfig, NestedUNetConfig,
    NnUNetConfig, PatchDiscriminatorConfig, RegressorConfig, ResNetConfig, ResUNetConfig, SegResNetConfig,
    SliceSequenceConfig, U2NetConfig, UNet2dConfig, UNet3PlusConfig, UNet3dConfig, UNetConfig, VNetConfig,
    VarAutoEncoderConfig, VggConfig,
    config::{checked, find, json},
};

/// The list of all families.
static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(|| {
    vec![
        // Segmentation.
        Family::of::<UNet3dConfig>(),
        Family::of::<UNet2dConfig>(),
        Family::of::<UNetConfig>(),
        Family::of::<MonaiUNetConfig>(),
        Family::of::<BasicUNetConfig>(),
        Family::of::<BasicUNetPlusPlusConfig>(),
        Family::of::<NestedUNetConfig>(),
        Family::of::<AttentionUNetConfig>(),
        Family::of::<AttentionGatedUNetConfig>(),
        Family::of::<UNet3PlusConfig>(),
        Family::of::<ResUNetConfig>(),
        Family::of::<HalfUNetConfig>(),
        Family::of::<U2NetConfig>(),
        Family::of::<VNetConfig>(),
        Family::of::<SegResNetConfig>(),
        Family::of::<DynUNetConfig>(),
        Family::of::<NnUNetConfig>(),
        Family::of::<MeshNetConfig>(),
        Family::of::<FcnConfig>(),
        // Classification.
        Family::of::<AlexNetConfig>(),
        Family::of::<VggConfig>(),
        Family::of::<GoogLeNetConfig>(),
        Family::of::<InceptionV3Config>(),
        Family::of::<ResNetConfig>(),
        Family::of::<DenseNetConfig>(),
        Family::of::<EfficientNetConfig>(),
        Family::of::<ConvNeXtConfig>(),
        Family::of::<MonaiClassifierConfig>(),
        Family::of::<SliceSequenceConfig>(),
        // Reconstruction, generation, discrimination, regression.
        Family::of::<AutoEncoderConfig>(),
        Family::of::<VarAutoEncoderConfig>(),
        Family::of::<GeneratorConfig>(),
        Family::of::<DiscriminatorConfig>(),
        Family::of::<PatchDiscriminatorConfig>(),
        Family::of::<MultiScalePatchDiscriminatorConfig>(),
        Family::of::<RegressorConfig>(),
        Family::of::<FullyConnectedNetConfig>(),
    ]
});

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
    let plain = |Preset { name, config, channels, size, source }: Preset<C>| {
        Ok(Preset { name, config: json(&config)?, channels, size, source })
    };
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
