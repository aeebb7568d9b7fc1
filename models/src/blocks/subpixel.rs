//! Upsampling by rearranged channels: MONAI's `SubpixelUpsample`.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::Result;
use tomograd_kernels::index::PadMode;
use tomograd_nn::{AveragePool, Conv, Kernel, Module, Pass, Scope, Window, init::Init};

/// Upsampling by 2 (Shi et al. 2016): a 3-wide convolution makes 2^rank maps of each channel, which become the voxels of one map of
/// twice the size; the mean of each voxel and those before it smooths the pattern that they would leave (Aitken et al. 2017).
///
/// State-dict name: `conv_block`, as in MONAI.
#[derive(Debug)]
pub(crate) struct SubpixelUpsample {
    conv: Conv,
    pool: AveragePool,
}

impl SubpixelUpsample {
    /// Creates the parameters in `scope`. The weights start so that the voxels made of one are equal (ICNR).
    pub(crate) fn new(mut scope: Scope<'_>, rank: usize, in_channels: usize, channels: usize) -> Result<Self> {
        let kernel = Kernel::new(rank, 3).padding(1).weight(Init::Icnr { copies: 1 << rank });
        let conv = Conv::new(scope.at("conv_block"), in_channels, channels << rank, kernel)?;
        Ok(Self { conv, pool: AveragePool::new(Window::new(2).stride(1))? })
    }
}

impl Module for SubpixelUpsample {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let rank = x.rank().saturating_sub(2);
        let many = self.conv.forward(x, pass)?;
        let (batch, spatial) = (x.shape()[0], &x.shape()[2..]);
        let channels = many.shape()[1] >> rank;
        // (N, C, 2, 2, ..., D, H, ...) to (N, C, D, 2, H, 2, ...).
        let split = [&[batch, channels], &vec![2; rank][..], spatial].concat();
        let places = [0, 1].into_iter().chain((0..rank).flat_map(|axis| [2 + rank + axis, 2 + axis]));
        let rearranged = many.reshape(&split)?.permute(&places.collect::<Vec<usize>>())?;
        drop(many);
        let doubled: Vec<usize> = spatial.iter().map(|size| 2 * size).collect();
        let grown = rearranged.reshape(&[&[batch, channels], &doubled[..]].concat())?;
        drop(rearranged);
        let before = [&[0, 0], &vec![1; rank][..]].concat();
        self.pool.forward(&grown.pad(&before, &vec![0; rank + 2], PadMode::Constant(0.0))?, pass)
    }
}
