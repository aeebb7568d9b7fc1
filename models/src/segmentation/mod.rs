//! Networks that give logits for each voxel.

mod unet;

pub use unet::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
