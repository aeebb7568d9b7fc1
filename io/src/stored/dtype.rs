//! Element types of weights files, of which there are more than dtypes of tensors.

use std::fmt;

use tomograd_core::DType;

/// The element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoredDType {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// bfloat16.
    BF16,
    /// 8 bits with 4 exponent and 3 mantissa bits, without infinities (OCP FP8 E4M3, PyTorch's `float8_e4m3fn`).
    F8E4M3,
    /// 8 bits with 5 exponent and 2 mantissa bits (OCP FP8 E5M2).
    F8E5M2,
    /// As `F8E4M3` with exponent bias 8; the bits of negative zero are the only NaN.
    F8E4M3Fnuz,
    /// As `F8E5M2` with exponent bias 16; the bits of negative zero are the only NaN.
    F8E5M2Fnuz,
    /// Powers of two, 2^(bits − 127), for scales (OCP MX).
    F8E8M0,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 8-bit signed integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// Boolean, one byte.
    Bool,
    /// Complex with 16-bit real and imaginary part.
    C32,
    /// Complex with 32-bit real and imaginary part.
    C64,
    /// Complex with 64-bit real and imaginary part.
    C128,
    /// 4-bit floating point (OCP MX).
    F4,
    /// 6-bit floating point with 2 exponent bits (OCP MX).
    F6E2M3,
    /// 6-bit floating point with 3 exponent bits (OCP MX).
    F6E3M2,
    /// Quantised to 8-bit signed integers.
    QI8,
    /// Quantised to 8-bit unsigned integers.
    QU8,
    /// Quantised to 32-bit signed integers.
    QI32,
    /// An unknown type.
    Unknown,
}

use StoredDType::*;

/// A row of the table: the type, its name (that of safetensors, if it has one), PyTorch's names of the dtype and of the
/// storage class, NumPy's code, and the bits per element (0: unknown).
type Row = (StoredDType, &'static str, &'static str, &'static str, &'static str, u32);

#[rustfmt::skip]
const TYPES: [Row; 28] = [
    (F64, "F64", "float64", "DoubleStorage", "f8", 64),
    (F32, "F32", "float32", "FloatStorage", "f4", 32),
    (F16, "F16", "float16", "HalfStorage", "f2", 16),
    (BF16, "BF16", "bfloat16", "BFloat16Storage", "", 16),
    (F8E4M3, "F8_E4M3", "float8_e4m3fn", "Float8_e4m3fnStorage", "", 8),
    (F8E5M2, "F8_E5M2", "float8_e5m2", "Float8_e5m2Storage", "", 8),
    (F8E4M3Fnuz, "F8_E4M3FNUZ", "float8_e4m3fnuz", "Float8_e4m3fnuzStorage", "", 8),
    (F8E5M2Fnuz, "F8_E5M2FNUZ", "float8_e5m2fnuz", "Float8_e5m2fnuzStorage", "", 8),
    (F8E8M0, "F8_E8M0", "float8_e8m0fnu", "Float8_e8m0fnuStorage", "", 8),
    (I64, "I64", "int64", "LongStorage", "i8", 64),
    (I32, "I32", "int32", "IntStorage", "i4", 32),
    (I16, "I16", "int16", "ShortStorage", "i2", 16),
    (I8, "I8", "int8", "CharStorage", "i1", 8),
    (U64, "U64", "uint64", "UInt64Storage", "u8", 64),
    (U32, "U32", "uint32", "UInt32Storage", "u4", 32),
    (U16, "U16", "uint16", "UInt16Storage", "u2", 16),
    (U8, "U8", "uint8", "ByteStorage", "u1", 8),
    (Bool, "BOOL", "bool", "BoolStorage", "b1", 8),
    (C32, "C32", "complex32", "ComplexHalfStorage", "", 32),
    (C64, "C64", "complex64", "ComplexFloatStorage", "c8", 64),
    (C128, "C128", "complex128", "ComplexDoubleStorage", "c16", 128),
    (F4, "F4", "float4_e2m1fn_x2", "", "", 4),
    (F6E2M3, "F6_E2M3", "", "", "", 6),
    (F6E3M2, "F6_E3M2", "", "", "", 6),
    (QI8, "QI8", "qint8", "QInt8Storage", "", 8),
    (QU8, "QU8", "quint8", "QUInt8Storage", "", 8),
    (QI32, "QI32", "qint32", "QInt32Storage", "", 32),
    (Unknown, "unknown", "", "", "", 0),
];

