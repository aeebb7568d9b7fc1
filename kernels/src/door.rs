//! The one door: every operation, forward and backward, runs through here.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use crate::{
    Context, Forward, HalfPolicy, Meta, Op, Saved,
    cast::cast,
    op::check_outputs,
    trace::{self, Direction},
};

/// Runs `op` forward: checks the inputs, applies the precision rules, traces, and dispatches on the device.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::{Context, run, view::View};
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0], &[3], Device::Cpu)?;
/// let y = run(&View::Expand(vec![2, 3]), &[&x], &Context::default())?;
/// assert_eq!(y.outputs[0].shape(), [2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the inputs don't fit the operation or lie on different devices, or the operation fails.
pub fn run(op: &dyn Op, inputs: &[&Tensor], context: &Context) -> Result<Forward> {
    let device = common_device(op, inputs)?;
    let metas: Vec<Meta> = inputs.iter().map(|&tensor| Meta::from(tensor)).collect();
    let announced = op.infer(&metas)?;
    check_outputs(op.name(), &announced)?;
    let start = trace::start();
    let half = half_dtype(op, &metas);
    let result = match half {
        Some(half) => {
            let wide: Vec<Tensor> = inputs.iter().map(|&tensor| widen(tensor)).collect::<Result<_>>()?;
            let references: Vec<&Tensor> = wide.iter().collect();
            let wide_announced: Vec<Meta> = announced.iter().map(widen_meta).collect();
            let mut result = dispatch_forward(op, device, context, &references, &wide_announced)?;
            for (output, meta) in result.outputs.iter_mut().zip(&announced) {
                if meta.dtype == half {
                    *output = cast(output, half)?;
                }
            }
            result
        }
        None => dispatch_forward(op, device, context, inputs, &announced)?,
    };
    verify(op, &announced, &result.outputs)?;
    trace::record(op, Direction::Forward, start, || op.cost(&metas, &announced), &metas);
    Ok(result)
}

/// Runs `op` backward: the gradients of the inputs for which `needed` is true. A tensor that the caller keeps no clone of is
/// freed, or written over, as soon as the operation can.
///
/// # Errors
/// When a gradient's shape isn't that of its output, there isn't one gradient (or `None`) an output and one flag an input, a
/// saved tensor doesn't fit the forward run's inputs, or the operation fails.
pub fn run_backward(
    op: &dyn Op,
    saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
    context: &Context,
) -> Result<Vec<Option<Tensor>>> {
    let metas = saved.metas.clone();
    let announced = op.infer(&metas)?;
    check_saved(op, &saved, &announced)?;
    if gradients.len() != announced.len() || needed.len() != metas.len() {
        let what = format!("{} gradients, of which inputs {needed:?} need theirs", gradients.len());
        return Err(Error::argument(op.name(), what).expected(format!(
            "one for each of {} outputs, and of {} inputs",
            announced.len(),
            metas.len()
        )));
    }
    for (gradient, meta) in gradients.iter().zip(&announced) {
        if let Some(gradient) = gradient
            && Meta::from(gradient) != *meta
        {
            return Err(Error::shape(op.name(), format!("the gradient is {gradient:?}, the output {} ", meta.dtype))
                .expected("a gradient like the output")
                .shapes([gradient.shape(), &meta.shape]));
        }
    }
    let start = trace::start();
    let device = metas.first().map_or(Device::Cpu, |meta| meta.device);
    let (saved, gradients) = match half_dtype(op, &metas) {
        Some(_) => (widen_saved(&saved)?, widen_all(&gradients)?),
        None => (saved, gradients),
    };
    let results = dispatch_backward(op, device, context, saved, gradients, needed)?;
    let results = results
        .into_iter()
        .zip(&metas)
        .map(|(gradient, meta)| gradient.map(|gradient| cast(&gradient, meta.dtype)).transpose())
        .collect::<Result<Vec<_>>>()?;
    for (index, (gradient, meta)) in results.iter().zip(&metas).enumerate() {
        if let Some(gradient) = gradient
            && gradient.shape() != meta.shape
        {
            return Err(Error::shape(op.name(), format!("backward gave input {index} a gradient of another shape"))
                .shapes([gradient.shape(), &meta.shape]));
        }
    }
    let cost = || {
        let cost = op.cost(&metas, &announced);
        let parts = needed.iter().filter(|&&needed| needed).count().max(1) as f64;
        crate::Cost { flops: cost.flops * parts.min(2.0), bytes: cost.bytes * parts.min(2.0) }
    };
    trace::record(op, Direction::Backward, start, cost, &metas);
    Ok(results)
}

