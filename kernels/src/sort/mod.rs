//! Sorting along an axis, and selecting its largest elements.

mod cpu;
pub(crate) mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, index::ScatterAdd, op::with_real, run};

/// The elements along `axis` in ascending or descending order: all, or the first `count`. Input: x, floating point. Outputs:
/// the values, and their positions in x (i64), both of x's shape except along the axis. The sort is stable and a NaN counts
/// as the largest, as in torch.sort with `stable=True` (torch.topk doesn't specify the order of equal elements). The gradient
/// of each value goes to the element at its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// The axis that is sorted.
    pub axis: usize,
    /// Whether the largest element comes first.
    pub descending: bool,
    /// How many of the first elements in order are returned; `None` means all.
    pub count: Option<usize>,
}

impl Op for Sort {
    fn name(&self) -> &'static str {
        if self.count.is_some() { "top_k" } else { "sort" }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 1, 1)?;
        check::same_float(self.name(), inputs)?;
        check::axis(self.name(), &inputs[0], self.axis)?;
        let mut shape = inputs[0].shape.clone();
        if let Some(count) = self.count {
            if count > shape[self.axis] {
                return Err(Error::argument(self.name(), format!("{count} elements of axis {}", self.axis))
                    .expected(format!("at most its size, {}", shape[self.axis]))
                    .shapes([&shape[..]]));
            }
            shape[self.axis] = count;
        }
        let values = inputs[0].with_shape(shape);
        let places = values.with_dtype(DType::I64);
        Ok(vec![values, places])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let (values, places) =
            with_real!(self.name(), inputs[0].dtype(), T => cpu::sort::<T>(self, inputs[0], &outputs[0]))?;
        Ok(Forward { outputs: vec![values, places], state: Vec::new() })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let (values, places) = cuda::sort(self, inputs[0], &outputs[0])?;
        Ok(Forward { outputs: vec![values, places], state: Vec::new() })
    }

    fn saves_output(&self, index: usize) -> bool {
        index == 1
    }

    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        let zeros = Tensor::zeros(&saved.metas[0].shape, gradient.dtype(), gradient.device())?;
        let scatter = ScatterAdd { axis: self.axis };
        let outputs = run(&scatter, &[&zeros, saved.output(1)?, gradient], context)?.outputs;
        Ok(vec![outputs.into_iter().next()])
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.backward_cpu(context, saved, gradients, needed)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        // The number of comparisons.
        let size = inputs[0].shape.get(self.axis).map_or(1.0, |&size| size as f64);
        Cost::of(inputs[0].count() as f64 * size.max(2.0).log2(), inputs, outputs)
    }
}
