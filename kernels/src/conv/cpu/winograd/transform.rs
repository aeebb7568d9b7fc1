//! The transforms of Winograd's minimal filtering, one axis at a time, on vectors of channels.
//!
//! Along each axis of a plane, six inputs give four outputs of a kernel of three taps, F(4, 3), or two outputs of one of five
//! taps, F(2, 5). With d the six inputs and g the taps: `y = Aᵀ [(G g) ⊙ (Bᵀ d)]`, and for the gradient of the taps `dg = Gᵀ [(A
//! dy) ⊙ (Bᵀ d)]` (Winograd 1980; Lavin and Gray 2016, arXiv 1509.09308). Both are products of polynomials that are evaluated
//! at 0, ±3/4, ±3/2 and ∞, and have Bᵀ in common. These points and their squares are exact in floating point, and are close to
//! 1, so that their powers, which amplify rounding errors, stay small. The usual points 0, ±1, ±2 give more than twice the
//! error (docs/decisions/0004).
//!
//! Along two axes this takes 36 products for a tile, for each pair of channels and each plane of the kernel. Direct sums for the
//! 16 outputs of a kernel of 3² taps take 144, and for the 4 outputs of one of 5² taps 100.

use crate::simd::Vector;
use tomograd_core::Element;

/// Inputs of a tile along an axis.
pub(super) const IN: usize = 6;
/// The most outputs and the most taps of a tile along an axis.
pub(in crate::conv::cpu) const MOST_OUT: usize = outputs(3);
pub(super) const MOST_TAPS: usize = 5;

/// The outputs of a tile along an axis on which the kernel has `taps` taps.
pub(super) const fn outputs(taps: usize) -> usize {
    IN + 1 - taps
}

/// Products of a tile, one for each point.
pub(super) const POINTS: usize = IN * IN;

/// The evaluation points are 0, ±P, ±Q and ∞.
const P: f64 = 0.75;
const Q: f64 = 1.5;
const P2: f64 = P * P;
const Q2: f64 = Q * Q;
const P_POWERS: [f64; MOST_TAPS] = powers(P);
const Q_POWERS: [f64; MOST_TAPS] = powers(Q);
/// One over the derivative of x (x² - P²) (x² - Q²), at P and at Q.
const AT_P: f64 = 1.0 / (2.0 * P2 * (P2 - Q2));
const AT_Q: f64 = 1.0 / (2.0 * Q2 * (Q2 - P2));

/// The powers of x, from the zeroth.
const fn powers(x: f64) -> [f64; MOST_TAPS] {
    [1.0, x, x * x, x * x * x, x * x * x * x]
}

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
fn output_axis<V: Vector, const OUT: usize>(m: [V; IN]) -> [V; OUT] {
    let (even_p, odd_p) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (even_q, odd_q) = (m[3].add(m[4]), m[3].sub(m[4]));
    let mut y = [V::zero(); OUT];
    y[0] = m[0].add(even_p).add(even_q);
    for i in 1..OUT {
        let (p, q) = if i % 2 == 0 { (even_p, even_q) } else { (odd_p, odd_q) };
        let scale = constant(P_POWERS[i]);
        let p = if i + 1 == OUT { p.mul_add(scale, m[5]) } else { p.mul(scale) };
        y[i] = q.mul_add(constant(Q_POWERS[i]), p);
    }
    y
}

/// G g.
#[inline(always)]
fn taps_axis<V: Vector, const TAPS: usize>(g: [V; TAPS]) -> [V; IN] {
    // The even and the odd part of the polynomial at ±P and ±Q, the odd one without its factors AT_P P and AT_Q Q.
    let (mut even_p, mut even_q) = (g[0].mul(constant(AT_P)), g[0].mul(constant(AT_Q)));
    let (mut odd_p, mut odd_q) = (g[1], g[1]);
    for i in 2..TAPS {
        if i % 2 == 0 {
            even_p = g[i].mul_add(constant(AT_P * P_POWERS[i]), even_p);
            even_q = g[i].mul_add(constant(AT_Q * Q_POWERS[i]), even_q);
        } else {
            odd_p = g[i].mul_add(constant(P_POWERS[i - 1]), odd_p);
            odd_q = g[i].mul_add(constant(Q_POWERS[i - 1]), odd_q);
        }
    }
    let (p, q) = (constant::<V>(AT_P * P), constant::<V>(AT_Q * Q));
    [
        g[0].mul(constant(1.0 / (P2 * Q2))),
        odd_p.mul_add(p, even_p),
        odd_p.neg_mul_add(p, even_p),
        odd_q.mul_add(q, even_q),
        odd_q.neg_mul_add(q, even_q),
        g[TAPS - 1],
    ]
}

