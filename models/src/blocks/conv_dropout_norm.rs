//! Convolution, dropout, norm and activation, fused where nothing is dropped.

use tomograd_autodiff::Var;
use tomograd_core::Result;
use tomograd_nn::{Activation, Conv, ConvNormActivation, Dropout, Module, Norm, NormOptions, Pass, Scope};

use super::saving::activate;

/// The norm and the activation behind a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct After {
    /// The norm, without the activation.
    pub(crate) norm: Option<NormOptions>,
    /// The activation.
    pub(crate) activation: Option<Activation>,
    /// Whether the activation comes before the norm.
    pub(crate) activation_first: bool,
}

/// Convolution → dropout → norm → activation; any but the convolution may be missing, and the activation may come
/// before the norm. Without dropout, and in inference, it is one fused operation.
#[derive(Debug)]
pub(crate) struct ConvDropoutNorm {
    conv: Conv,
    dropout: Option<Dropout>,
    /// An activation before the norm, or without one.
    activation: Option<Activation>,
    /// With the activation that follows it.
    norm: Option<Norm>,
    fused: Option<ConvNormActivation>,
}

impl ConvDropoutNorm {
    /// Creates the norm, if there is one, in `scope`.
    ///
    /// # Errors
    /// When the norm's groups don't divide the channels, a name is taken, or memory runs out.
    pub(crate) fn new(scope: Scope<'_>, conv: Conv, dropout: Option<Dropout>, after: After) -> Result<Self> {
        let After { norm, activation, activation_first } = after;
        let inside = activation.filter(|_| norm.is_some() && !activation_first);
        let options = norm.map(|norm| inside.map_or(norm, |activation| norm.activation(activation)));
        let channels = conv.out_channels();
        let norm = options.map(|options| Norm::new(scope, channels, options)).transpose()?;
        let activation = activation.filter(|_| inside.is_none());
        let fused = match &norm {
            Some(norm) if activation.is_none() => Some(ConvNormActivation::new(conv.clone(), norm.clone())?),
            _ => None,
        };
        Ok(Self { conv, dropout, activation, norm, fused })
    }

    fn fused(&self, pass: &Pass) -> Option<&ConvNormActivation> {
        self.fused.as_ref().filter(|_| self.dropout.is_none() || !pass.is_training())
    }

    /// The output for two inputs concatenated along channels, without the concatenated copy.
    ///
    /// # Errors
    /// When the inputs don't fit.
    pub(crate) fn forward_two(&self, first: Var, second: Var, pass: &Pass) -> Result<Var> {
        match self.fused(pass) {
            Some(fused) => fused.forward_two(&first, &second, pass),
            None => {
                let y = self.conv.forward_two(&first, &second, pass)?;
                drop((first, second));
                self.behind(y, pass)
            }
        }
    }

    /// What comes behind the convolution, if it isn't fused.
    fn behind(&self, mut y: Var, pass: &Pass) -> Result<Var> {
        if let Some(dropout) = &self.dropout {
            y = dropout.forward(&y, pass)?;
        }
        if let Some(activation) = self.activation {
            y = activate(y, activation)?;
        }
        match &self.norm {
            Some(norm) => norm.forward(&y, pass),
            None => Ok(y),
        }
    }
}

impl Module for ConvDropoutNorm {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        match self.fused(pass) {
            Some(fused) => fused.forward(x, pass),
            None => self.behind(self.conv.forward(x, pass)?, pass),
        }
    }
}
