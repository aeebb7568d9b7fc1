//! AVX2 with FMA, and AVX-512.

mod avx2;
mod avx512;

pub use avx2::{F32x8, F64x4};
pub use avx512::{F32x16, F64x8};

use super::{Isa, Simd};

/// The token of AVX2 with FMA.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// The token of AVX-512 (F, BW, DQ, VL).
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Simd for Avx2 {
    const ISA: Isa = Isa::Avx2;
    const REGISTERS: usize = 16;
    type F32 = F32x8;
    type F64 = F64x4;
}

impl Simd for Avx512 {
    const ISA: Isa = Isa::Avx512;
    const REGISTERS: usize = 32;
    type F32 = F32x16;
    type F64 = F64x8;
}

impl Avx2 {
    pub(super) fn new() -> Self {
        Avx2(())
    }
}

impl Avx512 {
    pub(super) fn new() -> Self {
        Avx512(())
    }
}

/// Defines methods whose body is one expression of intrinsics.
macro_rules! methods {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($($arg: $ty),*) -> $out {
            // SAFETY: a vector exists only inside a kernel that `dispatch` runs on a processor with these instructions.
            unsafe { $body }
        }
    )*};
}
use methods;

/// Checks at compile time that an intrinsic's name contains `part`.
const fn is_called(intrinsic: &str, part: &str) {
    let (name, part) = (intrinsic.as_bytes(), part.as_bytes());
    let mut start = 0;
    while start + part.len() <= name.len() {
        let mut same = 0;
        while same < part.len() && name[start + same] == part[same] {
            same += 1;
        }
        if same == part.len() {
            return;
        }
        start += 1;
    }
    panic!("an intrinsic is bound to a label that isn't its name");
}
