//! Instruction sets, selected at run time, behind one trait.
//!
//! A kernel is written once, generic over a [`Simd`] token, and [`dispatch`] runs the copy compiled for the current
//! instruction set. Three rules make the results bitwise equal on all of them:
//! - every elementwise method of [`Vector`] is defined exactly (IEEE rounding, FMA, `min` and `max` of NaN);
//! - a reduction uses sixteen *virtual lanes* ([`Lanes16`]), however many registers these take, and one fixed tree;
//! - a long sum is a chain of FMAs in an order that doesn't depend on the size of a register tile.
//!
//! Everything here is `#[inline(always)]`: only the outermost function, inside [`dispatch`], has `#[target_feature]`, and a
//! call that isn't inlined would pass vectors through memory. So mark the `run` of a [`Kernel`] and all generic helpers that
//! it calls `#[inline(always)]`, and avoid closures in hot loops.

mod isa;
mod lanes;
pub mod math;
mod portable;
mod real;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub(crate) use isa::selected_or_detected;
pub use isa::{Isa, detected, selected};
pub use lanes::{Lanes16, dot, sum};
pub use portable::Portable;
pub use real::Real;
pub(crate) use transpose::{Column, gather, scatter, transpose};

use std::fmt::Debug;

/// A token that proves that the processor supports an instruction set. Only [`dispatch`] creates it.
pub trait Simd: Copy + Send + Sync + Debug + 'static {
    /// The instruction set of this token.
    const ISA: Isa;
    /// How many vector registers a register tile may use.
    const REGISTERS: usize;
    /// Whether kernels are compiled with tiles of several sizes and with loops specialised for each function, which takes
    /// compile time. The results are bitwise the same either way.
    const TILES: bool = true;
    /// Whether there are 32 registers. A branch on a constant of its own isn't compiled where it isn't taken; one on a
    /// comparison of constants is, and thrown away later.
    const WIDE: bool = Self::REGISTERS >= 32;
    /// The vector of `f32`.
    type F32: Vector<Elem = f32>;
    /// The vector of `f64`.
    type F64: Vector<Elem = f64>;
}

