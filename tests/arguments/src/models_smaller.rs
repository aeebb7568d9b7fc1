//! Cases of EfficientNet, ConvNeXt, MONAI's smaller networks, and the network over slices.

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    models::{
        AutoEncoderConfig, ConvNeXtConfig, DiscriminatorConfig, EfficientNetConfig, EfficientNetStage, FcnConfig,
        FullyConnectedNetConfig, GeneratorConfig, InnerLayers, Model, MonaiClassifierConfig,
        MultiScalePatchDiscriminatorConfig, PatchDiscriminatorConfig, RegressorConfig, Sizes, SliceSequenceConfig,
        VarAutoEncoderConfig, blocks::ConvStyle, registry::Config,
    },
};

use crate::walk::cases;

/// Whether the network that `config` describes gives finite outputs for an image of this shape. One that could be built must run.
fn runs(config: &impl Config, shape: &[usize]) -> Result<bool> {
    let model = Model::new(config, Device::Cpu, Seed::new(1))?;
    let image = Tensor::normal(shape, 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
    let Ok(outputs) = model.run(&[(model.network().inputs()[0], image)].into()) else { return Ok(false) };
    let finite = |output: &Tensor| Ok::<_, Error>(output.to_vec_f64()?.iter().all(|x| x.is_finite()));
    outputs.iter().try_fold(true, |all, (_, output)| Ok(all && finite(output)?))
}

fn shape(channels: usize, size: &[usize]) -> Vec<usize> {
    [&[1, channels], size].concat()
}

fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, blocks: usize) -> EfficientNetStage {
    EfficientNetStage { expansion, kernel, stride, channels, blocks }
}

fn sizes(strides: &[usize]) -> Vec<Sizes> {
    strides.iter().map(|&stride| Sizes::All(stride)).collect()
}

