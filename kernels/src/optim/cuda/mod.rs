//! Optimizer steps, averages, scaling and clipping on CUDA devices: a launch for each tensor. Norm and factor of a clipping stay on
//! the device.

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};

use super::{AdamStep, SgdStep};
use crate::cuda::{Launch, Source, THREADS, Unwritten, blocks, output_like, single};

static SOURCE: Source = Source { name: "steps.cu", text: include_str!("steps.cu"), headers: &[] };

/// Elements of a partial sum of squares.
const PART: usize = 1 << 14;

/// Checks the dtypes, and makes the inputs contiguous: all that can fail before a value changes.
fn prepared(operation: &str, targets: &[&mut Tensor], inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    targets.iter().try_for_each(|target| single(operation, target.dtype()))?;
    inputs.iter().map(|input| input.contiguous()).collect()
}

/// The next target.
fn next<'a, 'b>(operation: &str, targets: &mut impl Iterator<Item = &'a mut &'b mut Tensor>) -> Result<&'a mut Tensor>
where
    'b: 'a,
{
    let missing = || Error::new(ErrorKind::Argument, operation, "fewer targets than parameters and their states");
    targets.next().map(|target| &mut **target).ok_or_else(missing)
}

pub(super) fn sgd(step: &SgdStep, targets: &mut [&mut Tensor], gradients: &[&Tensor]) -> Result<()> {
    let gradients = prepared("sgd_step", targets, gradients)?;
    let mut targets = targets.iter_mut();
    for (numbers, gradient) in step.parameters.iter().zip(&gradients) {
        let keep = if numbers.first_step { 1.0 } else { 1.0 - step.sgd.dampening };
        let four = [numbers.rate, numbers.weight_decay, step.sgd.momentum, keep].map(|number| number as f32);
        let value = next("sgd_step", &mut targets)?;
        let buffer = if numbers.momentum { Some(next("sgd_step", &mut targets)?) } else { None };
        let launch = Launch::new("sgd_step", &SOURCE, "sgd_step", value.device())?.update(value)?.read(gradient)?;
        let launch = match buffer {
            Some(buffer) => launch.update(buffer)?,
            None => launch.value(0u64),
        };
        let launch = launch.value(four).value(i32::from(step.sgd.nesterov)).size(gradient.count());
        // SAFETY: value, gradient and buffer have as many elements, each of which the kernel treats alone.
        unsafe { launch.run(blocks(gradient.count()), THREADS)? };
    }
    Ok(())
}

pub(super) fn adam(step: &AdamStep, targets: &mut [&mut Tensor], gradients: &[&Tensor]) -> Result<()> {
    let gradients = prepared("adam_step", targets, gradients)?;
    let (mut targets, adam) = (targets.iter_mut(), &step.adam);
    for (numbers, gradient) in step.parameters.iter().zip(&gradients) {
        let super::AdamNumbers { rate, weight_decay: decay, step } = *numbers;
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let [first, second] = adam.betas;
        let corrections = adam.betas.map(|beta| 1.0 - beta.powi(power));
        let nine = [
            first,
            second,
            1.0 - first,
            1.0 - second,
            if adam.decoupled { 1.0 - rate * decay } else { 1.0 },
            if adam.decoupled { 0.0 } else { decay },
            rate / corrections[0],
            corrections[1].sqrt(),
            adam.epsilon,
        ]
        .map(|number| number as f32);
        let value = next("adam_step", &mut targets)?;
        let moments = [next("adam_step", &mut targets)?, next("adam_step", &mut targets)?];
        let mut launch =
            Launch::new("adam_step", &SOURCE, "adam_step", value.device())?.update(value)?.read(gradient)?;
        for moment in moments {
            launch = launch.update(moment)?;
        }
        let launch = launch.value(nine).size(gradient.count());
        // SAFETY: value, gradient and moments have as many elements, each of which the kernel treats alone.
        unsafe { launch.run(blocks(gradient.count()), THREADS)? };
    }
    Ok(())
}

/// average ← decay · average + (1 − decay) · value, for each pair.
pub(super) fn average(averages: &mut [&mut Tensor], values: &[&Tensor], decay: f64) -> Result<()> {
    let values = prepared("ema_step", averages, values)?;
    let decay = decay as f32;
    for (average, value) in averages.iter_mut().zip(&values) {
        let launch = Launch::new("ema_step", &SOURCE, "ema_step", value.device())?
            .update(average)?
            .read(value)?
            .value(decay)
            .value(1.0 - decay)
            .size(value.count());
        // SAFETY: average and value have as many elements, each of which the kernel treats alone.
        unsafe { launch.run(blocks(value.count()), THREADS)? };
    }
    Ok(())
}

