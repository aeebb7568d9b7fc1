//! The model zoo of tomograd.

mod unet3d;

pub use unet3d::{UNet3d, UNet3dConfig};
