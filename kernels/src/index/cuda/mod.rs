//! Moving elements on CUDA devices.

use tomograd_core::{DType, Result, Tensor, cuda::bits};

use super::{Pad, PadMode, cpu::Indices, split};
use crate::{
    Meta,
    cuda::{AXES, Launch, Source, THREADS, Unwritten, blocks, output_like, single, views},
};

static SOURCE: Source = Source { name: "index.cu", text: include_str!("index.cu"), headers: &[] };

/// The kernel of a family for elements of this dtype's size.
fn by_size(kernels: [&'static str; 4], dtype: DType) -> &'static str {
    kernels[dtype.size().ilog2() as usize]
}

fn output(like: &Meta) -> Result<Unwritten> {
    Unwritten::new("index", &like.shape, like.dtype, like.device)
}

/// The inputs in a row along `axis`.
pub(super) fn concat(inputs: &[&Tensor], axis: usize, output_meta: &Meta) -> Result<Tensor> {
    let mut output = output(output_meta)?;
    let (_, size, inner) = split(&output_meta.shape, axis);
    let kernel = by_size(["concat_1", "concat_2", "concat_4", "concat_8"], output_meta.dtype);
    let mut start = 0;
    for input in inputs {
        let (input, from) = (input.contiguous()?, input.shape()[axis] * inner);
        let launch = Launch::new("concat", &SOURCE, kernel, output_meta.device)?;
        let launch = launch.read(&input)?.write(&mut output)?.size(from).size(size * inner).size(start);
        // SAFETY: rows of `from` elements go into rows of size · inner from `start` on, where they end before the next input.
        unsafe { launch.size(input.count()).run(blocks(input.count()), THREADS)? };
        start += from;
    }
    // SAFETY: the inputs' sizes along the axis add up to the output's, so every element was written.
    Ok(unsafe { output.assume_init() })
}

fn mode_code(mode: PadMode) -> i64 {
    match mode {
        PadMode::Constant(_) => 0,
        PadMode::Reflect => 1,
        PadMode::Replicate => 2,
    }
}

/// The axes of a padding with as few axes as possible: sizes before, after, and elements in front. Neighbouring axes that aren't
/// padded are one.
fn padding_axes(op: &Pad, shape: &[usize]) -> Result<[i64; 2 + 3 * AXES]> {
    let mut axes: Vec<([usize; 3], bool)> = Vec::new();
    for (axis, &size) in shape.iter().enumerate() {
        let (before, after) = (op.before[axis], op.after[axis]);
        let padded = before + after > 0;
        match axes.last_mut() {
            Some(([from, to, _], false)) if !padded => (*from, *to) = (*from * size, *to * size),
            _ => axes.push(([size, size + before + after, before], padded)),
        }
    }
    if axes.len() > AXES {
        return Err(tomograd_core::Error::argument("pad", format!("borders along {} axes", axes.len()))
            .expected(format!("at most {AXES} on a CUDA device"))
            .shapes([shape]));
    }
    let mut numbers = [0; 2 + 3 * AXES];
    (numbers[0], numbers[1]) = (axes.len() as i64, mode_code(op.mode));
    for (axis, (sizes, _)) in axes.iter().enumerate() {
        for (k, &size) in sizes.iter().enumerate() {
            numbers[2 + k * AXES + axis] = size as i64;
        }
    }
    Ok(numbers)
}

/// The padded input.
pub(super) fn pad(op: &Pad, x: &Tensor, output_meta: &Meta) -> Result<Tensor> {
    let x = x.contiguous()?;
    let constant = if let PadMode::Constant(value) = op.mode { value } else { 0.0 };
    let mut output = output(output_meta)?;
    let count = output.count();
    let kernel = by_size(["pad_1", "pad_2", "pad_4", "pad_8"], x.dtype());
    let launch = Launch::new("pad", &SOURCE, kernel, x.device())?
        .read(&x)?
        .write(&mut output)?
        .value(padding_axes(op, x.shape())?)
        .value(bits(x.dtype(), constant))
        .size(count);
    // SAFETY: every element of the output is an element of x or the constant; the kernel writes them all.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}

/// The gradient of an axis of `size` elements from that of the padded axis, with `before` elements in front.
pub(super) fn fold_border(mode: PadMode, dy: &Tensor, axis: usize, before: usize, size: usize) -> Result<Tensor> {
    single("pad", dy.dtype())?;
    let dy = dy.contiguous()?;
    let (_, padded, inner) = split(dy.shape(), axis);
    let mut shape = dy.shape().to_vec();
    shape[axis] = size;
    let mut dx = output_like("pad", &shape, &dy)?;
    let count = dx.count();
    let border = [before, size, padded - size - before, inner].map(|size| size as i64);
    let launch = Launch::new("pad", &SOURCE, "fold_border", dy.device())?
        .read(&dy)?
        .write(&mut dx)?
        .value(border)
        .value(mode_code(mode) as i32)
        .size(count);
    // SAFETY: the border's sizes are those of dy's axis; the kernel writes every element of dx.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(dx.assume_init())
    }
}

/// a where the condition is true, otherwise b, all broadcast to `shape`.
pub(super) fn choose(condition: &Tensor, a: &Tensor, b: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let views = views::<{ 1 + 4 * AXES }>("where", shape, &[condition, a, b])?;
    let mut output = Unwritten::new("where", shape, a.dtype(), a.device())?;
    let count = output.count();
    let kernel = by_size(["choose_1", "choose_2", "choose_4", "choose_8"], a.dtype());
    let launch = Launch::new("where", &SOURCE, kernel, a.device())?
        .read(condition)?
        .read(a)?
        .read(b)?
        .write(&mut output)?
        .value(views)
        .size(count);
    // SAFETY: the kernel reads each input where its view says, and writes every element.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}

/// The labels with a new axis, 1 at the label and 0 elsewhere.
pub(super) fn one_hot(labels: &Tensor, classes: usize, axis: usize, output_meta: &Meta) -> Result<Tensor> {
    let labels = labels.contiguous()?;
    if classes == 0 {
        // Any label is wrong.
        Indices::new("one_hot", &labels.to(tomograd_core::Device::Cpu)?, classes)?;
    }
    let mut output = output(output_meta)?;
    let mut wrong = Tensor::zeros(&[1], DType::I32, labels.device())?;
    let (count, inner) = (output.count(), output_meta.shape[axis + 1..].iter().product());
    let kernel = by_size(["one_hot_1", "one_hot_2", "one_hot_4", "one_hot_8"], output_meta.dtype);
    let launch = Launch::new("one_hot", &SOURCE, kernel, labels.device())?
        .read(&labels)?
        .write(&mut output)?
        .update(&mut wrong)?
        .value(bits(output_meta.dtype, 1.0))
        .size(classes)
        .size(inner)
        .size(count);
    // SAFETY: the output is (outer, classes, inner) and the labels (outer, inner); the kernel writes every element and the flag.
    let output = unsafe {
        launch.run(blocks(count), THREADS)?;
        output.assume_init()
    };
    if wrong.to_scalar()? != 0.0 {
        // The host finds the first wrong label, and says which.
        Indices::new("one_hot", &labels.to(tomograd_core::Device::Cpu)?, classes)?;
    }
    Ok(output)
}
