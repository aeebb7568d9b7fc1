//! Segmentation networks: logits for each voxel.

mod attention_gated_unet;
mod attention_unet;
mod basic_unet;
mod fcn;
mod fit;
mod meshnet;
mod monai_unet;
mod nested_unet;
mod unet;

pub use attention_gated_unet::{AttentionGatedUNet, AttentionGatedUNetConfig, GateMode};
pub use attention_unet::{AttentionUNet, AttentionUNetConfig};
pub use basic_unet::{BasicUNet, BasicUNetConfig, BasicUNetPlusPlus, BasicUNetPlusPlusConfig, BasicUpsampling};
pub use fcn::{Fcn, FcnConfig, FcnUpsampling};
pub use meshnet::{MeshNet, MeshNetConfig};
pub use monai_unet::{MonaiUNet, MonaiUNetConfig};
pub use nested_unet::{NestedUNet, NestedUNetConfig};
pub use unet::{UNet, UNet2d, UNet2dConfig, UNet3d, UNet3dConfig, UNetConfig, UNetUpsampling};
