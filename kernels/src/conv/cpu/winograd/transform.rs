//! The transforms of Winograd's minimal filtering, one axis at a time, on vectors of channels.
//!
//! Along each axis of a plane, F(4, 3) computes four outputs from six inputs. With d the six inputs and g the three taps: `y
//! = Aᵀ [(G g) ⊙ (Bᵀ d)]`, and for the gradient of the taps `dg = Gᵀ [(A dy) ⊙ (Bᵀ d)]` (Winograd 1980; Lavin and Gray 2016,
//! arXiv 1509.09308). The polynomials are evaluated at 0, ±3/4, ±3/2 and ∞. These points and their squares are exact in
//! floating point, and are close to 1, so that their powers, which amplify rounding errors, stay small. The usual points 0,
//! ±1, ±2 give more than twice the error (docs/decisions/0004).
//!
//! Along two axes this gives a tile of 16 outputs with 36 products for each pair of channels and each plane of the kernel; a
//! direct sum has 144.

use crate::simd::Vector;
use tomograd_core::Element;

/// Outputs and inputs of a tile along an axis.
pub(in crate::conv::cpu) const OUT: usize = 4;
pub(super) const IN: usize = 6;
/// Products of a tile, one for each point.
pub(super) const POINTS: usize = IN * IN;

/// The evaluation points are 0, ±P, ±Q and ∞.
const P: f64 = 0.75;
const Q: f64 = 1.5;
const P2: f64 = P * P;
const Q2: f64 = Q * Q;
/// One over the derivative of x (x² - P²) (x² - Q²), at P and at Q.
const AT_P: f64 = 1.0 / (2.0 * P2 * (P2 - Q2));
const AT_Q: f64 = 1.0 / (2.0 * Q2 * (Q2 - P2));

#[inline(always)]
fn constant<V: Vector>(x: f64) -> V {
    V::splat(V::Elem::from_f64(x))
}

/// Bᵀ d.
#[inline(always)]
fn input_axis<V: Vector>(d: [V; IN]) -> [V; IN] {
    let (p, q) = (constant::<V>(P), constant::<V>(Q));
    let (p2, q2) = (constant::<V>(P2), constant::<V>(Q2));
    let (product, sum) = (constant::<V>(P2 * Q2), constant::<V>(P2 + Q2));
    let (even_p, odd_p) = (d[2].neg_mul_add(q2, d[4]), d[1].neg_mul_add(q2, d[3]));
    let (even_q, odd_q) = (d[2].neg_mul_add(p2, d[4]), d[1].neg_mul_add(p2, d[3]));
    [
        d[0].mul_add(product, d[2].neg_mul_add(sum, d[4])),
        odd_p.mul_add(p, even_p),
        odd_p.neg_mul_add(p, even_p),
        odd_q.mul_add(q, even_q),
        odd_q.neg_mul_add(q, even_q),
        d[1].mul_add(product, d[3].neg_mul_add(sum, d[5])),
    ]
}

/// Aᵀ m.
#[inline(always)]
fn output_axis<V: Vector>(m: [V; IN]) -> [V; OUT] {
    let (even_p, odd_p) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (even_q, odd_q) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(even_p).add(even_q),
        odd_q.mul_add(constant(Q), odd_p.mul(constant(P))),
        even_q.mul_add(constant(Q2), even_p.mul(constant(P2))),
        odd_q.mul_add(constant(Q * Q2), odd_p.mul_add(constant(P * P2), m[5])),
    ]
}

/// G g.
#[inline(always)]
fn taps_axis<V: Vector>(g: [V; 3]) -> [V; IN] {
    let even_p = g[2].mul_add(constant(AT_P * P2), g[0].mul(constant(AT_P)));
    let even_q = g[2].mul_add(constant(AT_Q * Q2), g[0].mul(constant(AT_Q)));
    let (odd_p, odd_q) = (constant::<V>(AT_P * P), constant::<V>(AT_Q * Q));
    [
        g[0].mul(constant(1.0 / (P2 * Q2))),
        g[1].mul_add(odd_p, even_p),
        g[1].neg_mul_add(odd_p, even_p),
        g[1].mul_add(odd_q, even_q),
        g[1].neg_mul_add(odd_q, even_q),
        g[2],
    ]
}

/// A dy.
#[inline(always)]
fn gradient_axis<V: Vector>(d: [V; OUT]) -> [V; IN] {
    let (even_p, odd_p) = (d[2].mul_add(constant(P2), d[0]), d[3].mul_add(constant(P * P2), d[1].mul(constant(P))));
    let (even_q, odd_q) = (d[2].mul_add(constant(Q2), d[0]), d[3].mul_add(constant(Q * Q2), d[1].mul(constant(Q))));
    [d[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), d[3]]
}

