//! Networks that reconstruct their image.

mod autoencoder;
mod var_autoencoder;

pub use autoencoder::{AutoEncoder, AutoEncoderConfig, InnerLayers};
pub use var_autoencoder::{VarAutoEncoder, VarAutoEncoderConfig};