/// x ← factor · x, for each target.
pub(super) fn scale(targets: &mut [&mut Tensor], factor: f64) -> Result<()> {
    prepared("scale", targets, &[])?;
    for target in targets {
        let count = target.count();
        let launch = Launch::new("scale", &SOURCE, "scale", target.device())?;
        let launch = launch.update(target)?.value(factor as f32).size(count);
        // SAFETY: the kernel treats each of the `count` elements alone.
        unsafe { launch.run(blocks(count), THREADS)? };
    }
    Ok(())
}

/// √Σ x² over all elements of all tensors, in f64: as f32 and as f64.
fn global_norm(operation: &str, tensors: &[Tensor], like: &Tensor) -> Result<[Tensor; 2]> {
    let parts: Vec<usize> = tensors.iter().map(|tensor| tensor.count().div_ceil(PART)).collect();
    let mut partials = Vec::with_capacity(tensors.len());
    for (tensor, &parts) in tensors.iter().zip(&parts).filter(|&(_, &parts)| parts > 0) {
        let mut partial = Unwritten::new(operation, &[parts], DType::F64, like.device())?;
        let launch = Launch::new(operation, &SOURCE, "sum_of_squares", like.device())?;
        let launch = launch.read(tensor)?.write(&mut partial)?.size(tensor.count());
        // SAFETY: the kernel reads `count` elements, and each block writes its sum.
        partials.push(unsafe {
            launch.run(parts, THREADS)?;
            partial.assume_init()
        });
    }
    let all = joined(operation, &partials, like)?;
    let (mut norm, mut exact) =
        (output_like(operation, &[1], like)?, Unwritten::new(operation, &[1], DType::F64, like.device())?);
    let launch = Launch::new(operation, &SOURCE, "norm_of", like.device())?;
    let launch = launch.read(&all)?.write(&mut norm)?.write(&mut exact)?.size(all.count());
    // SAFETY: the kernel's only block reads all sums and writes both numbers.
    unsafe {
        launch.run(1, THREADS)?;
        Ok([norm.assume_init(), exact.assume_init()])
    }
}

/// The elements of all f64 tensors in a row.
fn joined(operation: &str, parts: &[Tensor], like: &Tensor) -> Result<Tensor> {
    let count = parts.iter().map(Tensor::count).sum();
    let mut all = Unwritten::new(operation, &[count], DType::F64, like.device())?;
    let mut start = 0;
    for part in parts {
        let launch = Launch::new(operation, &SOURCE, "put", like.device())?;
        let launch = launch.read(part)?.write(&mut all)?.size(start).size(part.count());
        // SAFETY: the kernel writes the part's elements from `start` on, all of them within the output.
        unsafe { launch.run(blocks(part.count()), THREADS)? };
        start += part.count();
    }
    // SAFETY: the parts cover the output.
    Ok(unsafe { all.assume_init() })
}

/// Writes the norm of the other targets to the first, and scales them so that the norm is at most `max`, if it is finite.
pub(super) fn clip(max: f64, targets: &mut [&mut Tensor]) -> Result<()> {
    let Some((number, gradients)) = targets.split_first_mut() else { return Ok(()) };
    prepared("clip_norm", gradients, &[])?;
    // Copies share the memory, and are dropped before it is written.
    let shared: Vec<Tensor> = gradients.iter().map(|gradient| (**gradient).clone()).collect();
    let [norm, exact] = global_norm("clip_norm", &shared, number)?;
    drop(shared);
    let norm = if number.dtype() == DType::F64 { exact.clone() } else { norm };
    **number = norm.reshape(number.shape())?;
    for gradient in gradients {
        let count = gradient.count();
        let launch = Launch::new("clip_norm", &SOURCE, "clip", exact.device())?;
        let launch = launch.update(gradient)?.read(&exact)?.value(max).size(count);
        // SAFETY: the kernel treats each of the `count` elements alone.
        unsafe { launch.run(blocks(count), THREADS)? };
    }
    Ok(())
}

/// [`global_norm`](super::global_norm) of tensors on a CUDA device.
pub(super) fn norm_on_host(tensors: &[&Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else { return Ok(0.0) };
    tensors.iter().try_for_each(|tensor| single("global_norm", tensor.dtype()))?;
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<_>>()?;
    global_norm("global_norm", &tensors, first)?[1].to_scalar()
}
