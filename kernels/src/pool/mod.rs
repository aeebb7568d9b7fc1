//! Max and average pooling over one to three spatial axes, with PyTorch's window rules.
//!
//! A window of `kernel` voxels, `dilation` apart, starts at `o · stride − padding`. An axis has ⌊(in + 2 padding − dilation
//! (kernel − 1) − 1) / stride⌋ + 1 outputs. With `ceil_mode` the quotient is rounded up, except that no window starts in the
//! padding after the input. Adaptive pooling divides the input among a given number of outputs: window o extends from ⌊o · in
//! / out⌋ to ⌈(o + 1) · in / out⌉.

mod average;
mod cpu;
mod cuda;
mod maximum;
#[cfg(feature = "testing")]
mod proofs;
mod window;

pub use average::{AdaptiveAveragePool, AveragePool};
pub use maximum::{AdaptiveMaxPool, MaxPool};
