//! The format's codes of datatypes.

use tomograd_core::Result;

use super::fail;
use crate::voxels::{Coding, Stored};

/// The element type, the number of numbers per voxel, and the code.
const CODES: [(Stored, usize, i16); 14] = [
    (Stored::U8, 1, 2),
    (Stored::I16, 1, 4),
    (Stored::I32, 1, 8),
    (Stored::F32, 1, 16),
    (Stored::F32, 2, 32),
    (Stored::F64, 1, 64),
    (Stored::U8, 3, 128),
    (Stored::I8, 1, 256),
    (Stored::U16, 1, 512),
    (Stored::U32, 1, 768),
    (Stored::I64, 1, 1024),
    (Stored::U64, 1, 1280),
    (Stored::F64, 2, 1792),
    (Stored::U8, 4, 2304),
];

/// The coding of this datatype code, without scaling.
pub(super) fn coding(code: i16) -> Result<Coding> {
    let known = CODES.into_iter().find(|entry| entry.2 == code);
    known.map(|(stored, channels, _)| Coding::several(stored, channels)).ok_or_else(|| {
        let what = match code {
            1 => "single bits",
            2048 => "complex numbers of 256 bits",
            1536 => "128-bit floating-point numbers",
            _ => "an unknown type",
        };
        fail(format!("voxels of datatype {code}: {what}")).expected(
            "integers of 8 to 64 bits, f32, f64, complex numbers of these, or colours (2, 4, 8, 16, 32, 64, 128, 256, \
             512, 768, 1024, 1280, 1792 or 2304)",
        )
    })
}

/// The code of a coding, if the format has one.
pub(super) fn code(coding: Coding) -> Option<i16> {
    CODES.into_iter().find(|entry| (entry.0, entry.1) == (coding.stored, coding.channels)).map(|entry| entry.2)
}
