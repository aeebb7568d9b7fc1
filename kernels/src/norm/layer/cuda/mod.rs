//! Layer norm on CUDA devices.

use tomograd_core::{DType, Result, Tensor};

use crate::{
    cuda::{Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single},
    reduce::{Combine, cuda::group},
};

static SOURCE: Source = Source { name: "layer.cu", text: include_str!("layer.cu"), headers: &[] };

/// The most blocks that do rows in turn.
const MOST_BLOCKS: usize = 1 << 16;
/// Rows whose sums one thread adds, and the most segments of such rows.
const ROWS: usize = 64;
const MOST_SEGMENTS: usize = 1 << 10;

/// y, and the numbers kept of each row: (rows, 4). They are taken from `known` if that is given.
pub(super) fn forward(
    x: &Tensor,
    length: usize,
    affine: Option<[&Tensor; 2]>,
    epsilon: f64,
    known: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    single("layer_norm", x.dtype())?;
    let rows = x.count().checked_div(length).unwrap_or(0);
    let kept = match known {
        Some(known) => known.clone(),
        None => {
            let mut kept = output_like("layer_norm", &[rows, super::cpu::KEPT], x)?;
            let launch = Launch::new("layer_norm", &SOURCE, "layer_norm_statistics", x.device())?;
            let launch = launch.read(x)?.write(&mut kept)?.value(epsilon).size(length).size(rows);
            // SAFETY: x has `rows` rows of `length` elements; the kernel writes the four numbers of each.
            unsafe {
                launch.run(rows.min(MOST_BLOCKS), THREADS)?;
                kept.assume_init()
            }
        }
    };
    let mut y = output_like("layer_norm", x.shape(), x)?;
    let count = y.count();
    let launch = Launch::new("layer_norm", &SOURCE, "layer_norm_apply", x.device())?
        .read(x)?
        .read(&kept)?
        .read_if(affine.map(|[gamma, _]| gamma))?
        .read_if(affine.map(|[_, beta]| beta))?
        .write(&mut y)?
        .value(divisor(length))
        .size(count);
    // SAFETY: there are four numbers of each row, and parameters of each column; the kernel writes every element.
    let y = unsafe {
        launch.run(blocks(count), THREADS)?;
        y.assume_init()
    };
    Ok((y, kept))
}

/// The gradient of x.
pub(super) fn backward_data(
    x: &Tensor,
    dy: &Tensor,
    kept: &Tensor,
    length: usize,
    gamma: Option<&Tensor>,
) -> Result<Tensor> {
    single("layer_norm", x.dtype())?;
    let rows = x.count().checked_div(length).unwrap_or(0);
    let mut dx = output_like("layer_norm", x.shape(), x)?;
    let launch = Launch::new("layer_norm", &SOURCE, "layer_norm_backward", x.device())?
        .read(x)?
        .read(dy)?
        .read(kept)?
        .read_if(gamma)?
        .write(&mut dx)?
        .size(length)
        .size(rows);
    // SAFETY: x and dy have `rows` rows of `length` elements; the kernel writes every element of as many.
    unsafe {
        launch.run(rows.min(MOST_BLOCKS), THREADS)?;
        Ok(dx.assume_init())
    }
}

/// The gradients of γ and β, as (2, length).
pub(super) fn backward_parameters(x: &Tensor, dy: &Tensor, kept: &Tensor, length: usize) -> Result<Tensor> {
    single("layer_norm", x.dtype())?;
    let rows = x.count().checked_div(length).unwrap_or(0);
    let rows_of = ROWS.max(rows.div_ceil(MOST_SEGMENTS));
    let segments = rows.div_ceil(rows_of).max(1);
    let mut partial = Unwritten::new("layer_norm", &[2, segments, length], DType::F64, x.device())?;
    let launch = Launch::new("layer_norm", &SOURCE, "layer_norm_parameters", x.device())?
        .read(x)?
        .read(dy)?
        .read(kept)?
        .write(&mut partial)?
        .size(length)
        .size(rows)
        .size(rows_of);
    // SAFETY: x and dy have `rows` rows of `length` elements; the kernel writes both sums of each column and segment.
    let partial = unsafe {
        launch.run_shaped([blocks(length), segments, 1], THREADS, 0)?;
        partial.assume_init()
    };
    group(&partial, [2, segments, length], Combine::Sum, 1.0, true)?.reshape(&[2, length])
}
