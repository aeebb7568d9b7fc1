//! Classification networks: logits for a whole image.

mod resnet;

pub use resnet::{ResNet, ResNetBlock, ResNetConfig, ResNetEncoder};

use crate::registry::ChannelStatistics;

/// Means and standard deviations of ImageNet (red, green, blue; values from 0 to 1), with which torchvision normalises.
pub(crate) const IMAGENET: ChannelStatistics =
    ChannelStatistics { mean: &[0.485, 0.456, 0.406], deviation: &[0.229, 0.224, 0.225] };
