//! Gathering elements by index, and adding elements at indices.

use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{check_dtype, check_same_dtype, check_shapes, cpu, cuda};
use crate::{
    Context, Forward, HalfPolicy, Meta, Op, Saved,
    cast::cast,
    check,
    op::{with_element, with_real},
};

/// `output[.., i, ..] = x[.., index[.., i, ..], ..]` along `axis`. Inputs: x of any dtype, and index, i64, whose shape equals
/// x's except along the axis. The output has the index's shape. An index outside of the axis is an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// The axis along which the indices select.
    pub axis: usize,
}

/// `output[.., i, ..] = x[.., index[i], ..]` along `axis`. Inputs: x of any dtype, and index, i64 of rank 1. An index outside
/// of the axis is an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSelect {
    /// The axis along which the indices select.
    pub axis: usize,
}

/// `output = x`, then `output[.., index[.., i, ..], ..] += source[.., i, ..]` along `axis`, for ascending i. Inputs: x,
/// floating point; index, i64; source, of the index's shape, which equals x's except along the axis. An index outside of the
/// axis is an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScatterAdd {
    /// The axis along which the indices select.
    pub axis: usize,
}

/// The gradients of [`Gather`] and [`IndexSelect`]: that of x is the output's gradient added at the indices; the index has
/// none.
fn adjoint(
    operation: &str,
    saved: &Saved,
    gradients: &[Option<Tensor>],
    needed: &[bool],
    axis: usize,
) -> Result<Vec<Option<Tensor>>> {
    let Some(gradient) = gradients[0].as_ref().filter(|_| needed[0]) else { return Ok(vec![None, None]) };
    let (shape, wide) = (&saved.metas[0].shape, cpu::widened(gradient)?);
    if let Device::Cuda(_) = gradient.device() {
        let sum = cuda::scatter_add(operation, None, shape, saved.input(1)?, &wide, axis)?;
        return Ok(vec![Some(cast(&sum, gradient.dtype())?), None]);
    }
    let indices = cpu::Indices::new(operation, saved.input(1)?, shape[axis])?;
    let zeros = Tensor::zeros(shape, wide.dtype(), wide.device())?;
    let sum = with_real!(operation, wide.dtype(), T => cpu::scatter_add::<T>(&zeros, &indices, &wide, axis))?;
    Ok(vec![Some(cast(&sum, gradient.dtype())?), None])
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("gather", inputs, 2, 2)?;
        check::axis("gather", &inputs[0], self.axis)?;
        check_dtype("gather", inputs, 1, DType::I64)?;
        check_shapes("gather", &inputs[0].shape, &inputs[1].shape, self.axis)?;
        Ok(vec![inputs[0].with_shape(inputs[1].shape.clone())])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let indices = cpu::Indices::new("gather", inputs[1], inputs[0].shape()[self.axis])?;
        with_element!(inputs[0].dtype(), T => Ok(Forward::one(cpu::gather::<T>(inputs[0], &indices, self.axis)?)))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::gather("gather", inputs[0], inputs[1], self.axis, false)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index == 1
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        adjoint("gather", &saved, &gradients, needed, self.axis)
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        adjoint("gather", &saved, &gradients, needed, self.axis)
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}

impl Op for IndexSelect {
    fn name(&self) -> &'static str {
        "index_select"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("index_select", inputs, 2, 2)?;
        check::axis("index_select", &inputs[0], self.axis)?;
        check_dtype("index_select", inputs, 1, DType::I64)?;
        if inputs[1].rank() != 1 {
            let found = format!("an index of rank {}", inputs[1].rank());
            return Err(Error::shape("index_select", found).expected("rank 1"));
        }
        let mut shape = inputs[0].shape.clone();
        shape[self.axis] = inputs[1].shape[0];
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let indices = cpu::Indices::new("index_select", inputs[1], inputs[0].shape()[self.axis])?;
        with_element!(inputs[0].dtype(), T => Ok(Forward::one(cpu::select::<T>(inputs[0], &indices, self.axis)?)))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::gather("index_select", inputs[0], inputs[1], self.axis, true)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index == 1
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        adjoint("index_select", &saved, &gradients, needed, self.axis)
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        adjoint("index_select", &saved, &gradients, needed, self.axis)
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}

impl Op for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("scatter_add", inputs, 3, 3)?;
        check::same_float("scatter_add", &inputs[..1])?;
        check_same_dtype("scatter_add", inputs, 0, 2)?;
        check::axis("scatter_add", &inputs[0], self.axis)?;
        check_dtype("scatter_add", inputs, 1, DType::I64)?;
        check_shapes("scatter_add", &inputs[0].shape, &inputs[1].shape, self.axis)?;
        if inputs[1].shape != inputs[2].shape {
            return Err(Error::shape("scatter_add", "the source's shape isn't the index's")
                .shapes([&inputs[1].shape[..], &inputs[2].shape]));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let indices = cpu::Indices::new("scatter_add", inputs[1], outputs[0].shape[self.axis])?;
        with_real!("scatter_add", outputs[0].dtype, T => {
            Ok(Forward::one(cpu::scatter_add::<T>(inputs[0], &indices, inputs[2], self.axis)?))
        })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let [x, index, source] = [0, 1, 2].map(|i| inputs[i]);
        Ok(Forward::one(cuda::scatter_add("scatter_add", Some(x), &outputs[0].shape, index, source, self.axis)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index == 1
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; 3]) };
        let source = if needed[2] {
            let indices = cpu::Indices::new("scatter_add", saved.input(1)?, gradient.shape()[self.axis])?;
            Some(with_element!(gradient.dtype(), T => cpu::gather::<T>(gradient, &indices, self.axis)?))
        } else {
            None
        };
        Ok(vec![needed[0].then(|| gradient.clone()), None, source])
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; 3]) };
        let gather = || cuda::gather("scatter_add", gradient, saved.input(1)?, self.axis, false);
        Ok(vec![needed[0].then(|| gradient.clone()), None, needed[2].then(gather).transpose()?])
    }
}
