//! A convolution, and behind it a norm, dropout and an activation in any order: MONAI's `Convolution` with its `ADN`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tomograd_autodiff::Var;
use tomograd_core::{Error, Result};
use tomograd_nn::{
    Activation, Conv, ConvNormActivation, ConvTranspose, Dropout, Kernel, Module, Norm, NormKind, NormOptions, PRelu,
    Pass, Scope, check_activation, init::Init,
};

use super::{join, saving::activate};

/// A norm in a configuration: `"batch"`, `{"group": 4}`, ... in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormChoice {
    /// No norm.
    None,
    /// Batch norm with weight and bias.
    Batch,
    /// Instance norm without weight and bias, PyTorch's and MONAI's default.
    Instance,
    /// Instance norm with weight and bias.
    InstanceAffine,
    /// Group norm of this number of groups, with weight and bias.
    Group(usize),
}

impl NormChoice {
    /// The options of the layer, if there is one.
    pub fn options(self) -> Option<NormOptions> {
        match self {
            Self::None => None,
            Self::Batch => Some(NormKind::Batch.into()),
            Self::Instance => Some(NormOptions::new(NormKind::Instance).affine(false)),
            Self::InstanceAffine => Some(NormKind::Instance.into()),
            Self::Group(groups) => Some(NormKind::Group(groups).into()),
        }
    }
}

/// An activation in a configuration: `"relu"`, `{"leaky_relu": 0.1}`, ... in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationChoice {
    /// No activation.
    None,
    /// max(x, 0).
    Relu,
    /// x for x > 0, slope · x otherwise.
    LeakyRelu(f64),
    /// x for x > 0, a learned slope (one for all channels, 0.25 at first) · x otherwise.
    Prelu,
    /// x for x > 0, α (eˣ − 1) otherwise.
    Elu(f64),
    /// x · Φ(x).
    Gelu,
    /// x · sigmoid(x), also called Swish.
    Silu,
    /// x · tanh(softplus(x)).
    Mish,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

impl ActivationChoice {
    /// The function, if it is one without parameters.
    pub(crate) fn function(self) -> Option<Activation> {
        match self {
            Self::None | Self::Prelu => None,
            Self::Relu => Some(Activation::Relu),
            Self::LeakyRelu(slope) => Some(Activation::LeakyRelu(slope)),
            Self::Elu(alpha) => Some(Activation::Elu(alpha)),
            Self::Gelu => Some(Activation::Gelu),
            Self::Silu => Some(Activation::Silu),
            Self::Mish => Some(Activation::Mish),
            Self::Sigmoid => Some(Activation::Sigmoid),
            Self::Tanh => Some(Activation::Tanh),
        }
    }
}

/// What stands behind a convolution, and in which order.
///
/// ```
/// use tomograd_models::blocks::{ActivationChoice, Adn, NormChoice};
/// let adn = Adn::new(NormChoice::Instance, ActivationChoice::Prelu);
/// assert!(adn.clone().ordering("AND").is_ok());
/// assert!(adn.ordering("NN").is_err());
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Adn {
    scale: Option<Init>,
    norm: NormChoice,
    activation: ActivationChoice,
    dropout: f64,
    ordering: String,
}

impl Adn {
    /// Norm, then activation.
    pub fn new(norm: NormChoice, activation: ActivationChoice) -> Self {
        Self { scale: None, norm, activation, dropout: 0.0, ordering: "NDA".to_owned() }
    }

    /// Nothing behind the convolution.
    pub fn none() -> Self {
        Self::new(NormChoice::None, ActivationChoice::None)
    }

    /// Sets the probability with which an element is dropped in training.
    #[must_use]
    pub fn dropout(mut self, probability: f64) -> Self {
        self.dropout = probability;
        self
    }

    /// Sets the initialisation of the norm's weight; by default 1.
    #[must_use]
    pub fn scale(mut self, init: Init) -> Self {
        self.scale = Some(init);
        self
    }

    /// Sets the order of activation (A), dropout (D) and norm (N): by default `NDA`. What has no letter is left out.
    ///
    /// # Errors
    /// When a letter is another one, or there twice.
    pub fn ordering(mut self, ordering: &str) -> Result<Self> {
        let letters = ordering.to_uppercase();
        let twice = |(at, letter): (usize, char)| letters[at + 1..].contains(letter);
        if letters.chars().any(|letter| !"ADN".contains(letter)) || letters.char_indices().any(twice) {
            return Err(Error::argument("adn", format!("the ordering {ordering:?}"))
                .expected("the letters A, D and N, each at most once"));
        }
        self.ordering = letters;
        Ok(self)
    }
}

/// A layer behind the convolution.
#[derive(Debug)]
enum Step {
    Norm(Norm),
    Function(Activation),
    PRelu(PRelu),
    Dropout(Dropout),
}

/// The convolution, with the norm and activation that are fused with it.
#[derive(Debug)]
enum First {
    Conv(Conv),
    Fused(ConvNormActivation),
    Transposed(ConvTranspose),
}

