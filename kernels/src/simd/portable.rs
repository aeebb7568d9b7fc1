//! Vectors in plain Rust: arrays, and the standard library's arithmetic.
//!
//! They have the sizes of AVX2 vectors, so that tile shapes chosen for AVX2 suit them too. Without hardware FMA, `mul_add`
//! calls the math library: this is for correctness, and for platforms without a tuned implementation.
//!
//! x86-64 processors of the last ten years have AVX2, so on x86-64 the arithmetic here isn't inlined and there is only one
//! size of each register tile: inlining them into every kernel took nearly half of the compile time.

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
    type F32 = Array<f32, 8>;
    type F64 = Array<f64, 4>;
}

/// A vector stored as an array.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Array<T, const N: usize>([T; N]);

impl<T: Real, const N: usize> Array<T, N> {
    #[inline(always)]
    fn map(self, f: impl Fn(T) -> T) -> Self {
        Array(self.0.map(f))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(T, T) -> T) -> Self {
        Array(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn compare(self, other: Self, f: impl Fn(&T, &T) -> bool) -> [bool; N] {
        std::array::from_fn(|lane| f(&self.0[lane], &other.0[lane]))
    }
}

macro_rules! portable {
    ($t:ident, $bits:ident, $lanes:expr) => {
        impl Vector for Array<$t, $lanes> {
            type Elem = $t;
            type Mask = [bool; $lanes];
            const LANES: usize = $lanes;
            const CALLS: bool = cfg!(target_arch = "x86_64");

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
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn even(self, other: Self) -> Self {
                let half = $lanes / 2;
                Array(std::array::from_fn(|i| if i < half { self.0[2 * i] } else { other.0[2 * (i - half)] }))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn odd(self, other: Self) -> Self {
                let half = $lanes / 2;
                Array(std::array::from_fn(|i| if i < half { self.0[2 * i + 1] } else { other.0[2 * (i - half) + 1] }))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn interleave(self, other: Self) -> (Self, Self) {
                let at = |i: usize| if i % 2 == 0 { self.0[i / 2] } else { other.0[i / 2] };
                (Array(std::array::from_fn(at)), Array(std::array::from_fn(|i| at(i + $lanes))))
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
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn add(self, other: Self) -> Self {
                self.zip(other, |a, b| a + b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn sub(self, other: Self) -> Self {
                self.zip(other, |a, b| a - b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn mul(self, other: Self) -> Self {
                self.zip(other, |a, b| a * b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn div(self, other: Self) -> Self {
                self.zip(other, |a, b| a / b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn mul_add(self, factor: Self, term: Self) -> Self {
                Array(std::array::from_fn(|lane| self.0[lane].mul_add(factor.0[lane], term.0[lane])))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn neg_mul_add(self, factor: Self, term: Self) -> Self {
                self.neg().mul_add(factor, term)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn sqrt(self) -> Self {
                self.map($t::sqrt)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn neg(self) -> Self {
                self.map(|x| -x)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn abs(self) -> Self {
                self.map($t::abs)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn min(self, other: Self) -> Self {
                self.zip(other, |a, b| if a < b { a } else { b })
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if a > b { a } else { b })
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn floor(self) -> Self {
                self.map($t::floor)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn round(self) -> Self {
                self.map($t::round_ties_even)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn lt(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a < b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn le(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a <= b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn eq(self, other: Self) -> Self::Mask {
                self.compare(other, |a, b| a == b)
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
                Array(std::array::from_fn(|lane| if mask[lane] { yes.0[lane] } else { no.0[lane] }))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                std::array::from_fn(|lane| a[lane] & b[lane])
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask {
                std::array::from_fn(|lane| a[lane] | b[lane])
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bit_and(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() & b.to_bits()))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bit_or(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() | b.to_bits()))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bit_xor(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits() ^ b.to_bits()))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bits_add(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits().wrapping_add(b.to_bits())))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bits_sub(self, other: Self) -> Self {
                self.zip(other, |a, b| $t::from_bits(a.to_bits().wrapping_sub(b.to_bits())))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bits_shl(self, count: u32) -> Self {
                self.map(|a| $t::from_bits(a.to_bits().checked_shl(count).unwrap_or(0)))
            }
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn bits_shr(self, count: u32) -> Self {
                self.map(|a| $t::from_bits(a.to_bits().checked_shr(count).unwrap_or(0)))
            }
        }
    };
}

portable!(f32, u32, 8);
portable!(f64, u64, 4);
