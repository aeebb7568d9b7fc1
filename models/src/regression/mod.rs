//! Networks that predict numbers for an image.

mod fully_connected;
mod regressor;
mod strided;

pub use fully_connected::{FullyConnectedNet, FullyConnectedNetConfig};
pub use regressor::{Regressor, RegressorConfig};
pub(crate) use strided::{Fields, Strided};
