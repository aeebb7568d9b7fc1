//! MONAI's fully convolutional network.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Interpolation, Kernel, Module, Norm, NormKind, NormOptions,
    Pass, Scope, Stage,
};

use crate::{
    ResNetBlock, ResNetConfig, ResNetEncoder,
    blocks::{conv_norm, saving::add},
    check,
    config::{Card, Config, Preset, Task},
};

/// How an [`Fcn`] enlarges its maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FcnUpsampling {
    /// Bilinear interpolation to the size of the next map, for images of any size.
    #[default]
    Bilinear,
    /// One transposed convolution, used at all levels, for images whose sizes are multiples of 32.
    Transposed,
}

/// The configuration of an [`Fcn`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "fcn")]
pub struct FcnConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits (MONAI's `out_channels`).
    pub classes: usize,
    /// Whether a convolution projects the input channels to three (MONAI's `MCFCN`), so that weights for photographs fit.
    #[serde(default)]
    pub projection: bool,
    /// How maps are enlarged.
    #[serde(default)]
    pub upsampling: FcnUpsampling,
    /// The number of bottlenecks in each of the encoder's four layers; those of ResNet-50 by default.
    #[serde(default = "FcnConfig::resnet50")]
    pub layers: Vec<usize>,
    /// Channels of the encoder's stem.
    #[serde(default = "FcnConfig::sixty_four")]
    pub width: usize,
}

/// What the projection makes of an image.
const PROJECTED: usize = 3;
/// The width of the large kernels.
const LARGE: usize = 7;

impl FcnConfig {
    /// MONAI's network of three input channels.
    pub fn new(classes: usize) -> Self {
        Self {
            in_channels: 3,
            classes,
            projection: false,
            upsampling: FcnUpsampling::Bilinear,
            layers: Self::resnet50(),
            width: Self::sixty_four(),
        }
    }

    fn resnet50() -> Vec<usize> {
        vec![3, 4, 6, 3]
    }

    fn sixty_four() -> usize {
        64
    }

    fn encoder(&self) -> ResNetConfig {
        let in_channels = if self.projection { PROJECTED } else { self.in_channels };
        let base = ResNetConfig::new(ResNetBlock::Bottleneck, self.layers.clone(), 1);
        ResNetConfig { in_channels, width: self.width, ..base }
    }

    fn check(&self) -> Result<()> {
        check::sizes("fcn", "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes("fcn", "classes", &[self.classes], check::MOST_CHANNELS)?;
        // The last layer has 32 times as many channels.
        check::sizes("fcn", "width", &[self.width], check::MOST_CHANNELS / 32)?;
        check::length("fcn", "layers", self.layers.len(), 4, 4)
    }
}

impl Config for FcnConfig {
    type Network = Fcn;

    const CARD: Card = Card {
        task: Task::Segmentation,
        ranks: &[2],
        about: "ResNet-50 with large kernels and refinement at each level (MONAI's FCN and MCFCN)",
        source: "Long et al.: Fully Convolutional Networks for Semantic Segmentation, 2014, arXiv:1411.4038; large kernels: Peng et al. \
                 2017, arXiv:1703.02719; as in AH-Net, Liu et al. 2017, arXiv:1711.08580",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/blocks/fcn.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("fcn", Self::new(1)),
            Preset::new("mcfcn", Self { projection: true, ..Self::new(1) }),
            Preset::new("fcn_transposed", Self { upsampling: FcnUpsampling::Transposed, ..Self::new(1) }),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<Fcn> {
        Fcn::new(scope, self)
    }
}

/// Two kernels of 7 × 7 voxels, each as a product of two narrow ones (global convolutional network).
#[derive(Debug)]
struct LargeKernel([[Conv; 2]; 2]);

impl LargeKernel {
    fn new(mut scope: Scope<'_>, in_channels: usize, channels: usize) -> Result<Self> {
        let mut conv = |name: &str, in_channels: usize, is_tall: bool| {
            let (size, padding) = if is_tall { ([LARGE, 1], [LARGE / 2, 0]) } else { ([1, LARGE], [0, LARGE / 2]) };
            Conv::new(scope.at(name), in_channels, channels, Kernel::d2(size).padding(padding))
        };
        let left = [conv("conv_l1", in_channels, true)?, conv("conv_l2", channels, false)?];
        let right = [conv("conv_r1", in_channels, false)?, conv("conv_r2", channels, true)?];
        Ok(Self([left, right]))
    }
}

impl Module for LargeKernel {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let [left, right] = &self.0;
        let both = |[first, second]: &[Conv; 2]| second.forward(&first.forward(x, pass)?, pass);
        add(both(left)?, &both(right)?)
    }
}

/// A residual block of two convolutions behind one batch norm, which both share.
#[derive(Debug)]
struct Refine {
    norm: Norm,
    convs: [Conv; 2],
}

impl Refine {
    fn new(mut scope: Scope<'_>, channels: usize) -> Result<Self> {
        let options = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
        let norm = Norm::new(scope.at("bn"), channels, options)?;
        let mut conv = |name: &str| Conv::new(scope.at(name), channels, channels, Kernel::d2(3).padding(1));
        Ok(Self { norm, convs: [conv("conv1")?, conv("conv2")?] })
    }
}

impl Module for Refine {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let mut convs = self.convs.iter();
        let y = convs.try_fold(x.clone(), |y, conv| conv.forward(&self.norm.forward(&y, pass)?, pass))?;
        add(y, x)
    }
}

