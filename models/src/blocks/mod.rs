//! Building blocks that several networks share.

mod cbam;
mod double_conv;
pub(crate) mod saving;
mod squeeze_excitation;

pub use cbam::Cbam;
pub use double_conv::{DoubleConv, DoubleConvOptions};
pub use squeeze_excitation::{SqueezeExcitation, SqueezeExcitationOptions};
