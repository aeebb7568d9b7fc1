//! The networks of tomograd: in folders by task, one file for each family. [`registry`] builds any of them from its
//! configuration, [`Model`] holds one with its parameters, [`profile()`] says what one costs, [`grad_cam()`] where the
//! evidence for a class lies, and [`formula`] compares one with its original.
//!
//! ```
//! use tomograd_core::{DType, Device, Seed, Tensor};
//! use tomograd_models::{Model, UNet3dConfig};
//! let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![4, 8] };
//! let path = std::env::temp_dir().join(format!("tomograd-model-doc-{}", std::process::id()));
//! Model::new(&config, Device::Cpu, Seed::new(1))?.checkpoint()?.save(&path)?;
//! let model = Model::load(&path, Device::Cpu)?; // the configuration travels in the file
//! let logits = model.predict(&Tensor::zeros(&[1, 1, 8, 8, 8], DType::F32, Device::Cpu)?)?;
//! assert_eq!(logits.shape(), [1, 3, 8, 8, 8]);
//! # std::fs::remove_file(&path).ok();
//! # Ok::<(), tomograd_core::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod blocks;
mod check;
mod classification;
mod config;
mod discrimination;
pub mod formula;
mod generation;
mod grad_cam;
mod model;
mod profile;
mod reconstruction;
pub mod registry;
mod regression;
mod segmentation;
mod sizes;

pub use classification::{
    AlexNet, AlexNetConfig, AlexNetForm, ConvNeXt, ConvNeXtConfig, DenseNet, DenseNetConfig, DenseNetOriginal,
    EfficientNet, EfficientNetConfig, EfficientNetStage, GoogLeNet, GoogLeNetConfig, InceptionV3, InceptionV3Config,
    MonaiClassifier, MonaiClassifierConfig, ResNet, ResNetAttention, ResNetBlock, ResNetConfig, ResNetEncoder,
    ResNetShortcut, SliceCell, SlicePooling, SliceSequence, SliceSequenceConfig, Vgg, VggConfig,
};
pub use discrimination::{
    Discriminator, DiscriminatorConfig, DiscriminatorHead, MultiScalePatchDiscriminator,
    MultiScalePatchDiscriminatorConfig, PatchDiscriminator, PatchDiscriminatorConfig,
};
pub use generation::{Generator, GeneratorConfig};
pub use grad_cam::grad_cam;
pub use model::Model;
pub use profile::{Cost, Profile, profile};
pub use reconstruction::{AutoEncoder, AutoEncoderConfig, InnerLayers, VarAutoEncoder, VarAutoEncoderConfig};
pub use regression::{FullyConnectedNet, FullyConnectedNetConfig, Regressor, RegressorConfig};
pub use segmentation::{
    AttentionGatedUNet, AttentionGatedUNetConfig, AttentionUNet, AttentionUNetConfig, BasicUNet, BasicUNetConfig,
    BasicUNetPlusPlus, BasicUNetPlusPlusConfig, BasicUpsampling, DynUNet, DynUNetConfig, Fcn, FcnConfig, FcnUpsampling,
    GateMode, HalfUNet, HalfUNetConfig, HalfUNetConvolution, HalfUNetUpsampling, MeshNet, MeshNetConfig, MonaiUNet,
    MonaiUNetConfig, NestedUNet, NestedUNetConfig, NnUNet, NnUNetArchitecture, NnUNetConfig, ResUNet, ResUNetConfig,
    SegResNet, SegResNetConfig, SegResNetUpsampling, SegResNetVae, U2Net, U2NetConfig, UNet, UNet2d, UNet2dConfig,
    UNet3Plus, UNet3PlusConfig, UNet3PlusSupervision, UNet3d, UNet3dConfig, UNetConfig, UNetUpsampling, VNet,
    VNetActivation, VNetConfig,
};
pub use sizes::Sizes;
