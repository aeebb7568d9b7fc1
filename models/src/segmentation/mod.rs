//! Segmentation networks: logits for each voxel.

mod meshnet;
mod unet;
mod vnet;

pub use meshnet::{MeshNet, MeshNetConfig};
pub use unet::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
pub use vnet::{VNet, VNetActivation, VNetConfig};
