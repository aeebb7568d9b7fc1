//! Classification networks: logits for a whole image.

mod alexnet;
mod convnext;
mod densenet;
mod efficientnet;
mod inception;
mod monai_classifier;
mod resnet;
mod slice_sequence;
mod vgg;
pub use alexnet::{AlexNet, AlexNetConfig, AlexNetForm};
pub use convnext::{ConvNeXt, ConvNeXtConfig};
pub use densenet::{DenseNet, DenseNetConfig, DenseNetOriginal};
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetStage};
pub use inception::{GoogLeNet, GoogLeNetConfig, InceptionV3, InceptionV3Config};
pub use monai_classifier::{MonaiClassifier, MonaiClassifierConfig};
pub use resnet::{ResNet, ResNetAttention, ResNetBlock, ResNetConfig, ResNetEncoder, ResNetShortcut};
pub use slice_sequence::{SliceCell, SlicePooling, SliceSequence, SliceSequenceConfig};
pub use vgg::{Vgg, VggConfig};

use crate::registry::ChannelStatistics;

/// Means and standard deviations of ImageNet (red, green, blue; values from 0 to 1), with which torchvision normalises.
pub(crate) const IMAGENET: ChannelStatistics =
    ChannelStatistics { mean: &[0.485, 0.456, 0.406], deviation: &[0.229, 0.224, 0.225] };

/// Means and standard deviations of the videos of Kinetics (red, green, blue; values from 0 to 1), with which
/// 3D-ResNets-PyTorch normalises.
const KINETICS: ChannelStatistics =
    ChannelStatistics { mean: &[0.4345, 0.4051, 0.3775], deviation: &[0.2768, 0.2713, 0.2737] };
