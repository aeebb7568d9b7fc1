//! Matrix multiplication by the plainest loops; what the tests compare everything with.

use super::cpu::{GemmShape, View};
use crate::simd::Real;

/// `out[b][i][j] = Σ_k a[b][i][k] b[b][k][j]`, in f64, and beside it `Σ_k |a| |b|`, to which rounding errors are proportional.
pub fn matmul<T: Real>(shape: GemmShape, a: View<'_, T>, b: View<'_, T>) -> (Vec<f64>, Vec<f64>) {
    let GemmShape { batch, m, n, k } = shape;
    let (mut out, mut magnitude) = (vec![0.0; batch * m * n], vec![0.0; batch * m * n]);
    for batch in 0..batch {
        for i in 0..m {
            for j in 0..n {
                for k in 0..k {
                    let product = a.get(batch, i, k).to_f64() * b.get(batch, k, j).to_f64();
                    out[(batch * m + i) * n + j] += product;
                    magnitude[(batch * m + i) * n + j] += product.abs();
                }
            }
        }
    }
    (out, magnitude)
}
