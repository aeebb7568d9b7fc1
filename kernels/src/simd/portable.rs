//! Vectors in plain Rust: arrays, and the standard library's arithmetic.
//!
//! They have the sizes of AVX2 vectors, so that tile shapes chosen for AVX2 suit them too. Without hardware FMA, `mul_add`
//! calls the math library: this is for correctness, and for platforms without a tuned implementation.
//!
//! x86-64 processors of the last ten years have AVX2, so on x86-64 a vector has a single lane and there is only one size of
//! each register tile: it is the copy of each kernel that compiles fastest.

use super::{Isa, Real, Simd, Vector};

/// The token of plain Rust vectors.
#[derive(Clone, Copy, Debug)]
pub struct Portable(());

impl Portable {
    pub(super) fn new() -> Self {
        Portable(())
    }
}

impl Simd for Portable {
    const ISA: Isa = Isa::Portable;
    const REGISTERS: usize = 16;
    const TILES: bool = !cfg!(target_arch = "x86_64");
    type F32 = Array<f32, F32_LANES>;
    type F64 = Array<f64, F64_LANES>;
}

const F32_LANES: usize = if cfg!(target_arch = "x86_64") { 1 } else { 8 };
const F64_LANES: usize = if cfg!(target_arch = "x86_64") { 1 } else { 4 };

/// A vector stored as an array.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Array<T, const N: usize>([T; N]);

// Loops over indices, because each closure passed to `std::array::from_fn` is compiled through many small functions.
impl<T: Real, const N: usize> Array<T, N> {
    #[inline(always)]
    fn map(mut self, f: impl Fn(T) -> T) -> Self {
        for lane in 0..N {
            self.0[lane] = f(self.0[lane]);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        for lane in 0..N {
            self.0[lane] = f(self.0[lane], other.0[lane]);
        }
        self
    }

    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(&T, &T) -> bool) -> [bool; N] {
        let mut mask = [false; N];
        for (lane, mask) in mask.iter_mut().enumerate() {
            *mask = f(&self.0[lane], &other.0[lane]);
        }
        mask
    }

    /// The lane of `self` and `other` side by side.
    #[inline(always)]
    fn lane_of_both(self, other: Self, lane: usize) -> T {
        if lane < N { self.0[lane] } else { other.0[lane - N] }
    }
}

