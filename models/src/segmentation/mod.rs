//! Segmentation networks: logits for each voxel.

mod attention_gated_unet;
mod attention_unet;
mod basic_unet;
mod dynunet;
mod fcn;
mod fit;
mod half_unet;
mod levels;
mod meshnet;
mod monai_unet;
mod nested_unet;
mod nnunet;
mod outputs;
mod res_unet;
mod segresnet;
mod u2net;
mod unet;
mod unet3plus;
mod vnet;

pub use attention_gated_unet::{AttentionGatedUNet, AttentionGatedUNetConfig, GateMode};
pub use attention_unet::{AttentionUNet, AttentionUNetConfig};
pub use basic_unet::{BasicUNet, BasicUNetConfig, BasicUNetPlusPlus, BasicUNetPlusPlusConfig, BasicUpsampling};
pub use dynunet::{DynUNet, DynUNetConfig};
pub use fcn::{Fcn, FcnConfig, FcnUpsampling};
pub use half_unet::{HalfUNet, HalfUNetConfig, HalfUNetConvolution, HalfUNetUpsampling};
pub use meshnet::{MeshNet, MeshNetConfig};
pub use monai_unet::{MonaiUNet, MonaiUNetConfig};
pub use nested_unet::{NestedUNet, NestedUNetConfig};
pub use nnunet::{NnUNet, NnUNetArchitecture, NnUNetConfig};
pub use res_unet::{ResUNet, ResUNetConfig};
pub use segresnet::{SegResNet, SegResNetConfig, SegResNetUpsampling, SegResNetVae};
pub use u2net::{U2Net, U2NetConfig};
pub use unet::{UNet, UNet2d, UNet2dConfig, UNet3d, UNet3dConfig, UNetConfig, UNetUpsampling};
pub use unet3plus::{UNet3Plus, UNet3PlusConfig, UNet3PlusSupervision};
pub use vnet::{VNet, VNetActivation, VNetConfig};
