//! Convolution of images and volumes, `NC[D]HW`, of any spatial rank from 1 to 3.
//!
//! A lower rank is rank 3 with leading sizes of 1. With `C` input channels in `groups` groups of `Cg`, an output is
//!
//! `y[n, o, p] = bias[o] + Σ_{c < Cg} Σ_{k < kernel} w[o, c, k] · x[n, g(o) Cg + c, p · stride + k · dilation - padding]`
//!
//! where `x` is zero outside of itself and `g(o)` is the group of the output channel. The transposed convolution is the
//! backward pass with respect to `x`, so it has no kernels of its own.

#[cfg(not(feature = "testing"))]
pub(crate) mod cpu;
#[cfg(feature = "testing")]
pub mod cpu;
mod norm_activation;
mod op;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
pub mod reference;
mod transposed;

#[cfg(test)]
mod tests;

pub use norm_activation::ConvNormActivation;
pub use op::Conv;
pub use transposed::ConvTranspose;

use tomograd_core::{Error, Result, element_count};

use crate::Precision;

/// The sizes of a convolution. The output's spatial size follows from them: [`ConvShape::output`]. What is computed from them
/// is right for sizes that pass [`check`](Self::check).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// How many images.
    pub batch: usize,
    /// How many groups: a divisor of both numbers of channels.
    pub groups: usize,
    /// Channels of the input, all groups together.
    pub in_channels: usize,
    /// Channels of the output, all groups together.
    pub out_channels: usize,
    /// Depth, height and width of the input.
    pub input: [usize; 3],
    /// Those of the kernel.
    pub kernel: [usize; 3],
    /// How far apart the outputs lie, in voxels of the input.
    pub stride: [usize; 3],
    /// Zeros around the input, on each side.
    pub padding: [usize; 3],
    /// How far apart the kernel's taps lie.
    pub dilation: [usize; 3],
    /// Whether a path with fewer multiplications and a larger rounding error (Winograd) may be chosen.
    pub precision: Precision,
}

/// Padded sizes and strides are less, so that no place that is computed from them overflows.
const MOST: usize = 1 << 40;

impl ConvShape {
    /// Checks that the sizes make sense: no zero kernel, stride, dilation or number of groups, groups that divide the
    /// channels, a kernel that fits the padded input, and no size that overflows.
    ///
    /// # Errors
    /// When they don't.
    pub fn check(&self) -> Result<()> {
        let error = |what: String| Err(Error::shape("conv", what).shapes([&self.input[..], &self.kernel[..]]));
        let divides = |channels: usize| self.groups != 0 && channels.is_multiple_of(self.groups);
        if !divides(self.in_channels) || !divides(self.out_channels) {
            let (inputs, outputs) = (self.in_channels, self.out_channels);
            return error(format!("{} groups don't divide {inputs} input and {outputs} output channels", self.groups));
        }
        for axis in 0..3 {
            let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation[axis]);
            if kernel == 0 || stride == 0 || dilation == 0 {
                return error(format!("a kernel of {kernel}, a stride of {stride} or a dilation of {dilation}"));
            }
            if stride >= MOST {
                return error(format!("a stride of {stride}, 2⁴⁰ or more"));
            }
            let reach = dilation.checked_mul(kernel - 1).and_then(|reach| reach.checked_add(1));
            let padded = self.padding[axis].checked_mul(2).and_then(|padding| padding.checked_add(self.input[axis]));
            match (reach, padded) {
                (Some(reach), Some(padded)) if padded < MOST && reach <= padded => {}
                _ => {
                    return error(format!(
                        "a kernel of {kernel} (dilation {dilation}) doesn't fit an input of {} with padding {}",
                        self.input[axis], self.padding[axis]
                    ));
                }
            }
        }
        let counts = [
            [self.batch, self.in_channels, self.input[0], self.input[1], self.input[2]],
            [self.batch, self.out_channels, self.output()[0], self.output()[1], self.output()[2]],
            [self.out_channels, self.in_channels, self.kernel[0], self.kernel[1], self.kernel[2]],
        ];
        counts.iter().try_for_each(|count| element_count("conv", count).map(|_| ()))
    }

    /// Depth, height and width of the output; for shapes that pass [`check`](Self::check).
    pub fn output(&self) -> [usize; 3] {
        std::array::from_fn(|axis| {
            let reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            (self.input[axis] + 2 * self.padding[axis] - reach) / self.stride[axis] + 1
        })
    }

    /// Input channels of a group.
    pub fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Output channels of a group.
    pub fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Voxels of the input.
    pub fn input_voxels(&self) -> usize {
        self.input.iter().product()
    }

    /// Voxels of the output.
    pub fn output_voxels(&self) -> usize {
        self.output().iter().product()
    }

    /// Numbers in the input.
    pub fn input_count(&self) -> usize {
        self.batch * self.in_channels * self.input_voxels()
    }

    /// Numbers in the output.
    pub fn output_count(&self) -> usize {
        self.batch * self.out_channels * self.output_voxels()
    }

    /// Numbers in the weights: (out channels, in channels of a group, kernel).
    pub fn weight_count(&self) -> usize {
        self.out_channels * self.group_inputs() * self.taps()
    }

    /// Multiply-adds of the forward pass, padding included; each backward pass has as many. `usize::MAX` beyond that.
    pub fn multiply_adds(&self) -> usize {
        self.output_count().saturating_mul(self.group_inputs()).saturating_mul(self.taps())
    }
}