macro_rules! portable {
    ($t:ident, $bits:ident, $lanes:expr) => {
        impl Vector for Array<$t, $lanes> {
            type Elem = $t;
            type Mask = [bool; $lanes];
            type Sixteen = [Self; 16 / $lanes];
            const LANES: usize = $lanes;
            const CALLS: bool = cfg!(target_arch = "x86_64");

            #[inline(always)]
            fn sixteen(self) -> Self::Sixteen {
                [self; 16 / $lanes]
            }
            #[inline(always)]
            fn splat(x: $t) -> Self {
                Array([x; $lanes])
            }
            #[inline(always)]
            fn splat_bits(bits: u64) -> Self {
                Array([$t::from_bits(bits as $bits); $lanes])
            }
            #[inline(always)]
            unsafe fn load_ptr(from: *const $t) -> Self {
                // SAFETY: the caller's promise; `read_unaligned` accepts any alignment.
                unsafe { from.cast::<Self>().read_unaligned() }
            }
            #[inline(always)]
            unsafe fn load_partial_ptr(from: *const $t, count: usize) -> Self {
                let mut lanes = [0.0; $lanes];
                for (lane, slot) in lanes.iter_mut().enumerate().take(count) {
                    // SAFETY: `lane` is below `count`, for which the caller's promise holds.
                    *slot = unsafe { from.add(lane).read_unaligned() };
                }
                Array(lanes)
            }
            #[inline(always)]
            fn even(self, other: Self) -> Self {
                let mut even = self;
                for lane in 0..$lanes {
                    even.0[lane] = self.lane_of_both(other, 2 * lane);
                }
                even
            }
            #[inline(always)]
            fn odd(self, other: Self) -> Self {
                let mut odd = self;
                for lane in 0..$lanes {
                    odd.0[lane] = self.lane_of_both(other, 2 * lane + 1);
                }
                odd
            }
            #[inline(always)]
            fn interleave(self, other: Self) -> (Self, Self) {
                let (mut first, mut second) = (self, other);
                for lane in 0..$lanes {
                    let from = |i: usize| if i % 2 == 0 { self.0[i / 2] } else { other.0[i / 2] };
                    (first.0[lane], second.0[lane]) = (from(lane), from(lane + $lanes));
                }
                (first, second)
            }
            #[inline(always)]
            unsafe fn store_ptr(self, to: *mut $t) {
                // SAFETY: the caller's promise.
                unsafe { to.cast::<Self>().write_unaligned(self) }
            }
            #[inline(always)]
            unsafe fn store_partial_ptr(self, to: *mut $t, count: usize) {
                for (lane, value) in self.0.into_iter().enumerate().take(count) {
                    // SAFETY: `lane` is below `count`, for which the caller's promise holds.
                    unsafe { to.add(lane).write_unaligned(value) };
                }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.zip(other, |a, b| a - b)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.zip(other, |a, b| a * b)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self.zip(other, |a, b| a / b)
            }
            #[inline(always)]
            fn mul_add(mut self, factor: Self, term: Self) -> Self {
                for lane in 0..$lanes {
                    self.0[lane] = self.0[lane].mul_add(factor.0[lane], term.0[lane]);
                }
                self
            }
            #[inline(always)]
            fn neg_mul_add(self, factor: Self, term: Self) -> Self {
                self.neg().mul_add(factor, term)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.map($t::sqrt)
            }
            #[inline(always)]
            fn neg(self) -> Self {
                self.map(|x| -x)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.map($t::abs)
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                self.zip(other, |a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn floor(self) -> Self {
                self.map($t::floor)
            }
            #[inline(always)]
            fn round(self) -> Self {
                self.map($t::round_ties_even)
            }
            #[inline(always)]
            fn lt(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a < b)
            }
            #[inline(always)]
            fn le(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a <= b)
            }
            #[inline(always)]
            fn eq(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a == b)
            }
            #[inline(always)]
            fn select(mask: Self::Mask, yes: Self, mut no: Self) -> Self {
                for lane in 0..$lanes {
                    if mask[lane] {
                        no.0[lane] = yes.0[lane];
                    }
                }
                no
            }
            #[inline(always)]
            fn mask_and(mut a: Self::Mask, b: Self::Mask) -> Self::Mask {
                for lane in 0..$lanes {
                    a[lane] &= b[lane];
                }
                a
            }
            #[inline(always)]
            fn mask_or(mut a: Self::Mask, b: Self::Mask) -> Self::Mask {
                for lane in 0..$lanes {
                    a[lane] |= b[lane];
                }
                a
            }
            #[inline(always)]
            fn bit_and(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() & b.to_bits()))
            }
            #[inline(always)]
            fn bit_or(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() | b.to_bits()))
            }
            #[inline(always)]
            fn bit_xor(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() ^ b.to_bits()))
            }
            #[inline(always)]
            fn bits_add(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits().wrapping_add(b.to_bits())))
            }
            #[inline(always)]
            fn bits_sub(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits().wrapping_sub(b.to_bits())))
            }
            #[inline(always)]
            fn bits_shl(self, count: u32) -> Self {
                self.map(|a| $t::from_bits(a.to_bits().checked_shl(count).unwrap_or(0)))
            }
            #[inline(always)]
            fn bits_shr(self, count: u32) -> Self {
                self.map(|a| $t::from_bits(a.to_bits().checked_shr(count).unwrap_or(0)))
            }
        }
    };
}

portable!(f32, u32, F32_LANES);
portable!(f64, u64, F64_LANES);
