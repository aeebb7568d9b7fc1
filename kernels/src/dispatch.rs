//! The dispatcher: every operation runs through the functions of this file, forward and backward.

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use crate::{
    Context, Forward, HalfPolicy, InPlace, Meta, Op, Recompute, Saved,
    cast::cast,
    op::check_outputs,
    trace::{self, Direction},
};

/// Runs `op` forward: checks the inputs, applies the half-precision policy, traces, and dispatches on the device.
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
/// When the inputs don't fit the operation or are on different devices, or the operation fails.
pub fn run(op: &dyn Op, inputs: &[&Tensor], context: &Context) -> Result<Forward> {
    let metas: Vec<Meta> = inputs.iter().map(|&tensor| Meta::from(tensor)).collect();
    common_device(op.name(), metas.iter())?;
    let announced = op.infer(&metas)?;
    check_outputs(op.name(), &announced)?;
    let start = trace::start();
    let half = half_dtype(op, &metas);
    let mut result = match half {
        Some(half) => {
            let wide: Vec<Tensor> = inputs.iter().map(|&tensor| widen(tensor)).collect::<Result<_>>()?;
            let references: Vec<&Tensor> = wide.iter().collect();
            let wide_announced: Vec<Meta> = announced.iter().map(widen_meta).collect();
            let mut result = op.forward(context, &references, &wide_announced)?;
            if !context.inference {
                let wide: Vec<Meta> = metas.iter().map(widen_meta).collect();
                verify(op, "state", &op.state(&wide, &wide_announced), &result.state)?;
            }
            for (output, meta) in result.outputs.iter_mut().zip(&announced) {
                if meta.dtype == half {
                    *output = cast(output, half)?;
                }
            }
            result
        }
        None => {
            let result = op.forward(context, inputs, &announced)?;
            if !context.inference {
                verify(op, "state", &op.state(&metas, &announced), &result.state)?;
            }
            result
        }
    };
    verify(op, "infer", &announced, &result.outputs)?;
    if context.inference {
        result.state.clear();
    }
    trace::record(op.name(), Direction::Forward, start, || op.cost(&metas, &announced), &metas);
    Ok(result)
}

/// Runs `op` backward and returns the gradients of the inputs for which `needed` is true. A tensor to which the caller holds
/// no other reference is freed or overwritten as soon as the operation can do so.
///
/// # Errors
/// When a gradient's shape isn't that of its output, `gradients` hasn't one entry (which may be `None`) for each output,
/// `needed` hasn't one flag for each input, a saved tensor doesn't match the metadata of the forward pass, or the operation
/// fails.
pub fn run_backward(
    op: &dyn Op,
    saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
    context: &Context,
) -> Result<Vec<Option<Tensor>>> {
    let (metas, announced) = (saved.metas.clone(), saved.output_metas.clone());
    check_saved(op, &saved)?;
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
    let (saved, gradients) = match half_dtype(op, &metas) {
        Some(_) => (widen_saved(&saved)?, widen_all(&gradients)?),
        None => (saved, gradients),
    };
    let results = op.backward(context, saved, gradients, needed)?;
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
        let factor = parts.min(2.0);
        crate::Cost {
            flops: cost.flops * factor,
            multiply_adds: cost.multiply_adds * factor,
            bytes: cost.bytes * factor,
        }
    };
    trace::record(op.name(), Direction::Backward, start, cost, &metas);
    Ok(results)
}

/// Recomputes output 0 of `op` from what it saved (see [`Op::recompute`]).
///
/// # Errors
/// When the operation fails.
pub fn run_recompute(op: &dyn Recompute, saved: &Saved, context: &Context) -> Result<Tensor> {
    check_saved(op, saved)?;
    let start = trace::start();
    let output = match half_dtype(op, &saved.metas) {
        Some(half) => cast(&op.output(context, &widen_saved(saved)?)?, half)?,
        None => op.output(context, saved)?,
    };
    trace::record(op.name(), Direction::Recompute, start, crate::Cost::default, &saved.metas);
    Ok(output)
}