/// Prefetches the cache line of an address into the L2 cache; an invalid address has no effect. Hardware prefetchers follow
/// rows within a page; this is for rows of many channels, which are a page or more apart.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that never faults, and every x86-64 processor supports it.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// [`prefetch`] into the L1 cache.
#[inline(always)]
pub fn prefetch_near<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast())
    };
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// A SIMD register of numbers.
///
/// Vectors are only created inside a [`Kernel`] that [`dispatch`] runs, which guarantees that the instructions used by the
/// methods are available. Bitwise methods treat a lane as an unsigned integer of the same width.
pub trait Vector: Copy + Send + Sync + Debug + 'static {
    /// The number in a lane.
    type Elem: Real;
    /// Whether functions of vectors are called instead of inlined: faster to compile, slower to run.
    const CALLS: bool = false;
    /// The result of a comparison: a truth value for each lane.
    type Mask: Copy;
    /// As many vectors as hold sixteen numbers.
    type Sixteen: Copy + Debug + Send + Sync + AsRef<[Self]> + AsMut<[Self]>;
    /// How many numbers a register holds.
    const LANES: usize;

    /// This vector as often as sixteen numbers need.
    fn sixteen(self) -> Self::Sixteen;
    /// All lanes equal to `x`.
    fn splat(x: Self::Elem) -> Self;
    /// All lanes with these bits (the low 32 of them for `f32`).
    fn splat_bits(bits: u64) -> Self;
    /// Reads `LANES` numbers.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` numbers; it need not be aligned.
    unsafe fn load_ptr(from: *const Self::Elem) -> Self;
    /// Reads the first `count` lanes (at most `LANES`), and sets the others to zero.
    ///
    /// # Safety
    /// `from` is valid for reading `count` numbers.
    unsafe fn load_partial_ptr(from: *const Self::Elem, count: usize) -> Self;
    /// Writes `LANES` numbers.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` numbers; it need not be aligned.
    unsafe fn store_ptr(self, to: *mut Self::Elem);
    /// Writes the first `count` lanes (at most `LANES`).
    ///
    /// # Safety
    /// `to` is valid for writing `count` numbers.
    unsafe fn store_partial_ptr(self, to: *mut Self::Elem, count: usize);

    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`, correctly rounded
    fn div(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `term - self * factor`, rounded once
    fn neg_mul_add(self, factor: Self, term: Self) -> Self;
    /// The square root, correctly rounded
    fn sqrt(self) -> Self;
    /// The sign flipped, also that of a NaN
    fn neg(self) -> Self;
    /// The sign cleared
    fn abs(self) -> Self;
    /// `if self < other { self } else { other }`: the *second* operand if either is NaN, or if both are zero. So
    /// `limit.min(x)` propagates a NaN in `x`.
    fn min(self, other: Self) -> Self;
    /// `if self > other { self } else { other }`: the *second* operand if either is NaN, or if both are zero. So
    /// `zero.max(x)` is a ReLU that propagates NaN.
    fn max(self, other: Self) -> Self;
    /// The largest integer that isn't greater
    fn floor(self) -> Self;
    /// The nearest integer, ties to even
    fn round(self) -> Self;

    /// `self < other`; false for NaN
    fn lt(self, other: Self) -> Self::Mask;
    /// `self <= other`; false for NaN
    fn le(self, other: Self) -> Self::Mask;
    /// `self == other`; false for NaN
    fn eq(self, other: Self) -> Self::Mask;
    /// Lane by lane, `yes` where the mask is true, otherwise `no`
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// True where both masks are true
    fn mask_and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// True where either mask is true
    fn mask_or(a: Self::Mask, b: Self::Mask) -> Self::Mask;

    /// Bitwise and
    fn bit_and(self, other: Self) -> Self;
    /// Bitwise or
    fn bit_or(self, other: Self) -> Self;
    /// Bitwise exclusive or
    fn bit_xor(self, other: Self) -> Self;
    /// The bits added as integers, wrapping
    fn bits_add(self, other: Self) -> Self;
    /// The bits subtracted as integers, wrapping
    fn bits_sub(self, other: Self) -> Self;
    /// The bits shifted left by `count`; 0 if `count` is the width of a lane or more
    fn bits_shl(self, count: u32) -> Self;
    /// The bits shifted right by `count`, filled with zeros; 0 if `count` is the width of a lane or more
    fn bits_shr(self, count: u32) -> Self;

    /// The even lanes of both, those of `self` first.
    fn even(self, other: Self) -> Self;
    /// The odd lanes of both, those of `self` first.
    fn odd(self, other: Self) -> Self;
    /// The lanes of both interleaved, `self[0], other[0], self[1], ...`, as two vectors: the first half and the second half.
    fn interleave(self, other: Self) -> (Self, Self);

    /// Writes an 8 × 8 block transposed: `to[j * to_stride + i] = from[i * from_stride + j]`.
    ///
    /// # Safety
    /// All 64 elements of either matrix are readable or writable.
    #[inline(always)]
    unsafe fn transpose_8x8(from: *const Self::Elem, from_stride: usize, to: *mut Self::Elem, to_stride: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(j * to_stride + i) = *from.add(i * from_stride + j) };
            }
        }
    }

    /// All lanes zero.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(<Self::Elem as Real>::ZERO)
    }

    /// Reads the first `LANES` numbers of a slice; panics if it is shorter.
    #[inline(always)]
    fn load(from: &[Self::Elem]) -> Self {
        assert!(from.len() >= Self::LANES, "a vector is loaded from a shorter slice");
        // SAFETY: the slice is long enough, by the check above.
        unsafe { Self::load_ptr(from.as_ptr()) }
    }

    /// Reads a slice of at most `LANES` numbers (the first `LANES` of a longer one); the remaining lanes are zero.
    #[inline(always)]
    fn load_partial(from: &[Self::Elem]) -> Self {
        // SAFETY: the count is at most the slice's length and at most `LANES`.
        unsafe { Self::load_partial_ptr(from.as_ptr(), from.len().min(Self::LANES)) }
    }

    /// Writes to the first `LANES` numbers of a slice; panics if it is shorter.
    #[inline(always)]
    fn store(self, to: &mut [Self::Elem]) {
        assert!(to.len() >= Self::LANES, "a vector is stored to a shorter slice");
        // SAFETY: the slice is long enough, by the check above.
        unsafe { self.store_ptr(to.as_mut_ptr()) }
    }

    /// Writes as many lanes as the slice is long, at most `LANES` of them.
    #[inline(always)]
    fn store_partial(self, to: &mut [Self::Elem]) {
        // SAFETY: the count is at most the slice's length and at most `LANES`.
        unsafe { self.store_partial_ptr(to.as_mut_ptr(), to.len().min(Self::LANES)) }
    }
}

/// `N` vectors, each from its index. [`std::array::from_fn`] and `map` of arrays may not be inlined; they are then compiled
/// without the target features, and every intrinsic in them becomes a call.
#[inline(always)]
pub fn vectors<V: Vector, const N: usize>(make: impl Fn(usize) -> V) -> [V; N] {
    let mut vectors = [V::zero(); N];
    for (i, vector) in vectors.iter_mut().enumerate() {
        *vector = make(i);
    }
    vectors
}

/// A computation that is written once for all instruction sets.
pub trait Kernel {
    /// The type of the result.
    type Output;
    /// The kernel's body. Mark every implementation `#[inline(always)]`: it is compiled once for each instruction set, inside
    /// a function with its target features.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the instruction set of the current thread's [settings](crate::parallel::Settings), otherwise with the
/// one [selected] for the process. This costs a thread-local read and a branch: call it once for each chunk, inside
/// [`parallel_for`](crate::parallel::parallel_for), not for each row.
#[inline]
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match crate::parallel::current_isa() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `current_isa` returns only instruction sets that were detected on this processor.
        Isa::Avx512 => unsafe { kernel.run_avx512() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { kernel.run_avx2() },
        _ => kernel.run_portable(),
    }
}

/// The copies of a kernel. They are methods of the kernel's type, because the compiler places a method beside its type: as
/// functions of this module they would all be compiled one after the other, by a single thread.
trait Copies: Kernel + Sized {
    /// Runs the copy in plain Rust. Not inlined, so that there is one copy however often [`dispatch`] is inlined.
    #[inline(never)]
    fn run_portable(self) -> Self::Output {
        self.run(Portable::new())
    }

    /// Runs the copy for AVX2.
    ///
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_avx2(self) -> Self::Output;

    /// Runs the copy for AVX-512.
    ///
    /// # Safety
    /// The processor has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_avx512(self) -> Self::Output;
}

impl<K: Kernel> Copies for K {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn run_avx2(self) -> Self::Output {
        self.run(x86::Avx2::new())
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn run_avx512(self) -> Self::Output {
        self.run(x86::Avx512::new())
    }
}
