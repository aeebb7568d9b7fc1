//! MONAI's variational autoencoder.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result, Tensor};
use tomograd_nn::{Linear, Module, Named, Network, Pass, Scope};

use super::autoencoder::{Decoder, Encoder, Fields, InnerLayers};
use crate::{
    Sizes,
    blocks::{ConvStyle, size_behind},
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`VarAutoEncoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "var_autoencoder")]
pub struct VarAutoEncoderConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// The size of the image, a number for each spatial axis.
    pub size: Vec<usize>,
    /// The number of latent variables.
    pub latent_size: usize,
    /// Channels of each level of the encoder.
    pub channels: Vec<usize>,
    /// The stride of each level.
    pub strides: Vec<Sizes>,
    /// The number of convolutions of each level of the encoder, which is then a residual unit; 0: single convolutions.
    #[serde(default)]
    pub residual_units: usize,
    /// Layers between encoder and decoder, the last of which has as many channels as the encoder's last level; none by default.
    #[serde(default)]
    pub inner: InnerLayers,
    /// The size of the transposed convolutions' kernels, odd numbers.
    #[serde(default = "VarAutoEncoderConfig::three")]
    pub up_kernel: Sizes,
    /// What all convolutions have in common.
    #[serde(default)]
    pub style: ConvStyle,
    /// Whether a sigmoid limits the output to values from 0 to 1 (MONAI's `use_sigmoid`).
    #[serde(default = "VarAutoEncoderConfig::yes")]
    pub sigmoid: bool,
    /// Whether the latent code in inference is the mean; false, MONAI's default (`use_mean_at_inference`): the mean plus the
    /// standard deviation.
    #[serde(default)]
    pub mean_at_inference: bool,
    /// The standard deviation of ε, with which the code in training is mean + ε · deviation. 1 in the original; with 0 training
    /// is deterministic.
    #[serde(default = "VarAutoEncoderConfig::one")]
    pub noise: f64,
}

impl VarAutoEncoderConfig {
    /// A network with MONAI's defaults and one stride for all levels, of one input and output channel.
    pub fn new(
        size: impl Into<Vec<usize>>,
        latent_size: usize,
        channels: impl Into<Vec<usize>>,
        stride: usize,
    ) -> Self {
        let channels = channels.into();
        Self {
            in_channels: 1,
            out_channels: 1,
            size: size.into(),
            latent_size,
            strides: vec![Sizes::All(stride); channels.len()],
            channels,
            residual_units: 0,
            inner: InnerLayers::default(),
            up_kernel: Self::three(),
            style: ConvStyle::default(),
            sigmoid: true,
            mean_at_inference: false,
            noise: 1.0,
        }
    }

    fn three() -> Sizes {
        Sizes::All(3)
    }

    fn yes() -> bool {
        true
    }

    fn one() -> f64 {
        1.0
    }
}

impl Config for VarAutoEncoderConfig {
    type Network = VarAutoEncoder;

    const CARD: Card = Card {
        task: Task::Reconstruction,
        ranks: &[1, 2, 3],
        about: "a variational autoencoder: the code is a normal distribution of a few variables",
        source: "Kingma and Welling: Auto-Encoding Variational Bayes, 2013, arXiv:1312.6114; as in MONAI, Cardoso et al. 2022, \
                 arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/varautoencoder.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let strides = vec![Sizes::All(1), Sizes::All(2), Sizes::All(2)];
        let flat = Self { strides, ..Self::new([32, 32], 2, [16, 32, 64], 2) };
        vec![
            Preset::new("var_autoencoder", flat),
            Preset::new("var_autoencoder_3d", Self::new([64, 64, 64], 128, [16, 32, 64], 2)),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<VarAutoEncoder> {
        VarAutoEncoder::new(scope, self)
    }
}

/// MONAI's `VarAutoEncoder`: an [`AutoEncoder`](super::AutoEncoder) whose code is a normal distribution, of which linear layers
/// compute mean and log variance. Input `image` (N, C, spatial...) of the configuration's size. Outputs in the original's order:
/// `reconstruction` (N, C_out, spatial...), `mu` and `logvar` (N, latent), and `z` (N, latent), the code that was decoded.
///
/// In training z = μ + ε · e^(logvar / 2), where ε is drawn from a normal distribution with the pass's seed; in inference it is
/// μ + e^(logvar / 2), as in the original by default, or μ if the configuration says so.
///
/// State-dict names are MONAI's: those of the autoencoder, then `mu`, `logvar` and `decodeL`. Stages: `encode.0`, ….
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, VarAutoEncoderConfig};
/// let model = Model::new(&VarAutoEncoderConfig::new([16, 12], 3, [4, 8], 2), Device::Cpu, Seed::new(1))?;
/// let image = Tensor::zeros(&[2, 1, 16, 12], DType::F32, Device::Cpu)?;
/// let outputs = model.run(&[("image", image)].into())?;
/// assert_eq!(outputs.get("reconstruction")?.shape(), [2, 1, 16, 12]);
/// assert_eq!(outputs.get("logvar")?.shape(), [2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct VarAutoEncoder {
    path: String,
    input: Vec<usize>,
    /// The shape of the code that the convolutions see, without the batch axis.
    code: Vec<usize>,
    encoder: Encoder,
    decoder: Decoder,
    mu: Linear,
    logvar: Linear,
    decode: Linear,
    sigmoid: bool,
    mean_at_inference: bool,
    noise: f64,
}

impl VarAutoEncoder {
    fn new(mut scope: Scope<'_>, config: &VarAutoEncoderConfig) -> Result<Self> {
        let name = "var_autoencoder";
        check::length(name, "size", config.size.len(), 1, 3)?;
        check::sizes(name, "size", &config.size, check::MOST_CHANNELS)?;
        check::sizes(name, "latent_size", &[config.latent_size], check::MOST_CHANNELS)?;
        check::number(name, "noise", config.noise, 0.0..=1e3)?;
        let plan = Fields {
            operation: name,
            rank: config.size.len(),
            ends: [config.in_channels, config.out_channels],
            channels: &config.channels,
            strides: &config.strides,
            residual_units: config.residual_units,
            inner: &config.inner,
            up_kernel: &config.up_kernel,
            style: &config.style,
        }
        .plan()?;
        let last = config.channels.last().copied().unwrap_or_default();
        if let Some(inner) = config.inner.channels.last().filter(|&&inner| inner != last) {
            return Err(Error::argument(name, format!("inner.channels ends with {inner}"))
                .expected(format!("{last}, as channels does")));
        }
        let code = [&[last][..], &size_behind(&config.size, &plan.strides)].concat();
        let flat = check::product(name, "the numbers of the code, of size and channels,", &code)?;
        scope.whole(|scope| {
            let encoder = Encoder::new(scope, &plan)?;
            let decoder = Decoder::new(scope, &plan, encoder.out_channels)?;
            Ok(Self {
                path: scope.path().to_owned(),
                input: [&[config.in_channels][..], &config.size].concat(),
                code,
                encoder,
                decoder,
                mu: Linear::new(scope.at("mu"), flat, config.latent_size)?,
                logvar: Linear::new(scope.at("logvar"), flat, config.latent_size)?,
                decode: Linear::new(scope.at("decodeL"), config.latent_size, flat)?,
                sigmoid: config.sigmoid,
                mean_at_inference: config.mean_at_inference,
                noise: config.noise,
            })
        })
    }

    /// The code of these distributions.
    fn code(&self, mu: &Var, logvar: &Var, pass: &Pass) -> Result<Var> {
        let is_mean = if pass.is_training() { self.noise == 0.0 } else { self.mean_at_inference };
        if is_mean {
            return Ok(mu.clone());
        }
        let deviation = logvar.mul(0.5)?.exp()?;
        if !pass.is_training() {
            return deviation.add(mu);
        }
        let value = mu.value();
        let seed = pass.random(&format!("{}.noise", self.path));
        let noise = Tensor::normal(value.shape(), 0.0, self.noise, seed, value.dtype(), value.device())?;
        deviation.mul(&mu.tape().constant(noise))?.add(mu)
    }
}

impl Network for VarAutoEncoder {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::image_shape("var_autoencoder", x.shape(), &self.input)?;
        let images = x.shape()[0];
        let flat = self.encoder.forward(x, pass)?.flatten(1..)?;
        let (mu, logvar) = (self.mu.forward(&flat, pass)?, self.logvar.forward(&flat, pass)?);
        let z = self.code(&mu, &logvar, pass)?;
        let code = self.decode.forward(&z, pass)?.relu()?.reshape(&[&[images], &self.code[..]].concat())?;
        let y = self.decoder.forward(&code, pass)?;
        let y = if self.sigmoid { y.sigmoid()? } else { y };
        Ok(Named::from([("reconstruction", y), ("mu", mu), ("logvar", logvar), ("z", z)]))
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed};
    use tomograd_nn::Params;

    use super::*;

    #[test]
    fn noise_has_the_deviation_of_the_distribution_and_follows_the_seed() {
        let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
        let config = VarAutoEncoderConfig::new([8, 8], 2000, [2], 2);
        let network = config.build(params.root()).unwrap();
        let image = Tensor::normal(&[1, 1, 8, 8], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
        let outputs = |pass: Pass| {
            let outputs = network.run(&[("image", pass.input(&image))].into(), &pass).unwrap();
            let values = |name: &str| outputs.get(name).unwrap().value().to_vec::<f64>().unwrap();
            [values("mu"), values("logvar"), values("z")]
        };
        let train = |seed: u64| outputs(Pass::train(&params, Seed::new(seed)).unwrap());
        let [mu, logvar, z] = train(1);
        assert_eq!(train(1)[2], z);
        assert_ne!(train(2)[2], z);
        let scaled = mu.iter().zip(&logvar).zip(&z).map(|((mu, logvar), z)| (z - mu) / (0.5 * logvar).exp());
        let (mean, square) = scaled.fold((0.0, 0.0), |(mean, square), e| (mean + e / 2e3, square + e * e / 2e3));
        // The standard deviations of the two are 0.022 and 0.032.
        assert!(mean.abs() < 0.1 && (square - 1.0).abs() < 0.15, "{mean} {square}");
        let [mu, logvar, z] = outputs(Pass::eval(&params).unwrap());
        for ((mu, logvar), z) in mu.iter().zip(&logvar).zip(&z) {
            assert!((mu + (0.5 * logvar).exp() - z).abs() < 1e-12);
        }
    }
}
