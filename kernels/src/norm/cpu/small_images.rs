//! Batch norm of small images. A row, a channel of one image, costs a few divisions however short it is; the images of a batch
//! side by side make one row of a channel.

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::{Norm, Statistics};
use crate::{op::with_real, simd::Real, view::exchange};

/// Images of fewer voxels are put side by side.
const SMALL_IMAGE: usize = 64;
/// The most elements of a batch that is copied for that. The copies are scratch.
const SMALL_BATCH: usize = 128 << 10;

impl Norm {
    /// Whether the images of a batch of this shape, (N, C, spatial...), are put side by side.
    pub(super) fn merges(&self, shape: &[usize]) -> bool {
        let shared = matches!(self.statistics, Statistics::Batch | Statistics::Running);
        let small =
            shape[2..].iter().product::<usize>() < SMALL_IMAGE && shape.iter().product::<usize>() <= SMALL_BATCH;
        shared && shape[0] > 1 && small
    }
}

/// The images of (N, C, spatial...) as one of (1, C, N, voxels), a temporary tensor.
pub(super) fn merged(x: &Tensor) -> Result<Tensor> {
    let [images, channels] = [x.shape()[0], x.shape()[1]];
    let shape = [1, channels, images, x.shape()[2..].iter().product()];
    with_real!("norm", x.dtype(), T => {
        exchanged::<T>(x, [images, channels], TensorBuilder::temporary("norm", &shape, x.device())?)
    })
}

/// The reverse of [`merged`], with the shape of its input.
pub(super) fn separated(y: &Tensor, shape: &[usize]) -> Result<Tensor> {
    with_real!("norm", y.dtype(), T => {
        exchanged::<T>(y, [shape[1], shape[0]], TensorBuilder::new("norm", shape, y.device())?)
    })
}

/// Copies (outer, inner, voxels) with the first two axes exchanged.
fn exchanged<T: Real>(x: &Tensor, axes: [usize; 2], mut to: TensorBuilder<T>) -> Result<Tensor> {
    let (x, pairs) = (x.contiguous()?, axes[0] * axes[1]);
    exchange(x.as_slice::<T>()?, axes, x.count().checked_div(pairs).unwrap_or(0), to.uninit()?)?;
    // SAFETY: every element of the exchanged axes was written.
    Ok(unsafe { to.assume_init() })
}
