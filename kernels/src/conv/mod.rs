//! Convolution of images and volumes, `NC[D]HW`, of any spatial rank from 1 to 3.
//!
//! A lower rank is treated as rank 3 with leading sizes of 1. With `C` input channels in `groups` groups of `Cg`, an output
//! is
//!
//! `y[n, o, p] = bias[o] + Σ_{c < Cg} Σ_{k < kernel} w[o, c, k] · x[n, g(o) Cg + c, p · stride + k · dilation - padding]`
//!
//! where `x` is zero outside of its bounds, and `g(o)` is the group of the output channel. The transposed convolution is the
//! backward pass with respect to `x`, so it has no kernels of its own.

mod activation;
#[cfg(not(feature = "testing"))]
pub(crate) mod cpu;
#[cfg(feature = "testing")]
pub mod cpu;
mod cuda;
mod norm_activation;
mod op;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
pub mod reference;
mod transposed;

#[cfg(test)]
mod tests;

pub use activation::ConvActivation;
pub use norm_activation::ConvNormActivation;
pub use op::Conv;
pub use transposed::ConvTranspose;

use tomograd_core::{Error, Result, element_count};

use crate::Precision;

/// The sizes of a convolution. The output's spatial size follows from them: [`ConvShape::output`]. The computed sizes are
/// correct for shapes that pass [`check`](Self::check).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// The number of images.
    pub batch: usize,
    /// The number of groups: a divisor of both numbers of channels.
    pub groups: usize,
    /// Channels of the input, all groups together.
    pub in_channels: usize,
    /// Channels of the output, all groups together.
    pub out_channels: usize,
    /// Depth, height and width of the input.
    pub input: [usize; 3],
    /// Depth, height and width of the kernel.
    pub kernel: [usize; 3],
    /// The distance of neighbouring outputs, in voxels of the input.
    pub stride: [usize; 3],
    /// The number of zeros added on each side of the input.
    pub padding: [usize; 3],
    /// The distance of neighbouring taps of the kernel.
    pub dilation: [usize; 3],
    /// Whether an algorithm with fewer multiplications and a larger rounding error (Winograd) may be chosen.
    pub precision: Precision,
}

/// The limit of padded sizes and strides, below which no computed coordinate overflows.
const MOST: usize = 1 << 40;

impl ConvShape {
    /// Checks the sizes: kernel, stride, dilation and the number of groups aren't zero, the groups divide the channels, the
    /// kernel fits into the padded input, and no size overflows.
    ///
    /// # Errors
    /// When one of these conditions isn't met.
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

    /// The number of elements of the input.
    pub fn input_count(&self) -> usize {
        self.batch * self.in_channels * self.input_voxels()
    }

    /// The number of elements of the output.
    pub fn output_count(&self) -> usize {
        self.batch * self.out_channels * self.output_voxels()
    }

    /// The number of elements of the weights: (output channels, input channels of a group, kernel).
    pub fn weight_count(&self) -> usize {
        self.out_channels * self.group_inputs() * self.taps()
    }

    /// Multiply-adds of the forward pass, padding included; each backward pass has as many. Saturates at `usize::MAX`.
    pub fn multiply_adds(&self) -> usize {
        self.output_count().saturating_mul(self.group_inputs()).saturating_mul(self.taps())
    }
}
