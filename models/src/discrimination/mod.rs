//! Networks that tell real images from generated ones.

mod discriminator;
mod patch;

pub use discriminator::{Discriminator, DiscriminatorConfig, DiscriminatorHead};
pub use patch::{
    MultiScalePatchDiscriminator, MultiScalePatchDiscriminatorConfig, PatchDiscriminator, PatchDiscriminatorConfig,
};
