//! Comparisons on CUDA devices.

use tomograd_core::{DType, Result, Tensor};

use super::Compare;
use crate::{
    Meta,
    cuda::{Launch, Source, THREADS, Unwritten, blocks, views, views_of},
};

static SOURCE: Source = Source { name: "compare.cu", text: include_str!("compare.cu"), headers: &[] };

pub(super) fn compare(compare: Compare, x: &Tensor, y: &Tensor, output: &Meta) -> Result<Tensor> {
    let kernel = match x.dtype() {
        DType::F32 => "compare_f32",
        DType::F64 => "compare_f64",
        DType::F16 => "compare_f16",
        DType::BF16 => "compare_bf16",
        DType::I64 => "compare_i64",
        DType::I32 => "compare_i32",
        DType::U8 | DType::Bool => "compare_u8",
    };
    let how = match compare {
        Compare::Equal => 0,
        Compare::NotEqual => 1,
        Compare::Less => 2,
        Compare::LessEqual => 3,
        Compare::Greater => 4,
        Compare::GreaterEqual => 5,
    };
    let views = views::<{ views_of(2) }>("compare", &output.shape, &[x, y])?;
    let mut result = Unwritten::new("compare", &output.shape, DType::Bool, x.device())?;
    let count = result.count();
    let launch = Launch::new("compare", &SOURCE, kernel, x.device())?
        .read(x)?
        .read(y)?
        .write(&mut result)?
        .value(views)
        .value(how)
        .size(count);
    // SAFETY: the kernel reads both inputs where their views say, and writes every element, as 0 or 1.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(result.assume_init())
    }
}
