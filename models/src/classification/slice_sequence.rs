//! A recurrent network over the slices of a volume.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::{Dropout, Linear, Module, Pass, Recurrent, RecurrentKind, RecurrentOptions, Scope};

use crate::{
    ResNetBlock, ResNetConfig, ResNetEncoder, check,
    config::{Card, Config, Preset, Task},
};

/// The cell of the recurrent layers of a [`SliceSequence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceCell {
    /// Long short-term memory.
    #[default]
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

/// What the classifier of a [`SliceSequence`] sees of the recurrent layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlicePooling {
    /// The last state of each direction: forward at the last slice, backward at the first.
    #[default]
    Last,
    /// The mean over all slices.
    Mean,
}

/// The configuration of a [`SliceSequence`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "slice_sequence")]
pub struct SliceSequenceConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Number of classes, the channels of the logits.
    pub classes: usize,
    /// The kind of residual block of the encoder of slices, a [`ResNet`](crate::ResNet).
    #[serde(default = "SliceSequenceConfig::basic")]
    pub block: ResNetBlock,
    /// The number of blocks of each of the encoder's layers; those of ResNet-18 by default.
    #[serde(default = "SliceSequenceConfig::resnet18")]
    pub layers: Vec<usize>,
    /// Channels of the encoder's stem.
    #[serde(default = "SliceSequenceConfig::sixty_four")]
    pub width: usize,
    /// The cell of the recurrent layers.
    #[serde(default)]
    pub cell: SliceCell,
    /// The numbers in a hidden state.
    #[serde(default = "SliceSequenceConfig::hidden_256")]
    pub hidden: usize,
    /// The number of recurrent layers.
    #[serde(default = "SliceSequenceConfig::one")]
    pub recurrent_layers: usize,
    /// Whether the sequence is also read from the last slice to the first.
    #[serde(default = "SliceSequenceConfig::yes")]
    pub bidirectional: bool,
    /// What the classifier sees.
    #[serde(default)]
    pub pooling: SlicePooling,
    /// The probability of dropout between recurrent layers and before the classifier.
    #[serde(default)]
    pub dropout: f64,
}

impl SliceSequenceConfig {
    /// A ResNet-18 for slices of one channel, and a bidirectional LSTM.
    pub fn new(classes: usize) -> Self {
        Self {
            in_channels: 1,
            classes,
            block: Self::basic(),
            layers: Self::resnet18(),
            width: Self::sixty_four(),
            cell: SliceCell::Lstm,
            hidden: Self::hidden_256(),
            recurrent_layers: Self::one(),
            bidirectional: true,
            pooling: SlicePooling::Last,
            dropout: 0.0,
        }
    }

    fn basic() -> ResNetBlock {
        ResNetBlock::Basic
    }

    fn resnet18() -> Vec<usize> {
        vec![2; 4]
    }

    fn sixty_four() -> usize {
        64
    }

    fn hidden_256() -> usize {
        256
    }

    fn one() -> usize {
        1
    }

    fn yes() -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        let (name, most) = ("slice_sequence", check::MOST_CHANNELS);
        check::sizes(name, "classes", &[self.classes], most)?;
        // The gates have four times as many rows.
        check::sizes(name, "hidden", &[self.hidden], most / 4)?;
        check::sizes(name, "recurrent_layers", &[self.recurrent_layers], 64)?;
        check::probability(name, "dropout", self.dropout)
    }
}

impl Config for SliceSequenceConfig {
    type Network = SliceSequence;

    const CARD: Card = Card {
        task: Task::Classification,
        ranks: &[3],
        about: "an encoder of each slice, and an LSTM or GRU over the slices of a volume",
        source: "LSTM: Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; GRU: Cho et al. 2014, arXiv:1406.1078; over CT \
                 slices: Burduja et al. 2020, doi:10.3390/s20195611",
        code: None,
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        vec![
            Preset::new("slice_lstm_resnet18", Self::new(2)),
            Preset::new("slice_gru_resnet18", Self { cell: SliceCell::Gru, ..Self::new(2) })
                .source("Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder, 2014, arXiv:1406.1078"),
        ]
    }

