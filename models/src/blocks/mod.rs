//! Building blocks that several networks share.

mod double_conv;
mod squeeze_excitation;

pub use double_conv::{DoubleConv, DoubleConvOptions};
pub use squeeze_excitation::{SqueezeExcitation, SqueezeExcitationOptions};
