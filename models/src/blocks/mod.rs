//! Building blocks that several networks share.

mod adn;
mod cbam;
mod conv_dropout_norm;
mod conv_norm;
mod double_conv;
pub(crate) mod saving;
mod squeeze_excitation;
mod subpixel;
mod units;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result};
use tomograd_nn::Activation;

pub use adn::{ActivationChoice, Adn, ConvAdn, NormChoice};
pub use cbam::Cbam;
pub(crate) use conv_dropout_norm::{After, ConvDropoutNorm};
pub(crate) use conv_norm::conv_norm;
pub(crate) use double_conv::ConvActivation;
pub use double_conv::{DoubleConv, DoubleConvOptions};
pub use squeeze_excitation::{SqueezeExcitation, SqueezeExcitationOptions};
pub(crate) use subpixel::SubpixelUpsample;
pub use units::ConvStyle;
pub(crate) use units::{MOST_UNITS, Place, Unit, Units, checked_strides, levels, size_behind};

/// Two maps concatenated along channels.
pub(crate) fn join(first: Var, second: Var) -> Result<Var> {
    Var::concat(&[&first, &second], 1)
}

/// The largest number of an activation, so that usual products don't overflow an f32.
const LARGEST: f64 = 1e30;

/// Checks the numbers of an activation that isn't part of a layer that does.
pub(crate) fn check_activation(activation: Activation) -> Result<()> {
    let fits = match activation {
        Activation::LeakyRelu(number)
        | Activation::Elu(number)
        | Activation::Add(number)
        | Activation::Multiply(number)
        | Activation::Power(number) => number.abs() <= LARGEST,
        Activation::Clamp(low, high) => low <= high,
        _ => true,
    };
    if fits {
        return Ok(());
    }
    Err(Error::argument("activation", format!("{activation:?}"))
        .expected("numbers within 1e30 of 0, and bounds in their order"))
}
