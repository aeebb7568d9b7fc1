//! Convolutions of tensors on the CPU: takes slices of the tensors and calls the functions that work on slices.

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::{
    super::{Conv, ConvActivation, ConvNormActivation, ConvShape, ConvTranspose},
    Activation, Epilogue, Inputs, Outputs, Path, backward_bias, backward_data, backward_weights, forward,
    transposed_forward,
};
use crate::{
    Context, Forward, Meta, Op, Saved,
    elementwise::Function,
    norm::{Moments, Statistics},
    op::with_real,
    reduce,
    simd::Real,
    view::contiguous,
};

/// One or two contiguous tensors as the input of a convolution.
fn inputs_of<T: Real>(x: &[Tensor]) -> Result<Inputs<'_, T>> {
    let first = (x[0].as_slice::<T>()?, x[0].shape()[1]);
    Ok(match x.get(1) {
        Some(second) => Inputs::two(first.0, first.1, second.as_slice::<T>()?, second.shape()[1]),
        None => Inputs::one(first.0, first.1),
    })
}

/// The output of a convolution.
pub(in crate::conv) fn conv(op: &Conv, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&x| contiguous(x)).collect::<Result<_>>()?;
    let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
    let shape = op.shape(&metas, context.precision)?;
    with_real!("conv", outputs[0].dtype, T => {
        let weight = op.weight();
        let mut builder = TensorBuilder::<T>::new("conv", &outputs[0].shape, outputs[0].device)?;
        let bias = if op.bias { Some(inputs[weight + 1].as_slice::<T>()?) } else { None };
        let y = Outputs::one(builder.uninit()?, shape.out_channels);
        let x = inputs_of::<T>(&inputs[..weight])?;
        forward(&shape, x, inputs[weight].as_slice::<T>()?, Epilogue::bias(bias), y)?;
        // SAFETY: the kernel writes every element of its output.
        Ok(Forward::one(unsafe { builder.assume_init() }))
    })
}

/// The gradients of x, second x, weight and bias from that of the output.
pub(in crate::conv) fn conv_gradients(
    op: &Conv,
    context: &Context,
    mut saved: Saved,
    dy: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    with_real!("conv", dy.dtype(), T => {
        let shape = op.shape(&saved.metas[..op.input_count()], context.precision)?;
        let dy = contiguous(dy)?;
        let dy = dy.as_slice::<T>()?;
        let build = |index: usize| TensorBuilder::<T>::new("conv", &saved.metas[index].shape, saved.metas[index].device);
        let weight_index = op.weight();
        let mut gradients = vec![None; op.input_count()];
        if needed[weight_index] {
            let x: Vec<Tensor> = (0..weight_index).map(|i| contiguous(saved.input(i)?)).collect::<Result<_>>()?;
            let mut builder = build(weight_index)?;
            backward_weights(&shape, inputs_of::<T>(&x)?, dy, builder.uninit()?)?;
            // SAFETY: the backward pass writes every weight's gradient.
            gradients[weight_index] = Some(unsafe { builder.assume_init() });
        }
        if op.bias && needed[weight_index + 1] {
            let mut builder = build(weight_index + 1)?;
            backward_bias(&shape, dy, builder.uninit()?)?;
            // SAFETY: the backward pass writes every bias's gradient.
            gradients[weight_index + 1] = Some(unsafe { builder.assume_init() });
        }
        // x isn't needed any more; freeing it lets the pool reuse its memory for its gradient.
        saved.inputs[..weight_index].fill(None);
        if needed[..weight_index].contains(&true) {
            let weight = saved.input(weight_index)?.contiguous()?;
            let mut dx: Vec<TensorBuilder<T>> = (0..weight_index).map(build).collect::<Result<_>>()?;
            let channels: Vec<usize> = saved.metas[..weight_index].iter().map(|meta| meta.shape[1]).collect();
            let outputs = match &mut dx[..] {
                [first, second] => Outputs::two(first.uninit()?, channels[0], second.uninit()?, channels[1]),
                [first, ..] => Outputs::one(first.uninit()?, channels[0]),
                [] => return Ok(gradients),
            };
            backward_data(&shape, dy, weight.as_slice::<T>()?, outputs)?;
            for (index, builder) in dx.into_iter().enumerate() {
                // SAFETY: the backward pass writes every element of its outputs.
                let gradient = unsafe { builder.assume_init() };
                gradients[index] = needed[index].then_some(gradient);
            }
        }
        Ok(gradients)
    })
}

