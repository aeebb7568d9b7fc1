//! nnU-Net's plans (version 2): the network that a `plans.json` describes.

use std::collections::BTreeSet;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tomograd_core::{Error, Result, unknown_name};

use super::{NnUNetArchitecture, NnUNetConfig};
use crate::{
    blocks::{ActivationChoice, NormChoice},
    check,
};

const OPERATION: &str = "plans";

impl NnUNetConfig {
    /// The network of a configuration (`2d`, `3d_fullres`, ...) of nnU-Net's plans: `plans` is the text of a
    /// `plans.json`, written by any version 2 of nnU-Net. Configurations may inherit from others (`inherits_from`). As
    /// in nnU-Net's training there is deep supervision.
    ///
    /// ```
    /// use tomograd_models::NnUNetConfig;
    /// let plans = r#"{"configurations": {
    ///     "3d_fullres": {"patch_size": [40, 56, 40], "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 32,
    ///         "unet_max_num_features": 320, "n_conv_per_stage_encoder": [2, 2], "n_conv_per_stage_decoder": [2],
    ///         "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]], "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]]},
    ///     "small_batch": {"inherits_from": "3d_fullres", "batch_size": 2}}}"#;
    /// let config = NnUNetConfig::from_plans(plans, "small_batch", 1, 3)?;
    /// assert_eq!(config, NnUNetConfig::new(1, 3, [32, 64]));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the text isn't JSON or lacks the configuration, configurations inherit from each other in a circle, a field
    /// is missing, unknown or of another type, or the network isn't one of nnU-Net's.
    pub fn from_plans(plans: &str, configuration: &str, in_channels: usize, classes: usize) -> Result<Self> {
        let plans: Value =
            serde_json::from_str(plans).map_err(|error| unfit(format!("not JSON: {error}")).source(error))?;
        let described = inherited(&plans, configuration)?;
        let config = match described.get("architecture") {
            Some(architecture) => of_architecture(architecture, in_channels, classes),
            None => of_older_plans(described, in_channels, classes),
        };
        let checked = config.and_then(|config| config.check().map(|()| config));
        checked.map_err(|error| error.within(format!("configuration {configuration}")))
    }
}

fn unfit(what: impl Into<String>) -> Error {
    Error::argument(OPERATION, what.into())
}

/// The configuration called `name`, with what it inherits.
fn inherited(plans: &Value, name: &str) -> Result<Map<String, Value>> {
    let Some(all) = plans.get("configurations").and_then(Value::as_object) else {
        return Err(unfit("there are no configurations").expected("the contents of nnU-Net's plans.json"));
    };
    let (mut described, mut visited, mut name) = (Map::new(), BTreeSet::new(), name);
    loop {
        let Some(own) = all.get(name) else {
            return Err(unknown_name(OPERATION, "configuration", name, all.keys().map(String::as_str)));
        };
        let Some(own) = own.as_object() else {
            return Err(unfit(format!("the configuration {name} is {own}")).expected("an object"));
        };
        if !visited.insert(name) {
            return Err(unfit(format!("the configuration {name} inherits from itself")).expected("no circle"));
        }
        for (field, value) in own {
            described.entry(field.as_str()).or_insert_with(|| value.clone());
        }
        match own.get("inherits_from") {
            None | Some(Value::Null) => return Ok(described),
            Some(Value::String(parent)) => name = parent,
            Some(other) => return Err(unfit(format!("inherits_from is {other}")).expected("a name")),
        }
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, cause) = (error.path().to_string(), error.into_inner());
        unfit(format!("{path}: {cause}")).source(cause)
    })
}

/// A number for all, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Numbers {
    All(usize),
    Each(Vec<usize>),
}

impl Numbers {
    fn list(self, length: usize) -> Vec<usize> {
        match self {
            Self::All(number) => vec![number; length],
            Self::Each(numbers) => numbers,
        }
    }
}

/// A number for all levels, or one or a list for each.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lists {
    All(usize),
    Each(Vec<Numbers>),
}