/// Runs `op`, which writes `targets` in place: checks devices and the operation's own conditions, makes each target's memory
/// unique, traces, and dispatches on the device.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::{optim::Scale, run_in_place};
/// let mut x = Tensor::from_slice(&[1.0f32, 2.0], &[2], Device::Cpu)?;
/// run_in_place(&Scale { factor: 3.0 }, &mut [&mut x], &[])?;
/// assert_eq!(x.to_vec::<f32>()?, [3.0, 6.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the tensors don't fit the operation or are on different devices, memory runs out, or the operation fails. In that
/// case no value has changed.
pub fn run_in_place(op: &dyn InPlace, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
    let before: Vec<Meta> = targets.iter().map(|target| Meta::from(&**target)).collect();
    let metas: Vec<Meta> = inputs.iter().map(|&tensor| Meta::from(tensor)).collect();
    common_device(op.name(), before.iter().chain(&metas))?;
    check_outputs(op.name(), &before)?;
    op.check(&before, &metas)?;
    let start = trace::start();
    targets.iter_mut().try_for_each(|target| target.make_unique())?;
    op.apply(targets, inputs)?;
    if let Some((target, meta)) = targets.iter().zip(&before).find(|(target, meta)| Meta::from(&***target) != **meta) {
        let what = format!("a target was {meta:?} and is {target:?}");
        return Err(Error::shape(op.name(), what).expected("targets that keep their shapes and dtypes"));
    }
    let all = [&before[..], &metas].concat();
    trace::record(op.name(), Direction::InPlace, start, || op.cost(&before, &metas), &all);
    Ok(())
}

/// Checks that the saved tensors match the metadata of the forward pass's inputs and outputs.
fn check_saved(op: &dyn Op, saved: &Saved) -> Result<()> {
    let kinds = [("input", &saved.inputs, &saved.metas), ("output", &saved.outputs, &saved.output_metas)];
    for (what, tensors, metas) in kinds {
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

/// The device of all inputs; an error if they are on several.
fn common_device<'a>(operation: &str, inputs: impl Iterator<Item = &'a Meta>) -> Result<()> {
    let mut device = None;
    for input in inputs {
        let device = *device.get_or_insert(input.device);
        if input.device != device {
            let what = format!("inputs on {device} and {}", input.device);
            return Err(Error::new(ErrorKind::Device, operation, what).expected("inputs on one device"));
        }
    }
    Ok(())
}

/// The half-precision dtype that is converted to f32 for this operation, if any.
fn half_dtype(op: &dyn Op, metas: &[Meta]) -> Option<DType> {
    let device = metas.first().map_or(Device::Cpu, |meta| meta.device);
    if op.half_policy(device) == HalfPolicy::Keep {
        return None;
    }
    metas.iter().map(|meta| meta.dtype).find(|dtype| matches!(dtype, DType::F16 | DType::BF16))
}

/// The tensor, in f32 if it is of half precision.
pub(crate) fn widen(tensor: &Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => cast(tensor, DType::F32),
        _ => Ok(tensor.clone()),
    }
}

/// That of [`widen`].
pub(crate) fn widen_meta(meta: &Meta) -> Meta {
    match meta.dtype {
        DType::F16 | DType::BF16 => meta.with_dtype(DType::F32),
        _ => meta.clone(),
    }
}

pub(crate) fn widen_all(tensors: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    tensors.iter().map(|tensor| tensor.as_ref().map(widen).transpose()).collect()
}

pub(crate) fn widen_saved(saved: &Saved) -> Result<Saved> {
    Ok(Saved {
        inputs: widen_all(&saved.inputs)?,
        outputs: widen_all(&saved.outputs)?,
        state: saved.state.clone(),
        metas: saved.metas.iter().map(widen_meta).collect(),
        output_metas: saved.output_metas.iter().map(widen_meta).collect(),
    })
}

/// Checks the results against the announced metadata. A difference is a bug of the operation, which may be user-defined.
fn verify(op: &dyn Op, by: &str, announced: &[Meta], given: &[Tensor]) -> Result<()> {
    if announced.len() == given.len() && announced.iter().zip(given).all(|(meta, tensor)| *meta == Meta::from(tensor)) {
        return Ok(());
    }
    Err(Error::shape(op.name(), format!("the run gave {given:?}, {by} announced {announced:?}"))
        .expected("what was announced"))
}