/// The output of a transposed convolution.
pub(in crate::conv) fn transposed(
    op: &ConvTranspose,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Forward> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&x| contiguous(x)).collect::<Result<_>>()?;
    let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
    let shape = op.shape(&metas, context.precision)?;
    with_real!("conv_transpose", outputs[0].dtype, T => {
        let mut builder = TensorBuilder::<T>::new("conv_transpose", &outputs[0].shape, outputs[0].device)?;
        let bias = if op.bias { Some(inputs[2].as_slice::<T>()?) } else { None };
        let x = Inputs::one(inputs[0].as_slice::<T>()?, shape.out_channels);
        let y = Outputs::one(builder.uninit()?, shape.in_channels);
        transposed_forward(&shape, x, inputs[1].as_slice::<T>()?, Epilogue::bias(bias), y)?;
        // SAFETY: the kernel writes every element of its output.
        Ok(Forward::one(unsafe { builder.assume_init() }))
    })
}

/// The gradients of x, weight and bias of a transposed convolution.
pub(in crate::conv) fn transposed_gradients(
    op: &ConvTranspose,
    context: &Context,
    mut saved: Saved,
    gradients: &[Option<Tensor>],
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let mut results = vec![None; needed.len()];
    let Some(gradient) = &gradients[0] else { return Ok(results) };
    let shape = op.shape(&saved.metas, context.precision)?;
    let gradient = contiguous(gradient)?;
    with_real!("conv_transpose", gradient.dtype(), T => {
        let dy = gradient.as_slice::<T>()?;
        let build = |index: usize| {
            TensorBuilder::<T>::new("conv_transpose", &saved.metas[index].shape, saved.metas[index].device)
        };
        if needed[1] {
            let x = saved.input(0)?.contiguous()?;
            let mut builder = build(1)?;
            let dy = Inputs::one(dy, shape.in_channels);
            backward_weights(&shape, dy, x.as_slice::<T>()?, builder.uninit()?)?;
            // SAFETY: the backward pass writes every weight's gradient.
            results[1] = Some(unsafe { builder.assume_init() });
        }
        if op.bias && needed[2] {
            let mut channels = vec![1; gradient.rank()];
            channels[1] = shape.in_channels;
            results[2] = Some(reduce::sum_to(&gradient, &channels)?.reshape(&[shape.in_channels])?);
        }
        // x isn't needed any more; freeing it lets the pool reuse its memory for its gradient.
        saved.inputs[0] = None;
        if needed[0] {
            let weight = saved.input(1)?.contiguous()?;
            let mut builder = build(0)?;
            let dx = Outputs::one(builder.uninit()?, shape.out_channels);
            let dy = Inputs::one(dy, shape.in_channels);
            forward(&shape, dy, weight.as_slice::<T>()?, Epilogue::default(), dx)?;
            // SAFETY: the kernel writes every element of its output.
            results[0] = Some(unsafe { builder.assume_init() });
        }
        Ok(results)
    })
}