cases! {
    "models::EfficientNetConfig::new": (width: f64 = 0.1, depth: f64 = 0.1, dropout: f64 = 0.1, classes: usize = 2) => {
        let config = EfficientNetConfig::new(width, depth, dropout, classes);
        runs(&EfficientNetConfig { stages: vec![stage(1, 3, 1, 8, 1)], ..config }, &[1, 3, 8, 8])
    };
    "models::EfficientNetConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        stem: usize = 8,
        stochastic_depth: f64 = 0.1,
        norm_epsilon: f64 = 1e-3,
        norm_momentum: f64 = 0.1,
    ) => {
        let stages = vec![stage(1, 3, 1, 8, 1)];
        let base = EfficientNetConfig::new(0.1, 1.0, 0.0, 2);
        let config = EfficientNetConfig {
            rank, in_channels, stem, stages, stochastic_depth, norm_epsilon, norm_momentum, ..base
        };
        runs(&config, &shape(in_channels, &vec![8; rank.min(4)]))
    };
    "models::EfficientNetStage {}": (
        expansion: usize = 2,
        kernel: usize = 3,
        stride: usize = 2,
        channels: usize = 8,
        blocks: usize = 2,
    ) => {
        let stages = vec![stage(expansion, kernel, stride, channels, blocks)];
        runs(&EfficientNetConfig { stages, stem: 8, ..EfficientNetConfig::new(1.0, 1.0, 0.0, 2) }, &[1, 3, 8, 8])
    };
    "models::ConvNeXtConfig::new": (
        widths: Vec<usize> = vec![4, 4],
        blocks: Vec<usize> = vec![1, 2],
        classes: usize = 2,
    ) => {
        let size = 4 << widths.len().min(8).saturating_sub(1);
        runs(&ConvNeXtConfig::new(widths, blocks, classes), &[1, 3, size, size])
    };
    "models::ConvNeXtConfig {}": (
        rank: usize = 2,
        in_channels: usize = 1,
        stochastic_depth: f64 = 0.1,
        layer_scale: f64 = 1e-6,
    ) => {
        let base = ConvNeXtConfig::new([4], [1], 2);
        runs(
            &ConvNeXtConfig { rank, in_channels, stochastic_depth, layer_scale, ..base },
            &shape(in_channels, &vec![8; rank.min(4)]),
        )
    };
    "models::blocks::ConvStyle {}": (kernel: Vec<usize> = vec![3, 3], dropout: f64 = 0.1) => {
        let style = ConvStyle { kernel: Sizes::Each(kernel), dropout, ..ConvStyle::default() };
        runs(&AutoEncoderConfig { style, ..AutoEncoderConfig::new(2, [4], 2) }, &[1, 1, 8, 8])
    };
    "models::InnerLayers {}": (
        channels: Vec<usize> = vec![4, 4],
        dilations: Vec<usize> = vec![1, 2],
        residual_units: usize = 1,
    ) => {
        let inner = InnerLayers { channels, dilations, residual_units };
        runs(&AutoEncoderConfig { inner, ..AutoEncoderConfig::new(2, [4], 2) }, &[1, 1, 8, 8])
    };
    "models::AutoEncoderConfig::new": (rank: usize = 2, channels: Vec<usize> = vec![4, 4], stride: usize = 2) => {
        runs(&AutoEncoderConfig::new(rank, channels, stride), &shape(1, &vec![8; rank.min(4)]))
    };
    "models::AutoEncoderConfig {}": (
        in_channels: usize = 1,
        out_channels: usize = 1,
        strides: Vec<usize> = vec![2, 2],
        residual_units: usize = 1,
        up_kernel: usize = 3,
    ) => {
        let (strides, up_kernel) = (sizes(&strides), Sizes::All(up_kernel));
        let base = AutoEncoderConfig::new(2, [4, 4], 2);
        runs(
            &AutoEncoderConfig { in_channels, out_channels, strides, residual_units, up_kernel, ..base },
            &shape(in_channels, &[8, 8]),
        )
    };
    "models::VarAutoEncoderConfig::new": (
        size: Vec<usize> = vec![8, 8],
        latent_size: usize = 2,
        channels: Vec<usize> = vec![4, 4],
        stride: usize = 2,
    ) => {
        let input = shape(1, &size);
        runs(&VarAutoEncoderConfig::new(size, latent_size, channels, stride), &input)
    };
    "models::VarAutoEncoderConfig {}": (
        in_channels: usize = 1,
        out_channels: usize = 1,
        strides: Vec<usize> = vec![2, 2],
        residual_units: usize = 1,
        up_kernel: usize = 3,
        noise: f64 = 1.0,
    ) => {
        let (strides, up_kernel) = (sizes(&strides), Sizes::All(up_kernel));
        let base = VarAutoEncoderConfig::new([8, 8], 2, [4, 4], 2);
        runs(
            &VarAutoEncoderConfig { in_channels, out_channels, strides, residual_units, up_kernel, noise, ..base },
            &shape(in_channels, &[8, 8]),
        )
    };
    "models::GeneratorConfig::new": (
        latent_size: usize = 3,
        start_channels: usize = 4,
        start_size: Vec<usize> = vec![3, 3],
        channels: Vec<usize> = vec![4, 1],
    ) => {
        runs(&GeneratorConfig::new(latent_size, start_channels, start_size, channels), &[1, latent_size])
    };
    "models::GeneratorConfig {}": (strides: Vec<usize> = vec![2, 2], residual_units: usize = 1) => {
        let base = GeneratorConfig::new(3, 4, [3, 3], [4, 1]);
        runs(&GeneratorConfig { strides: sizes(&strides), residual_units, ..base }, &[1, 3])
    };
    "models::RegressorConfig::new": (
        size: Vec<usize> = vec![8, 8],
        out_shape: Vec<usize> = vec![2, 2],
        channels: Vec<usize> = vec![4, 4],
    ) => {
        let input = shape(1, &size);
        runs(&RegressorConfig::new(size, out_shape, channels), &input)
    };
    "models::RegressorConfig {}": (
        in_channels: usize = 1,
        strides: Vec<usize> = vec![2, 2],
        residual_units: usize = 1,
    ) => {
        let base = RegressorConfig::new([8, 8], [2], [4, 4]);
        runs(
            &RegressorConfig { in_channels, strides: sizes(&strides), residual_units, ..base },
            &shape(in_channels, &[8, 8]),
        )
    };
    "models::MonaiClassifierConfig::new": (
        size: Vec<usize> = vec![8, 8],
        classes: usize = 2,
        channels: Vec<usize> = vec![4, 4],
    ) => {
        let input = shape(1, &size);
        runs(&MonaiClassifierConfig::new(size, classes, channels), &input)
    };
    "models::MonaiClassifierConfig {}": (
        in_channels: usize = 1,
        strides: Vec<usize> = vec![2, 2],
        residual_units: usize = 1,
    ) => {
        let base = MonaiClassifierConfig::new([8, 8], 2, [4, 4]);
        runs(
            &MonaiClassifierConfig { in_channels, strides: sizes(&strides), residual_units, ..base },
            &shape(in_channels, &[8, 8]),
        )
    };
    "models::DiscriminatorConfig::new": (size: Vec<usize> = vec![8, 8], channels: Vec<usize> = vec![4, 4]) => {
        let input = shape(1, &size);
        runs(&DiscriminatorConfig::new(size, channels), &input)
    };
    "models::DiscriminatorConfig {}": (
        in_channels: usize = 1,
        strides: Vec<usize> = vec![2, 2],
        residual_units: usize = 1,
    ) => {
        let base = DiscriminatorConfig::new([8, 8], [4, 4]);
        runs(
            &DiscriminatorConfig { in_channels, strides: sizes(&strides), residual_units, ..base },
            &shape(in_channels, &[8, 8]),
        )
    };
    "models::FullyConnectedNetConfig::new": (
        in_channels: usize = 3,
        out_channels: usize = 2,
        hidden_channels: Vec<usize> = vec![4, 4],
    ) => {
        runs(&FullyConnectedNetConfig::new(in_channels, out_channels, hidden_channels), &[1, in_channels])
    };
    "models::FullyConnectedNetConfig {}": (dropout: f64 = 0.1) => {
        runs(&FullyConnectedNetConfig { dropout, ..FullyConnectedNetConfig::new(3, 2, [4]) }, &[1, 3])
    };
    "models::PatchDiscriminatorConfig::new": (rank: usize = 2, in_channels: usize = 1, channels: usize = 4) => {
        let config = PatchDiscriminatorConfig { layers: 1, ..PatchDiscriminatorConfig::new(rank, in_channels, channels) };
        runs(&config, &shape(in_channels, &vec![16; rank.min(4)]))
    };
    "models::PatchDiscriminatorConfig {}": (
        out_channels: usize = 1,
        layers: usize = 1,
        kernel: usize = 4,
        last_kernel: usize = 4,
        padding: usize = 1,
        dropout: f64 = 0.1,
    ) => {
        let base = PatchDiscriminatorConfig::new(2, 1, 4);
        let last_kernel = Some(last_kernel);
        let config = PatchDiscriminatorConfig { out_channels, layers, kernel, last_kernel, padding, dropout, ..base };
        // A kernel that is larger than its map is the image's fault.
        let size = if layers == 1 && kernel == 4 && last_kernel == Some(4) { 16 } else { 64 };
        runs(&config, &[1, 1, size, size])
    };
    "models::MultiScalePatchDiscriminatorConfig::new": (
        rank: usize = 2,
        in_channels: usize = 1,
        channels: usize = 4,
        discriminators: usize = 2,
        layers: usize = 1,
    ) => {
        let config = MultiScalePatchDiscriminatorConfig::new(rank, in_channels, channels, discriminators, layers);
        runs(&config, &shape(in_channels, &vec![16; rank.min(4)]))
    };
    "models::MultiScalePatchDiscriminatorConfig {}": (
        out_channels: usize = 1,
        kernel: usize = 4,
        last_kernel: usize = 1,
        dropout: f64 = 0.1,
        smallest_image: usize = 16,
    ) => {
        let base = MultiScalePatchDiscriminatorConfig::new(2, 1, 4, 2, 1);
        let config = MultiScalePatchDiscriminatorConfig {
            out_channels, kernel, last_kernel, dropout, smallest_image, ..base
        };
        runs(&config, &[1, 1, 64, 64])
    };
    "models::FcnConfig::new": (classes: usize = 2) => {
        let config = FcnConfig { layers: vec![1; 4], width: 4, ..FcnConfig::new(classes) };
        runs(&config, &[1, 3, 32, 32])
    };
    "models::FcnConfig {}": (in_channels: usize = 1, layers: Vec<usize> = vec![1, 1, 1, 1], width: usize = 4) => {
        let config = FcnConfig { in_channels, layers, width, ..FcnConfig::new(2) };
        runs(&config, &shape(in_channels, &[32, 32]))
    };
    "models::SliceSequenceConfig::new": (classes: usize = 2) => {
        let config = SliceSequenceConfig { layers: vec![1], width: 4, hidden: 4, ..SliceSequenceConfig::new(classes) };
        runs(&config, &[1, 1, 2, 8, 8])
    };
    "models::SliceSequenceConfig {}": (
        in_channels: usize = 1,
        layers: Vec<usize> = vec![1, 1],
        width: usize = 4,
        hidden: usize = 4,
        recurrent_layers: usize = 1,
        dropout: f64 = 0.1,
    ) => {
        let base = SliceSequenceConfig::new(2);
        let config = SliceSequenceConfig { in_channels, layers, width, hidden, recurrent_layers, dropout, ..base };
        runs(&config, &shape(in_channels, &[2, 8, 8]))
    };
}
