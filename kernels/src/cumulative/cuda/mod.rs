//! Cumulative sums on CUDA devices.

use tomograd_core::{Result, Tensor};

use crate::cuda::{Launch, Source, THREADS, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "cumulative.cu", text: include_str!("cumulative.cu"), headers: &[] };

/// With as many lines, a thread does a line.
const MANY_LINES: usize = 1 << 12;
/// The most blocks that do lines in turn.
const MOST_BLOCKS: usize = 1 << 16;

pub(super) fn sum(x: &Tensor, axis: usize, reverse: bool) -> Result<Tensor> {
    single("cumsum", x.dtype())?;
    let x = x.contiguous()?;
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let lines = x.count() / size.max(1);
    let by_thread = inner >= 32 || lines >= MANY_LINES;
    let mut output = output_like("cumsum", x.shape(), &x)?;
    let launch = Launch::new("cumsum", &SOURCE, if by_thread { "cumsum_columns" } else { "cumsum_rows" }, x.device())?
        .read(&x)?
        .write(&mut output)?
        .value(i32::from(reverse))
        .size(size)
        .value(divisor(inner))
        .size(lines);
    // SAFETY: x and the output are (outer, size, inner) with `lines` = outer · inner, and the kernel writes every line.
    unsafe {
        launch.run(if by_thread { blocks(lines) } else { lines.min(MOST_BLOCKS) }, THREADS)?;
        Ok(output.assume_init())
    }
}
