//! MONAI's fully connected network.

use serde::{Deserialize, Serialize};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_nn::{
    Activation, Dropout, Linear, LinearOptions, Module, Named, Network, PRelu, Pass, Scope, check_activation,
};

use crate::{
    blocks::ActivationChoice,
    check,
    config::{Card, Config, Preset, Task},
};

/// The configuration of a [`FullyConnectedNet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename = "fully_connected")]
pub struct FullyConnectedNetConfig {
    /// The number of input values.
    pub in_channels: usize,
    /// The number of output values.
    pub out_channels: usize,
    /// The number of values of each hidden layer.
    pub hidden_channels: Vec<usize>,
    /// The activation behind each hidden layer.
    #[serde(default = "FullyConnectedNetConfig::prelu")]
    pub activation: ActivationChoice,
    /// The probability with which an element is dropped in training, behind each hidden layer.
    #[serde(default)]
    pub dropout: f64,
    /// Whether layers have a bias.
    #[serde(default = "FullyConnectedNetConfig::yes")]
    pub bias: bool,
}

/// The most hidden layers.
const MOST_LAYERS: usize = 1024;

impl FullyConnectedNetConfig {
    /// A network with MONAI's defaults.
    pub fn new(in_channels: usize, out_channels: usize, hidden_channels: impl Into<Vec<usize>>) -> Self {
        let (activation, dropout, bias) = (Self::prelu(), 0.0, true);
        Self { in_channels, out_channels, hidden_channels: hidden_channels.into(), activation, dropout, bias }
    }

    fn prelu() -> ActivationChoice {
        ActivationChoice::Prelu
    }

    fn yes() -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        let name = "fully_connected";
        check::sizes(name, "in_channels", &[self.in_channels], check::MOST_CHANNELS)?;
        check::sizes(name, "out_channels", &[self.out_channels], check::MOST_CHANNELS)?;
        check::length(name, "hidden_channels", self.hidden_channels.len(), 0, MOST_LAYERS)?;
        check::sizes(name, "hidden_channels", &self.hidden_channels, check::MOST_CHANNELS)?;
        check::probability(name, "dropout", self.dropout)?;
        self.activation.function().map_or(Ok(()), |function| check_activation("activation", function))
    }
}

impl Config for FullyConnectedNetConfig {
    type Network = FullyConnectedNet;

    const CARD: Card = Card {
        task: Task::Regression,
        ranks: &[1, 2, 3],
        about: "linear layers with activations between them (multi-layer perceptron)",
        source: "Cardoso et al.: MONAI: An open-source framework for deep learning in healthcare, 2022, arXiv:2211.02701",
        code: Some("https://github.com/Project-MONAI/MONAI/blob/dev/monai/networks/nets/fullyconnectednet.py"),
        weights_licence: None,
    };

    fn presets() -> Vec<Preset<Self>> {
        let small = Self { dropout: 0.2, ..Self::new(4, 3, [10, 20, 10]) };
        vec![Preset::new("fully_connected", small)]
    }

    fn build(&self, mut scope: Scope<'_>) -> Result<FullyConnectedNet> {
        self.check()?;
        scope.whole(|scope| FullyConnectedNet::make(scope, self))
    }
}

/// A linear layer with what stands behind it.
#[derive(Debug)]
struct Hidden {
    linear: Linear,
    dropout: Dropout,
    slope: Option<PRelu>,
    function: Option<Activation>,
}

/// MONAI's `FullyConnectedNet`: linear layers with dropout and an activation behind each but the last. Input `image` (N, ...) with
/// `in_channels` values for each of N, whatever the axes; output `prediction` (N, out_channels).
///
/// State-dict names are MONAI's: `hidden_0.0`, `hidden_0.1.A`, …, `output`.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_models::{FullyConnectedNetConfig, Model};
/// let model = Model::new(&FullyConnectedNetConfig::new(4, 3, [10, 20, 10]), Device::Cpu, Seed::new(1))?;
/// assert_eq!(model.predict(&Tensor::zeros(&[5, 4], DType::F32, Device::Cpu)?)?.shape(), [5, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct FullyConnectedNet {
    in_channels: usize,
    hidden: Vec<Hidden>,
    output: Linear,
}

impl FullyConnectedNet {
    fn make(scope: &mut Scope<'_>, config: &FullyConnectedNetConfig) -> Result<Self> {
        let (mut from, mut hidden) = (config.in_channels, Vec::new());
        let options = |outputs: usize| LinearOptions::new(outputs).bias(config.bias);
        for (layer, &to) in config.hidden_channels.iter().enumerate() {
            let mut scope = scope.at(format!("hidden_{layer}"));
            let linear = Linear::new(scope.at(0), from, options(to))?;
            let is_prelu = config.activation == ActivationChoice::Prelu;
            hidden.push(Hidden {
                linear,
                dropout: Dropout::new(scope.at("1.D"), config.dropout)?,
                slope: is_prelu.then(|| PRelu::new(scope.at("1.A"), 1)).transpose()?,
                function: config.activation.function(),
            });
            from = to;
        }
        let output = Linear::new(scope.at("output"), from, options(config.out_channels))?;
        Ok(Self { in_channels: config.in_channels, hidden, output })
    }
}

impl Network for FullyConnectedNet {
    fn inputs(&self) -> &'static [&'static str] {
        &["image"]
    }

    fn run(&self, inputs: &Named<Var>, pass: &Pass) -> Result<Named<Var>> {
        let x = inputs.get("image")?;
        check::numbers("fully_connected", x.shape(), self.in_channels)?;
        let x = self.hidden.iter().try_fold(x.flatten(1..)?, |x, hidden| {
            let x = hidden.dropout.forward(&hidden.linear.forward(&x, pass)?, pass)?;
            match (&hidden.slope, hidden.function) {
                (Some(slope), _) => slope.forward(&x, pass),
                (None, Some(function)) => function.forward(&x, pass),
                (None, None) => Ok(x),
            }
        })?;
        Ok(Named::from([("prediction", self.output.forward(&x, pass)?)]))
    }
}
