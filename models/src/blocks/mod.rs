//! Building blocks that several networks share.

mod conv_norm;
mod double_conv;

pub(crate) use conv_norm::conv_norm;
pub use double_conv::{DoubleConv, DoubleConvOptions};
