//! Cases of `tomograd-models`.

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    models::{
        DenseNetConfig, DenseNetOriginal, MeshNet, MeshNetConfig, Model, ResNet, ResNetBlock, ResNetConfig,
        ResNetEncoder, UNet2d, UNet2dConfig, UNet3d, UNet3dConfig,
        blocks::{Cbam, DoubleConv, DoubleConvOptions, SqueezeExcitation, SqueezeExcitationOptions},
        formula, profile,
        registry::Config,
    },
    nn::{Activation, Loaded, Module, NormKind, Params, Pass, init::Init},
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

/// Whether the block gives finite values for a suitable image.
fn double_conv(in_channels: usize, channels: usize, options: DoubleConvOptions, rank: usize) -> Result<bool> {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let block = DoubleConv::new(params.root(), in_channels, channels, options)?;
    predicts(&block, &params, &[&[1, in_channels][..], &vec![4; rank]].concat(), channels)
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
    ) => {
        let config =
            ResNetConfig { width, widths, stem_size, stem_stride, ..ResNetConfig::new(ResNetBlock::Basic, [1, 1], 2) };
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
    "models::profile": (input: Vec<usize> = vec![1, 1, 4, 4, 4]) => {
        let profile = profile(&config(), &[&input])?;
        Ok::<_, Error>(profile.parameters > 0 && profile.training.peak > profile.inference.peak)
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
