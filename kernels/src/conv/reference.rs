//! Convolution with simple loops in f64: the reference of all tests.
//!
//! Each function returns the result and the same sum of absolute values, to which rounding errors are proportional.

use tomograd_core::{Error, Result, room_for};

use super::ConvShape;
use crate::simd::Real;

/// For each element: the sum, and the sum of the absolute values of its terms.
type Sums = (Vec<f64>, Vec<f64>);

/// The function that gives the number of elements of a tensor of a shape.
type Count = fn(&ConvShape) -> usize;

/// Zeros for the output, after checking the shape and the lengths of the operands.
fn zeros(shape: &ConvShape, count: Count, operands: [(usize, Count); 2]) -> Result<Sums> {
    shape.check()?;
    for (length, count) in operands {
        if length != count(shape) {
            return Err(Error::shape("conv", format!("{length} numbers")).expected(count(shape).to_string()));
        }
    }
    let zeros = || {
        let mut zeros = room_for("conv", count(shape))?;
        zeros.resize(count(shape), 0.0);
        Ok::<_, Error>(zeros)
    };
    Ok((zeros()?, zeros()?))
}

/// Calls `f(x index, w index, y index)` for every product of the convolution.
fn products(shape: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let [id, ih, iw] = shape.input;
    let [od, oh, ow] = shape.output();
    let [kd, kh, kw] = shape.kernel;
    let (cg, og) = (shape.group_inputs(), shape.group_outputs());
    // The source coordinate of tap k at output position p along an axis, or `None` outside of the input.
    let source = |axis: usize, p: usize, k: usize, size: usize| {
        (p * shape.stride[axis] + k * shape.dilation[axis]).checked_sub(shape.padding[axis]).filter(|&i| i < size)
    };
    for n in 0..shape.batch {
        for o in 0..shape.out_channels {
            for c in 0..cg {
                let channel = o / og * cg + c;
                for (z, y, x) in positions([od, oh, ow]) {
                    for (i, j, k) in positions([kd, kh, kw]) {
                        let inside = (source(0, z, i, id), source(1, y, j, ih), source(2, x, k, iw));
                        if let (Some(sz), Some(sy), Some(sx)) = inside {
                            f(
                                (((n * shape.in_channels + channel) * id + sz) * ih + sy) * iw + sx,
                                (((o * cg + c) * kd + i) * kh + j) * kw + k,
                                (((n * shape.out_channels + o) * od + z) * oh + y) * ow + x,
                            );
                        }
                    }
                }
            }
        }
    }
}

fn positions([d, h, w]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..d).flat_map(move |z| (0..h).flat_map(move |y| (0..w).map(move |x| (z, y, x))))
}

/// The output, without bias.
///
/// # Errors
/// When the shape is invalid, an operand doesn't fit it, or memory runs out.
pub fn forward<T: Real>(shape: &ConvShape, x: &[T], w: &[T]) -> Result<Sums> {
    let operands = [(x.len(), ConvShape::input_count as Count), (w.len(), ConvShape::weight_count)];
    let mut out = zeros(shape, ConvShape::output_count, operands)?;
    products(shape, |i, j, o| accumulate(&mut out, o, x[i], w[j]));
    Ok(out)
}

/// The gradient with respect to the input.
///
/// # Errors
/// When the shape is invalid, an operand doesn't fit it, or memory runs out.
pub fn backward_data<T: Real>(shape: &ConvShape, dy: &[T], w: &[T]) -> Result<Sums> {
    let operands = [(dy.len(), ConvShape::output_count as Count), (w.len(), ConvShape::weight_count)];
    let mut out = zeros(shape, ConvShape::input_count, operands)?;
    products(shape, |i, j, o| accumulate(&mut out, i, dy[o], w[j]));
    Ok(out)
}

/// The gradient with respect to the weights.
///
/// # Errors
/// When the shape is invalid, an operand doesn't fit it, or memory runs out.
pub fn backward_weights<T: Real>(shape: &ConvShape, x: &[T], dy: &[T]) -> Result<Sums> {
    let operands = [(x.len(), ConvShape::input_count as Count), (dy.len(), ConvShape::output_count)];
    let mut out = zeros(shape, ConvShape::weight_count, operands)?;
    products(shape, |i, j, o| accumulate(&mut out, j, x[i], dy[o]));
    Ok(out)
}

fn accumulate<T: Real>(out: &mut (Vec<f64>, Vec<f64>), at: usize, a: T, b: T) {
    let product = a.to_f64() * b.to_f64();
    out.0[at] += product;
    out.1[at] += product.abs();
}
