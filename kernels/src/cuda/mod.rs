//! CUDA devices: the setting that lets f32 be multiplied as TF32, and what the kernels of all operations share: checks of dtypes, views of
//! several tensors with as few axes as possible, sums in a fixed order.
//!
//! Each operation's launches are in its folder `cuda/`, beside the `.cu` files. Kernels compute in f32 (sums of many terms in
//! f64), and multiply half precision on tensor cores; operations without such kernels have it widened.

use std::sync::atomic::{AtomicBool, Ordering};

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};

use crate::Precision;

pub(crate) use tomograd_core::cuda::{
    AXES, Header, Launch, Source, THREADS, Unwritten, blocks, divisor, small_divisor,
};

static TF32: AtomicBool = AtomicBool::new(false);

/// Whether convolutions, matrix products and linear layers of f32 tensors on CUDA devices may round their operands to TF32 (11 significant
/// bits, the exponents of f32) and multiply them on tensor cores, with sums in f32; in the whole process, from the next operation on. Off
/// until it is allowed. [`Precision::Strict`] stays in full f32, as do depthwise convolutions, products of few rows or columns and attention.
///
/// The error of a result is then at most (2⁻¹⁰ + 2⁻²² + (k / 8 + 3) 2⁻²²) Σ |a| |b| for a sum of k products: both operands are rounded, and
/// tensor cores cut each sum of eight products towards zero. The same operands give the same bits.
///
/// ```
/// use tomograd_kernels::cuda::{allow_tf32, tf32_allowed};
/// assert!(!tf32_allowed());
/// allow_tf32(true);
/// assert!(tf32_allowed());
/// ```
pub fn allow_tf32(allowed: bool) {
    TF32.store(allowed, Ordering::Relaxed);
}

/// Whether [`allow_tf32`] has allowed it.
pub fn tf32_allowed() -> bool {
    TF32.load(Ordering::Relaxed)
}

/// Whether an operation of tensors in `dtype` with this precision may compute in TF32.
pub(crate) fn takes_tf32(dtype: DType, precision: Precision) -> bool {
    dtype == DType::F32 && precision == Precision::Fast && tf32_allowed()
}

/// Checks that kernels compute in the dtype of a tensor.
///
/// # Errors
/// When it isn't f32.
pub(crate) fn single(operation: &str, dtype: DType) -> Result<()> {
    if dtype == DType::F32 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::DType, operation, format!("no CUDA kernel computes in {dtype}"))
        .expected("f32, f16 or bf16; --device cpu computes in f64 too"))
}

/// Whether rows of so many elements of a contiguous tensor begin at multiples of 16 bytes, as copies of 16 bytes need.
pub(crate) fn aligned(tensor: &Tensor, row: usize) -> bool {
    let size = tensor.dtype().size();
    (tensor.layout().offset() * size).is_multiple_of(16) && (row * size).is_multiple_of(16)
}

/// The name for f32, f16 or bf16.
pub(crate) fn by_float<T>(dtype: DType, [single, half, brain]: [T; 3]) -> T {
    match dtype {
        DType::F16 => half,
        DType::BF16 => brain,
        _ => single,
    }
}

/// A new f32 tensor on the device of `like`, to be written.
///
/// # Errors
/// When memory runs out.
pub(crate) fn output_like(operation: &str, shape: &[usize], like: &Tensor) -> Result<Unwritten> {
    Unwritten::new(operation, shape, DType::F32, like.device())
}

/// Numbers of the struct `Views` for so many tensors.
pub(crate) const fn views_of(tensors: usize) -> usize {
    1 + AXES * (3 + tensors)
}

/// The axes of a shape and the strides of tensors that are viewed in it: the number of axes, their sizes, and the strides of
/// each tensor, as the struct `Views` of kernels with room for `N` numbers, [`views_of`]`(tensors)`. Neighbouring axes that follow
/// one another in the memory of every tensor are one.
///
/// # Errors
/// When a tensor can't be expanded to the shape, or more than [`AXES`] axes are left.
pub(crate) fn views<const N: usize>(operation: &str, shape: &[usize], tensors: &[&Tensor]) -> Result<[i64; N]> {
    let expanded: Vec<Tensor> = tensors.iter().map(|tensor| tensor.expand(shape)).collect::<Result<_>>()?;
    // The size of each axis, and the stride of each tensor along it.
    let mut axes: Vec<(usize, Vec<usize>)> = Vec::new();
    for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
        let strides: Vec<usize> = expanded.iter().map(|tensor| tensor.strides()[axis]).collect();
        match axes.last_mut() {
            Some((last, before)) if before.iter().zip(&strides).all(|(&before, &stride)| before == stride * size) => {
                (*last, *before) = (*last * size, strides);
            }
            _ => axes.push((size, strides)),
        }
    }
    if axes.len() > AXES {
        let what = format!("views of {} axes that don't follow one another in memory", axes.len());
        return Err(Error::new(ErrorKind::Shape, operation, what)
            .expected(format!("at most {AXES} on a CUDA device"))
            .shapes(tensors.iter().map(|tensor| tensor.shape())));
    }
    let mut numbers = [0; N];
    numbers[0] = axes.len() as i64;
    for (axis, (size, strides)) in axes.iter().enumerate() {
        numbers[1 + 3 * axis..][..3].copy_from_slice(&divisor(*size));
        for (tensor, &stride) in strides.iter().enumerate() {
            numbers[1 + AXES * (3 + tensor) + axis] = stride as i64;
        }
    }
    Ok(numbers)
}
