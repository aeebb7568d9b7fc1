//! AVX-512 vectors.

use core::arch::x86_64::*;

use super::{
    avx2::{transpose_8x8_f32, transpose_8x8_f64},
    is_called, methods,
};
use crate::simd::Vector;

/// Sixteen `f32` in an AVX-512 register.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F32x16(__m512);

/// Eight `f64` in an AVX-512 register.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct F64x8(__m512d);

macro_rules! avx512 {
    (
        $vector:ident,
        elem: $elem:ident,
        bits: $bits:ident,
        lanes: $lanes:expr,
        mask: $mask:ident,
        maskz_loadu: $maskz_loadu:ident,
        mask_storeu: $mask_storeu:ident,
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
        roundscale: $roundscale:ident,
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
            is_called(stringify!($maskz_loadu), "maskz_loadu");
            is_called(stringify!($mask_storeu), "mask_storeu");
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
            is_called(stringify!($roundscale), "_roundscale_");
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
            type Mask = $mask;
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
                floor(self: Self) -> Self
                    = $vector($roundscale::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0));
                round(self: Self) -> Self
                    = $vector($roundscale::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
                lt(self: Self, other: Self) -> $mask = $cmp::<_CMP_LT_OQ>(self.0, other.0);
                le(self: Self, other: Self) -> $mask = $cmp::<_CMP_LE_OQ>(self.0, other.0);
                eq(self: Self, other: Self) -> $mask = $cmp::<_CMP_EQ_OQ>(self.0, other.0);
                select(mask: $mask, yes: Self, no: Self) -> Self = $vector($blend(mask, no.0, yes.0));
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
            fn mask_and(a: $mask, b: $mask) -> $mask {
                a & b
            }
            #[inline(always)]
            fn mask_or(a: $mask, b: $mask) -> $mask {
                a | b
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
                // SAFETY: masked-out lanes, from `count` on, aren't read.
                unsafe { $vector($maskz_loadu(first_lanes(count) as $mask, from)) }
            }
            #[inline(always)]
            unsafe fn store_ptr(self, to: *mut $elem) {
                // SAFETY: the caller's promise.
                unsafe { $storeu(to, self.0) }
            }
            #[inline(always)]
            unsafe fn store_partial_ptr(self, to: *mut $elem, count: usize) {
                // SAFETY: masked-out lanes, from `count` on, aren't written.
                unsafe { $mask_storeu(to, first_lanes(count) as $mask, self.0) }
            }
        }
    };
}

/// A mask of the first `count` lanes, at most sixteen.
#[inline(always)]
fn first_lanes(count: usize) -> u32 {
    (1u32 << count.min(16)) - 1
}

avx512!(
    F32x16,
    elem: f32,
    bits: i32,
    lanes: 16,
    mask: __mmask16,
    maskz_loadu: _mm512_maskz_loadu_ps,
    mask_storeu: _mm512_mask_storeu_ps,
    set1: _mm512_set1_ps,
    set1_bits: _mm512_set1_epi32,
    to_int: _mm512_castps_si512,
    from_int: _mm512_castsi512_ps,
    loadu: _mm512_loadu_ps,
    storeu: _mm512_storeu_ps,
    add: _mm512_add_ps,
    sub: _mm512_sub_ps,
    mul: _mm512_mul_ps,
    div: _mm512_div_ps,
    fmadd: _mm512_fmadd_ps,
    fnmadd: _mm512_fnmadd_ps,
    sqrt: _mm512_sqrt_ps,
    min: _mm512_min_ps,
    max: _mm512_max_ps,
    roundscale: _mm512_roundscale_ps,
    cmp: _mm512_cmp_ps_mask,
    blend: _mm512_mask_blend_ps,
    and: _mm512_and_ps,
    andnot: _mm512_andnot_ps,
    or: _mm512_or_ps,
    xor: _mm512_xor_ps,
    iadd: _mm512_add_epi32,
    isub: _mm512_sub_epi32,
    shl: _mm512_sllv_epi32,
    shr: _mm512_srlv_epi32,
    transpose: transpose_8x8_f32,
    even: even_f32x16,
    odd: odd_f32x16,
    interleave: interleave_f32x16
);
avx512!(
    F64x8,
    elem: f64,
    bits: i64,
    lanes: 8,
    mask: __mmask8,
    maskz_loadu: _mm512_maskz_loadu_pd,
    mask_storeu: _mm512_mask_storeu_pd,
    set1: _mm512_set1_pd,
    set1_bits: _mm512_set1_epi64,
    to_int: _mm512_castpd_si512,
    from_int: _mm512_castsi512_pd,
    loadu: _mm512_loadu_pd,
    storeu: _mm512_storeu_pd,
    add: _mm512_add_pd,
    sub: _mm512_sub_pd,
    mul: _mm512_mul_pd,
    div: _mm512_div_pd,
    fmadd: _mm512_fmadd_pd,
    fnmadd: _mm512_fnmadd_pd,
    sqrt: _mm512_sqrt_pd,
    min: _mm512_min_pd,
    max: _mm512_max_pd,
    roundscale: _mm512_roundscale_pd,
    cmp: _mm512_cmp_pd_mask,
    blend: _mm512_mask_blend_pd,
    and: _mm512_and_pd,
    andnot: _mm512_andnot_pd,
    or: _mm512_or_pd,
    xor: _mm512_xor_pd,
    iadd: _mm512_add_epi64,
    isub: _mm512_sub_epi64,
    shl: _mm512_sllv_epi64,
    shr: _mm512_srlv_epi64,
    transpose: transpose_8x8_f64,
    even: even_f64x8,
    odd: odd_f64x8,
    interleave: interleave_f64x8
);

/// The even lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn even_f32x16(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let places = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        _mm512_permutex2var_ps(a, places, b)
    }
}

/// The even lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn even_f64x8(a: __m512d, b: __m512d) -> __m512d {
    // SAFETY: the caller's promise.
    unsafe { _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b) }
}

/// The odd lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn odd_f32x16(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe {
        let places = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        _mm512_permutex2var_ps(a, places, b)
    }
}

/// The odd lanes of two vectors, concatenated.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn odd_f64x8(a: __m512d, b: __m512d) -> __m512d {
    // SAFETY: the caller's promise.
    unsafe { _mm512_permutex2var_pd(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b) }
}

/// The lanes of two vectors, interleaved.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn interleave_f32x16(a: __m512, b: __m512) -> (__m512, __m512) {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
    }
}

/// The lanes of two vectors, interleaved.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn interleave_f64x8(a: __m512d, b: __m512d) -> (__m512d, __m512d) {
    // SAFETY: the caller's promise.
    unsafe {
        let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let second = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
        (_mm512_permutex2var_pd(a, first, b), _mm512_permutex2var_pd(a, second, b))
    }
}
