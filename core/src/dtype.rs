//! Element types, at run time ([`DType`]) and at compile time ([`Element`]).

use std::fmt;

use half::{bf16, f16};

/// The type of a tensor's elements.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// let x = Tensor::full(&[3], 1.5, DType::BF16, Device::Cpu)?;
/// assert_eq!((x.dtype().name(), x.dtype().size(), x.dtype().is_float()), ("bf16", 2, true));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// IEEE 754 half precision; stored as such, computed in f32.
    F16,
    /// bfloat16; stored as such, computed in f32.
    BF16,
    /// 64-bit signed integer; class labels and indices.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 8-bit unsigned integer.
    U8,
    /// Truth value, one byte.
    Bool,
}

impl DType {
    /// All dtypes, floating-point types first.
    pub const ALL: [DType; 8] =
        [DType::F32, DType::F64, DType::F16, DType::BF16, DType::I64, DType::I32, DType::U8, DType::Bool];

    /// Bytes that one element takes.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 | DType::I64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::U8 | DType::Bool => 1,
        }
    }

    /// Whether the dtype is a floating-point type, which can have gradients.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F64 | DType::F16 | DType::BF16)
    }

    /// The short lower-case name: `f32`, `bf16`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I64 => "i64",
            DType::I32 => "i32",
            DType::U8 => "u8",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that a tensor can hold. Sealed: the eight types of [`DType`] implement it.
///
/// Every implementor is plain data without padding, whose zero bytes are a valid value.
pub trait Element: sealed::Sealed + Copy + PartialEq + fmt::Debug + Default + Send + Sync + 'static {
    /// The dtype that corresponds to this type.
    const DTYPE: DType;
    /// The value as f64 (an i64 beyond 2⁵³ is rounded; `true` is 1).
    fn to_f64(self) -> f64;
    /// `value` converted to this type: rounded to nearest, ties to even, for floating-point types; truncated and saturated
    /// for integers (NaN gives 0); `value != 0` for bool.
    fn from_f64(value: f64) -> Self;
}

macro_rules! element {
    ($($type:ty => $dtype:ident, $to:expr, $from:expr;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn to_f64(self) -> f64 {
                let to: fn($type) -> f64 = $to;
                to(self)
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                let from: fn(f64) -> $type = $from;
                from(value)
            }
        }
    )*};
}

element! {
    f32 => F32, |x| x as f64, |v| v as f32;
    f64 => F64, |x| x, |v| v;
    f16 => F16, |x| x.to_f64(), f16::from_f64;
    bf16 => BF16, |x| x.to_f64(), bf16::from_f64;
    i64 => I64, |x| x as f64, |v| v as i64;
    i32 => I32, |x| x as f64, |v| v as i32;
    u8 => U8, |x| x as f64, |v| v as u8;
    bool => Bool, |x| x as u8 as f64, |v| v != 0.0;
}

/// Runs `$body` with `$type` as an alias of the Rust type that corresponds to the run-time dtype `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $type = f32;
                $body
            }
            $crate::DType::F64 => {
                type $type = f64;
                $body
            }
            $crate::DType::F16 => {
                type $type = half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $type = half::bf16;
                $body
            }
            $crate::DType::I64 => {
                type $type = i64;
                $body
            }
            $crate::DType::I32 => {
                type $type = i32;
                $body
            }
            $crate::DType::U8 => {
                type $type = u8;
                $body
            }
            $crate::DType::Bool => {
                type $type = bool;
                $body
            }
        }
    };
}
pub(crate) use with_element;
