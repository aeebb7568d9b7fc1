//! Discriminators of patches, at one or several scales.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{Kernel, Module, Named, Network, Pass, Scope, init::Init};

use crate::{
    blocks::{ActivationChoice, Adn, ConvAdn, NormChoice},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`PatchDiscriminator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "patch_discriminator")]
pub struct PatchDiscriminatorConfig {
    /// The number of spatial axes.
    #[serde(default = "two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    #[serde(default = "one")]
    pub out_channels: usize,
    /// Channels of the first convolution, which each further layer doubles.
    pub channels: usize,
    /// The number of convolutions between the first and the last.
    #[serde(default = "three")]
    pub layers: usize,
    /// The size of the kernels.
    #[serde(default = "four")]
    pub kernel: usize,
    /// The size of the last kernel; `null`: that of the others.
    #[serde(default)]
    pub last_kernel: Option<usize>,
    /// The zeros on each side of the image and of all maps but the last one's.
    #[serde(default = "one")]
    pub padding: usize,
    /// The activation.
    #[serde(default = "leaky")]
    pub activation: ActivationChoice,
    /// The norm behind all convolutions but the first and the last.
    #[serde(default = "batch")]
    pub norm: NormChoice,
    /// Whether convolutions that a norm follows have a bias.
    #[serde(default)]
    pub bias: bool,
    /// The probability with which an element is dropped in training.
    #[serde(default)]
    pub dropout: f64,
}

/// The configuration of a [`MultiScalePatchDiscriminator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "multi_scale_patch_discriminator")]
pub struct MultiScalePatchDiscriminatorConfig {
    /// The number of spatial axes.
    #[serde(default = "two")]
    pub rank: usize,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels of each discriminator.
    #[serde(default = "one")]
    pub out_channels: usize,
    /// Channels of the first convolution, which each further layer doubles.
    pub channels: usize,
    /// The number of discriminators.
    pub discriminators: usize,
    /// The number of convolutions between the first and the last of the first discriminator; discriminator i has i + 1 times as
    /// many (i = 0, 1, …).
    pub layers: usize,
    /// The size of the kernels.
    #[serde(default = "four")]
    pub kernel: usize,
    /// The size of the last kernels.
    #[serde(default = "one")]
    pub last_kernel: usize,
    /// The activation.
    #[serde(default = "leaky")]
    pub activation: ActivationChoice,
    /// The norm behind all convolutions but the first and the last.
    #[serde(default = "batch")]
    pub norm: NormChoice,
    /// Whether convolutions that a norm follows have a bias.
    #[serde(default)]
    pub bias: bool,
    /// The probability with which an element is dropped in training.
    #[serde(default)]
    pub dropout: f64,
    /// The smallest image that will be used: a configuration whose discriminators would halve it to nothing is refused.
    #[serde(default = "smallest_image")]
    pub smallest_image: usize,
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn three() -> usize {
    3
}

fn four() -> usize {
    4
}

fn smallest_image() -> usize {
    256
}

fn leaky() -> ActivationChoice {
    ActivationChoice::LeakyRelu(0.2)
}

fn batch() -> NormChoice {
    NormChoice::Batch
}

/// The largest kernel and padding.
const MOST_KERNEL: usize = 63;
/// The most layers: each but the last one halves the image.
const MOST_LAYERS: usize = 24;
/// The most discriminators.
const MOST_DISCRIMINATORS: usize = 16;

impl PatchDiscriminatorConfig {
    /// A network with MONAI's defaults.
    pub fn new(rank: usize, in_channels: usize, channels: usize) -> Self {
        Self {
            rank,
            in_channels,
            out_channels: 1,
            channels,
            layers: 3,
            kernel: 4,
            last_kernel: None,
            padding: 1,
            activation: leaky(),
            norm: batch(),
            bias: false,
            dropout: 0.0,
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        check::sizes(name, "rank", &[self.rank], 3)?;
        check::sizes(name, "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes(name, "out_channels", &[self.out_channels], check::MOST_CHANNELS)?;
        check::counts(name, "layers", self.layers, MOST_LAYERS)?;
        check::sizes(name, "channels", &[self.channels], check::MOST_CHANNELS >> self.layers.min(MOST_LAYERS))?;
        check::sizes(name, "kernel", &[self.kernel], MOST_KERNEL)?;
        check::sizes(name, "last_kernel", &[self.last_kernel.unwrap_or(self.kernel)], MOST_KERNEL)?;
        check::counts(name, "padding", self.padding, MOST_KERNEL)?;
        check::probability(name, "dropout", self.dropout)
    }
}

impl MultiScalePatchDiscriminatorConfig {
    /// A network with MONAI's defaults.
    pub fn new(rank: usize, in_channels: usize, channels: usize, discriminators: usize, layers: usize) -> Self {
        Self {
            rank,
            in_channels,
            out_channels: 1,
            channels,
            discriminators,
            layers,
            kernel: 4,
            last_kernel: 1,
            activation: leaky(),
            norm: batch(),
            bias: false,
            dropout: 0.0,
            smallest_image: smallest_image(),
        }
    }

    /// The configuration of discriminator `place`.
    fn part(&self, place: usize) -> PatchDiscriminatorConfig {
        PatchDiscriminatorConfig {
            rank: self.rank,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            channels: self.channels,
            layers: self.layers * (place + 1),
            kernel: self.kernel,
            last_kernel: Some(self.last_kernel),
            padding: self.kernel.saturating_sub(1) / 2,
            activation: self.activation,
            norm: self.norm,
            bias: self.bias,
            dropout: self.dropout,
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        check::sizes(name, "discriminators", &[self.discriminators], MOST_DISCRIMINATORS)?;
        check::sizes(name, "layers", &[self.layers], MOST_LAYERS)?;
        let most = self.layers * self.discriminators;
        if most > MOST_LAYERS || self.smallest_image >> most == 0 {
            let what = format!("{} discriminators of up to {most} layers", self.discriminators);
            return Err(Error::argument(name, format!("{what} for smallest_image {}", self.smallest_image))
                .expected("fewer layers, fewer discriminators or larger images: each layer halves the image"));
        }
        self.part(self.discriminators - 1).check(name)
    }
}

const PATCH_SOURCE: &str = "Isola et al.: Image-to-Image Translation with Conditional Adversarial Networks, 2016, arXiv:1611.07004; \
     Wang et al. (pix2pixHD) 2017, arXiv:1711.11585; as in MONAI, Cardoso et al. 2022, arXiv:2211.02701";
const PATCH_CODE: &str =
    "https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/patchgan_discriminator.py";

impl Config for PatchDiscriminatorConfig {
    type Network = PatchDiscriminator;

    const CARD: Card = Card {
        task: Task::Discrimination,
        ranks: &[1, 2, 3],
        about: "PatchGAN: whether each patch of an image is real",
        source: PATCH_SOURCE,
        code: Some(PATCH_CODE),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("patch_discriminator", Self::new(2, 1, 64)),
            Preset::new("patch_discriminator_3d", Self::new(3, 1, 64)),
        ]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<PatchDiscriminator> {
        self.check("patch_discriminator")?;
        scope.whole(|scope| Ok(PatchDiscriminator { rank: self.rank, chain: Patches::new(scope, self)? }))
    }
}

impl Config for MultiScalePatchDiscriminatorConfig {
    type Network = MultiScalePatchDiscriminator;

    const CARD: Card = Card {
        task: Task::Discrimination,
        ranks: &[1, 2, 3],
        about: "several PatchGAN discriminators, which see patches of different sizes",
        source: PATCH_SOURCE,
        code: Some(PATCH_CODE),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("multi_scale_patch_discriminator", Self::new(2, 1, 64, 2, 3)),
            Preset::new("multi_scale_patch_discriminator_3d", Self::new(3, 1, 32, 2, 2)),
        ]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<MultiScalePatchDiscriminator> {
        self.check("multi_scale_patch_discriminator")?;
        scope.whole(|scope| {
            let made = |place: usize| Patches::new(&mut scope.at(format!("discriminator_{place}")), &self.part(place));
            let chains = (0..self.discriminators).map(made).collect::<Result<_>>()?;
            Ok(MultiScalePatchDiscriminator { rank: self.rank, chains })
        })
    }
}

/// The initialisation of batch norms' weights.
const SCALE: Init = Init::NormalAround { mean: 1.0, deviation: 0.02 };

/// The chain of convolutions of a discriminator.
#[derive(Debug)]
struct Patches(Vec<ConvAdn>);

impl Patches {
    fn new(scope: &mut Scope<'_>, config: &PatchDiscriminatorConfig) -> Result<Self> {
        let kernel = |size: usize, stride: usize, padding: usize, bias: bool| {
            let kernel = Kernel::new(config.rank, size).stride(stride).padding(padding).weight(Init::Normal(0.02));
            if bias { kernel.bias_filled(Init::Constant(0.0)) } else { kernel.bias(false) }
        };
        let adn = |norm| {
            let adn = Adn::new(norm, config.activation).dropout(config.dropout);
            // MONAI changes the weights of batch norms alone.
            if norm == NormChoice::Batch { adn.scale(SCALE) } else { adn }
        };
        let mut to = config.channels;
        let first = kernel(config.kernel, 2, config.padding, true);
        let scope_of_first = scope.at("initial_conv");
        let mut chain = vec![ConvAdn::new(scope_of_first, config.in_channels, to, first, &adn(NormChoice::None))?];
        for layer in 0..config.layers {
            let from = to;
            to = 2 * from;
            let stride = if layer + 1 == config.layers { 1 } else { 2 };
            let kernel = kernel(config.kernel, stride, config.padding, config.bias);
            chain.push(ConvAdn::new(scope.at(layer), from, to, kernel, &adn(config.norm))?);
        }
        let size = config.last_kernel.unwrap_or(config.kernel);
        let last = kernel(size, 1, (size - 1) / 2, true);
        chain.push(ConvAdn::new(scope.at("final_conv"), to, config.out_channels, last, &Adn::none())?);
        Ok(Self(chain))
    }

    /// The output, and the maps before it.
    fn forward(&self, x: &Var, pass: &Pass) -> Result<(Var, Vec<Var>)> {
        let (mut x, mut maps) = (x.clone(), Vec::new());
        for (place, conv) in self.0.iter().enumerate() {
            if place > 0 {
                maps.push(x.clone());
            }
            x = conv.forward(&x, pass)?;
        }
        Ok((x, maps))
    }
}

/// MONAI's `PatchDiscriminator` (PatchGAN): strided convolutions, whose output has one number for each patch of the image: 70 voxels
/// wide with three layers and kernels of 4. Input `image` (N, C, spatial...). Outputs: `logits` (N, C_out, spatial / 8 …) (without a
/// sigmoid), then the maps of all layers before, `features_0`, `features_1`, …, for feature matching losses.
///
/// State-dict names are MONAI's: `initial_conv.conv`, `0.conv`, `0.adn.N`, `1.conv`, …, `final_conv.conv`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, PatchDiscriminatorConfig};
/// let model = Model::new(&PatchDiscriminatorConfig::new(2, 1, 4), Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 64, 64], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.main()?.shape(), [1, 1, 6, 6]);
/// assert_eq!(outputs.get("features_3")?.shape(), [1, 32, 7, 7]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct PatchDiscriminator {
    rank: usize,
    chain: Patches,
}

impl Network for PatchDiscriminator {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::rank("patch_discriminator", x.shape(), self.rank)?;
        let (logits, maps) = self.chain.forward(x, pass)?;
        let maps = maps.into_iter().enumerate().map(|(place, map)| (format!("features_{place}"), map));
        Ok([("logits".to_owned(), logits)].into_iter().chain(maps).collect())
    }
}

/// MONAI's `MultiScalePatchDiscriminator`: several [`PatchDiscriminator`]s of the same image, each with more layers than the one
/// before, so that it judges larger patches. Input `image` (N, C, spatial...). Outputs: `logits`, `logits_1`, `logits_2`, … of each
/// discriminator, then `features_0_0`, `features_0_1`, …, `features_1_0`, …: map j of discriminator i.
///
/// State-dict names are MONAI's: `discriminator_0.initial_conv.conv`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, MultiScalePatchDiscriminatorConfig};
/// let config = MultiScalePatchDiscriminatorConfig::new(2, 1, 4, 2, 2);
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 1, 64, 64], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.get("logits")?.shape(), [1, 1, 15, 15]);
/// assert_eq!(outputs.get("logits_1")?.shape(), [1, 1, 3, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MultiScalePatchDiscriminator {
    rank: usize,
    chains: Vec<Patches>,
}

impl Network for MultiScalePatchDiscriminator {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::rank("multi_scale_patch_discriminator", x.shape(), self.rank)?;
        let (mut outputs, mut all_maps) = (Named::new(), Vec::new());
        for (place, chain) in self.chains.iter().enumerate() {
            let (logits, maps) = chain.forward(x, pass)?;
            let name = if place == 0 { "logits".to_owned() } else { format!("logits_{place}") };
            outputs.insert(name, logits);
            let names = (0..).map(|map| format!("features_{place}_{map}"));
            all_maps.extend(names.zip(maps));
        }
        for (name, map) in all_maps {
            outputs.insert(name, map);
        }
        Ok(outputs)
    }
}
