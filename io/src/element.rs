//! Dispatch of generic code by a run-time dtype.

/// Runs `$body` with `$type` as the Rust type of the run-time dtype `$dtype`.
macro_rules! with_element {
    ($dtype:expr, $type:ident => $body:expr) => {
        match $dtype {
            tomograd_core::DType::F32 => {
                type $type = f32;
                $body
            }
            tomograd_core::DType::F64 => {
                type $type = f64;
                $body
            }
            tomograd_core::DType::F16 => {
                type $type = half::f16;
                $body
            }
            tomograd_core::DType::BF16 => {
                type $type = half::bf16;
                $body
            }
            tomograd_core::DType::I64 => {
                type $type = i64;
                $body
            }
            tomograd_core::DType::I32 => {
                type $type = i32;
                $body
            }
            tomograd_core::DType::U8 => {
                type $type = u8;
                $body
            }
            tomograd_core::DType::Bool => {
                type $type = bool;
                $body
            }
        }
    };
}
pub(crate) use with_element;
