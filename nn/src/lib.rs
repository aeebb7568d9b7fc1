//! Parameters, layers, losses, optimizers, schedules, checkpoints and the import of weights of tomograd.
//!
//! A layer holds names into an owned, ordered [`Params`], never tensors; so a network is immutable, and groups, freezing and
//! averages are operations on `Params`. A [`Pass`] is one run through a network, an [`Update`] what a training pass learned.
//!
//! ```
//! use tomograd_core::{DType, Device, Seed, Tensor};
//! use tomograd_kernels::methods::*;
//! use tomograd_nn::{AdamW, Conv, Module, Optimizer, Params, Pass};
//! let mut params = Params::new(Device::Cpu, Seed::new(1));
//! let conv = Conv::new(params.root().at("conv"), 1, 2, [3, 3])?;
//! let mut optimizer = AdamW::new(&params, 1e-2)?.decay(1e-2)?; // of weights alone
//! let image = Tensor::ones(&[1, 1, 4, 4], DType::F32, Device::Cpu)?;
//! for step in 0..3 {
//!     let pass = Pass::train(&params, Seed::new(1).at(step))?;
//!     let loss = conv.forward(&pass.input(&image), &pass)?.square()?.mean(..)?;
//!     let update = pass.backward(loss)?.clip_norm(12.0)?;
//!     optimizer.step(&mut params, update)?;
//! }
//! # Ok::<(), tomograd_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod buffers;
mod check;
mod checkpoint;
mod fold;
pub mod gradcheck;
mod import;
pub mod init;
mod layers;
mod lock;
pub mod losses;
mod module;
mod named;
mod network;
mod optimizers;
mod params;
mod pass;
pub mod schedule;
mod stages;
mod update;

pub use buffers::BufferChange;
pub use check::check_activation;
pub use checkpoint::{Checkpoint, Loaded};
pub use fold::{FoldedNorms, Followed};
pub use import::{Import, ImportReport, Imported};
pub use layers::{
    AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, Conv, ConvNormActivation, ConvTranspose, Dropout,
    DropoutOptions, Kernel, LayerNorm, LayerNormOptions, Linear, LinearOptions, LocalResponseNorm,
    LocalResponseNormOptions, MaxPool, MultiHeadAttention, Norm, NormKind, NormOptions, PRelu, PerAxis, Recurrence,
    Recurrent, RecurrentKind, RecurrentOptions, StochasticDepth, Upsample, UpsampleOptions, Window,
};
pub use losses::DiceCe;
pub use module::{Module, Sequential};
pub use named::Named;
pub use network::Network;
pub use optimizers::{AdamW, Group, Optimizer, OptimizerState, Sgd};
pub use params::{ParamInfo, Params, Scope, Slot};
pub use pass::Pass;
pub use stages::{Stage, StageInfo};
pub use tomograd_kernels::{
    elementwise::Function as Activation,
    resample::{Interpolate, Interpolation},
    softmax::{LogSoftmax, Softmax},
};
pub use update::Update;
