//! Cases of `tomograd-models`.

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    models::{
        AlexNetConfig, AttentionGatedUNetConfig, AttentionUNetConfig, BasicUNetConfig, BasicUNetPlusPlusConfig,
        DenseNetConfig, DenseNetOriginal, DynUNetConfig, GoogLeNetConfig, HalfUNetConfig, InceptionV3Config, MeshNet,
        MeshNetConfig, Model, MonaiUNetConfig, NestedUNetConfig, NnUNetArchitecture, NnUNetConfig, ResNet, ResNetBlock,
        ResNetConfig, ResNetEncoder, ResUNetConfig, SegResNetConfig, SegResNetVae, Sizes, U2NetConfig, UNet2d,
        UNet2dConfig, UNet3PlusConfig, UNet3PlusSupervision, UNet3d, UNet3dConfig, UNetConfig, VNetConfig, VggConfig,
        blocks::{
            ActivationChoice, Adn, Cbam, ConvAdn, DoubleConv, DoubleConvOptions, NormChoice, SqueezeExcitation,
            SqueezeExcitationOptions,
        },
        formula, grad_cam, profile,
        registry::{Config, Preset},
    },
    nn::{Activation, Kernel, Loaded, Module, NormKind, Params, Pass, init::Init},
};

use crate::walk::{cases, made};

fn config() -> UNet3dConfig {
    UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] }
}

fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec_f64()?.iter().all(|x| x.is_finite()))
}

/// Whether the network gives finite logits for a suitable image.
fn predicts(module: &dyn Module, params: &Params, shape: &[usize], classes: usize) -> Result<bool> {
    let predict = || {
        let pass = Pass::eval(params)?;
        let x = pass.input(&formula::signed("x", shape, DType::F32)?);
        let y = module.forward(&x, &pass)?;
        Ok::<_, Error>(y.shape()[1] == classes && finite(y.value())?)
    };
    predict().or(Ok(false))
}

/// Whether the network that the configuration describes can be built and gives finite logits for an image of this size.
fn classifies(config: &impl Config, in_channels: usize, size: usize, classes: usize) -> Result<bool> {
    let model = Model::new(config, Device::Cpu, Seed::new(1))?;
    let predict = || {
        let logits = model.predict(&formula::signed("x", &[1, in_channels, size, size], DType::F32)?)?;
        Ok::<_, Error>(logits.shape() == [1, classes] && finite(&logits)?)
    };
    predict().or(Ok(false))
}

fn alexnet(classes: usize) -> AlexNetConfig {
    AlexNetConfig { widths: vec![2, 4, 4, 4, 2], hidden: 4, ..AlexNetConfig::new(classes) }
}

/// Whether the block gives finite values for a suitable image.
fn double_conv(in_channels: usize, channels: usize, options: DoubleConvOptions, rank: usize) -> Result<bool> {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let block = DoubleConv::new(params.root(), in_channels, channels, options)?;
    predicts(&block, &params, &[&[1, in_channels][..], &vec![4; rank]].concat(), channels)
}

/// Whether a network that can be built gives finite logits for an image of this size.
fn runs(config: &impl Config, rank: usize, in_channels: usize, classes: usize) -> Result<bool> {
    let model = Model::new(config, Device::Cpu, Seed::new(1))?;
    let shape = [&[1, in_channels][..], &vec![16; rank]].concat();
    let logits = model.predict(&formula::signed("x", &shape, DType::F32)?);
    logits.and_then(|logits| Ok(logits.shape()[1] == classes && finite(&logits)?)).or(Ok(false))
}

/// Whether the convolution with what is behind it gives finite values.
fn conv_adn(in_channels: usize, channels: usize, size: usize, adn: &Adn, transposed: bool) -> Result<bool> {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let make = if transposed { ConvAdn::transposed } else { ConvAdn::new };
    let layer = make(params.root(), in_channels, channels, Kernel::d2(size), adn)?;
    predicts(&layer, &params, &[1, in_channels, 4, 4], channels)
}

/// A narrow network: every block with these inner and output channels.
fn u2net(config: U2NetConfig, inner: usize, outer: usize) -> U2NetConfig {
    U2NetConfig { encoder: [[inner, outer]; 6], decoder: [[inner, outer]; 5], ..config }
}

/// Six channels that start with these.
fn features(widths: Vec<usize>) -> Vec<usize> {
    [&widths[..], &[4, 6, 8, 4]].concat()
}

/// Whether the block gives finite values for a suitable image.
fn squeeze_excitation(options: SqueezeExcitationOptions) -> Result<bool> {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let block = SqueezeExcitation::new(params.root(), 8, options)?;
    predicts(&block, &params, &[1, 8, 4, 4], 8)
}

