//! MONAI's U-Net of strided convolutions, with or without residual units.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Module, Pass, Scope, Stage};

use super::fit;
use crate::{
    Sizes,
    blocks::{ActivationChoice, Adn, ConvAdn, MOST_UNITS, NormChoice, Place, Unit, Units, checked_strides},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`MonaiUNet`].
///
/// ```
/// use tomograd_models::{MonaiUNetConfig, Sizes};
/// let config = MonaiUNetConfig { residual_units: 2, ..MonaiUNetConfig::new(3, 1, 2, [16, 32, 64], 2) };
/// assert_eq!(config.strides, [Sizes::All(2), Sizes::All(2)]);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "monai_unet")]
pub struct MonaiUNetConfig {
    /// The number of spatial axes (MONAI's `spatial_dims`).
    #[serde(default = "MonaiUNetConfig::three")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits (MONAI's `out_channels`).
    pub classes: usize,
    /// Channels of each level, from the finest to the coarsest.
    pub channels: Vec<usize>,
    /// The stride of each level but the coarsest: its block downsamples by it.
    pub strides: Vec<Sizes>,
    /// The kernel size of convolutions, odd numbers.
    #[serde(default = "MonaiUNetConfig::kernel")]
    pub kernel: Sizes,
    /// The kernel size of transposed convolutions, odd numbers.
    #[serde(default = "MonaiUNetConfig::kernel")]
    pub up_kernel: Sizes,
    /// The number of convolutions in a residual unit (MONAI's `num_res_units`); 0: single convolutions without shortcut.
    #[serde(default)]
    pub residual_units: usize,
    /// The activation.
    #[serde(default = "MonaiUNetConfig::prelu")]
    pub activation: ActivationChoice,
    /// The norm.
    #[serde(default = "MonaiUNetConfig::instance")]
    pub norm: NormChoice,
    /// The probability with which an element is dropped in training.
    #[serde(default)]
    pub dropout: f64,
    /// Whether convolutions have a bias.
    #[serde(default = "MonaiUNetConfig::yes")]
    pub bias: bool,
    /// The order of activation (A), dropout (D) and norm (N) behind a convolution; what has no letter is left out.
    #[serde(default = "MonaiUNetConfig::nda")]
    pub ordering: String,
}

impl MonaiUNetConfig {
    /// A network with MONAI's defaults and one stride for all levels.
    pub fn new(
        rank: usize,
        in_channels: usize,
        classes: usize,
        channels: impl Into<Vec<usize>>,
        stride: usize,
    ) -> Self {
        let channels = channels.into();
        Self {
            rank,
            in_channels,
            classes,
            strides: vec![Sizes::All(stride); channels.len().saturating_sub(1)],
            channels,
            kernel: Self::kernel(),
            up_kernel: Self::kernel(),
            residual_units: 0,
            activation: Self::prelu(),
            norm: Self::instance(),
            dropout: 0.0,
            bias: true,
            ordering: Self::nda(),
        }
    }

    fn three() -> usize {
        3
    }

    fn kernel() -> Sizes {
        Sizes::All(3)
    }

    fn prelu() -> ActivationChoice {
        ActivationChoice::Prelu
    }

    fn instance() -> NormChoice {
        NormChoice::Instance
    }

    fn yes() -> bool {
        true
    }

    fn nda() -> String {
        "NDA".to_owned()
    }

    fn plan(&self) -> Result<Plan> {
        let name = "monai_unet";
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes(name, "classes", &[self.classes], check::MOST_CHANNELS)?;
        check::length(name, "channels", self.channels.len(), 2, check::MOST_LEVELS)?;
        check::sizes(name, "channels", &self.channels, check::MOST_CHANNELS)?;
        check::counts(name, "residual_units", self.residual_units, MOST_UNITS)?;
        check::probability(name, "dropout", self.dropout)?;
        let strides = checked_strides(name, self.rank, &self.strides, self.channels.len() - 1)?;
        let kernel = self.kernel.odd(name, "kernel", self.rank)?;
        let up_kernel = self.up_kernel.odd(name, "up_kernel", self.rank)?;
        let adn = Adn::new(self.norm, self.activation).dropout(self.dropout).ordering(&self.ordering)?;
        Ok(Plan {
            strides,
            up_kernel,
            units: self.residual_units,
            layers: Units::new(self.rank, kernel, self.bias, adn),
        })
    }
}