/// Makes output 0 of `op` again from what it saved (see [`Op::recomputes`]).
///
/// # Errors
/// When the operation fails.
pub fn run_recompute(op: &dyn Op, saved: &Saved, context: &Context) -> Result<Tensor> {
    check_saved(op, saved, &op.infer(&saved.metas)?)?;
    let start = trace::start();
    let device = saved.metas.first().map_or(Device::Cpu, |meta| meta.device);
    device.check(op.name())?;
    let output = match half_dtype(op, &saved.metas) {
        Some(half) => cast(&op.recompute_cpu(context, &widen_saved(saved)?)?, half)?,
        None => op.recompute_cpu(context, saved)?,
    };
    trace::record(op, Direction::Recompute, start, crate::Cost::default, &saved.metas);
    Ok(output)
}

/// That what was saved is what these inputs and outputs would have left.
fn check_saved(op: &dyn Op, saved: &Saved, announced: &[Meta]) -> Result<()> {
    for (what, tensors, metas) in [("input", &saved.inputs, &saved.metas[..]), ("output", &saved.outputs, announced)] {
        for (index, tensor) in tensors.iter().enumerate() {
            let meta = metas.get(index);
            if let Some(tensor) = tensor
                && meta.is_none_or(|meta| Meta::from(tensor) != *meta)
            {
                return Err(Error::shape(op.name(), format!("{what} {index} was saved as {tensor:?}"))
                    .expected("what the forward run saw")
                    .shapes(meta.map(|meta| &meta.shape[..])));
            }
        }
    }
    Ok(())
}

fn dispatch_forward(
    op: &dyn Op,
    device: Device,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Forward> {
    match device {
        Device::Cpu => op.forward_cpu(context, inputs, outputs),
        Device::Cuda(_) => device.check(op.name()).and(Err(no_kernel(op, device))),
    }
}

fn dispatch_backward(
    op: &dyn Op,
    device: Device,
    context: &Context,
    saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    match device {
        Device::Cpu => op.backward_cpu(context, saved, gradients, needed),
        Device::Cuda(_) => device.check(op.name()).and(Err(no_kernel(op, device))),
    }
}

#[cold]
fn no_kernel(op: &dyn Op, device: Device) -> Error {
    Error::new(ErrorKind::Device, op.name(), format!("no kernel for {device}")).expected("tensors on cpu")
}

fn common_device(op: &dyn Op, inputs: &[&Tensor]) -> Result<Device> {
    let device = inputs.first().map_or(Device::Cpu, |tensor| tensor.device());
    if let Some(other) = inputs.iter().find(|tensor| tensor.device() != device) {
        return Err(Error::new(ErrorKind::Device, op.name(), format!("inputs on {device} and {}", other.device()))
            .expected("inputs on one device"));
    }
    Ok(device)
}

/// The half dtype that the door has to widen for this operation, if any.
fn half_dtype(op: &dyn Op, metas: &[Meta]) -> Option<DType> {
    if op.half_policy() == HalfPolicy::Keep {
        return None;
    }
    metas.iter().map(|meta| meta.dtype).find(|dtype| matches!(dtype, DType::F16 | DType::BF16))
}

fn widen(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => cast(tensor, DType::F32),
        _ => Ok(tensor.clone()),
    }
}

fn widen_meta(meta: &Meta) -> Meta {
    match meta.dtype {
        DType::F16 | DType::BF16 => meta.with_dtype(DType::F32),
        _ => meta.clone(),
    }
}

fn widen_all(tensors: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    tensors.iter().map(|tensor| tensor.as_ref().map(widen).transpose()).collect()
}

fn widen_saved(saved: &Saved) -> Result<Saved> {
    Ok(Saved {
        inputs: widen_all(&saved.inputs)?,
        outputs: widen_all(&saved.outputs)?,
        state: saved.state.clone(),
        metas: saved.metas.iter().map(widen_meta).collect(),
    })
}

/// An operation that gives something else than it announced is a bug of the operation; a user's own is told so.
fn verify(op: &dyn Op, announced: &[Meta], outputs: &[Tensor]) -> Result<()> {
    if announced.len() == outputs.len()
        && announced.iter().zip(outputs).all(|(meta, tensor)| *meta == Meta::from(tensor))
    {
        return Ok(());
    }
    Err(Error::shape(op.name(), "the outputs aren't what infer announced")
        .shapes(announced.iter().map(|meta| &meta.shape[..]).chain(outputs.iter().map(Tensor::shape))))
}
