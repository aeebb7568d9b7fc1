//! The transforms of Winograd's minimal filtering, one axis at a time, on vectors of channels.
//!
//! A row of outputs comes in tiles: along x four outputs from six inputs, F(4, 3), with the points 0, ±1, ±2, ∞; along y
//! two outputs from four inputs, F(2, 3), with 0, ±1, ∞. With x the six inputs, w the three taps:
//! `y = Aᵀ [(G w) ⊙ (Bᵀ x)]`, and for the gradient of the taps `dw = Gᵀ [(A dy) ⊙ (Bᵀ x)]`.
//!
//! Two axes make a tile of 8 outputs with 24 products for each pair of channels and each plane of the kernel, where the
//! plain sum has 72.

use crate::simd::Vector;
use tomograd_core::Element;

/// Products of a tile: 6 along x times 4 along y.
pub(super) const POINTS: usize = 24;
/// Outputs of a tile along x and y, and inputs.
pub(super) const OUT_X: usize = 4;
pub(super) const OUT_Y: usize = 2;
pub(super) const IN_X: usize = 6;
pub(super) const IN_Y: usize = 4;

#[inline(always)]
fn constant<V: Vector>(x: f64) -> V {
    V::splat(V::Elem::from_f64(x))
}

/// Bᵀ along x.
#[inline(always)]
fn input_x<V: Vector>(d: [V; 6]) -> [V; 6] {
    let (four, five, two) = (constant::<V>(4.0), constant::<V>(5.0), constant::<V>(2.0));
    let a = d[2].neg_mul_add(four, d[4]);
    let b = d[1].neg_mul_add(four, d[3]);
    let c = d[4].sub(d[2]);
    let e = d[3].sub(d[1]);
    [
        d[0].mul_add(four, d[2].neg_mul_add(five, d[4])),
        a.add(b),
        a.sub(b),
        e.mul_add(two, c),
        e.neg_mul_add(two, c),
        d[1].mul_add(four, d[3].neg_mul_add(five, d[5])),
    ]
}

/// Bᵀ along y.
#[inline(always)]
fn input_y<V: Vector>(d: [V; 4]) -> [V; 4] {
    [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])]
}

/// Aᵀ along x.
#[inline(always)]
fn output_x<V: Vector>(m: [V; 6]) -> [V; 4] {
    let (two, four, eight) = (constant::<V>(2.0), constant::<V>(4.0), constant::<V>(8.0));
    let (s, d) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (p, q) = (m[3].add(m[4]), m[3].sub(m[4]));
    [m[0].add(s).add(p), q.mul_add(two, d), p.mul_add(four, s), q.mul_add(eight, d).add(m[5])]
}

/// Aᵀ along y.
#[inline(always)]
fn output_y<V: Vector>(m: [V; 4]) -> [V; 2] {
    [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])]
}

/// G along x.
#[inline(always)]
fn taps_x<V: Vector>(g: [V; 3]) -> [V; 6] {
    let t = g[0].add(g[2]);
    let sixth = constant::<V>(-1.0 / 6.0);
    let near = g[0].mul_add(constant(1.0 / 24.0), g[2].mul(constant(1.0 / 6.0)));
    let twelfth = constant::<V>(1.0 / 12.0);
    [
        g[0].mul(constant(0.25)),
        t.add(g[1]).mul(sixth),
        t.sub(g[1]).mul(sixth),
        g[1].mul_add(twelfth, near),
        g[1].neg_mul_add(twelfth, near),
        g[2],
    ]
}

/// G along y.
#[inline(always)]
fn taps_y<V: Vector>(g: [V; 3]) -> [V; 4] {
    let half = constant::<V>(0.5);
    let t = g[0].add(g[2]);
    [g[0], t.add(g[1]).mul(half), t.sub(g[1]).mul(half), g[2]]
}

/// A along x.
#[inline(always)]
fn gradient_x<V: Vector>(d: [V; 4]) -> [V; 6] {
    let (two, four, eight) = (constant::<V>(2.0), constant::<V>(4.0), constant::<V>(8.0));
    let (even, odd) = (d[0].add(d[2]), d[1].add(d[3]));
    let (even2, odd2) = (d[2].mul_add(four, d[0]), d[3].mul_add(eight, d[1].mul(two)));
    [d[0], even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), d[3]]
}

/// A along y.
#[inline(always)]
fn gradient_y<V: Vector>(d: [V; 2]) -> [V; 4] {
    [d[0], d[0].add(d[1]), d[0].sub(d[1]), d[1].neg()]
}