/// A convolution or transposed convolution with what stands behind it ([`Adn`]): (N, C_in, spatial...) to (N, C_out,
/// spatial...).
///
/// State-dict names are those of MONAI's `Convolution`: `conv` the convolution, `adn.N` the norm, `adn.A` the slope of a
/// PReLU.
#[derive(Debug)]
pub struct ConvAdn {
    first: First,
    steps: VecDeque<Step>,
}

impl ConvAdn {
    /// A convolution with what stands behind it.
    ///
    /// # Errors
    /// When a number makes no sense, the norm's groups don't divide the channels, a name is taken, or memory runs out; then
    /// no parameter is created.
    pub fn new(mut scope: Scope<'_>, in_channels: usize, channels: usize, kernel: Kernel, adn: &Adn) -> Result<Self> {
        scope.whole(|scope| {
            let conv = Conv::new(scope.at("conv"), in_channels, channels, kernel)?;
            let norm = |scope: Scope<'_>, options: NormOptions| Norm::new(scope, channels, options);
            let mut steps = steps(&mut scope.at("adn"), channels, adn, norm)?;
            // A norm right behind the convolution is fused with it; a batch norm can then be folded into it.
            let first = match steps.pop_front() {
                Some(Step::Norm(norm)) => First::Fused(ConvNormActivation::new(conv, norm)?),
                other => {
                    other.into_iter().for_each(|step| steps.push_front(step));
                    First::Conv(conv)
                }
            };
            Ok(Self { first, steps })
        })
    }

    /// A transposed convolution with what stands behind it.
    ///
    /// # Errors
    /// As [`ConvAdn::new`].
    pub fn transposed(
        mut scope: Scope<'_>,
        in_channels: usize,
        channels: usize,
        kernel: Kernel,
        adn: &Adn,
    ) -> Result<Self> {
        scope.whole(|scope| {
            let conv = ConvTranspose::new(scope.at("conv"), in_channels, channels, kernel)?;
            let norm = |scope: Scope<'_>, options: NormOptions| Norm::after(scope, &conv, options);
            let steps = steps(&mut scope.at("adn"), channels, adn, norm)?;
            Ok(Self { first: First::Transposed(conv), steps })
        })
    }

    /// The output for two inputs concatenated along channels, without the concatenated copy where the convolution isn't
    /// transposed.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub fn forward_two(&self, first: Var, second: Var, pass: &Pass) -> Result<Var> {
        let joined = match &self.first {
            First::Transposed(conv) => conv.forward(&join(first, second)?, pass)?,
            First::Conv(conv) => {
                let joined = conv.forward_two(&first, &second, pass)?;
                drop((first, second));
                joined
            }
            First::Fused(layer) => {
                let joined = layer.forward_two(&first, &second, pass)?;
                drop((first, second));
                joined
            }
        };
        self.behind(joined, pass)
    }

    fn behind(&self, x: Var, pass: &Pass) -> Result<Var> {
        self.steps.iter().try_fold(x, |x, step| match step {
            Step::Norm(norm) => norm.forward(&x, pass),
            Step::Function(function) => activate(x, *function),
            Step::PRelu(prelu) => prelu.forward(&x, pass),
            Step::Dropout(dropout) => dropout.forward(&x, pass),
        })
    }
}

impl Module for ConvAdn {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let x = match &self.first {
            First::Conv(conv) => conv.forward(x, pass)?,
            First::Fused(layer) => layer.forward(x, pass)?,
            First::Transposed(conv) => conv.forward(x, pass)?,
        };
        self.behind(x, pass)
    }
}

/// The layers behind a convolution; `after` makes a norm that follows the convolution directly. A function right behind a norm
/// becomes part of it.
fn steps(
    scope: &mut Scope<'_>,
    channels: usize,
    adn: &Adn,
    after: impl Fn(Scope<'_>, NormOptions) -> Result<Norm>,
) -> Result<VecDeque<Step>> {
    let present = |letter: &char| match letter {
        'N' => adn.norm != NormChoice::None,
        'A' => adn.activation != ActivationChoice::None,
        // Any number but 0 is left for the layer to check.
        _ => adn.dropout != 0.0,
    };
    adn.activation.function().map_or(Ok(()), |function| check_activation("activation", function))?;
    let mut letters = adn.ordering.chars().filter(present).peekable();
    let mut steps = VecDeque::new();
    while let Some(letter) = letters.next() {
        steps.push_back(match (letter, adn.norm.options(), adn.activation.function()) {
            ('N', Some(mut options), function) => {
                options = adn.scale.map_or(options, |init| options.weight(init));
                if let Some(function) = function
                    && letters.next_if_eq(&'A').is_some()
                {
                    options = options.activation(function);
                }
                let place = scope.at("N");
                Step::Norm(if steps.is_empty() { after(place, options)? } else { Norm::new(place, channels, options)? })
            }
            ('A', _, Some(function)) => Step::Function(function),
            ('A', _, None) => Step::PRelu(PRelu::new(scope.at("A"), 1)?),
            _ => Step::Dropout(Dropout::new(scope.at("D"), adn.dropout)?),
        });
    }
    Ok(steps)
}
