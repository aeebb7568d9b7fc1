//! Segmentation networks: logits for each voxel.

mod attention_gated_unet;
mod attention_unet;
mod basic_unet;
mod dynunet;
mod fit;
mod levels;
mod meshnet;
mod monai_unet;
mod nested_unet;
mod nnunet;
mod segresnet;
mod unet;
mod vnet;

pub use attention_gated_unet::{AttentionGatedUNet, AttentionGatedUNetConfig, GateMode};
pub use attention_unet::{AttentionUNet, AttentionUNetConfig};
pub use basic_unet::{BasicUNet, BasicUNetConfig, BasicUNetPlusPlus, BasicUNetPlusPlusConfig, BasicUpsampling};
pub use dynunet::{DynUNet, DynUNetConfig};
pub use meshnet::{MeshNet, MeshNetConfig};
pub use monai_unet::{MonaiUNet, MonaiUNetConfig};
pub use nested_unet::{NestedUNet, NestedUNetConfig};
pub use nnunet::{NnUNet, NnUNetArchitecture, NnUNetConfig};
pub use segresnet::{SegResNet, SegResNetConfig, SegResNetUpsampling, SegResNetVae};
pub use unet::{UNet, UNet2d, UNet2dConfig, UNet3d, UNet3dConfig, UNetConfig, UNetUpsampling};
pub use vnet::{VNet, VNetActivation, VNetConfig};
