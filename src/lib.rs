//! A deep learning framework for medical images, written from scratch in Rust.
//!
//! `use tomograd::prelude::*;` brings what most programs need. This page goes through the types in the order in which a program
//! meets them; the [guide] has a chapter for each job.
//!
//! | crate | what it has |
//! |---|---|
//! | [`core`] | [`Tensor`](core::Tensor), dtypes, devices, memory, random numbers, [`Error`] |
//! | [`kernels`] | every operation with its gradient, as functions of tensors and as methods |
//! | [`autodiff`] | [`Var`](autodiff::Var) and [`Tape`](autodiff::Tape): gradients by recording |
//! | [`nn`] | parameters, layers, losses, optimizers, checkpoints, import of weights |
//! | [`models`] | networks by name: U-Nets, MeshNet, ResNets |
//! | [`io`] | NIfTI, DICOM (feature `dicom`), safetensors, PyTorch's files, NumPy, PNG |
//! | [`pipeline`] | datasets, transforms, loaders, the trainer, sliding windows, metrics |
//!
//! # Tensors
//!
//! A [`Tensor`](core::Tensor) has a shape, a [`DType`](core::DType) and a [`Device`](core::Device). Operations are
//! [methods](kernels::methods), and every one returns a [`Result`].
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], Device::Cpu)?;
//! let y = x.mul(10.0)?.add(&x.transpose(0, 1)?)?;
//! assert_eq!(y.to_vec::<f32>()?, [11.0, 23.0, 32.0, 44.0]);
//! assert_eq!(y.sum(..)?.to_scalar()?, 110.0);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Gradients
//!
//! A [`Var`](autodiff::Var) is a tensor on a [`Tape`](autodiff::Tape), which records what is computed. It has the same methods.
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let tape = Tape::recording(Default::default());
//! let x = tape.leaf(Tensor::from_slice(&[1.0f64, 2.0, 3.0], &[3], Device::Cpu)?)?;
//! let gradients = tape.backward(&x.square()?.sum(..)?)?;
//! assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Networks
//!
//! [`Params`](nn::Params) owns parameters and buffers by name. A layer makes its own through a [`Scope`](nn::Scope) and keeps
//! their places, so a [`Module`](nn::Module) is immutable. A [`Pass`](nn::Pass) is one run: it has the tape, and knows whether
//! this is training. A [`Network`](nn::Network) is a module with several named inputs and outputs.
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let mut params = Params::new(Device::Cpu, Seed::new(1));
//! let mut scope = params.root();
//! let net = Sequential::new()
//!     .then(Conv::new(scope.at("conv"), 1, 4, Kernel::d3(3).padding(1))?)
//!     .then(Norm::new(scope.at("norm"), 4, NormKind::Instance)?)
//!     .then(Activation::Relu);
//! let pass = Pass::eval(&params)?;
//! let image = pass.input(&Tensor::ones(&[1, 1, 6, 6, 6], DType::F32, Device::Cpu)?);
//! assert_eq!(net.forward(&image, &pass)?.shape(), [1, 4, 6, 6, 6]);
//! assert_eq!(params.get("conv.weight")?.shape(), [4, 1, 3, 3, 3]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # A training step
//!
//! A loss becomes an [`Update`](nn::Update) (gradients, and changes of buffers), which an [`Optimizer`](nn::Optimizer) applies.
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let mut params = Params::new(Device::Cpu, Seed::new(1));
//! let net = UNet3d::new(params.root(), &UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] })?;
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
//! # Ok::<(), Error>(())
//! ```
//!
//! # Checkpoints
//!
//! A [`Checkpoint`](nn::Checkpoint) is a safetensors file of parameters and, if asked, of the optimizer, the network's configuration
//! and the preparation of its images. [`Model::load`](models::Model::load) makes a network of it;
//! [`Params::import`](nn::Params::import) takes [files of other programs](guide::weights).
//!
//! ```
//! use tomograd::prelude::*;
//!
//! let config = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
//! let mut params = Params::new(Device::Cpu, Seed::new(1));
//! UNet2d::new(params.root(), &config)?;
//! let file = std::env::temp_dir().join(format!("tomograd-front-{}.safetensors", std::process::id()));
//! Checkpoint::new(&params).config(&config)?.save(&file)?;
//! let model = Model::load(&file, Device::Cpu)?;
//! assert_eq!(model.params().count(), params.count());
//! # std::fs::remove_file(file).ok();
//! # Ok::<(), Error>(())
//! ```
//!
//! # From files to batches
//!
//! A [`Volume`](io::Volume) is an image with its place in the world. A [`Preparation`](pipeline::Preparation) says how it becomes a
//! network's input: orientation, spacing, intensities, classes. A [`Dataset`](pipeline::Dataset) applies it to each case and gives a
//! [`Sample`](pipeline::Sample); a [`Loader`](pipeline::Loader) transforms samples and makes each [`Batch`](pipeline::Batch).
//!
//! ```
//! use std::sync::Arc;
//! use tomograd::prelude::*;
//!
//! let volume = Volume::read("examples/data/hippocampus/images/hippocampus_004.nii.gz")?;
//! println!("{:?} voxels of {:?} mm, {}", volume.voxels().shape(), volume.spacing(), volume.orientation());
//!
//! let preparation = Preparation::new([24, 24, 24], ["background", "anterior", "posterior"])?.orientation("RAS")?;
//! let cases = Dataset::prepared("examples/data/hippocampus", &preparation)?;
//! let two = cases.subset(&cases.names()[..2])?;
//! let patches = transforms::Compose::new().then(transforms::CropOrPad::random(preparation.patch.clone()))?;
//! let loader = Loader::new(Arc::new(two), 2, Seed::new(0))?.transforms(patches);
//! for batch in loader.epoch(0) {
//!     assert_eq!(batch?.image()?.shape(), [2, 1, 24, 24, 24]);
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! # The trainer
//!
//! A [`Trainer`](pipeline::Trainer) runs your step over the batches of a loader, and adds validation, schedules, logs, checkpoints and
//! resuming.
//!
//! ```
//! use std::sync::Arc;
//! use tomograd::prelude::*;
//!
//! let image = Tensor::normal(&[1, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
//! let cases = vec![Sample::new("case", &image, Some(&image.gt(0.0)?.select(0, 0)?))?];
//! let loader = Loader::new(Arc::new(cases), 1, Seed::new(2))?;
//! let mut params = Params::new(Device::Cpu, Seed::new(3));
//! let net = Conv::new(params.root(), 1, 2, [1, 1])?;
//! let optimizer = AdamW::new(&params, 1e-2)?;
//! let mut trainer = Trainer::new(Learner::new(params, optimizer).schedule(schedule::one_cycle), 3);
//! trainer.run(&loader, |step| {
//!     let pass = step.pass()?;
//!     let logits = net.forward(&pass.input(step.batch.image()?), &pass)?;
//!     let loss = DiceCe::default().forward(&logits, step.batch.label()?)?;
//!     step.learn(pass, loss)
//! })?;
//! assert_eq!(trainer.epoch(), 3);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Prediction
//!
//! [`Segment::segment`](pipeline::Segment::segment) turns a volume into a mask in the same grid, with the preparation that the model
//! was trained with.
//!
//! ```
//! use tomograd::{io::geometry, prelude::*};
//!
//! let preparation = Preparation::new([8, 8, 8], ["background", "liver"])?.orientation("RAS")?;
//! let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 4] };
//! let model = Model::new(&config, Device::Cpu, Seed::new(1))?.with_preparation(&preparation)?;
//! let voxels = Tensor::normal(&[9, 12, 10], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
//! let scan = Volume::new(voxels, geometry::from_orientation("LPS")?)?;
//! assert_eq!(model.segment(&scan)?.affine(), scan.affine());
//! # Ok::<(), Error>(())
//! ```

#![forbid(unsafe_code)]

pub use tomograd_autodiff as autodiff;
pub use tomograd_core as core;
pub use tomograd_core::{Error, Result};
pub use tomograd_io as io;
pub use tomograd_kernels as kernels;
pub use tomograd_models as models;
pub use tomograd_nn as nn;
pub use tomograd_pipeline as pipeline;

pub mod guide;

/// What most programs need: tensors and their methods, layers, losses, optimizers, networks, data, the trainer.
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
        Batch, Cache, Cases, ContactSheet, Dataset, Field, Learner, Loader, Preparation, Report, Sample, Segment,
        SlidingWindow, Split, Trainer, evaluate, transforms,
    };
}
