//! Matrix multiplication with simple loops: the reference of all tests.

use tomograd_core::{Error, Result, element_count, room_for};

use super::cpu::{self, GemmShape, View};
use crate::simd::Real;

/// `out[b][i][j] = Σ_k a[b][i][k] b[b][k][j]` in f64, and `Σ_k |a| |b|`, to which rounding errors are proportional.
///
/// # Errors
/// When a matrix doesn't fit the shape, or memory runs out.
pub fn matmul<T: Real>(shape: GemmShape, a: View<'_, T>, b: View<'_, T>) -> Result<(Vec<f64>, Vec<f64>)> {
    let GemmShape { batch, m, n, k } = shape;
    let count = element_count("matmul", &[batch, m, n])?;
    cpu::check(shape, a, b, count)?;
    let mut out = room_for("matmul", count)?;
    out.resize(count, 0.0);
    let mut magnitude = out.clone();
    for batch in 0..batch {
        for i in 0..m {
            for j in 0..n {
                for k in 0..k {
                    let (Some(a), Some(b)) = (a.get(batch, i, k), b.get(batch, k, j)) else {
                        return Err(Error::shape("matmul", format!("no element ({i}, {k}) or ({k}, {j})")));
                    };
                    let product = a.to_f64() * b.to_f64();
                    out[(batch * m + i) * n + j] += product;
                    magnitude[(batch * m + i) * n + j] += product.abs();
                }
            }
        }
    }
    Ok((out, magnitude))
}
