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
use tomograd_core::Result;

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