impl Config for MonaiUNetConfig {
    type Network = MonaiUNet;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[1, 2, 3],
        about: "MONAI's UNet: strided convolutions, optional residual units, instance norm and PReLU",
        source: "Kerfoot et al.: Left-Ventricle Quantification Using Residual U-Net, 2019, \
                 doi:10.1007/978-3-030-12029-0_40",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/unet.py"),
        weights_licence: Some("Apache-2.0 (MONAI Model Zoo); some were trained on data with terms of their own"),
    };

    fn presets() -> Vec<Preset<Self>> {
        let residual = |classes, channels: &[usize], stride| Self {
            residual_units: 2,
            norm: NormChoice::Batch,
            ..Self::new(3, 1, classes, channels, stride)
        };
        vec![
            Preset::new("monai_unet_3d", Self::new(3, 1, 3, [32, 64, 128, 256], 2)),
            Preset::new("monai_unet_2d", Self::new(2, 1, 2, [16, 32, 64, 128, 256], 2)),
            Preset::new("spleen_ct_segmentation", residual(2, &[16, 32, 64, 128, 256], 2)),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<MonaiUNet> {
        MonaiUNet::new(scope, self)
    }
}

/// The checked numbers of a configuration.
struct Plan {
    strides: Vec<Vec<usize>>,
    up_kernel: Vec<usize>,
    units: usize,
    layers: Units,
}

/// The upsampling of a level: a transposed convolution, and a residual unit behind it if the network has them.
#[derive(Debug)]
struct Up {
    conv: ConvAdn,
    unit: Option<Unit>,
    stage: Option<Stage>,
}

/// MONAI's `UNet` (Kerfoot et al. 2019): the first convolution of each level downsamples by its stride, the decoder upsamples
/// by transposed convolutions behind the concatenation of a level's map with that from below, and each block can be a residual
/// unit. The finest level has half the image's size already (with a stride of 2), which makes the network cheap.
///
/// Input (N, C, spatial...), output (N, classes, spatial...). Sizes must be multiples of the product of the strides. (As in
/// the original, only the map behind the first stride must divide by the others: an input of another size that is rounded up to
/// such a multiple by the first stride is taken too, and the logits have the multiple's size.)
///
/// State-dict names are MONAI's, which follow its recursion: `model.0` the first level's encoder block (`conv`, `adn.N`,
/// `adn.A`; residual units `conv.unit0.conv`, …, `residual`), `model.1.submodule` the next levels, in the same way, `model.2`
/// its decoder block (with residual units `model.2.0`, `model.2.1`). Stages: `enc.L` (level L = 0, 1, …), and
/// `dec.L` of the same size.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, MonaiUNetConfig};
/// let model = Model::new(&MonaiUNetConfig::new(3, 1, 2, [4, 8, 16], 2), Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 12, 8], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2, 16, 12, 8]);
/// assert_eq!(model.features(&volume, &["enc.2"])?.main()?.shape(), [1, 16, 4, 3, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MonaiUNet {
    strides: Vec<Vec<usize>>,
    down: Vec<(Unit, Stage)>,
    up: Vec<Up>,
}

impl MonaiUNet {
    fn new(mut scope: Scope<'_>, config: &MonaiUNetConfig) -> Result<Self> {
        let plan = config.plan()?;
        scope.whole(|scope| Self::make(scope, config, plan))
    }

    fn make(scope: &mut Scope<'_>, config: &MonaiUNetConfig, plan: Plan) -> Result<Self> {
        let (channels, last) = (&config.channels, config.channels.len() - 1);
        let mut place = "model".to_owned();
        let mut reduction = vec![1usize; config.rank];
        let (mut down, mut from) = (Vec::new(), config.in_channels);
        let ones = vec![1; config.rank];
        for (level, &to) in channels.iter().enumerate() {
            let stride = plan.strides.get(level).unwrap_or(&ones);
            reduction = reduction.iter().zip(stride).map(|(a, b)| a.saturating_mul(*b)).collect();
            // The coarsest level is the block itself.
            let name = if level < last { format!("{place}.0") } else { place.clone() };
            let block = plan.layers.layer(scope.at(name), Place::new([from, to], stride), plan.units)?;
            down.push((block, scope.stage(&format!("enc.{level}"), to, &reduction)?));
            from = to;
            place.push_str(".1.submodule");
        }
        let (mut up, mut below) = (Vec::new(), channels[last]);
        for level in (0..last).rev() {
            let from = channels[level] + below;
            let to = if level == 0 { config.classes } else { channels[level - 1] };
            let path = format!("model{}.2", ".1.submodule".repeat(level));
            let (is_top, has_unit, stride) = (level == 0, plan.units > 0, &plan.strides[level]);
            let name = if has_unit { format!("{path}.0") } else { path.clone() };
            let place = Place::new([from, to], stride).bare(is_top && !has_unit);
            let conv = plan.layers.up(scope.at(name), place, &plan.up_kernel)?;
            let place = Place::new([to, to], &ones).bare(is_top);
            let unit = has_unit.then(|| plan.layers.residual(scope.at(format!("{path}.1")), place, 1)).transpose()?;
            reduction = reduction.iter().zip(stride).map(|(a, b)| a / b).collect();
            let stage = (!is_top).then(|| scope.stage(&format!("dec.{}", level - 1), to, &reduction)).transpose()?;
            up.push(Up { conv, unit, stage });
            below = to;
        }
        Ok(Self { strides: plan.strides, down, up })
    }

    fn check_input(&self, x: &Var) -> Result<()> {
        let rank = self.strides[0].len();
        let first = &self.strides[0];
        let rest = |axis: usize| self.strides[1..].iter().fold(1usize, |all, stride| all.saturating_mul(stride[axis]));
        let fits = |(axis, &size): (usize, &usize)| size > 0 && size.div_ceil(first[axis]).is_multiple_of(rest(axis));
        if x.rank() == rank + 2 && x.shape()[2..].iter().enumerate().all(fits) {
            return Ok(());
        }
        let units: Vec<usize> = (0..rank).map(|axis| rest(axis).saturating_mul(first[axis])).collect();
        let axes = format_args!("(N, C, spatial...) with {rank} spatial axes, multiples of {units:?}").to_string();
        Err(fit::refused("monai_unet", x, axes))
    }
}

impl Module for MonaiUNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.check_input(x)?;
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (block, stage) in &self.down {
            x = pass.stage(*stage, block.forward(&x, pass)?)?;
            skips.push(x.clone());
        }
        skips.pop();
        for (up, skip) in self.up.iter().zip(skips.into_iter().rev()) {
            x = up.conv.forward_two(skip, x, pass)?;
            if let Some(unit) = &up.unit {
                x = unit.forward(&x, pass)?;
            }
            if let Some(stage) = up.stage {
                x = pass.stage(stage, x)?;
            }
        }
        Ok(x)
    }
}
