//! The operations of tomograd, forward and backward, as functions of tensors.

pub mod conv;
pub mod matmul;
pub mod parallel;
pub mod simd;
