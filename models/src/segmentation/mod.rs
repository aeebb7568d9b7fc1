//! Segmentation networks: logits for each voxel.

mod dynunet;
mod levels;
mod meshnet;
mod nnunet;
mod segresnet;
mod unet;
mod vnet;

pub use dynunet::{DynUNet, DynUNetConfig};
pub use levels::LevelNorm;
pub use meshnet::{MeshNet, MeshNetConfig};
pub use nnunet::{NnUNet, NnUNetArchitecture, NnUNetConfig};
pub use segresnet::{SegResNet, SegResNetConfig, SegResNetUpsampling, SegResNetVae};
pub use unet::{UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
pub use vnet::{VNet, VNetActivation, VNetConfig};
