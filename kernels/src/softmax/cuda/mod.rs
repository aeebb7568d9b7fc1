//! Softmax on CUDA devices.

use tomograd_core::{Result, Tensor};

use crate::cuda::{Launch, Source, THREADS, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "softmax.cu", text: include_str!("softmax.cu"), headers: &[] };

/// With fewer lines side by side than this, a block does a line.
const FEW_COLUMNS: usize = 32;
/// The most blocks that do lines in turn.
const MOST_BLOCKS: usize = 1 << 16;

pub(super) fn forward(x: &Tensor, axis: usize, logarithm: bool) -> Result<Tensor> {
    run(&[&x.contiguous()?], axis, logarithm)
}

pub(super) fn backward(y: &Tensor, gradient: &Tensor, axis: usize, logarithm: bool) -> Result<Tensor> {
    run(&[&y.contiguous()?, &gradient.contiguous()?], axis, logarithm)
}

/// The forward pass of one tensor x, or the backward pass of an output and its gradient.
fn run(inputs: &[&Tensor], axis: usize, logarithm: bool) -> Result<Tensor> {
    let x = inputs[0];
    single("softmax", x.dtype())?;
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let lines = x.count() / size.max(1);
    let kernel = match (inner >= FEW_COLUMNS, inputs.len()) {
        (false, 1) => "softmax_rows",
        (true, 1) => "softmax_columns",
        (false, _) => "softmax_rows_backward",
        (true, _) => "softmax_columns_backward",
    };
    let mut output = output_like("softmax", x.shape(), x)?;
    let mut launch = Launch::new("softmax", &SOURCE, kernel, x.device())?;
    for input in inputs {
        launch = launch.read(input)?;
    }
    let launch = launch.write(&mut output)?.size(size).value(divisor(inner)).value(i32::from(logarithm)).size(lines);
    let blocks = if inner >= FEW_COLUMNS { blocks(lines) } else { lines.min(MOST_BLOCKS) };
    // SAFETY: inputs and output are (outer, size, inner) with `lines` = outer · inner, and the kernel writes every line.
    unsafe {
        launch.run(blocks, THREADS)?;
        Ok(output.assume_init())
    }
}
