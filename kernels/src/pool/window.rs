//! The windows of an axis: the rules that all pooling operations share.

use tomograd_core::{DType, Error, Result};

use crate::{Meta, check};

/// The attributes of strided windows, one number for each spatial axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strided<'a> {
    pub kernel: &'a [usize],
    pub stride: &'a [usize],
    pub padding: &'a [usize],
    /// `None` means 1.
    pub dilation: Option<&'a [usize]>,
    pub ceil_mode: bool,
}

/// The windows of an axis: window `o` contains `counts[o]` voxels, starting at `starts[o]`, at distance `step`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Windows {
    pub input: usize,
    pub starts: Vec<usize>,
    pub counts: Vec<usize>,
    pub step: usize,
}

impl Windows {
    pub(super) fn output(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn most(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0)
    }

    /// The windows of adaptive pooling to `output` positions.
    pub(super) fn adaptive(input: usize, output: usize) -> Self {
        let start = |o: usize| o * input / output;
        let starts: Vec<usize> = (0..output).map(start).collect();
        let counts = (0..output).map(|o| ((o + 1) * input).div_ceil(output) - start(o)).collect();
        Self { input, starts, counts, step: 1 }
    }
}

impl Strided<'_> {
    fn dilation(&self, axis: usize) -> usize {
        self.dilation.map_or(1, |dilation| dilation[axis])
    }

    /// The number of windows of an axis; `None` if not even one fits.
    fn output(&self, axis: usize, input: usize) -> Option<usize> {
        let (stride, padding) = (self.stride[axis], self.padding[axis]);
        let reach = self.dilation(axis) * (self.kernel[axis] - 1) + 1;
        let room = (input + 2 * padding + if self.ceil_mode { stride - 1 } else { 0 }).checked_sub(reach)?;
        let output = room / stride + 1;
        // A window that starts after the input and its front padding is dropped.
        Some(if self.ceil_mode && (output - 1) * stride >= input + padding { output - 1 } else { output })
    }

    /// Checks the attributes independently of the input.
    ///
    /// # Errors
    /// When there isn't one number of each kind for each of one to three axes, or a number is out of range.
    pub(super) fn check(&self, operation: &str) -> Result<()> {
        let rank = self.kernel.len();
        let lists = [self.kernel, self.stride, self.padding, self.dilation.unwrap_or(self.kernel)];
        let fail = |what: String, expected: &str| Err(Error::argument(operation, what).expected(expected));
        if !(1..=3).contains(&rank) || lists.iter().any(|list| list.len() != rank) {
            return fail(format!("{self:?}"), "one number for each of one to three spatial axes");
        }
        for axis in 0..rank {
            let (kernel, stride, dilation) = (self.kernel[axis], self.stride[axis], self.dilation(axis));
            // Larger sizes make no sense, and up to this limit nothing overflows.
            let most = 1 << 20;
            if [kernel, stride, dilation].iter().any(|size| !(1..=most).contains(size)) {
                return fail(
                    format!("a kernel of {kernel}, a stride of {stride} or a dilation of {dilation}"),
                    "numbers from 1 to 2^20",
                );
            }
            if self.padding[axis] > (dilation * (kernel - 1)).div_ceil(2) {
                return fail(format!("a padding of {} for a kernel of {kernel}", self.padding[axis]), "at most half");
            }
        }
        Ok(())
    }

    /// The metadata of the output, after checking the input.
    ///
    /// # Errors
    /// When the attributes don't fit the axes, or a window doesn't fit into the padded input.
    pub(super) fn infer(&self, operation: &str, inputs: &[Meta]) -> Result<Meta> {
        let x = pooled(operation, inputs)?;
        self.check(operation)?;
        let rank = x.rank() - 2;
        let fail = |what: String, expected: &str| {
            Err(Error::argument(operation, what).expected(expected).shapes([&x.shape[..]]))
        };
        if self.kernel.len() != rank {
            return fail(format!("{self:?} for {rank} spatial axes"), "one number for each spatial axis");
        }
        let mut shape = x.shape[..2].to_vec();
        for axis in 0..rank {
            match self.output(axis, x.shape[axis + 2]) {
                Some(output) => shape.push(output),
                None => {
                    let what = format!("a window of {} doesn't fit axis {}", self.kernel[axis], axis + 2);
                    return fail(what, "a smaller window");
                }
            }
        }
        Ok(x.with_shape(shape))
    }

    /// The windows of an axis, clipped to the input.
    pub(super) fn windows(&self, axis: usize, input: usize) -> Windows {
        let (kernel, step, padding) = (self.kernel[axis], self.dilation(axis), self.padding[axis]);
        let (starts, counts) = (0..self.output(axis, input).unwrap_or(0))
            .map(|o| {
                let start = o * self.stride[axis];
                let skipped = padding.saturating_sub(start).div_ceil(step).min(kernel);
                let first = (start + skipped * step).saturating_sub(padding);
                (first, input.saturating_sub(first).div_ceil(step).min(kernel - skipped))
            })
            .unzip();
        Windows { input, starts, counts, step }
    }

    /// For each window of an axis: its number of voxels, counting those of the padding.
    pub(super) fn padded_counts(&self, axis: usize, input: usize) -> Vec<usize> {
        let end = input + 2 * self.padding[axis];
        (0..self.output(axis, input).unwrap_or(0)).map(|o| self.kernel[axis].min(end - o * self.stride[axis])).collect()
    }
}

/// Checks the only input of a pooling operation and returns it.
pub(super) fn pooled<'a>(operation: &str, inputs: &'a [Meta]) -> Result<&'a Meta> {
    check::inputs(operation, inputs, 1, 1)?;
    check::same_float(operation, inputs)?;
    check::spatial(operation, &inputs[0])?;
    check::lengths(operation, &inputs[0].shape[2..], &[])?;
    Ok(&inputs[0])
}

/// The metadata of the output of adaptive pooling.
///
/// # Errors
/// When `output` doesn't fit the axes, or a spatial axis is empty.
pub(super) fn infer_adaptive(operation: &str, output: &[usize], inputs: &[Meta]) -> Result<Meta> {
    let x = pooled(operation, inputs)?;
    if output.len() != x.rank() - 2 || x.shape[2..].iter().zip(output).any(|(&input, &out)| input == 0 && out != 0) {
        return Err(Error::shape(operation, "an output that doesn't fit the spatial axes")
            .expected("one size for each spatial axis, and voxels to pool")
            .shapes([&x.shape[..], output]));
    }
    check::lengths(operation, &x.shape[2..], output)?;
    Ok(x.with_shape([&x.shape[..2], output].concat()))
}

/// The dtype of the indices of maxima in their windows: a byte if the windows are small enough.
pub(super) fn winner_dtype(windows: &[Windows; 3]) -> DType {
    if windows.iter().map(Windows::most).product::<usize>() <= 256 { DType::U8 } else { DType::I32 }
}
