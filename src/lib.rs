//! tomograd: a deep learning framework for medical images, from scratch, in Rust.
//!
//! This crate re-exports the others; `use tomograd::prelude::*;` brings what a training program needs. See
//! `examples/unet3d.rs` for the whole way from files to masks.
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let mut params = Params::new(Device::Cpu, Seed::new(1));
//! let net = UNet3d::new(params.root(), &UNet3dConfig { in_channels: 1, classes: 2, widths: vec![4, 8] })?;
//! let mut optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
//! let image = Tensor::normal(&[1, 1, 8, 8, 8], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
//! let label = Tensor::zeros(&[1, 8, 8, 8], DType::I64, Device::Cpu)?;
//! for step in 0..2 {
//!     let pass = Pass::train(&params, Seed::new(1).at(step))?;
//!     let logits = net.forward(&pass.input(&image), &pass)?;
//!     let loss = DiceCe::default().forward(&logits, &label)?;
//!     let update = pass.backward(loss)?.clip_norm(12.0)?;
//!     optimizer.step(&mut params, update)?;
//! }
//! # Ok::<(), tomograd::Error>(())
//! ```

pub use tomograd_autodiff as autodiff;
pub use tomograd_core as core;
pub use tomograd_core::{Error, Result};
pub use tomograd_io as io;
pub use tomograd_kernels as kernels;
pub use tomograd_models as models;
pub use tomograd_nn as nn;
pub use tomograd_pipeline as pipeline;

/// What a training program needs.
pub mod prelude {
    pub use tomograd_autodiff::{Tape, Var};
    pub use tomograd_core::{DType, Device, Error, Result, Seed, Tensor};
    pub use tomograd_io::{Volume, Weights};
    pub use tomograd_kernels::methods::{
        Comparisons as _, Elementwise as _, Indexing as _, Methods, Networks as _, Operand, Pairs as _,
        Reductions as _, Shapes as _, keep,
    };
    pub use tomograd_models::{Model, UNet2d, UNet2dConfig, UNet3d, UNet3dConfig};
    pub use tomograd_nn::{
        Activation, AdamW, AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, Checkpoint, Conv, ConvNormActivation,
        ConvTranspose, DiceCe, Dropout, DropoutOptions, Group, Kernel, LayerNorm, LayerNormOptions, Linear,
        LinearOptions, Loaded, MaxPool, Module, MultiHeadAttention, Named, Network, Norm, NormKind, NormOptions,
        Optimizer, PRelu, Params, Pass, Scope, Sequential, Sgd, Softmax, Update, Upsample, UpsampleOptions, Window,
        gradcheck, losses, schedule,
    };
    pub use tomograd_nn::{Import, ImportReport};
    pub use tomograd_pipeline::{
        Cases, ContactSheet, Dataset, Learner, Loader, Preparation, Report, Segment, SlidingWindow, Split, Trainer,
        evaluate, transforms,
    };
}
