//! Reference conversion, element by element.

use tomograd_core::{DType, Result, Tensor};

pub(super) fn cast(x: &Tensor, dtype: DType) -> Result<Vec<Tensor>> {
    Ok(vec![x.converted(dtype)?])
}
