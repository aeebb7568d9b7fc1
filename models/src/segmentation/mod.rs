//! Segmentation networks: logits for each voxel.

mod dynunet;
mod levels;
mod meshnet;
mod unet;
mod vnet;

pub use dynunet::{DynUNet, DynUNetConfig};
pub use levels::LevelNorm;
pub use meshnet::{MeshNet, MeshNetConfig};
pub use unet::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
pub use vnet::{VNet, VNetActivation, VNetConfig};
