//! The operations of tomograd, forward and backward, as functions of tensors.
//!
//! Each operation has a folder: its contract (`mod.rs`), the plainest loops that can be right (`reference.rs`), its CPU
//! kernels (`cpu`). An operation is a small struct that implements [`Op`] and runs through one door, [`run`]. The
//! [`registry`] lists them all, each with its reference and random cases, so that one test proves every one of them.

mod door;
mod op;

pub mod attention;
pub mod cast;
pub mod compare;
pub mod conv;
pub mod cumulative;
pub mod elementwise;
pub mod index;
pub mod loss;
pub mod matmul;
pub mod methods;
pub mod norm;
pub mod optim;
pub mod parallel;
pub mod pool;
pub mod reduce;
pub mod registry;
pub mod resample;
pub mod scan;
pub mod simd;
pub mod softmax;
pub mod sort;
pub mod trace;
pub mod view;

pub use door::{run, run_backward, run_recompute};
pub use op::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Saved, check};