/// Gᵀ along x.
#[inline(always)]
fn weights_x<V: Vector>(p: [V; 6]) -> [V; 3] {
    let sixth = constant::<V>(1.0 / 6.0);
    let (s, d) = (p[1].add(p[2]), p[2].sub(p[1]));
    let (t, e) = (p[3].add(p[4]), p[3].sub(p[4]));
    [
        p[0].mul(constant(0.25)).add(t.mul_add(constant(1.0 / 24.0), s.mul(sixth).neg())),
        d.mul_add(sixth, e.mul(constant(1.0 / 12.0))),
        t.sub(s).mul_add(sixth, p[5]),
    ]
}

/// Gᵀ along y.
#[inline(always)]
fn weights_y<V: Vector>(p: [V; 4]) -> [V; 3] {
    let half = constant::<V>(0.5);
    let s = p[1].add(p[2]);
    [s.mul_add(half, p[0]), p[1].sub(p[2]).mul(half), s.mul_add(half, p[3])]
}

/// Transforms a tile of 4 rows of 6 inputs; the result goes to `to[point * stride]`.
///
/// # Safety
/// `from` is readable for a vector at every place of the tile, `to` writable for one at every point.
#[inline(always)]
pub(super) unsafe fn input<V: Vector>(
    from: *const V::Elem,
    row_stride: usize,
    column_stride: usize,
    to: *mut V::Elem,
    stride: usize,
) {
    let mut rows = [[V::zero(); IN_X]; IN_Y];
    // SAFETY: the caller's promise.
    unsafe {
        for (y, row) in rows.iter_mut().enumerate() {
            let from = from.add(y * row_stride);
            for (x, value) in row.iter_mut().enumerate() {
                *value = V::load_ptr(from.add(x * column_stride));
            }
            *row = input_x(*row);
        }
        for x in 0..IN_X {
            let column = input_y([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
            for (y, value) in column.into_iter().enumerate() {
                value.store_ptr(to.add((y * IN_X + x) * stride));
            }
        }
    }
}

/// Transforms the products of a tile back to 2 rows of 4 outputs.
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
    let mut rows = [[V::zero(); IN_X]; OUT_Y];
    // SAFETY: the caller's promise.
    unsafe {
        for x in 0..IN_X {
            let mut column = [V::zero(); IN_Y];
            for (y, value) in column.iter_mut().enumerate() {
                *value = V::load_ptr(from.add((y * IN_X + x) * stride));
            }
            let [a, b] = output_y(column);
            rows[0][x] = a;
            rows[1][x] = b;
        }
        for (y, row) in rows.into_iter().enumerate() {
            for (x, value) in output_x(row).into_iter().enumerate() {
                value.store_ptr(to.add(y * row_stride + x * column_stride));
            }
        }
    }
}

/// Transforms 3 × 3 taps.
#[inline(always)]
pub(super) fn taps<V: Vector>(taps: [[V; 3]; 3]) -> [[V; IN_X]; IN_Y] {
    let rows = [taps_x(taps[0]), taps_x(taps[1]), taps_x(taps[2])];
    let mut points = [[V::zero(); IN_X]; IN_Y];
    for x in 0..IN_X {
        let column = taps_y([rows[0][x], rows[1][x], rows[2][x]]);
        for (y, value) in column.into_iter().enumerate() {
            points[y][x] = value;
        }
    }
    points
}

/// Transforms a tile of gradients of the output, 2 rows of 4.
///
/// # Safety
/// As [`input`], for the places of the tile and the points.
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
        let mut rows = [[V::zero(); IN_X]; OUT_Y];
        for (y, row) in rows.iter_mut().enumerate() {
            let mut tile = [V::zero(); OUT_X];
            for (x, value) in tile.iter_mut().enumerate() {
                *value = V::load_ptr(from.add(y * row_stride + x * column_stride));
            }
            *row = gradient_x(tile);
        }
        for x in 0..IN_X {
            for (y, value) in gradient_y([rows[0][x], rows[1][x]]).into_iter().enumerate() {
                value.store_ptr(to.add((y * IN_X + x) * stride));
            }
        }
    }
}

/// Transforms summed products back to the gradient of 3 × 3 taps.
#[inline(always)]
pub(super) fn weights<V: Vector>(points: [[V; IN_X]; IN_Y]) -> [[V; 3]; 3] {
    // Written out: a closure that isn't inlined would be compiled without the instruction set.
    let rows = [weights_x(points[0]), weights_x(points[1]), weights_x(points[2]), weights_x(points[3])];
    let mut taps = [[V::zero(); 3]; 3];
    for x in 0..3 {
        let column = weights_y([rows[0][x], rows[1][x], rows[2][x], rows[3][x]]);
        for (y, value) in column.into_iter().enumerate() {
            taps[y][x] = value;
        }
    }
    taps
}
