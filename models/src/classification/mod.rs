//! Classification networks: logits for a whole image.

mod convnext;
mod efficientnet;
mod monai_classifier;
mod resnet;

pub use convnext::{ConvNeXt, ConvNeXtConfig};
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetStage};
pub use monai_classifier::{MonaiClassifier, MonaiClassifierConfig};
pub use resnet::{ResNet, ResNetBlock, ResNetConfig, ResNetEncoder};

use crate::registry::ChannelStatistics;

/// Means and standard deviations of ImageNet (red, green, blue; values from 0 to 1), with which torchvision normalises.
const IMAGENET: ChannelStatistics =
    ChannelStatistics { mean: &[0.485, 0.456, 0.406], deviation: &[0.229, 0.224, 0.225] };
