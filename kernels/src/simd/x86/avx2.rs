//! AVX2 vectors.

use core::arch::x86_64::*;

use super::{is_called, methods};
use crate::simd::Vector;

/// Eight `f32` in an AVX2 register.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32x8(__m256);

/// Four `f64` in an AVX2 register.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F64x4(__m256d);

/// Masks of partial loads and stores: the eight elements from index `8 - count` are a mask of the first `count` lanes.
static WINDOW32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
/// The same for 64-bit lanes, from index `4 - count`.
static WINDOW64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

macro_rules! avx2 {
    (
        $vector:ident,
        elem: $elem:ident,
        bits: $bits:ident,
        lanes: $lanes:expr,
        window: $window:ident,
        reg: $reg:ident,
        maskload: $maskload:ident,
        maskstore: $maskstore:ident,
        set1: $set1:ident,
        set1_bits: $set1_bits:ident,
        to_int: $to_int:ident,
        from_int: $from_int:ident,
        loadu: $loadu:ident,
        storeu: $storeu:ident,
        add: $add:ident,
        sub: $sub:ident,
        mul: $mul:ident,
        div: $div:ident,
        fmadd: $fmadd:ident,
        fnmadd: $fnmadd:ident,
        sqrt: $sqrt:ident,
        min: $min:ident,
        max: $max:ident,
        floor: $floor:ident,
        round: $round:ident,
        cmp: $cmp:ident,
        blend: $blend:ident,
        and: $and:ident,
        andnot: $andnot:ident,
        or: $or:ident,
        xor: $xor:ident,
        iadd: $iadd:ident,
        isub: $isub:ident,
        shl: $shl:ident,
        shr: $shr:ident,
        transpose: $transpose:ident,
        even: $even:ident,
        odd: $odd:ident,
        interleave: $interleave:ident
    ) => {
        // A label that doesn't match the name of its intrinsic is a compile-time error.
        const _: () = {
            is_called(stringify!($maskload), "maskload");
            is_called(stringify!($maskstore), "maskstore");
            is_called(stringify!($set1), "set1_p");
            is_called(stringify!($set1_bits), "set1_epi");
            is_called(stringify!($loadu), "_loadu_");
            is_called(stringify!($storeu), "_storeu_");
            is_called(stringify!($add), "_add_p");
            is_called(stringify!($sub), "_sub_p");
            is_called(stringify!($mul), "_mul_");
            is_called(stringify!($div), "_div_");
            is_called(stringify!($fmadd), "_fmadd_");
            is_called(stringify!($fnmadd), "_fnmadd_");
            is_called(stringify!($sqrt), "_sqrt_");
            is_called(stringify!($min), "_min_");
            is_called(stringify!($max), "_max_");
            is_called(stringify!($floor), "_floor_");
            is_called(stringify!($round), "_round_");
            is_called(stringify!($cmp), "_cmp_");
            is_called(stringify!($blend), "_blend");
            is_called(stringify!($and), "_and_");
            is_called(stringify!($andnot), "_andnot_");
            is_called(stringify!($or), "_or_");
            is_called(stringify!($xor), "_xor_");
            is_called(stringify!($iadd), "_add_epi");
            is_called(stringify!($isub), "_sub_epi");
            is_called(stringify!($shl), "_sllv_");
            is_called(stringify!($shr), "_srlv_");
            is_called(stringify!($transpose), "transpose");
            is_called(stringify!($even), "even");
            is_called(stringify!($odd), "odd");
            is_called(stringify!($interleave), "interleave");
        };
        impl Vector for $vector {
            type Elem = $elem;
            type Mask = $reg;
            type Sixteen = [Self; 16 / $lanes];
            const LANES: usize = $lanes;

            #[inline(always)]
            fn sixteen(self) -> Self::Sixteen {
                [self; 16 / $lanes]
            }

            methods! {
                splat(x: $elem) -> Self = $vector($set1(x));
                splat_bits(bits: u64) -> Self = $vector($from_int($set1_bits(bits as $bits)));
                add(self: Self, other: Self) -> Self = $vector($add(self.0, other.0));
                sub(self: Self, other: Self) -> Self = $vector($sub(self.0, other.0));
                mul(self: Self, other: Self) -> Self = $vector($mul(self.0, other.0));
                div(self: Self, other: Self) -> Self = $vector($div(self.0, other.0));
                mul_add(self: Self, factor: Self, term: Self) -> Self = $vector($fmadd(self.0, factor.0, term.0));
                neg_mul_add(self: Self, factor: Self, term: Self) -> Self = $vector($fnmadd(self.0, factor.0, term.0));
                sqrt(self: Self) -> Self = $vector($sqrt(self.0));
                neg(self: Self) -> Self = $vector($xor(self.0, $set1(-0.0)));
                abs(self: Self) -> Self = $vector($andnot($set1(-0.0), self.0));
                min(self: Self, other: Self) -> Self = $vector($min(self.0, other.0));
                max(self: Self, other: Self) -> Self = $vector($max(self.0, other.0));
                floor(self: Self) -> Self = $vector($floor(self.0));
                round(self: Self) -> Self
                    = $vector($round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
                lt(self: Self, other: Self) -> $reg = $cmp::<_CMP_LT_OQ>(self.0, other.0);
                le(self: Self, other: Self) -> $reg = $cmp::<_CMP_LE_OQ>(self.0, other.0);
                eq(self: Self, other: Self) -> $reg = $cmp::<_CMP_EQ_OQ>(self.0, other.0);
                select(mask: $reg, yes: Self, no: Self) -> Self = $vector($blend(no.0, yes.0, mask));
                mask_and(a: $reg, b: $reg) -> $reg = $and(a, b);
                mask_or(a: $reg, b: $reg) -> $reg = $or(a, b);
                bit_and(self: Self, other: Self) -> Self = $vector($and(self.0, other.0));
                bit_or(self: Self, other: Self) -> Self = $vector($or(self.0, other.0));
                bit_xor(self: Self, other: Self) -> Self = $vector($xor(self.0, other.0));
                bits_add(self: Self, other: Self) -> Self = $vector($from_int($iadd($to_int(self.0), $to_int(other.0))));
                bits_sub(self: Self, other: Self) -> Self = $vector($from_int($isub($to_int(self.0), $to_int(other.0))));
                bits_shl(self: Self, count: u32) -> Self
                    = $vector($from_int($shl($to_int(self.0), $set1_bits(count as $bits))));
                even(self: Self, other: Self) -> Self = $vector($even(self.0, other.0));
                odd(self: Self, other: Self) -> Self = $vector($odd(self.0, other.0));
                interleave(self: Self, other: Self) -> (Self, Self) = {
                    let (first, second) = $interleave(self.0, other.0);
                    ($vector(first), $vector(second))
                };
                bits_shr(self: Self, count: u32) -> Self
                    = $vector($from_int($shr($to_int(self.0), $set1_bits(count as $bits))));
            }

            #[inline(always)]
            unsafe fn transpose_8x8(from: *const $elem, from_stride: usize, to: *mut $elem, to_stride: usize) {
                // SAFETY: the caller's promise; the instructions are available, as for the methods above.
                unsafe { $transpose(from, from_stride, to, to_stride) }
            }
            #[inline(always)]
            unsafe fn load_ptr(from: *const $elem) -> Self {
                // SAFETY: the caller's promise; the instructions are available, as for the methods above.
                unsafe { $vector($loadu(from)) }
            }
            #[inline(always)]
            unsafe fn load_partial_ptr(from: *const $elem, count: usize) -> Self {
                // SAFETY: the mask lies inside the table for any count; masked-out lanes aren't read.
                unsafe {
                    let window = $window.as_ptr().add($lanes - count.min($lanes));
                    $vector($maskload(from, _mm256_loadu_si256(window.cast())))
                }
            }
            #[inline(always)]
            unsafe fn store_ptr(self, to: *mut $elem) {
                // SAFETY: the caller's promise.
                unsafe { $storeu(to, self.0) }
            }
            #[inline(always)]
            unsafe fn store_partial_ptr(self, to: *mut $elem, count: usize) {
                // SAFETY: the mask lies inside the table for any count; masked-out lanes aren't written.
                unsafe {
                    let window = $window.as_ptr().add($lanes - count.min($lanes));
                    $maskstore(to, _mm256_loadu_si256(window.cast()), self.0)
                }
            }
        }
    };
}

avx2!(
    F32x8,
    elem: f32,
    bits: i32,
    lanes: 8,
    window: WINDOW32,
    reg: __m256,
    maskload: _mm256_maskload_ps,
    maskstore: _mm256_maskstore_ps,
    set1: _mm256_set1_ps,
    set1_bits: _mm256_set1_epi32,
    to_int: _mm256_castps_si256,
    from_int: _mm256_castsi256_ps,
    loadu: _mm256_loadu_ps,
    storeu: _mm256_storeu_ps,
    add: _mm256_add_ps,
    sub: _mm256_sub_ps,
    mul: _mm256_mul_ps,
    div: _mm256_div_ps,
    fmadd: _mm256_fmadd_ps,
    fnmadd: _mm256_fnmadd_ps,
    sqrt: _mm256_sqrt_ps,
    min: _mm256_min_ps,
    max: _mm256_max_ps,
    floor: _mm256_floor_ps,
    round: _mm256_round_ps,
    cmp: _mm256_cmp_ps,
    blend: _mm256_blendv_ps,
    and: _mm256_and_ps,
    andnot: _mm256_andnot_ps,
    or: _mm256_or_ps,
    xor: _mm256_xor_ps,
    iadd: _mm256_add_epi32,
    isub: _mm256_sub_epi32,
    shl: _mm256_sllv_epi32,
    shr: _mm256_srlv_epi32,
    transpose: transpose_8x8_f32,
    even: even_f32x8,
    odd: odd_f32x8,
    interleave: interleave_f32x8
);
avx2!(
    F64x4,
    elem: f64,
    bits: i64,
    lanes: 4,
    window: WINDOW64,
    reg: __m256d,
    maskload: _mm256_maskload_pd,
    maskstore: _mm256_maskstore_pd,
    set1: _mm256_set1_pd,
    set1_bits: _mm256_set1_epi64x,
    to_int: _mm256_castpd_si256,
    from_int: _mm256_castsi256_pd,
    loadu: _mm256_loadu_pd,
    storeu: _mm256_storeu_pd,
    add: _mm256_add_pd,
    sub: _mm256_sub_pd,
    mul: _mm256_mul_pd,
    div: _mm256_div_pd,
    fmadd: _mm256_fmadd_pd,
    fnmadd: _mm256_fnmadd_pd,
    sqrt: _mm256_sqrt_pd,
    min: _mm256_min_pd,
    max: _mm256_max_pd,
    floor: _mm256_floor_pd,
    round: _mm256_round_pd,
    cmp: _mm256_cmp_pd,
    blend: _mm256_blendv_pd,
    and: _mm256_and_pd,
    andnot: _mm256_andnot_pd,
    or: _mm256_or_pd,
    xor: _mm256_xor_pd,
    iadd: _mm256_add_epi64,
    isub: _mm256_sub_epi64,
    shl: _mm256_sllv_epi64,
    shr: _mm256_srlv_epi64,
    transpose: transpose_8x8_f64,
    even: even_f64x4,
    odd: odd_f64x4,
    interleave: interleave_f64x4
);

/// [`Vector::transpose_8x8`] with AVX2, used by AVX-512 too.
///
/// # Safety
/// As for [`Vector::transpose_8x8`], and the processor has AVX2.
#[inline(always)]
pub(super) unsafe fn transpose_8x8_f32(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        // Loads half rows i and i + 4 into one register, so that the shuffles below stay within 128-bit lanes.
        let pair = |i: usize, half: usize| {
            let low = _mm_loadu_ps(from.add(i * from_stride + half));
            let high = _mm_loadu_ps(from.add((i + 4) * from_stride + half));
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(low), high)
        };
        for half in [0, 4] {
            let (a, b, c, d) = (pair(0, half), pair(1, half), pair(2, half), pair(3, half));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let to = to.add(half * to_stride);
            _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(to_stride), _mm256_shuffle_ps::<0xee>(ab_low, cd_low));
            _mm256_storeu_ps(to.add(2 * to_stride), _mm256_shuffle_ps::<0x44>(ab_high, cd_high));
            _mm256_storeu_ps(to.add(3 * to_stride), _mm256_shuffle_ps::<0xee>(ab_high, cd_high));
        }
    }
}

