//! The operations of tomograd, forward and backward, as functions of tensors.
//!
//! Each operation has a folder: its contract (`mod.rs`), the plainest loops that can be right (`reference.rs`), its CPU
//! kernels (`cpu`). An operation is a small struct that implements [`Op`] and runs through [`run`] alone. The
//! `testing` lists them all, each with its reference and random cases, so that one test proves every one of them.
//!
//! The feature `testing` adds the list of all operations with their references (`testing`), and makes what kernels are made of (`simd`, `parallel`, the paths
//! in `conv::cpu`) visible to tests and benchmarks; that isn't part of what is promised: it may change with any version.

// What only tests and benchmarks use is left over without them.
#![cfg_attr(not(feature = "testing"), allow(dead_code, unused_imports))]

mod dispatch;
mod in_place;
mod op;

pub mod attention;
pub mod cast;
pub mod compare;
pub mod conv;
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

/// With how many threads, and which instruction set, kernels run. Neither changes a result's bits.
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
pub use op::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Recompute, Saved, SavedUntil, check};
