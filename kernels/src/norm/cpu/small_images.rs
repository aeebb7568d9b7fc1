//! Batch norm of small images. A row, a channel of one image, costs a few divisions however short it is; the images of a batch
//! side by side make one row of a channel.

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::{Norm, Statistics};
use crate::{op::with_real, view::exchange};

/// Images of fewer voxels are put side by side.
const SMALL_IMAGE: usize = 64;
/// The most elements of a batch that is copied for that: the copies are few enough not to raise a network's peak of memory.
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

/// The images of (N, C, spatial...) as one of (1, C, N, voxels).
pub(super) fn merged(x: &Tensor) -> Result<Tensor> {
    let [images, channels] = [x.shape()[0], x.shape()[1]];
    let voxels = x.shape()[2..].iter().product();
    exchanged(x, [images, channels, voxels], &[1, channels, images, voxels])
}

/// The reverse of [`merged`], with the shape of its input.
pub(super) fn separated(y: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let voxels = shape[2..].iter().product();
    exchanged(y, [shape[1], shape[0], voxels], shape)
}

/// A copy of (outer, inner, voxels) with the first two axes exchanged, as a tensor of `shape`.
fn exchanged(x: &Tensor, [outer, inner, voxels]: [usize; 3], shape: &[usize]) -> Result<Tensor> {
    let x = x.contiguous()?;
    with_real!("norm", x.dtype(), T => {
        let mut builder = TensorBuilder::<T>::new("norm", shape, x.device())?;
        exchange(x.as_slice::<T>()?, [outer, inner], voxels, builder.uninit()?)?;
        // SAFETY: every element of the exchanged axes was written.
        Ok(unsafe { builder.assume_init() })
    })
}
