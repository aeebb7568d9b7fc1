//! Segmentation networks: logits for each voxel.

mod half_unet;
mod meshnet;
mod outputs;
mod res_unet;
mod u2net;
mod unet;
mod unet3plus;

pub use half_unet::{HalfUNet, HalfUNetConfig, HalfUNetConvolution, HalfUNetUpsampling};
pub use meshnet::{MeshNet, MeshNetConfig};
pub use res_unet::{ResUNet, ResUNetConfig};
pub use u2net::{U2Net, U2NetConfig};
pub use unet::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
pub use unet3plus::{UNet3Plus, UNet3PlusConfig, UNet3PlusSupervision};
