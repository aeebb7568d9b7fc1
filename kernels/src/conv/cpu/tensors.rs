//! Inputs and outputs of a convolution: one tensor, or two whose channels are concatenated logically.

use super::super::ConvShape;
use crate::simd::Real;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use tomograd_core::{Error, Result};

/// The input of a convolution: (N, C, D, H, W), contiguous. A second tensor adds its channels after those of the first, as if
/// both had been concatenated.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, T> {
    first: &'a [T],
    channels: usize,
    second: Option<(&'a [T], usize)>,
}

impl<'a, T: Real> Inputs<'a, T> {
    /// One tensor of `channels` channels.
    pub fn one(first: &'a [T], channels: usize) -> Self {
        Inputs { first, channels, second: None }
    }

    /// Two tensors and the number of channels of each.
    pub fn two(first: &'a [T], channels: usize, second: &'a [T], second_channels: usize) -> Self {
        Inputs { first, channels, second: Some((second, second_channels)) }
    }

    /// The same data with its type parameter changed to `U`, which must be the same type as `T`.
    pub(super) fn cast<U: Real>(self) -> Inputs<'a, U> {
        let cast = |data: &'a [T]| bytemuck::cast_slice::<T, U>(data);
        let second = self.second.map(|(data, channels)| (cast(data), channels));
        Inputs { first: cast(self.first), channels: self.channels, second }
    }

    /// The tensors with their numbers of channels.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&'a [T], usize)> {
        std::iter::once((self.first, self.channels)).chain(self.second)
    }

    /// One channel of one image, of `voxels` voxels.
    #[inline(always)]
    pub(super) fn channel(&self, n: usize, channel: usize, voxels: usize) -> &'a [T] {
        let (data, channel, channels) = match self.second {
            Some((second, channels)) if channel >= self.channels => (second, channel - self.channels, channels),
            _ => (self.first, channel, self.channels),
        };
        let start = (n * channels + channel) * voxels;
        &data[start..start + voxels]
    }

    /// The slice from the first channel of a range to the last, if all of them lie in one tensor; `None` for an empty range.
    #[inline(always)]
    pub(super) fn spaced(&self, n: usize, channels: &std::ops::Range<usize>, voxels: usize) -> Option<&'a [T]> {
        if channels.is_empty() {
            return None;
        }
        let (data, start, end, count) = match self.second {
            Some((second, count)) if channels.start >= self.channels => {
                (second, channels.start - self.channels, channels.end - self.channels, count)
            }
            _ => (self.first, channels.start, channels.end, self.channels),
        };
        if end > count {
            return None;
        }
        Some(&data[(n * count + start) * voxels..(n * count + end) * voxels])
    }

    pub(super) fn check(&self, name: &str, batch: usize, channels: usize, voxels: usize) -> Result<()> {
        let lengths = self.parts().map(|(data, channels)| (data.len(), channels));
        check_lengths(name, lengths.collect(), [batch, channels, voxels])
    }
}

/// The output of a convolution: one tensor, or two tensors between which the channels are split.
pub struct Outputs<'a, T> {
    first: (*mut T, usize, usize),
    second: Option<(*mut T, usize, usize)>,
    slices: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: chunks write disjoint elements, which is the contract of `channel`.
unsafe impl<T: Send> Sync for Outputs<'_, T> {}
// SAFETY: it stands for `&mut` slices, which are `Send`.
unsafe impl<T: Send> Send for Outputs<'_, T> {}

impl<'a, T: Real> Outputs<'a, T> {
    /// One tensor of `channels` channels. The convolution writes every element.
    pub fn one(first: &'a mut [MaybeUninit<T>], channels: usize) -> Self {
        Outputs { first: (first.as_mut_ptr().cast(), first.len(), channels), second: None, slices: PhantomData }
    }

    /// Two tensors and the number of channels of each.
    pub fn two(
        first: &'a mut [MaybeUninit<T>],
        channels: usize,
        second: &'a mut [MaybeUninit<T>],
        second_channels: usize,
    ) -> Self {
        let second = Some((second.as_mut_ptr().cast(), second.len(), second_channels));
        Outputs { second, ..Self::one(first, channels) }
    }

    pub(super) fn check(&self, batch: usize, channels: usize, voxels: usize) -> Result<()> {
        let lengths = std::iter::once(self.first).chain(self.second).map(|(_, length, channels)| (length, channels));
        check_lengths("an output", lengths.collect(), [batch, channels, voxels])
    }

    /// The same memory with its type parameter changed to `U`, which must be the same type as `T`.
    pub(super) fn cast<U: Real>(self) -> Outputs<'a, U> {
        assert_eq!(T::DTYPE, U::DTYPE, "an output is cast to another type");
        let cast = |(data, length, channels): (*mut T, usize, usize)| (data.cast::<U>(), length, channels);
        Outputs { first: cast(self.first), second: self.second.map(cast), slices: PhantomData }
    }

    /// The tensors with their numbers of channels.
    pub(super) fn parts_mut(&mut self) -> impl Iterator<Item = (&mut [MaybeUninit<T>], usize)> {
        // SAFETY: these are the slices that `one` and `two` borrowed, and `self` is borrowed mutably.
        let slice = |(data, length, channels): (*mut T, usize, usize)| unsafe {
            (std::slice::from_raw_parts_mut(data.cast::<MaybeUninit<T>>(), length), channels)
        };
        std::iter::once(slice(self.first)).chain(self.second.map(slice))
    }

    /// The whole output, if it is one tensor.
    pub(super) fn single(&mut self) -> Option<&mut [MaybeUninit<T>]> {
        if self.second.is_some() {
            return None;
        }
        // SAFETY: this is the slice that `one` borrowed, and `self` is borrowed mutably.
        Some(unsafe { std::slice::from_raw_parts_mut(self.first.0.cast(), self.first.1) })
    }

    /// The address of a channel of an image with `voxels` voxels per channel.
    ///
    /// # Safety
    /// The channel exists (after `check`), and no two threads write the same voxel of it at the same time.
    #[inline(always)]
    pub(super) unsafe fn channel(&self, n: usize, channel: usize, voxels: usize) -> *mut T {
        let ((data, _, channels), channel) = match self.second {
            Some(second) if channel >= self.first.2 => (second, channel - self.first.2),
            _ => (self.first, channel),
        };
        // SAFETY: the channel exists, by the caller's promise.
        unsafe { data.add((n * channels + channel) * voxels) }
    }
}

/// Checks lengths and channels of the tensors that together form an input or output.
fn check_lengths(name: &str, parts: Vec<(usize, usize)>, [batch, channels, voxels]: [usize; 3]) -> Result<()> {
    let sum = parts.iter().try_fold(0usize, |sum, (_, channels)| sum.checked_add(*channels));
    let fits = |&(length, channels): &(usize, usize)| {
        batch.checked_mul(channels).and_then(|rows| rows.checked_mul(voxels)) == Some(length)
    };
    if sum == Some(channels) && parts.iter().all(fits) {
        return Ok(());
    }
    Err(Error::shape("conv", format!("{name} of (numbers, channels) {parts:?}"))
        .expected(format!("{batch} × {channels} × {voxels} in all")))
}

/// Checks a weight tensor's length.
pub(super) fn check_weights<T>(shape: &ConvShape, weights: &[T]) -> Result<()> {
    if weights.len() != shape.weight_count() {
        return Err(Error::shape("conv", format!("{} weights", weights.len())).expected(format!(
            "{} output channels × {} × {:?}",
            shape.out_channels,
            shape.group_inputs(),
            shape.kernel
        )));
    }
    Ok(())
}