impl Lists {
    fn lists(self, length: usize, rank: usize) -> Vec<Vec<usize>> {
        match self {
            Self::All(number) => vec![vec![number; rank]; length],
            Self::Each(lists) => lists.into_iter().map(|numbers| numbers.list(rank)).collect(),
        }
    }
}

/// `architecture` of a configuration.
#[derive(Deserialize)]
struct Architecture {
    network_class_name: String,
    arch_kwargs: Arguments,
}

/// The arguments of the original's constructors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    n_stages: usize,
    features_per_stage: Numbers,
    conv_op: String,
    kernel_sizes: Lists,
    strides: Lists,
    n_conv_per_stage: Option<Numbers>,
    n_blocks_per_stage: Option<Numbers>,
    n_conv_per_stage_decoder: Numbers,
    #[serde(default)]
    conv_bias: bool,
    norm_op: Option<String>,
    norm_op_kwargs: Option<NormArguments>,
    dropout_op: Option<String>,
    dropout_op_kwargs: Option<DropoutArguments>,
    nonlin: Option<String>,
    nonlin_kwargs: Option<ActivationArguments>,
    #[serde(default)]
    nonlin_first: bool,
    deep_supervision: Option<bool>,
    block: Option<String>,
    bottleneck_channels: Option<Numbers>,
    stem_channels: Option<usize>,
}

/// The arguments of a norm, with PyTorch's defaults.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NormArguments {
    eps: Option<f64>,
    affine: Option<bool>,
}

/// The arguments of dropout, with PyTorch's defaults.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DropoutArguments {
    p: Option<f64>,
    #[serde(rename = "inplace")]
    _inplace: Option<bool>,
}

/// The arguments of an activation, with PyTorch's defaults.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivationArguments {
    negative_slope: Option<f64>,
    #[serde(rename = "inplace")]
    _inplace: Option<bool>,
}