/// A dy.
#[inline(always)]
fn gradient_axis<V: Vector, const OUT: usize>(d: [V; OUT]) -> [V; IN] {
    let (mut even_p, mut odd_p) = (d[0], d[1].mul(constant(P)));
    let (mut even_q, mut odd_q) = (d[0], d[1].mul(constant(Q)));
    for i in 2..OUT {
        let (p, q) = (constant(P_POWERS[i]), constant(Q_POWERS[i]));
        if i % 2 == 0 {
            (even_p, even_q) = (d[i].mul_add(p, even_p), d[i].mul_add(q, even_q));
        } else {
            (odd_p, odd_q) = (d[i].mul_add(p, odd_p), d[i].mul_add(q, odd_q));
        }
    }
    [d[0], even_p.add(odd_p), even_p.sub(odd_p), even_q.add(odd_q), even_q.sub(odd_q), d[OUT - 1]]
}

/// Gᵀ p.
#[inline(always)]
fn weights_axis<V: Vector, const TAPS: usize>(p: [V; IN]) -> [V; TAPS] {
    let (even_p, odd_p) = (p[1].add(p[2]), p[1].sub(p[2]));
    let (even_q, odd_q) = (p[3].add(p[4]), p[3].sub(p[4]));
    let mut g = [V::zero(); TAPS];
    for i in 0..TAPS {
        let (at_p, at_q) = if i % 2 == 0 { (even_p, even_q) } else { (odd_p, odd_q) };
        let scale = constant(AT_P * P_POWERS[i]);
        let at_p = if i + 1 == TAPS { at_p.mul_add(scale, p[5]) } else { at_p.mul(scale) };
        g[i] = at_q.mul_add(constant(AT_Q * Q_POWERS[i]), at_p);
    }
    g[0] = p[0].mul_add(constant(1.0 / (P2 * Q2)), g[0]);
    g
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
pub(super) unsafe fn output<V: Vector, const OUT: usize>(
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
            for (y, value) in output_axis::<V, OUT>(column).into_iter().enumerate() {
                rows[y][x] = value;
            }
        }
        for (y, row) in rows.into_iter().enumerate() {
            for (x, value) in output_axis::<V, OUT>(row).into_iter().enumerate() {
                value.store_ptr(to.add(y * row_stride + x * column_stride));
            }
        }
    }
}

/// Transforms the taps of a plane of the kernel.
#[inline(always)]
pub(super) fn taps<V: Vector, const TAPS: usize>(taps: [[V; TAPS]; TAPS]) -> [[V; IN]; IN] {
    let mut rows = [[V::zero(); IN]; TAPS];
    for (row, taps) in rows.iter_mut().zip(taps) {
        *row = taps_axis(taps);
    }
    let mut points = [[V::zero(); IN]; IN];
    for x in 0..IN {
        let mut column = [V::zero(); TAPS];
        for (value, row) in column.iter_mut().zip(&rows) {
            *value = row[x];
        }
        for (y, value) in taps_axis(column).into_iter().enumerate() {
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
pub(super) unsafe fn gradient<V: Vector, const OUT: usize>(
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
            let mut column = [V::zero(); OUT];
            for (value, row) in column.iter_mut().zip(&rows) {
                *value = row[x];
            }
            for (y, value) in gradient_axis(column).into_iter().enumerate() {
                value.store_ptr(to.add((y * IN + x) * stride));
            }
        }
    }
}

/// Transforms summed products back to the gradient of the taps of a plane.
#[inline(always)]
pub(super) fn weights<V: Vector, const TAPS: usize>(points: [[V; IN]; IN]) -> [[V; TAPS]; TAPS] {
    // Loops rather than closures: a closure that isn't inlined would be compiled without the instruction set's target
    // features.
    let mut rows = [[V::zero(); TAPS]; IN];
    for (row, points) in rows.iter_mut().zip(points) {
        *row = weights_axis(points);
    }
    let mut taps = [[V::zero(); TAPS]; TAPS];
    for x in 0..TAPS {
        let mut column = [V::zero(); IN];
        for (value, row) in column.iter_mut().zip(&rows) {
            *value = row[x];
        }
        for (y, value) in weights_axis::<V, TAPS>(column).into_iter().enumerate() {
            taps[y][x] = value;
        }
    }
    taps
}
