//! Elementwise selection between two tensors.

use tomograd_core::{DType, Device, Result, Tensor, broadcast_shapes};

use super::{check_dtype, check_same_dtype, cpu, cuda};
use crate::{Context, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_element, reduce};

/// a where the condition is true, otherwise b. Inputs: condition, bool; a and b of the same dtype. They are broadcast as in
/// NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where;

fn choose(condition: &Tensor, a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let expanded = |x: &Tensor| x.expand(shape)?.contiguous();
    with_element!(a.dtype(), T => cpu::choose::<T>(&expanded(condition)?, &expanded(a)?, &expanded(b)?))
}

/// `choose` on a device: condition, a, b and the common shape.
type Choose = fn(&Tensor, &Tensor, &Tensor, &[usize]) -> Result<Tensor>;

/// The gradients of a and b, by the `choose` of a device.
fn gradients(
    saved: &Saved,
    gradients: &[Option<Tensor>],
    needed: &[bool],
    choose: Choose,
) -> Result<Vec<Option<Tensor>>> {
    let Some(gradient) = &gradients[0] else { return Ok(vec![None; 3]) };
    let (condition, shape) = (saved.input(0)?, gradient.shape());
    let zero = Tensor::zeros(&[], gradient.dtype(), gradient.device())?;
    let part = |index: usize, a: &Tensor, b: &Tensor| -> Result<Option<Tensor>> {
        let sum = || reduce::sum_to(&choose(condition, a, b, shape)?, &saved.metas[index].shape);
        needed[index].then(sum).transpose()
    };
    Ok(vec![None, part(1, gradient, &zero)?, part(2, &zero, gradient)?])
}

impl Op for Where {
    fn name(&self) -> &'static str {
        "where"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("where", inputs, 3, 3)?;
        check_dtype("where", inputs, 0, DType::Bool)?;
        check_same_dtype("where", inputs, 1, 2)?;
        let shapes: Vec<&[usize]> = inputs.iter().map(|meta| &meta.shape[..]).collect();
        Ok(vec![inputs[1].with_shape(broadcast_shapes("where", &shapes)?)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(choose(inputs[0], inputs[1], inputs[2], &outputs[0].shape)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index == 0
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self::gradients(&saved, &gradients, needed, choose)
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::choose(inputs[0], inputs[1], inputs[2], &outputs[0].shape)?))
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self::gradients(&saved, &gradients, needed, cuda::choose)
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}