/// [`Vector::transpose_8x8`] with AVX2, used by AVX-512 too.
///
/// # Safety
/// As for [`Vector::transpose_8x8`], and the processor has AVX2.
#[inline(always)]
pub(super) unsafe fn transpose_8x8_f64(from: *const f64, from_stride: usize, to: *mut f64, to_stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for i in [0, 4] {
            for j in [0, 4] {
                let pair = |row: usize, half: usize| {
                    let low = _mm_loadu_pd(from.add((i + row) * from_stride + j + half));
                    let high = _mm_loadu_pd(from.add((i + row + 2) * from_stride + j + half));
                    _mm256_insertf128_pd::<1>(_mm256_castpd128_pd256(low), high)
                };
                for half in [0, 2] {
                    let (a, b) = (pair(0, half), pair(1, half));
                    let to = to.add((j + half) * to_stride + i);
                    _mm256_storeu_pd(to, _mm256_unpacklo_pd(a, b));
                    _mm256_storeu_pd(to.add(to_stride), _mm256_unpackhi_pd(a, b));
                }
            }
        }
    }
}

/// The even lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn even_f32x8(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(_mm256_shuffle_ps::<0x88>(a, b)))) }
}

/// The odd lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn odd_f32x8(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(a, b)))) }
}

/// [`even_f32x8`] for `f64`.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn even_f64x4(a: __m256d, b: __m256d) -> __m256d {
    // SAFETY: the caller's promise.
    unsafe { _mm256_permute4x64_pd::<0xd8>(_mm256_unpacklo_pd(a, b)) }
}

/// [`odd_f32x8`] for `f64`.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn odd_f64x4(a: __m256d, b: __m256d) -> __m256d {
    // SAFETY: the caller's promise.
    unsafe { _mm256_permute4x64_pd::<0xd8>(_mm256_unpackhi_pd(a, b)) }
}

/// The lanes of two vectors, interleaved.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn interleave_f32x8(a: __m256, b: __m256) -> (__m256, __m256) {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    }
}

/// [`interleave_f32x8`] for `f64`.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn interleave_f64x4(a: __m256d, b: __m256d) -> (__m256d, __m256d) {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        (_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high))
    }
}
