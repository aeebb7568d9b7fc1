//! The gradient of a slice on CUDA devices.

use tomograd_core::{Result, Tensor};

use crate::cuda::{Launch, Source, THREADS, Unwritten, blocks};

static SOURCE: Source = Source { name: "unslice.cu", text: include_str!("unslice.cu"), headers: &[] };

/// The gradient of a tensor of `shape`, of which `axis` was sliced from `start` in steps of `step`.
pub(super) fn unslice(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    let mut output = Unwritten::new("slice", shape, gradient.dtype(), gradient.device())?;
    let count = output.count();
    let inner = shape[axis + 1..].iter().product();
    // A slice of no elements may have any step.
    let slice = [shape[axis], inner, start, step.max(1), gradient.shape()[axis]].map(|size| size as i64);
    let kernel = match gradient.dtype().size() {
        2 => "unslice_2",
        4 => "unslice_4",
        _ => "unslice_8",
    };
    let launch = Launch::new("slice", &SOURCE, kernel, gradient.device())?;
    let launch = launch.read(&gradient)?.write(&mut output)?.value(slice).size(count);
    // SAFETY: elements of a gradient have 2, 4 or 8 bytes; the kernel reads those of the slice and writes every element.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}