/// The output of convolution and activation, or `None` if the convolution's epilogue doesn't support the activation.
pub(in crate::conv) fn activated(
    op: &ConvActivation,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Option<Forward>> {
    let inputs: Vec<Tensor> = inputs.iter().map(|&x| contiguous(x)).collect::<Result<_>>()?;
    let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
    let shape = op.conv.shape(&metas, context.precision)?;
    with_real!(op.name(), outputs[0].dtype, T => {
        let Some((activation, function)) = store_activation::<T>(Some(op.activation), &shape) else { return Ok(None) };
        let weight = op.conv.weight();
        let mut builder = TensorBuilder::<T>::new(op.name(), &outputs[0].shape, outputs[0].device)?;
        let bias = if op.conv.bias { Some(inputs[weight + 1].as_slice::<T>()?) } else { None };
        let y = Outputs::one(builder.uninit()?, shape.out_channels);
        let epilogue = Epilogue { bias, activation, function, ..Epilogue::default() };
        forward(&shape, inputs_of::<T>(&inputs[..weight])?, inputs[weight].as_slice::<T>()?, epilogue, y)?;
        // SAFETY: the kernel writes every element of its output.
        Ok(Some(Forward::one(unsafe { builder.assume_init() })))
    })
}

/// The activation as part of the convolution's epilogue, or `None` if the epilogue of this shape's path doesn't support it.
fn store_activation<T: Real>(
    activation: Option<Function>,
    shape: &ConvShape,
) -> Option<(Activation, Option<Function>)> {
    match activation {
        None => Some((Activation::Identity, None)),
        Some(Function::Relu) => Some((Activation::Relu, None)),
        Some(Function::LeakyRelu(slope)) => Some((Activation::LeakyRelu(slope), None)),
        Some(function) => [Path::Pointwise, Path::Depthwise]
            .iter()
            .any(|path| path.suits::<T>(shape))
            .then_some((Activation::Identity, Some(function))),
    }
}

/// The output of convolution, norm and activation.
pub(in crate::conv) fn fused(
    op: &ConvNormActivation,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Forward> {
    let (conv_inputs, norm_inputs) = inputs.split_at(op.conv_inputs());
    let metas: Vec<Meta> = conv_inputs.iter().map(|&x| Meta::from(x)).collect();
    let shape = op.conv.shape(&metas, context.precision)?;
    let parts: Vec<Tensor> = conv_inputs.iter().map(|&x| contiguous(x)).collect::<Result<_>>()?;
    with_real!(op.name(), outputs[0].dtype, T => {
        let weight = op.conv.weight();
        let x = inputs_of::<T>(&parts[..weight])?;
        let bias = if op.conv.bias { Some(parts[weight + 1].as_slice::<T>()?) } else { None };
        let mut builder = TensorBuilder::<T>::new(op.name(), &outputs[0].shape, outputs[0].device)?;
        let y = Outputs::one(builder.uninit()?, shape.out_channels);
        let weights = parts[weight].as_slice::<T>()?;
        if let (Statistics::Running, true, Some((activation, function))) =
            (op.norm.statistics, context.inference, store_activation::<T>(op.norm.activation, &shape))
            && let Some(norm) = op.norm.folded::<T>(norm_inputs, shape.out_channels)?
        {
            let norm = Some(norm.each_ref().map(|numbers| &numbers[..]));
            forward(&shape, x, weights, Epilogue { bias, norm, activation, function, moments: None }, y)?;
            // SAFETY: the kernel writes every element of its output.
            return Ok(Forward::one(unsafe { builder.assume_init() }));
        }
        // The pointwise path would take the moments in another pass over z, as the norm does, which is faster at it.
        let computed = op.norm.statistics != Statistics::Running && !Path::Pointwise.suits::<T>(&shape);
        let mut moments = vec![Moments::default(); if computed { shape.batch * shape.out_channels } else { 0 }];
        let epilogue = Epilogue { bias, moments: computed.then_some(&mut moments[..]), ..Epilogue::default() };
        forward(&shape, x, weights, epilogue, y)?;
        // SAFETY: the kernel writes every element of its output.
        let z = unsafe { builder.assume_init() };
        let mut all = vec![z.clone()];
        all.extend(norm_inputs.iter().map(|&x| x.clone()));
        drop(z);
        let mut forward = op.norm.forward_with(context, all, computed.then_some(&moments[..]))?;
        forward.state.truncate(2);
        Ok(forward)
    })
}

/// The gradients of all inputs of convolution, norm and activation.
pub(in crate::conv) fn fused_gradients(
    op: &ConvNormActivation,
    context: &Context,
    mut saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let count = op.conv_inputs();
    let wants_conv = needed[..count].contains(&true);
    let norm_saved = op.norm_saved(&saved)?;
    // Only the norm's backward pass reads z, so z is freed before that of the convolution.
    saved.state.clear();
    let norm_needed = [&[wants_conv], &needed[count..]].concat();
    let mut norm_gradients = op.norm.backward_cpu(context, norm_saved, gradients, &norm_needed)?;
    let dz = norm_gradients.remove(0);
    let mut results = match dz {
        Some(dz) => conv_gradients(&op.conv, context, saved, &dz, &needed[..count])?,
        None => vec![None; count],
    };
    results.extend(norm_gradients);
    Ok(results)
}