/// Gᵀ p.
#[inline(always)]
fn weights_axis<V: Vector>(p: [V; IN]) -> [V; 3] {
    let (even_p, odd_p) = (p[1].add(p[2]), p[1].sub(p[2]));
    let (even_q, odd_q) = (p[3].add(p[4]), p[3].sub(p[4]));
    [
        p[0].mul_add(constant(1.0 / (P2 * Q2)), even_q.mul_add(constant(AT_Q), even_p.mul(constant(AT_P)))),
        odd_q.mul_add(constant(AT_Q * Q), odd_p.mul(constant(AT_P * P))),
        even_q.mul_add(constant(AT_Q * Q2), even_p.mul_add(constant(AT_P * P2), p[5])),
    ]
}

/// Transforms a tile of inputs and writes the result to `to[point * stride]`.
///
/// # Safety
/// `from` is readable for a vector at every position of the tile, `to` writable for a vector at every point.
#[inline(always)]
pub(super) unsafe fn input<V: Vector>(
    from: *const V::Elem,
    row_stride: usize,
    column_stride: usize,
    to: *mut V::Elem,
    stride: usize,
) {
    let mut rows = [[V::zero(); IN]; IN];
    // SAFETY: the caller's promise.
    unsafe {
        for (y, row) in rows.iter_mut().enumerate() {
            let from = from.add(y * row_stride);
            for (x, value) in row.iter_mut().enumerate() {
                *value = V::load_ptr(from.add(x * column_stride));
            }
            *row = input_axis(*row);
        }
        for x in 0..IN {
            let column = input_axis([rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x]]);
            for (y, value) in column.into_iter().enumerate() {
                value.store_ptr(to.add((y * IN + x) * stride));
            }
        }
    }
}

/// Transforms the products of a tile back to its outputs.
///
/// # Safety
/// `from[point * stride]` is readable and all outputs are writable for a vector.
#[inline(always)]
pub(super) unsafe fn output<V: Vector>(
    from: *const V::Elem,
    stride: usize,
    to: *mut V::Elem,
    row_stride: usize,
    column_stride: usize,
) {
    let mut rows = [[V::zero(); IN]; OUT];
    // SAFETY: the caller's promise.
    unsafe {
        for x in 0..IN {
            let mut column = [V::zero(); IN];
            for (y, value) in column.iter_mut().enumerate() {
                *value = V::load_ptr(from.add((y * IN + x) * stride));
            }
            for (y, value) in output_axis(column).into_iter().enumerate() {
                rows[y][x] = value;
            }
        }
        for (y, row) in rows.into_iter().enumerate() {
            for (x, value) in output_axis(row).into_iter().enumerate() {
                value.store_ptr(to.add(y * row_stride + x * column_stride));
            }
        }
    }
}

/// Transforms 3 × 3 taps.
#[inline(always)]
pub(super) fn taps<V: Vector>(taps: [[V; 3]; 3]) -> [[V; IN]; IN] {
    let rows = [taps_axis(taps[0]), taps_axis(taps[1]), taps_axis(taps[2])];
    let mut points = [[V::zero(); IN]; IN];
    for x in 0..IN {
        let column = taps_axis([rows[0][x], rows[1][x], rows[2][x]]);
        for (y, value) in column.into_iter().enumerate() {
            points[y][x] = value;
        }
    }
    points
}

/// Transforms a tile of gradients of the output.
///
/// # Safety
/// As for [`input`].
#[inline(always)]
pub(super) unsafe fn gradient<V: Vector>(
    from: *const V::Elem,
    row_stride: usize,
    column_stride: usize,
    to: *mut V::Elem,
    stride: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rows = [[V::zero(); IN]; OUT];
        for (y, row) in rows.iter_mut().enumerate() {
            let mut tile = [V::zero(); OUT];
            for (x, value) in tile.iter_mut().enumerate() {
                *value = V::load_ptr(from.add(y * row_stride + x * column_stride));
            }
            *row = gradient_axis(tile);
        }
        for x in 0..IN {
            let column = gradient_axis([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
            for (y, value) in column.into_iter().enumerate() {
                value.store_ptr(to.add((y * IN + x) * stride));
            }
        }
    }
}

/// Transforms summed products back to the gradient of 3 × 3 taps.
#[inline(always)]
pub(super) fn weights<V: Vector>(points: [[V; IN]; IN]) -> [[V; 3]; 3] {
    // Loops rather than closures: a closure that isn't inlined would be compiled without the instruction set's target
    // features.
    let mut rows = [[V::zero(); 3]; IN];
    for (row, points) in rows.iter_mut().zip(points) {
        *row = weights_axis(points);
    }
    let mut taps = [[V::zero(); 3]; 3];
    for x in 0..3 {
        let column = weights_axis([rows[0][x], rows[1][x], rows[2][x], rows[3][x], rows[4][x], rows[5][x]]);
        for (y, value) in column.into_iter().enumerate() {
            taps[y][x] = value;
        }
    }
    taps
}
