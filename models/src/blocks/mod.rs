//! Building blocks that several networks share.

mod double_conv;

pub use double_conv::{DoubleConv, DoubleConvOptions};