    fn build(&self, scope: Scope<'_>) -> Result<SliceSequence> {
        SliceSequence::new(scope, self)
    }
}

/// A network for volumes that are stacks of slices: a 2D [`ResNet`](crate::ResNet) encodes each slice, recurrent layers read the codes
/// in order, a linear layer classifies. Input (N, C, slices, H, W), output (N, classes).
///
/// State-dict names: `encoder.conv1`, … as torchvision's ResNet, `rnn.weight_ih_l0`, … as PyTorch's `LSTM` or `GRU`, `classifier`.
/// Stages: those of the encoder, `encoder.stem`, `encoder.layer1`, …, whose maps are 2D, with the slices of all volumes along the
/// batch axis.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{Model, SliceSequenceConfig};
/// let config = SliceSequenceConfig { width: 4, layers: vec![1, 1], hidden: 8, ..SliceSequenceConfig::new(3) };
/// let model = Model::new(&config, Device::Cpu, Seed::new(1))?;
/// let volume = Tensor::zeros(&[2, 1, 5, 16, 16], DType::F32, Device::Cpu)?;
/// assert_eq!(model.predict(&volume)?.shape(), [2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SliceSequence {
    encoder: ResNetEncoder,
    rnn: Recurrent,
    directions: usize,
    pooling: SlicePooling,
    dropout: Dropout,
    classifier: Linear,
}

impl SliceSequence {
    fn new(mut scope: Scope<'_>, config: &SliceSequenceConfig) -> Result<Self> {
        config.check()?;
        scope.whole(|scope| Self::make(scope, config))
    }

    fn make(scope: &mut Scope<'_>, config: &SliceSequenceConfig) -> Result<Self> {
        let base = ResNetConfig::new(config.block, config.layers.clone(), 1);
        let slices = ResNetConfig { in_channels: config.in_channels, width: config.width, ..base };
        let encoder = ResNetEncoder::new(scope.at("encoder"), &slices)?;
        let kind = match config.cell {
            SliceCell::Lstm => RecurrentKind::Lstm,
            SliceCell::Gru => RecurrentKind::Gru,
        };
        let options = RecurrentOptions::new(kind, config.hidden)
            .layers(config.recurrent_layers)
            .bidirectional(config.bidirectional)
            .dropout(config.dropout);
        let rnn = Recurrent::new(scope.at("rnn"), slices.out_channels(), options)?;
        let directions = if config.bidirectional { 2 } else { 1 };
        let dropout = Dropout::new(scope.at("dropout"), config.dropout)?;
        let classifier = Linear::new(scope.at("classifier"), directions * config.hidden, config.classes)?;
        Ok(Self { encoder, rnn, directions, pooling: config.pooling, dropout, classifier })
    }
}

impl Module for SliceSequence {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        check::rank("slice_sequence", x.shape(), 3)?;
        let &[images, channels, slices, height, width] = x.shape() else {
            return Err(Error::shape("slice_sequence", "the input isn't a volume").shapes([x.shape()]));
        };
        if images == 0 || slices == 0 {
            return Err(Error::shape("slice_sequence", "the input is empty")
                .expected("one volume and one slice at least")
                .shapes([x.shape()]));
        }
        let flat = x.transpose(1, 2)?.reshape(&[images * slices, channels, height, width])?;
        let codes = self.encoder.forward(&flat, pass)?.mean_spatial()?.flatten(1..)?;
        let features = codes.shape()[1];
        let result = self.rnn.run(&codes.reshape(&[images, slices, features])?, pass)?;
        let seen = match self.pooling {
            SlicePooling::Mean => result.sequence.mean(1)?,
            SlicePooling::Last => {
                let last = &result.hidden[result.hidden.len() - self.directions..];
                Var::concat(&last.iter().collect::<Vec<_>>(), 1)?
            }
        };
        self.classifier.forward(&self.dropout.forward(&seen, pass)?, pass)
    }
}
