//! Residual networks in 1D, 2D and 3D.

mod block;
mod config;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    ConvNormActivation, Kernel, Linear, LinearOptions, MaxPool, Module, Pass, PerAxis, Scope, Stage, Window,
    init::{Fan, Init},
};

use crate::check;
use block::{Residual, conv_norm_relu};
pub use config::{ResNetAttention, ResNetBlock, ResNetConfig, ResNetShortcut};

/// A residual network (He et al. 2015; the stride is in a bottleneck's 3-wide convolution, as in torchvision). Input
/// (N, C, spatial...), output (N, classes).
///
/// State-dict names are torchvision's, which the originals in 3D share: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, …,
/// `layer2.0.downsample.0`, …, `fc`; those of attention are timm's (`layer1.0.se.fc1`, `layer1.0.se.fc2`) or the authors'
/// (`layer1.0.cbam.ChannelGate.mlp.1`, …). Stages: `stem` (with the usual stem 1/2 of the input size), `layer1` (1/4), and
/// `layer2`, …, each half the size of the previous one.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, ResNetBlock, ResNetConfig, registry::Config};
/// assert_eq!(ResNetConfig::preset("resnet18")?.layers, [2, 2, 2, 2]);
/// let config = ResNetConfig { rank: 3, in_channels: 1, width: 4, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 2) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[1, 1, 16, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [1, 2]);
/// assert_eq!(model.features(&volume, &["layer2"])?.main()?.shape(), [1, 8, 2, 2, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ResNet {
    encoder: ResNetEncoder,
    fc: Linear,
}

impl ResNet {
    /// Creates the network's parameters in `scope`, with the original's initialisation.
    ///
    /// # Errors
    /// When a number of the configuration is 0 or too large, a name is taken, or memory runs out; then no parameter is
    /// created.
    pub fn new(mut scope: Scope<'_>, config: &ResNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| {
            let encoder = ResNetEncoder::make(scope, config, "bn1")?;
            let channels = config.out_channels();
            let mut options = LinearOptions::new(config.classes);
            if config.attention == ResNetAttention::Cbam {
                options = options.weight(Init::kaiming_normal(Fan::In));
            }
            if config.attention == ResNetAttention::Cbam || config.zero_bias {
                options = options.bias_filled(Init::Constant(0.0));
            }
            Ok(Self { encoder, fc: Linear::new(scope.at("fc"), channels, options)? })
        })
    }
}

impl Module for ResNet {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.fc.forward(&self.encoder.forward(x, pass)?.mean_spatial()?.flatten(1..)?, pass)
    }
}

/// A [`ResNet`] without its head (the configuration's `classes` is ignored): a backbone for other networks, which
/// [`collect`](Pass::collect) the feature maps of its stages. Its output is the last of these.
#[derive(Debug)]
pub struct ResNetEncoder {
    rank: usize,
    conv1: ConvNormActivation,
    stem: Stage,
    pool: Option<MaxPool>,
    layers: Vec<(Vec<Residual>, Stage)>,
}

impl ResNetEncoder {
    /// Creates the parameters in `scope`, with the same names as in the whole network.
    ///
    /// # Errors
    /// As [`ResNet::new`].
    pub fn new(mut scope: Scope<'_>, config: &ResNetConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config, "bn1"))
    }

    /// As [`ResNetEncoder::new`], with another name of the stem's norm.
    pub(crate) fn with_stem_norm(scope: &mut Scope<'_>, config: &ResNetConfig, stem_norm: &str) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config, stem_norm))
    }

    fn make(scope: &mut Scope<'_>, config: &ResNetConfig, stem_norm: &str) -> Result<Self> {
        let ResNetConfig { rank, in_channels, width, max_pool, .. } = *config;
        let (size, stride) = (config.each(&config.stem_size), config.each(&config.stem_stride));
        let padding: Vec<usize> = size.iter().map(|size| size / 2).collect();
        let kernel = Kernel::new(rank, size).stride(&stride).padding(padding);
        let conv1 = conv_norm_relu(scope, ["conv1", stem_norm], [in_channels, width], kernel)?;
        // The stem's reduction times `factor`.
        let reduction = |factor: usize| match config.stem_stride[..] {
            [stride] => PerAxis::All(stride * factor),
            ref strides => PerAxis::Each(strides.iter().map(|stride| stride * factor).collect()),
        };
        let stem = scope.stage("stem", width, reduction(1))?;
        let pool = max_pool.then(|| MaxPool::new(Window::new(3).stride(2).padding(1))).transpose()?;
        let mut reduced = if max_pool { 2 } else { 1 };
        let (mut layers, mut channels) = (Vec::new(), width);
        for (layer, &count) in config.layers.iter().enumerate() {
            let name = format!("layer{}", layer + 1);
            let mut blocks = Vec::new();
            for block in 0..count {
                let stride = if block == 0 { config.stride(layer) } else { 1 };
                blocks.push(Residual::new(&mut scope.at(&name).at(block), config, layer, channels, stride)?);
                channels = config.planes(layer) * config.block.expansion();
            }
            reduced *= config.stride(layer);
            layers.push((blocks, scope.stage(&name, channels, reduction(reduced))?));
        }
        Ok(Self { rank, conv1, stem, pool, layers })
    }

    /// The map of the stage `stem`.
    pub(crate) fn stem(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::rank("resnet", x.shape(), self.rank)?;
        pass.stage(self.stem, self.conv1.forward(x, pass)?)
    }

    /// The map of the stem after its pooling, where there is one.
    pub(crate) fn pooled(&self, stem: Var, pass: &Pass) -> Result<Var> {
        self.pool.as_ref().map_or(Ok(stem.clone()), |pool| pool.forward(&stem, pass))
    }

    /// The last map of the layers, from that after pooling.
    pub(crate) fn layers(&self, mut x: Var, pass: &Pass) -> Result<Var> {
        for (blocks, stage) in &self.layers {
            x = pass.stage(*stage, blocks.iter().try_fold(x, |x, block| block.forward(&x, pass))?)?;
        }
        Ok(x)
    }
}

impl Module for ResNetEncoder {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let stem = self.stem(x, pass)?;
        self.layers(self.pooled(stem, pass)?, pass)
    }
}