/// MONAI's `FCN` (or `MCFCN`, with a projection of the input channels): a ResNet-50, whose maps become one map a class by large
/// kernels, and are refined and summed from the coarsest to the finest. Input (N, C, H, W), output (N, classes, H, W). With
/// transposed convolutions, sizes must be multiples of 32.
///
/// State-dict names are MONAI's: `conv1`, `bn0`, `layer1.0.conv1`, …, `gcn1.conv_l1`, …, `refine1.bn`, …, `transformer` (which the
/// original has but doesn't use; it is frozen), `up_conv.deconv`, `init_proj.conv`. Stages: those of the encoder, `stem`, `layer1`, …,
/// `layer4`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{FcnConfig, Model};
/// let config = FcnConfig { width: 4, layers: vec![1; 4], ..FcnConfig::new(2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[1, 3, 70, 65], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&image)?.shape(), [1, 2, 70, 65]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Fcn {
    projection: Option<ConvNormActivation>,
    encoder: ResNetEncoder,
    stages: Vec<Stage>,
    large: Vec<LargeKernel>,
    refine: Vec<Refine>,
    up: Option<ConvTranspose>,
}

impl Fcn {
    fn new(mut scope: Scope<'_>, config: &FcnConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &FcnConfig) -> Result<Self> {
        let (classes, width) = (config.classes, config.width);
        let encoder = ResNetEncoder::with_stem_norm(scope, &config.encoder(), "bn0")?;
        let found = scope.find_stages(&["layer2", "layer3", "layer4"])?;
        let sources = [32, 16, 8, 1, 1].into_iter().enumerate();
        let large = sources
            .map(|(at, factor)| LargeKernel::new(scope.at(format!("gcn{}", at + 1)), width * factor, classes))
            .collect::<Result<_>>()?;
        let refine = (1..=10).map(|at| Refine::new(scope.at(format!("refine{at}")), classes)).collect::<Result<_>>()?;
        Conv::new(scope.at("transformer"), 4 * width, width, Kernel::d2(1))?;
        scope.at("transformer").freeze();
        let up = (config.upsampling == FcnUpsampling::Transposed)
            .then(|| ConvTranspose::new(scope.at("up_conv.deconv"), classes, classes, Kernel::d2(2).stride(2)))
            .transpose()?;
        let projection = config.projection.then(|| {
            let kernel = Kernel::d2(1).bias(false);
            let options = NormOptions::new(NormKind::Batch).activation(Activation::Relu);
            conv_norm(&mut scope.at("init_proj"), ["conv", "adn.N"], [config.in_channels, PROJECTED], kernel, options)
        });
        let stages = found.into_iter().map(|(stage, _)| stage).collect();
        Ok(Self { projection: projection.transpose()?, encoder, stages, large, refine, up })
    }

    /// `x` at twice the size, or at that of `like`.
    fn enlarged(&self, x: &Var, spatial: &[usize], pass: &Pass) -> Result<Var> {
        match &self.up {
            Some(up) => up.forward(x, pass),
            None => x.interpolate(spatial, Interpolation::LinearCorners),
        }
    }
}

impl Module for Fcn {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::rank("fcn", x.shape(), 2)?;
        if self.up.is_some() && x.shape()[2..].iter().any(|&size| size == 0 || !size.is_multiple_of(32)) {
            return Err(Error::shape("fcn", "the input's size doesn't fit the network")
                .expected("spatial sizes that are multiples of 32")
                .shapes([x.shape()]));
        }
        let image = x.shape()[2..].to_vec();
        let x = self.projection.as_ref().map_or(Ok(x.clone()), |projection| projection.forward(x, pass))?;
        let stem = self.encoder.stem(&x, pass)?;
        drop(x);
        let pooled = self.encoder.pooled(stem.clone(), pass)?;
        let (_, layers) = pass.collect(&self.stages, || self.encoder.layers(pooled.clone(), pass))?;
        let maps = [vec![stem, pooled], layers].concat();
        // From the coarsest to the finest: layers 4, 3, 2, the pooled stem, the stem.
        let mut finer = maps.into_iter().rev().enumerate().map(|(at, map)| {
            let spatial = map.shape()[2..].to_vec();
            let map = self.refine[at].forward(&self.large[at].forward(&map, pass)?, pass)?;
            Ok::<_, Error>((map, spatial))
        });
        let Some(first) = finer.next() else { return Err(Error::argument("fcn", "the encoder has no stage")) };
        let mut sum = first?.0;
        for (refine, level) in self.refine[5..9].iter().zip(finer) {
            let (map, spatial) = level?;
            sum = refine.forward(&add(self.enlarged(&sum, &spatial, pass)?, &map)?, pass)?;
        }
        self.refine[9].forward(&self.enlarged(&sum, &image, pass)?, pass)
    }
}