/// A checkpoint file of a small network, removed on drop.
struct Saved(std::path::PathBuf);

impl Saved {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("tomograd-arguments-{}.safetensors", std::process::id()));
        Model::new(&config(), Device::Cpu, Seed::new(1))?.checkpoint()?.save(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

cases! {
    "models::Model::new": (
        in_channels: usize = 1,
        classes: usize = 2,
        widths: Vec<usize> = vec![2, 4],
        device: Device = Device::Cpu,
    ) => {
        let config = UNet3dConfig { in_channels, classes, widths };
        let model = Model::new(&config, device, Seed::new(1))?;
        let size = 1 << config.widths.len().min(20).saturating_sub(1);
        let logits = model.predict(&Tensor::ones(&[1, in_channels, size, size, size], DType::F32, Device::Cpu)?);
        // A network that could be built must run.
        logits.map(|logits| logits.shape()[1] == classes).or(Ok::<_, Error>(false))
    };
    "models::Model::with_dtype": (classes: usize = 2, device: Device = Device::Cpu) => {
        let config = UNet2dConfig { classes, widths: vec![2, 4], ..UNet2dConfig::new(2) };
        let json = serde_json::to_value(&config).map_err(|error| Error::argument("test", error.to_string()))?;
        let model = Model::with_dtype(json, device, Seed::new(1), DType::F64)?;
        let image = Tensor::ones(&[1, config.in_channels, 4, 4], DType::F64, Device::Cpu)?;
        model.predict(&image).map(|logits| logits.shape()[1] == classes).or(Ok::<_, Error>(false))
    };
    "models::Model::load": (device: Device = Device::Cpu) => {
        let saved = Saved::new()?;
        Ok::<_, Error>(Model::load(&saved.0, device)?.params().count() > 0)
    };
    "models::Model::of": (device: Device = Device::Cpu) => {
        let saved = Saved::new()?;
        Ok::<_, Error>(Model::of(&Loaded::read(&saved.0)?, device)?.params().count() > 0)
    };
    "models::UNet2dConfig::new": (classes: usize = 2) => UNet2dConfig::new(classes).classes == classes;
    "models::UNet3dConfig::new": (classes: usize = 2) => UNet3dConfig::new(classes).classes == classes;
    "models::UNet2dConfig {}": (in_channels: usize = 1, classes: usize = 2, widths: Vec<usize> = vec![2, 4]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let size = 1 << widths.len().min(8).saturating_sub(1);
        let shape = [1, in_channels, size, size];
        let network = UNet2d::new(params.root(), &UNet2dConfig { in_channels, classes, widths })?;
        predicts(&network, &params, &shape, classes)
    };
    "models::UNet3dConfig {}": (in_channels: usize = 1, classes: usize = 2, widths: Vec<usize> = vec![2, 4]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let size = 1 << widths.len().min(8).saturating_sub(1);
        let network = UNet3d::new(params.root(), &UNet3dConfig { in_channels, classes, widths })?;
        predicts(&network, &params, &[1, in_channels, size, size, size], classes)
    };
    "models::UNet2d::new": (widths: Vec<usize> = vec![2, 4]) => {
        // A failed construction must leave no parameters in the store.
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let made = UNet2d::new(params.root(), &UNet2dConfig { widths, ..UNet2dConfig::new(2) });
        match made {
            Ok(_) => Ok(params.count() > 0),
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "models::UNet3d::new": (widths: Vec<usize> = vec![2, 4]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let made = UNet3d::new(params.root(), &UNet3dConfig { widths, ..config() });
        match made {
            Ok(_) => Ok(params.count() > 0),
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "models::MeshNetConfig {}": (
        in_channels: usize = 1,
        classes: usize = 2,
        width: usize = 4,
        dilations: Vec<usize> = vec![1, 2],
    ) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let config = MeshNetConfig { in_channels, classes, width, dilations };
        predicts(&MeshNet::new(params.root(), &config)?, &params, &[1, in_channels, 4, 4, 4], classes)
    };
    "models::MeshNet::new": (dilations: Vec<usize> = vec![1, 2]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let made = MeshNet::new(params.root(), &MeshNetConfig { in_channels: 1, classes: 2, width: 4, dilations });
        match made {
            Ok(_) => Ok(params.count() > 0),
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "models::ResNetConfig::new": (layers: Vec<usize> = vec![1, 1], classes: usize = 2) => {
        let config = ResNetConfig { width: 4, ..ResNetConfig::new(ResNetBlock::Basic, layers, classes) };
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        predicts(&ResNet::new(params.root(), &config)?, &params, &[1, 3, 8, 8], classes)
    };
    "models::ResNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        layers: Vec<usize> = vec![1, 1],
        width: usize = 8,
        groups: usize = 2,
        width_per_group: usize = 64,
    ) => {
        let whole = ResNetConfig::new(ResNetBlock::Bottleneck, layers, classes);
        let config = ResNetConfig { rank, in_channels, width, groups, width_per_group, ..whole };
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let network = ResNet::new(params.root(), &config)?;
        predicts(&network, &params, &[&[1, in_channels][..], &vec![8; rank]].concat(), classes)
    };
    "models::ResNetConfig {}": (
        width: usize = 8,
        widths: Vec<usize> = vec![8, 8],
        stem_size: Vec<usize> = vec![3],
        stem_stride: Vec<usize> = vec![2, 1],
        dilations: Vec<usize> = vec![1, 2],
    ) => {
        let config = ResNetConfig { width, widths, stem_size, stem_stride, dilations, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 2) };
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        predicts(&ResNet::new(params.root(), &config)?, &params, &[1, 3, 8, 8], 2)
    };
    "models::ResNet::new": (layers: Vec<usize> = vec![1, 1], width: usize = 4) => {
        // A failed construction must leave no parameters in the store.
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let config = ResNetConfig { width, ..ResNetConfig::new(ResNetBlock::Basic, layers, 2) };
        match ResNet::new(params.root(), &config) {
            Ok(_) => Ok(params.count() > 0),
            Err(error) if params.state().count() == 0 => Err(error),
            Err(_) => Ok(false),
        }
    };
    "models::ResNetEncoder::new": (layers: Vec<usize> = vec![1, 1], width: usize = 4) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let config = ResNetConfig { width, layers, ..ResNetConfig::new(ResNetBlock::Basic, [1], 2) };
        let encoder = ResNetEncoder::new(params.root(), &config)?;
        predicts(&encoder, &params, &[1, 3, 8, 8], config.width << (config.layers.len() - 1))
    };
    "models::AlexNetConfig::new": (classes: usize = 2) => classifies(&alexnet(classes), 3, 63, classes);
    "models::AlexNetConfig::paper": (classes: usize = 2) => {
        let config = AlexNetConfig { widths: vec![2; 5], hidden: 4, ..AlexNetConfig::paper(classes) };
        classifies(&config, 3, 67, classes)
    };
    "models::AlexNetConfig {}": (
        in_channels: usize = 1,
        classes: usize = 2,
        widths: Vec<usize> = vec![2, 4, 4, 4, 2],
        groups: usize = 2,
        hidden: usize = 4,
        dropout: f64 = 0.5,
    ) => {
        let config = AlexNetConfig { in_channels, classes, widths, groups, hidden, dropout, ..alexnet(2) };
        classifies(&config, in_channels, 63, classes)
    };
    "models::VggConfig::new": (convolutions: Vec<usize> = vec![1, 2], classes: usize = 2) => {
        let widths = vec![2; convolutions.len()];
        classifies(&VggConfig { widths, hidden: 4, ..VggConfig::new(convolutions, classes) }, 3, 8, classes)
    };
    "models::VggConfig {}": (
        in_channels: usize = 1,
        classes: usize = 2,
        convolutions: Vec<usize> = vec![1, 2],
        widths: Vec<usize> = vec![2, 3],
        hidden: usize = 4,
        dropout: f64 = 0.5,
    ) => {
        let config = VggConfig { in_channels, widths, hidden, dropout, ..VggConfig::new(convolutions, classes) };
        classifies(&config, in_channels, 8, classes)
    };
    "models::GoogLeNetConfig::new": (classes: usize = 2) => {
        classifies(&GoogLeNetConfig { width: 8, ..GoogLeNetConfig::new(classes) }, 3, 16, classes)
    };
    "models::GoogLeNetConfig {}": (
        in_channels: usize = 1,
        classes: usize = 2,
        width: usize = 8,
        dropout: f64 = 0.2,
        auxiliary_dropout: f64 = 0.7,
    ) => {
        let new = GoogLeNetConfig::new(classes);
        let config = GoogLeNetConfig { in_channels, width, dropout, auxiliary_dropout, ..new };
        classifies(&config, in_channels, 16, classes)
    };
    "models::InceptionV3Config::new": (classes: usize = 2) => {
        classifies(&InceptionV3Config { width: 2, ..InceptionV3Config::new(classes) }, 3, 75, classes)
    };
    "models::InceptionV3Config {}": (
        in_channels: usize = 1,
        classes: usize = 2,
        width: usize = 2,
        dropout: f64 = 0.5,
    ) => {
        let config = InceptionV3Config { in_channels, width, dropout, ..InceptionV3Config::new(classes) };
        classifies(&config, in_channels, 75, classes)
    };
    "models::DenseNetConfig::new": (layers: Vec<usize> = vec![1, 2], classes: usize = 2) => {
        let config = DenseNetConfig { width: 4, growth_rate: 2, ..DenseNetConfig::new(layers, classes) };
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        predicts(&config.build(params.root())?, &params, &[1, 3, 16, 16], classes)
    };
    "models::DenseNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        layers: Vec<usize> = vec![1, 2],
        growth_rate: usize = 2,
        width: usize = 4,
        bottleneck: usize = 2,
        dropout: f64 = 0.1,
    ) => {
        // Large enough for one block more.
        let original = DenseNetOriginal::Monai;
        let config =
            DenseNetConfig { rank, in_channels, classes, layers, growth_rate, width, bottleneck, dropout, original };
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let network = config.build(params.root())?;
        predicts(&network, &params, &[&[1, in_channels][..], &vec![16; rank]].concat(), classes)
    };
    "models::blocks::Cbam::new": (rank: usize = 2, channels: usize = 8, reduced: usize = 2) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let block = Cbam::new(params.root(), rank, channels, reduced)?;
        predicts(&block, &params, &[&[1, channels][..], &vec![4; rank]].concat(), channels)
    };
    "models::blocks::SqueezeExcitation::new": (channels: usize = 8) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let block = SqueezeExcitation::new(params.root(), channels, SqueezeExcitationOptions::new(2, 2))?;
        predicts(&block, &params, &[1, channels, 4, 4], channels)
    };
    "models::blocks::SqueezeExcitationOptions::new": (rank: usize = 2, reduced: usize = 2) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let block = SqueezeExcitation::new(params.root(), 8, SqueezeExcitationOptions::new(rank, reduced))?;
        predicts(&block, &params, &[&[1, 8][..], &vec![4; rank]].concat(), 8)
    };
    "models::blocks::SqueezeExcitationOptions::activation": (slope: f64 = 0.1) => {
        let options = SqueezeExcitationOptions::new(2, 2).activation(Activation::LeakyRelu(slope));
        squeeze_excitation(options).map(|right| right || slope.abs() > 1e15)
    };
    "models::blocks::SqueezeExcitationOptions::gate": (slope: f64 = 0.1) => {
        let options = SqueezeExcitationOptions::new(2, 2).gate(Activation::LeakyRelu(slope));
        squeeze_excitation(options).map(|right| right || slope.abs() > 1e15)
    };
    "models::blocks::SqueezeExcitationOptions::weight": (bound: f64 = 0.5) => {
        let options = SqueezeExcitationOptions::new(2, 2).weight(Init::Uniform(bound));
        squeeze_excitation(options).map(|right| right || bound > 1e15)
    };
    "models::blocks::DoubleConv::new": (in_channels: usize = 2, channels: usize = 4, groups: usize = 2) => {
        let options = DoubleConvOptions::new(2, NormKind::Group(groups), Activation::Relu);
        double_conv(in_channels, channels, options, 2)
    };
    "models::blocks::DoubleConvOptions::new": (rank: usize = 2, slope: f64 = 0.1) => {
        double_conv(2, 4, DoubleConvOptions::new(rank, NormKind::Instance, Activation::LeakyRelu(slope)), rank)
    };
    "models::blocks::DoubleConvOptions::stride": (stride: usize = 2) => {
        double_conv(2, 4, DoubleConvOptions::new(2, NormKind::Instance, Activation::Relu).stride(stride), 2)
    };
    "models::blocks::DoubleConvOptions::without_norm": (rank: usize = 2, slope: f64 = 0.1) => {
        double_conv(2, 4, DoubleConvOptions::without_norm(rank, Activation::LeakyRelu(slope)), rank)
    };
    "models::blocks::DoubleConvOptions::padding": (padding: usize = 1) => {
        let options = DoubleConvOptions::new(2, NormKind::Instance, Activation::Relu).padding(padding);
        // The padded image may be too large, or without padding nothing may be left of it.
        double_conv(2, 4, options, 2).map(|right| right || padding != 1)
    };
    "models::blocks::DoubleConvOptions::middle": (channels: usize = 3) => {
        double_conv(2, 4, DoubleConvOptions::new(2, NormKind::Instance, Activation::Relu).middle(channels), 2)
    };
    "models::blocks::DoubleConvOptions::weight": (bound: f64 = 0.5) => {
        let options = DoubleConvOptions::new(2, NormKind::Instance, Activation::Relu).weight(Init::Uniform(bound));
        double_conv(2, 4, options, 2).map(|right| right || bound > 1e15)
    };
    "models::blocks::Adn::new": (groups: usize = 2, slope: f64 = 0.1) => {
        conv_adn(2, 4, 1, &Adn::new(NormChoice::Group(groups), ActivationChoice::LeakyRelu(slope)), false)
    };
    "models::blocks::Adn::dropout": (probability: f64 = 0.5) => {
        let adn = Adn::new(NormChoice::Batch, ActivationChoice::Prelu).dropout(probability);
        conv_adn(2, 4, 1, &adn, false)
    };
    "models::blocks::Adn::scale": (deviation: f64 = 0.02) => {
        let adn = Adn::new(NormChoice::Batch, ActivationChoice::Relu).scale(Init::Normal(deviation));
        conv_adn(2, 4, 1, &adn, false).map(|right| right || deviation > 1e15)
    };
    "models::registry::Preset {}": (size: Vec<usize> = vec![64, 64]) => {
        let mut preset = Preset::new("preset", config());
        preset.size = Some(size.clone());
        Ok::<_, Error>(preset.size == Some(size))
    };
    "models::registry::Preset::size": (size: Vec<usize> = vec![64, 64]) => {
        Ok::<_, Error>(Preset::new("preset", config()).size(size.clone()).size == Some(size))
    };
    "models::blocks::ConvAdn::new": (in_channels: usize = 2, channels: usize = 4, size: usize = 3) => {
        conv_adn(in_channels, channels, size, &Adn::new(NormChoice::Instance, ActivationChoice::Relu), false)
    };
    "models::blocks::ConvAdn::transposed": (in_channels: usize = 2, channels: usize = 4, size: usize = 3) => {
        conv_adn(in_channels, channels, size, &Adn::new(NormChoice::Instance, ActivationChoice::Relu), true)
    };
    "models::blocks::NormChoice {}": (groups: usize = 2) => {
        conv_adn(2, 4, 1, &Adn::new(NormChoice::Group(groups), ActivationChoice::None), false)
    };
    "models::blocks::Adn::new": (slope: f64 = 0.1, alpha: f64 = 1.0) => {
        // Without a norm, no layer checks the number.
        let right = |activation| conv_adn(2, 4, 1, &Adn::new(NormChoice::None, activation), false);
        Ok::<_, Error>(right(ActivationChoice::LeakyRelu(slope))? && right(ActivationChoice::Elu(alpha))?)
    };
    "models::MonaiUNetConfig {}": (size: usize = 2, sizes: Vec<usize> = vec![1, 2]) => {
        let right = |stride| runs(&MonaiUNetConfig { strides: vec![stride], ..MonaiUNetConfig::new(2, 1, 2, [2, 4], 2) }, 2, 1, 2);
        Ok::<_, Error>(right(Sizes::All(size))? && right(Sizes::Each(sizes))?)
    };
    "models::UNetConfig::new": (in_channels: usize = 1, classes: usize = 2) => {
        runs(&UNetConfig { widths: vec![2, 4], ..UNetConfig::new(in_channels, classes) }, 2, in_channels, classes)
    };
    "models::UNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        widths: Vec<usize> = vec![2, 4],
        dropout: f64 = 0.5,
    ) => {
        let config = UNetConfig { rank, widths, dropout, ..UNetConfig::new(in_channels, classes) };
        runs(&config, rank, in_channels, classes)
    };
    "models::MonaiUNetConfig::new": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        channels: Vec<usize> = vec![2, 4],
        stride: usize = 2,
    ) => {
        runs(&MonaiUNetConfig::new(rank, in_channels, classes, channels, stride), rank, in_channels, classes)
    };
    "models::MonaiUNetConfig {}": (channels: Vec<usize> = vec![2, 4], residual_units: usize = 2, dropout: f64 = 0.5) => {
        let config = MonaiUNetConfig { residual_units, dropout, ..MonaiUNetConfig::new(2, 1, 2, channels, 2) };
        runs(&config, 2, 1, 2)
    };
    "models::BasicUNetConfig::new": (rank: usize = 2, in_channels: usize = 1, classes: usize = 2) => {
        let config = BasicUNetConfig { features: features(vec![2, 4]), ..BasicUNetConfig::new(rank, in_channels, classes) };
        runs(&config, rank, in_channels, classes)
    };
    "models::BasicUNetConfig {}": (widths: Vec<usize> = vec![2, 4], dropout: f64 = 0.5) => {
        let config = BasicUNetConfig { features: features(widths), dropout, ..BasicUNetConfig::new(2, 1, 2) };
        runs(&config, 2, 1, 2)
    };
    "models::BasicUNetPlusPlusConfig::new": (rank: usize = 2, in_channels: usize = 1, classes: usize = 2) => {
        let config = BasicUNetPlusPlusConfig::new(rank, in_channels, classes);
        runs(&BasicUNetPlusPlusConfig { features: features(vec![2, 4]), ..config }, rank, in_channels, classes)
    };
    "models::BasicUNetPlusPlusConfig {}": (widths: Vec<usize> = vec![2, 4], dropout: f64 = 0.5) => {
        let config = BasicUNetPlusPlusConfig::new(2, 1, 2);
        runs(&BasicUNetPlusPlusConfig { features: features(widths), dropout, ..config }, 2, 1, 2)
    };
    "models::NestedUNetConfig::new": (in_channels: usize = 1, classes: usize = 2) => {
        let config = NestedUNetConfig { widths: vec![2, 4], ..NestedUNetConfig::new(in_channels, classes) };
        runs(&config, 2, in_channels, classes)
    };
    "models::NestedUNetConfig {}": (rank: usize = 2, widths: Vec<usize> = vec![2, 4]) => {
        runs(&NestedUNetConfig { rank, widths, ..NestedUNetConfig::new(1, 2) }, rank, 1, 2)
    };
    "models::UNet3PlusConfig::new": (classes: usize = 2) => {
        let new = UNet3PlusConfig::new(classes, UNet3PlusSupervision::None);
        runs(&UNet3PlusConfig { in_channels: 1, widths: vec![2, 4], ..new }, 2, 1, classes)
    };
    "models::UNet3PlusConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        widths: Vec<usize> = vec![2, 4],
        dropout: f64 = 0.5,
    ) => {
        let new = UNet3PlusConfig::new(classes, UNet3PlusSupervision::DeepGuided);
        runs(&UNet3PlusConfig { rank, in_channels, widths, dropout, ..new }, rank, in_channels, classes)
    };
    "models::ResUNetConfig::new": (classes: usize = 2) => {
        let config = ResUNetConfig { in_channels: 1, widths: vec![2, 4], ..ResUNetConfig::new(classes) };
        runs(&config, 2, 1, classes)
    };
    "models::ResUNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        widths: Vec<usize> = vec![2, 4],
    ) => runs(&ResUNetConfig { rank, in_channels, widths, ..ResUNetConfig::new(classes) }, rank, in_channels, classes);
    "models::HalfUNetConfig::new": (classes: usize = 2) => {
        let config = HalfUNetConfig { in_channels: 1, width: 4, levels: 2, ..HalfUNetConfig::new(classes) };
        runs(&config, 2, 1, classes)
    };
    "models::HalfUNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        width: usize = 4,
        levels: usize = 2,
    ) => {
        let config = HalfUNetConfig { rank, in_channels, width, levels, ..HalfUNetConfig::new(classes) };
        runs(&config, rank, in_channels, classes)
    };
    "models::U2NetConfig::new": (classes: usize = 2) => {
        runs(&U2NetConfig { in_channels: 1, ..u2net(U2NetConfig::new(classes), 2, 4) }, 2, 1, classes)
    };
    "models::U2NetConfig::small": (classes: usize = 2) => {
        runs(&U2NetConfig { in_channels: 1, ..u2net(U2NetConfig::small(classes), 2, 4) }, 2, 1, classes)
    };
    "models::U2NetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        inner: usize = 2,
        outer: usize = 4,
    ) => {
        let config = U2NetConfig { rank, in_channels, ..u2net(U2NetConfig::new(classes), inner, outer) };
        runs(&config, rank, in_channels, classes)
    };
    "models::AttentionUNetConfig::new": (
        rank: usize = 2,
        in_channels: usize = 1,
        classes: usize = 2,
        channels: Vec<usize> = vec![2, 4],
        stride: usize = 2,
    ) => {
        runs(&AttentionUNetConfig::new(rank, in_channels, classes, channels, stride), rank, in_channels, classes)
    };
    "models::AttentionUNetConfig {}": (channels: Vec<usize> = vec![2, 4], dropout: f64 = 0.5) => {
        runs(&AttentionUNetConfig { dropout, ..AttentionUNetConfig::new(2, 1, 2, channels, 2) }, 2, 1, 2)
    };
    "models::AttentionGatedUNetConfig::new": (in_channels: usize = 1, classes: usize = 2) => {
        let config = AttentionGatedUNetConfig::new(in_channels, classes);
        runs(&AttentionGatedUNetConfig { widths: vec![2, 4, 4], ..config }, 3, in_channels, classes)
    };
    "models::AttentionGatedUNetConfig {}": (
        rank: usize = 2,
        widths: Vec<usize> = vec![2, 4, 4],
        gates: usize = 2,
    ) => {
        runs(&AttentionGatedUNetConfig { rank, widths, gates, ..AttentionGatedUNetConfig::new(1, 2) }, rank, 1, 2)
    };
    "models::VNetConfig::new": (in_channels: usize = 1, classes: usize = 2) => {
        runs(&VNetConfig { rank: 2, width: 4, ..VNetConfig::new(in_channels, classes) }, 2, in_channels, classes)
    };
    "models::VNetConfig {}": (
        rank: usize = 2,
        width: usize = 4,
        dropout_down: f64 = 0.5,
        dropout_up: f64 = 0.5,
        dropout_skip: f64 = 0.5,
        dropout_skip_fine: f64 = 0.5,
    ) => {
        let config = VNetConfig { rank, width, dropout_down, dropout_up, ..VNetConfig::new(1, 2) };
        runs(&VNetConfig { dropout_skip, dropout_skip_fine, ..config }, rank, 1, 2)
    };
    "models::SegResNetConfig::new": (in_channels: usize = 1, classes: usize = 2) => {
        let config = SegResNetConfig { rank: 2, init_filters: 8, ..SegResNetConfig::new(in_channels, classes) };
        runs(&config, 2, in_channels, classes)
    };
    "models::SegResNetConfig {}": (
        rank: usize = 2,
        init_filters: usize = 8,
        blocks_down: Vec<usize> = vec![1, 2],
        blocks_up: Vec<usize> = vec![1],
        dropout: f64 = 0.5,
    ) => {
        let config = SegResNetConfig { rank, init_filters, blocks_down, blocks_up, dropout, ..SegResNetConfig::new(1, 2) };
        runs(&config, rank, 1, 2)
    };
    "models::SegResNetVae::new": (image_size: Vec<usize> = vec![16, 16]) => {
        let vae = Some(SegResNetVae { latent: 4, ..SegResNetVae::new(image_size) });
        runs(&SegResNetConfig { rank: 2, init_filters: 8, vae, ..SegResNetConfig::new(1, 2) }, 2, 1, 2)
    };
    "models::SegResNetVae {}": (image_size: Vec<usize> = vec![16, 16], latent: usize = 4, deviation: f64 = 0.3) => {
        let vae = SegResNetVae { image_size, latent, estimate_deviation: false, deviation };
        let config = SegResNetConfig { rank: 2, init_filters: 8, vae: Some(vae), ..SegResNetConfig::new(1, 2) };
        runs(&config, 2, 1, 2)
    };
    "models::DynUNetConfig::new": (in_channels: usize = 1, classes: usize = 2, levels: usize = 3) => {
        let config = DynUNetConfig::new(in_channels, classes, levels);
        let filters = Some(vec![2; config.strides.len()]);
        runs(&DynUNetConfig { filters, ..config }, 3, in_channels, classes)
    };
    "models::DynUNetConfig {}": (
        rank: usize = 3,
        kernel: Vec<usize> = vec![3, 3, 3],
        stride: Vec<usize> = vec![2, 2, 1],
        filters: Vec<usize> = vec![2, 4, 4],
        deep_supervision: usize = 1,
        dropout: f64 = 0.5,
    ) => {
        let config = DynUNetConfig::new(1, 2, 3);
        let kernel_size = vec![vec![3; 3], kernel, vec![3; 3]];
        let strides = vec![vec![1; 3], stride, vec![2; 3]];
        let filters = Some(filters);
        runs(&DynUNetConfig { rank, kernel_size, strides, filters, deep_supervision, dropout, ..config }, rank, 1, 2)
    };
    "models::NnUNetConfig::new": (in_channels: usize = 1, classes: usize = 2, features: Vec<usize> = vec![2, 4]) => {
        runs(&NnUNetConfig::new(in_channels, classes, features), 3, in_channels, classes)
    };
    "models::NnUNetConfig {}": (
        rank: usize = 3,
        features: Vec<usize> = vec![2, 4],
        kernel: Vec<usize> = vec![3, 3, 3],
        stride: Vec<usize> = vec![2, 2, 1],
        blocks: Vec<usize> = vec![1, 2],
        decoder_blocks: Vec<usize> = vec![1],
        norm_epsilon: f64 = 1e-5,
        dropout: f64 = 0.5,
    ) => {
        let config = NnUNetConfig {
            rank,
            features,
            kernel_sizes: vec![vec![3; 3], kernel],
            strides: vec![vec![1; 3], stride],
            blocks,
            decoder_blocks,
            norm_epsilon,
            dropout: Some(dropout),
            ..NnUNetConfig::new(1, 2, [2, 4])
        };
        runs(&config, rank, 1, 2)
    };
    "models::NnUNetConfig {}": (
        blocks: Vec<usize> = vec![1, 2],
        decoder_blocks: Vec<usize> = vec![1],
        bottleneck_channels: Vec<usize> = vec![2, 2],
        stem_channels: usize = 4,
        slope: f64 = 0.1,
    ) => {
        let config = NnUNetConfig {
            architecture: NnUNetArchitecture::Residual,
            blocks,
            decoder_blocks,
            activation: ActivationChoice::LeakyRelu(slope),
            bottleneck_channels: Some(bottleneck_channels),
            stem_channels: Some(stem_channels),
            ..NnUNetConfig::new(1, 2, [2, 4])
        };
        runs(&config, 3, 1, 2)
    };
    "models::NnUNetConfig::from_plans": (in_channels: usize = 1, classes: usize = 2) => {
        let plans = r#"{"configurations": {"2d": {"patch_size": [4, 4], "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 2, "unet_max_num_features": 4, "n_conv_per_stage_encoder": [1, 1],
            "n_conv_per_stage_decoder": [1], "conv_kernel_sizes": [[3, 3], [3, 3]],
            "pool_op_kernel_sizes": [[1, 1], [2, 2]]}}}"#;
        runs(&NnUNetConfig::from_plans(plans, "2d", in_channels, classes)?, 2, in_channels, classes)
    };
    "models::grad_cam": (shape: Vec<usize> = vec![2, 1, 8, 8, 4], classes: Vec<usize> = vec![1, 0]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let network = UNet3d::new(params.root(), &config())?;
        let heat = grad_cam(&params, &network, &Tensor::ones(&shape, DType::F32, Device::Cpu)?, "dec.0", &classes)?;
        Ok::<_, Error>(heat.shape()[1..] == shape[2..] && finite(&heat)?)
    };
    "models::Model::grad_cam": (classes: Vec<usize> = vec![1]) => {
        let model = Model::new(&config(), Device::Cpu, Seed::new(1))?;
        let heat = model.grad_cam(&Tensor::ones(&[1, 1, 8, 8, 4], DType::F32, Device::Cpu)?, "dec.0", &classes)?;
        Ok::<_, Error>(heat.shape() == [1, 8, 8, 4] && finite(&heat)?)
    };
    "models::profile": (input: Vec<usize> = vec![1, 1, 4, 4, 4]) => {
        let profile = profile(&config(), &[&input])?;
        Ok::<_, Error>(profile.parameters > 0 && profile.training.is_some_and(|step| step.peak > profile.inference.peak))
    };
    "models::formula::dump": (input: Vec<usize> = vec![1, 1, 4, 4, 4]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let network = UNet3d::new(params.root(), &config())?;
        let results = formula::dump(&params, &network, &[&input], false)?;
        Ok::<_, Error>(
            results
                .iter()
                .map(|(_, tensor)| finite(tensor))
                .collect::<Result<Vec<bool>>>()?
                .into_iter()
                .all(|right| right),
        )
    };
    "models::formula::outputs": (input: Vec<usize> = vec![1, 1, 4, 4, 4]) => {
        let mut params = Params::new(Device::Cpu, Seed::new(1));
        let network = UNet3d::new(params.root(), &config())?;
        let results = formula::outputs(&params, &network, &[&input])?;
        Ok::<_, Error>(results.len() == 1 && finite(&results[0].1)?)
    };
    "models::formula::parameter": (shape: Vec<usize> = vec![2, 3]) => {
        let tensor = formula::parameter("conv.weight", &shape, DType::F32)?;
        Ok::<_, Error>(tensor.shape() == shape && finite(&tensor)?)
    };
    "models::formula::signed": (shape: Vec<usize> = vec![2, 3]) => {
        let tensor = formula::signed("x", &shape, DType::F32)?;
        Ok::<_, Error>(tensor.shape() == shape && finite(&tensor)?)
    };
    "models::formula::uniform": (count: usize = 3) => {
        let numbers = made::<Vec<f64>>(formula::uniform("x", count))?;
        Ok::<_, Error>(numbers.len() == count && numbers.iter().all(|x| (0.0..1.0).contains(x)))
    };
}
