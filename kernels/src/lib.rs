//! The operations of tomograd, forward and backward, as functions of tensors.
//!
//! Each operation has a folder with its definition (`mod.rs`), a simple reference implementation (`reference.rs`) and its CPU
//! kernels (`cpu`). An operation is a small struct that implements [`Op`] and is run only through [`run`]. `testing` lists
//! all operations with their references and random cases, so that one test verifies them all.
//!
//! ```
//! use tomograd_core::{Device, Tensor};
//! use tomograd_kernels::{Context, methods::*, run, softmax::Softmax};
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], Device::Cpu)?;
//! assert_eq!(x.matmul(&x)?.to_vec::<f32>()?, [7.0, 10.0, 15.0, 22.0]); // as a method
//! let forward = run(&Softmax { axis: 1 }, &[&x], &Context::default())?; // as a layer or the tape runs it
//! assert_eq!(forward.outputs[0].sum(1)?.to_vec::<f32>()?, [1.0, 1.0]);
//! # Ok::<(), tomograd_core::Error>(())
//! ```
//!
//! The feature `testing` adds the list of all operations with their references (`testing`), and makes internals of the
//! kernels (`simd`, `parallel`, the paths in `conv::cpu`) visible to tests and benchmarks. These aren't part of the stable
//! interface: they may change in any version.

// Without the feature, code that only tests and benchmarks use is unused.
#![cfg_attr(not(feature = "testing"), allow(dead_code, unused_imports))]

mod dispatch;
mod in_place;
mod op;

pub mod attention;
pub mod cast;
pub mod check;
pub mod compare;
pub mod conv;
pub mod cuda;
pub mod cumulative;
pub mod dropout;
pub mod elementwise;
pub mod index;
pub mod loss;
pub mod matmul;
pub mod methods;
pub mod norm;
pub mod optim;
#[cfg(not(feature = "testing"))]
mod parallel;
#[cfg(feature = "testing")]
pub mod parallel;
pub mod pool;
pub mod reduce;
pub mod resample;
pub mod scan;
#[cfg(not(feature = "testing"))]
mod simd;
#[cfg(feature = "testing")]
pub mod simd;
pub mod softmax;
pub mod sort;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
pub mod view;

/// The number of threads and the instruction set of kernels. Neither affects the bits of a result.
///
/// ```
/// use tomograd_kernels::settings::{Settings, threads, with_settings};
/// assert_eq!(with_settings(Settings::default().threads(3), threads), 3);
/// ```
pub mod settings {
    pub use crate::{
        parallel::{Settings, current_isa, threads, with_settings, with_threads},
        simd::Isa,
    };
}

pub use dispatch::{run, run_backward, run_in_place, run_recompute};
pub use in_place::InPlace;
pub use op::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Recompute, Saved, SavedUntil};
