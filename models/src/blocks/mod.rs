//! Building blocks that several networks share.

mod conv_dropout_norm;
mod double_conv;

pub(crate) use conv_dropout_norm::{After, ConvDropoutNorm};
pub use double_conv::{DoubleConv, DoubleConvOptions};