/// The class of a dotted path such as `torch.nn.modules.conv.Conv3d`.
fn class(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// The place of the class that `path` ends in, among `known`.
fn place(field: &str, path: &str, known: &[&str]) -> Result<usize> {
    known
        .iter()
        .position(|known| *known == class(path))
        .ok_or_else(|| unfit(format!("{field} is {path}")).expected(format!("a class called {}", known.join(" or "))))
}

fn of_architecture(architecture: &Value, in_channels: usize, classes: usize) -> Result<NnUNetConfig> {
    let Architecture { network_class_name, arch_kwargs: given } = read(architecture.clone())?;
    let networks = ["PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"];
    let architecture =
        [NnUNetArchitecture::PlainConv, NnUNetArchitecture::ResidualEncoder, NnUNetArchitecture::Residual]
            [place("network_class_name", &network_class_name, &networks)?];
    let count = given.n_stages;
    if !(2..=check::MOST_LEVELS).contains(&count) {
        return Err(unfit(format!("n_stages is {count}")).expected(format!("2 to {}", check::MOST_LEVELS)));
    }
    let rank = 1 + place("conv_op", &given.conv_op, &["Conv1d", "Conv2d", "Conv3d"])?;
    let of_rank = |name: &str| format!("{name}{rank}d");
    let norm_arguments = given.norm_op_kwargs.unwrap_or_default();
    let norm = match &given.norm_op {
        None => NormChoice::None,
        Some(path) => {
            let batch = place("norm_op", path, &[&of_rank("InstanceNorm"), &of_rank("BatchNorm")])? == 1;
            // PyTorch's defaults of `affine` differ.
            match (batch, norm_arguments.affine.unwrap_or(batch)) {
                (false, true) => NormChoice::InstanceAffine,
                (false, false) => NormChoice::Instance,
                (true, true) => NormChoice::Batch,
                (true, false) => return Err(unfit("norm_op_kwargs.affine is false").expected("true for batch norm")),
            }
        }
    };
    let dropout = match &given.dropout_op {
        None => None,
        Some(path) => {
            let channels = place("dropout_op", path, &["Dropout", &of_rank("Dropout")])? == 1;
            Some((given.dropout_op_kwargs.and_then(|given| given.p).unwrap_or(0.5), channels))
        }
    };
    let slope = given.nonlin_kwargs.and_then(|given| given.negative_slope);
    let nonlin = given.nonlin.unwrap_or_default();
    let activation = match place("nonlin", &nonlin, &["LeakyReLU", "ReLU", "GELU", "SiLU", "Mish"])? {
        0 => ActivationChoice::LeakyRelu(slope.unwrap_or(0.01)),
        1 => ActivationChoice::Relu,
        2 => ActivationChoice::Gelu,
        3 => ActivationChoice::Silu,
        _ => ActivationChoice::Mish,
    };
    let convs = ("n_conv_per_stage", given.n_conv_per_stage);
    let stacks = ("n_blocks_per_stage", given.n_blocks_per_stage);
    let ((field, blocks), (unknown, other)) =
        if architecture == NnUNetArchitecture::PlainConv { (convs, stacks) } else { (stacks, convs) };
    if other.is_some() {
        let network = class(&network_class_name);
        return Err(unfit(format!("{unknown} is given, and the network is a {network}")).expected(field));
    }
    let Some(blocks) = blocks else { return Err(unfit(format!("{field} is missing"))) };
    let kind = given.block.map_or(Ok(0), |path| place("block", &path, &["BasicBlockD", "BottleneckD"]))?;
    let bottleneck = given.bottleneck_channels.filter(|_| kind == 1);
    if kind == 1 && bottleneck.is_none() {
        return Err(unfit("bottleneck_channels is missing").expected("the inner channels of each level's blocks"));
    }
    Ok(NnUNetConfig {
        rank,
        in_channels,
        classes,
        architecture,
        features: given.features_per_stage.list(count),
        kernel_sizes: given.kernel_sizes.lists(count, rank),
        strides: given.strides.lists(count, rank),
        blocks: blocks.list(count),
        decoder_blocks: given.n_conv_per_stage_decoder.list(count - 1),
        conv_bias: given.conv_bias,
        norm,
        norm_epsilon: norm_arguments.eps.unwrap_or(1e-5),
        activation,
        activation_first: given.nonlin_first,
        dropout: dropout.map(|(probability, _)| probability),
        dropout_channels: dropout.is_none_or(|(_, channels)| channels),
        deep_supervision: given.deep_supervision.unwrap_or(true),
        bottleneck_channels: bottleneck.map(|channels| channels.list(count)),
        stem_channels: given.stem_channels,
    })
}

/// A configuration of nnU-Net before 2.4, which has the numbers of its networks instead of their arguments.
#[derive(Deserialize)]
struct Older {
    #[serde(rename = "UNet_class_name")]
    class: String,
    #[serde(rename = "UNet_base_num_features")]
    base: usize,
    unet_max_num_features: usize,
    patch_size: Vec<Value>,
    n_conv_per_stage_encoder: Vec<usize>,
    n_conv_per_stage_decoder: Vec<usize>,
    conv_kernel_sizes: Vec<Vec<usize>>,
    pool_op_kernel_sizes: Vec<Vec<usize>>,
}

fn of_older_plans(described: Map<String, Value>, in_channels: usize, classes: usize) -> Result<NnUNetConfig> {
    if !described.contains_key("UNet_class_name") {
        return Err(unfit("it has neither architecture nor UNet_class_name").expected("one of them"));
    }
    let given: Older = read(Value::Object(described))?;
    let networks = ["PlainConvUNet", "ResidualEncoderUNet"];
    let architecture = [NnUNetArchitecture::PlainConv, NnUNetArchitecture::ResidualEncoder]
        [place("UNet_class_name", &given.class, &networks)?];
    let count = given.n_conv_per_stage_encoder.len().min(check::MOST_LEVELS + 1);
    let doubled = |level: usize| given.base.saturating_mul(1 << level).min(given.unet_max_num_features);
    Ok(NnUNetConfig {
        rank: given.patch_size.len(),
        architecture,
        kernel_sizes: given.conv_kernel_sizes,
        strides: given.pool_op_kernel_sizes,
        blocks: given.n_conv_per_stage_encoder,
        decoder_blocks: given.n_conv_per_stage_decoder,
        ..NnUNetConfig::new(in_channels, classes, (0..count).map(doubled).collect::<Vec<usize>>())
    })
}