fn find(known: impl Fn(&Row) -> bool) -> Option<StoredDType> {
    TYPES.iter().find(|row| known(row)).map(|row| row.0)
}

impl StoredDType {
    /// The type with this name in safetensors files.
    pub(crate) fn of_safetensors(name: &str) -> Option<Self> {
        find(|row| row.1 == name && row.0 != Unknown)
    }

    /// The type of PyTorch's dtype `torch.NAME`.
    pub(crate) fn of_torch(name: &str) -> Option<Self> {
        find(|row| row.2 == name && !name.is_empty())
    }

    /// The type of PyTorch's storage class `torch.NAME`.
    pub(crate) fn of_torch_storage(name: &str) -> Option<Self> {
        find(|row| row.3 == name && !name.is_empty())
    }

    /// The type of a NumPy code, kind and size in bytes: `f8`.
    pub(crate) fn of_numpy(code: &str) -> Option<Self> {
        find(|row| row.4 == code && !code.is_empty())
    }

    fn row(self) -> &'static Row {
        TYPES.iter().find(|row| row.0 == self).unwrap_or(&TYPES[27])
    }

    /// The short name, that of safetensors where it exists: `BF16`, `F8_E4M3`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The bits per element in the file; 0 if unknown.
    pub fn bits(self) -> u32 {
        self.row().5
    }

    /// The bytes per element in the file, if whole.
    pub(crate) fn bytes(self) -> Option<usize> {
        let bits = self.bits() as usize;
        (bits >= 8).then_some(bits / 8)
    }

    /// The dtype to which the type is read, which holds all its values: `I8`, `I16` and `U16` become i32, `U32` and `U64` i64
    /// (a value beyond the range of i64 is an error), the four 8-bit floating-point types f16, and `F8_E8M0` f32. `None` for
    /// types that no tensor can hold: complex and quantised numbers, elements smaller than a byte, and unknown types.
    pub fn dtype(self) -> Option<DType> {
        Some(match self {
            F64 => DType::F64,
            F32 | F8E8M0 => DType::F32,
            F16 | F8E4M3 | F8E5M2 | F8E4M3Fnuz | F8E5M2Fnuz => DType::F16,
            BF16 => DType::BF16,
            I64 | U64 | U32 => DType::I64,
            I32 | I16 | I8 | U16 => DType::I32,
            U8 => DType::U8,
            Bool => DType::Bool,
            C32 | C64 | C128 | F4 | F6E2M3 | F6E3M2 | QI8 | QU8 | QI32 | Unknown => return None,
        })
    }
}

impl fmt::Display for StoredDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_row_and_every_name_its_type() {
        for (i, row) in TYPES.iter().enumerate() {
            assert_eq!((row.0.row().1, row.0.name()), (row.1, row.1));
            assert_eq!(TYPES.iter().position(|other| other.0 == row.0), Some(i));
        }
        assert_eq!(StoredDType::of_safetensors("F8_E4M3"), Some(F8E4M3));
        assert_eq!(StoredDType::of_torch_storage("BFloat16Storage"), Some(BF16));
        assert_eq!(StoredDType::of_numpy("c16"), Some(C128));
        assert_eq!((StoredDType::of_torch(""), StoredDType::of_safetensors("unknown")), (None, None));
        assert_eq!(TYPES[27].0, Unknown);
    }
}
