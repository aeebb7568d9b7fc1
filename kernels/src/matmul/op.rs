//! The batched matrix product.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{
    cpu::product::{outer_sum, product},
    cuda,
};
use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_real, reduce::sum_to};

/// `y[..., i, j] = Σ_k a[..., i, k] b[..., k, j]`: inputs a (batch..., m, k) and b (batch..., k, n), output (batch..., m, n).
///
/// The batch axes are broadcast as in elementwise operations: aligned at the last one, with sizes that are equal or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Matmul;

/// The shape that two lists of batch axes broadcast to.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect()
}

/// The tensor with its batch axes expanded to `batch`.
fn expanded(tensor: &Tensor, batch: &[usize]) -> Result<Tensor> {
    tensor.expand(&[batch, &tensor.shape()[tensor.rank() - 2..]].concat())
}

fn transposed(tensor: &Tensor) -> Result<Tensor> {
    tensor.transpose(tensor.rank() - 2, tensor.rank() - 1)
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("matmul", inputs, 2, 2)?;
        check::same_float("matmul", inputs)?;
        let (a, b) = (&inputs[0].shape, &inputs[1].shape);
        let fail =
            |what: &str, expected: &str| Err(Error::shape("matmul", what).expected(expected).shapes([&a[..], b]));
        if a.len() < 2 || b.len() < 2 {
            return fail("an input of less than two axes", "(..., m, k) and (..., k, n)");
        }
        let ((a_batch, a_matrix), (b_batch, b_matrix)) = (a.split_at(a.len() - 2), b.split_at(b.len() - 2));
        if a_matrix[1] != b_matrix[0] {
            return fail("the inner sizes differ", "(..., m, k) and (..., k, n)");
        }
        match broadcast(a_batch, b_batch) {
            Some(batch) => Ok(vec![inputs[0].with_shape([&batch[..], &[a_matrix[0], b_matrix[1]]].concat())]),
            None => fail("the batch axes don't broadcast", "equal sizes or 1"),
        }
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let batch = &outputs[0].shape[..outputs[0].rank() - 2];
        let (a, b) = (expanded(inputs[0], batch)?, expanded(inputs[1], batch)?);
        with_real!("matmul", outputs[0].dtype, T => Ok(Forward::one(product::<T>(&a, &b, None)?)))
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let batch = &outputs[0].shape[..outputs[0].rank() - 2];
        let (a, b) = (expanded(inputs[0], batch)?, expanded(inputs[1], batch)?);
        Ok(Forward::one(cuda::product("matmul", &a, &b, None, context.precision)?))
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None; 2]) };
        let (a, b) = (saved.input(0)?, saved.input(1)?);
        let batch = &dy.shape()[..dy.rank() - 2];
        with_real!("matmul", dy.dtype(), T => {
            let da = if needed[0] {
                let full = product::<T>(dy, &transposed(&expanded(b, batch)?)?, None)?;
                Some(sum_to(&full, a.shape())?)
            } else {
                None
            };
            let db = if !needed[1] {
                None
            } else if b.rank() == 2 {
                // All batches share b, so its gradient is one long sum over the rows of all batches.
                Some(outer_sum::<T>(&expanded(a, batch)?, dy)?)
            } else {
                let full = product::<T>(&transposed(&expanded(a, batch)?)?, dy, None)?;
                Some(sum_to(&full, b.shape())?)
            };
            Ok(vec![da, db])
        })
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None; 2]) };
        let (a, b) = (saved.input(0)?, saved.input(1)?);
        let batch = &dy.shape()[..dy.rank() - 2];
        let product = |a: &Tensor, b: &Tensor| cuda::product("matmul", a, b, None, context.precision);
        let of_a = || sum_to(&product(dy, &transposed(&expanded(b, batch)?)?)?, a.shape());
        let of_b = || {
            let a = expanded(a, batch)?;
            // All batches share a matrix b, so its gradient is one long sum over the rows of all batches.
            match b.rank() {
                2 => cuda::outer_sum("matmul", &a, dy, context.precision),
                _ => sum_to(&product(&transposed(&a)?, dy)?, b.shape()),
            }
        };
        Ok(vec![needed[0].then(of_a).transpose()?, needed[1].then(of_b).transpose()?])
    }

    /// CUDA devices have tensor cores for both.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let k = inputs[0].shape.last().copied().unwrap_or(0);
        Cost::of_products(outputs[0].count() as f64 * k as f64, inputs, outputs)
    }
}
