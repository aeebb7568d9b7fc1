//! Matrix products on CUDA devices.

mod gemm;

use tomograd_core::{DType, Result, Tensor};

use crate::{
    Precision,
    cast::cast,
    cuda::{Launch, Source, divisor, output_like, single, views, views_of},
    reduce::{Combine, cuda::reduce},
};

static SOURCE: Source = Source { name: "matmul.cu", text: include_str!("matmul.cu"), headers: &[] };

/// Rows and columns of a block's tile.
const TILE: usize = 64;
const THREADS: u32 = 256;
/// f32 products with more rows and columns have larger tiles.
const LARGE: usize = 64;
/// The most matrices that blocks do side by side.
const MOST_BATCHES: usize = 65535;
/// With as many tiles, the device is busy without parts of k.
const MANY_TILES: usize = 256;
/// The least terms of a part of k.
const LEAST_TERMS: usize = 512;

/// The product of (batch..., m, k) and (batch..., k, n), whose batch axes are the same, plus a bias (n).
pub(crate) fn product(
    operation: &str,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
) -> Result<Tensor> {
    let dtype = a.dtype();
    let half = matches!(dtype, DType::F16 | DType::BF16);
    let empty = a.count() == 0 || b.count() == 0;
    let large = a.rank() >= 2 && a.shape()[a.rank() - 2].min(b.shape()[b.rank() - 1]) > LARGE;
    if !empty
        && (half || dtype == DType::F32 && large)
        && let Some(y) = gemm::gemm(operation, a, b, bias, precision)?
    {
        return Ok(y);
    }
    if half {
        let bias = bias.map(|bias| cast(bias, DType::F32)).transpose()?;
        let y = product(operation, &cast(a, DType::F32)?, &cast(b, DType::F32)?, bias.as_ref(), precision)?;
        return cast(&y, dtype);
    }
    single(operation, dtype)?;
    let rank = a.rank();
    let (batch, [m, k, n]) = (&a.shape()[..rank - 2], [a.shape()[rank - 2], a.shape()[rank - 1], b.shape()[rank - 1]]);
    let batches: usize = batch.iter().product();
    // The first matrix of each batch, as tensors of the batch axes alone.
    let firsts = [a, b].map(|tensor| match tensor.count() {
        0 => Ok(tensor.clone()),
        _ => tensor.select(rank - 1, 0)?.select(rank - 2, 0),
    });
    let shape = [batch, &[m, n]].concat();
    if m * n * batches == 0 || k == 0 {
        // Sums of no products.
        let zeros = Tensor::zeros(&shape, a.dtype(), a.device())?;
        return match bias {
            Some(bias) => crate::elementwise::cuda::add(&zeros, &bias.expand(&shape)?),
            None => Ok(zeros),
        };
    }
    let [a_first, b_first] = firsts;
    let numbers = views::<{ views_of(2) }>(operation, batch, &[&a_first?, &b_first?])?;
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    // Parts of k, by the shape alone: enough of them to fill the device, each long enough to be worth its sum.
    let wanted = MANY_TILES.div_ceil(tiles * batches).min(k.div_ceil(LEAST_TERMS)).max(1);
    let length = k.div_ceil(wanted).next_multiple_of(16);
    let parts = k.div_ceil(length);
    let [sa, sb] = [a.strides(), b.strides()];
    let [t0, t1, t2] = divisor(n.div_ceil(TILE));
    let sizes = [m, n, k, length, sa[rank - 2], sa[rank - 1], sb[rank - 2], sb[rank - 1]].map(|size| size as i64);
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sizes;
    let sizes = [s0, s1, s2, s3, s4, s5, s6, s7, t0, t1, t2];
    let mut output = output_like(operation, &[&[parts][..], &shape].concat(), a)?;
    let bias = bias.map(|bias| bias.contiguous()).transpose()?;
    let launch = Launch::new(operation, &SOURCE, "matmul", a.device())?
        .read(a)?
        .read(b)?
        .read_if(bias.as_ref().filter(|_| parts == 1))?
        .write(&mut output)?
        .value(numbers)
        .value(sizes)
        .size(batches);
    // SAFETY: the kernel reads the operands within their sizes, by their strides, and writes every element of each part.
    let y = unsafe {
        launch.run_shaped([tiles, parts, batches.min(MOST_BATCHES)], THREADS, 0)?;
        output.assume_init()
    };
    if parts == 1 {
        return y.reshape(&shape);
    }
    let sum = reduce(&y, &[0], Combine::Sum, 1.0)?;
    match &bias {
        Some(bias) => crate::elementwise::cuda::add(&sum, &bias.expand(&shape)?),
        None => Ok(sum),
    }
}

/// A tensor of (rows..., columns) as one matrix.
fn as_matrix(x: &Tensor) -> Result<Tensor> {
    let columns = x.shape()[x.rank() - 1];
    let rows = x.shape()[..x.rank() - 1].iter().product();
    x.reshape(&[rows, columns])
}

/// The product of the rows of x (..., k) and (k, n), plus a bias (n): (rows, n).
pub(super) fn rows_times(x: &Tensor, matrix: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Tensor> {
    product("linear", &as_matrix(x)?, matrix, bias, precision)
}

/// Σ over all rows of aᵀ b, for a (..., m) and b (..., n) with the same rows: (m, n).
pub(super) fn outer_sum(operation: &str, a: &Tensor, b: &Tensor, precision: Precision) -> Result<Tensor> {
    product(operation, &as_matrix(a)?.transpose(0, 1)?, &as_matrix(b)?, None, precision)
}
