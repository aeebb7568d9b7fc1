//! Moving elements on CUDA devices.

use tomograd_core::{DType, Device, Error, Result, Tensor, cuda::bits};

use super::{Pad, PadMode, cpu::Indices, split};
use crate::{
    Meta,
    cuda::{AXES, Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single, views, views_of},
    sort::cuda::{padded, sort_lines},
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
        let launch = launch.read(&input)?.write(&mut output)?.value(divisor(from)).size(size * inner).size(start);
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
fn padding_axes(op: &Pad, shape: &[usize]) -> Result<[i64; 2 + 5 * AXES]> {
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
        return Err(Error::argument("pad", format!("borders along {} axes", axes.len()))
            .expected(format!("at most {AXES} on a CUDA device"))
            .shapes([shape]));
    }
    let mut numbers = [0; 2 + 5 * AXES];
    (numbers[0], numbers[1]) = (axes.len() as i64, mode_code(op.mode));
    for (axis, &([from, to, before], _)) in axes.iter().enumerate() {
        (numbers[2 + axis], numbers[2 + AXES + axis]) = (from as i64, before as i64);
        numbers[2 + 2 * AXES + 3 * axis..][..3].copy_from_slice(&divisor(to));
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
    let ([size, s1, s2], [inner, i1, i2]) = (divisor(size), divisor(inner));
    let border = [before as i64, padded as i64 - size - before as i64, size, s1, s2, inner, i1, i2];
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
    let views = views::<{ views_of(3) }>("where", shape, &[condition, a, b])?;
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
        Indices::new("one_hot", &labels.to(Device::Cpu)?, classes)?;
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
        .value(divisor(classes))
        .value(divisor(inner))
        .size(count);
    // SAFETY: the output is (outer, classes, inner) and the labels (outer, inner); the kernel writes every element and the flag.
    let output = unsafe {
        launch.run(blocks(count), THREADS)?;
        output.assume_init()
    };
    check_flag("one_hot", &wrong, &labels, classes)?;
    Ok(output)
}

/// An error that names the first index outside of an axis of `size`, where a kernel has set its flag.
fn check_flag(operation: &str, wrong: &Tensor, index: &Tensor, size: usize) -> Result<()> {
    if wrong.to_scalar()? != 0.0 {
        // The host finds it.
        Indices::new(operation, &index.to(Device::Cpu)?, size)?;
    }
    Ok(())
}

/// The elements of x at the indices along `axis`: an index of the output's shape, or of rank 1 for all (`shared`).
pub(super) fn gather(operation: &str, x: &Tensor, index: &Tensor, axis: usize, shared: bool) -> Result<Tensor> {
    let (x, index) = (x.contiguous()?, index.contiguous()?);
    let (_, size, inner) = split(x.shape(), axis);
    let mut shape = x.shape().to_vec();
    shape[axis] = if shared { index.count() } else { index.shape()[axis] };
    let mut output = Unwritten::new(operation, &shape, x.dtype(), x.device())?;
    let mut wrong = Tensor::zeros(&[1], DType::I32, x.device())?;
    let count = output.count();
    if count == 0 && index.count() > 0 {
        // No element is read, but an index may be wrong.
        Indices::new(operation, &index.to(Device::Cpu)?, size)?;
    }
    let kernel = by_size(["gather_1", "gather_2", "gather_4", "gather_8"], x.dtype());
    let launch = Launch::new(operation, &SOURCE, kernel, x.device())?
        .read(&x)?
        .read(&index)?
        .write(&mut output)?
        .update(&mut wrong)?
        .size(size)
        .value(divisor(shape[axis]))
        .value(divisor(inner))
        .value(i32::from(shared))
        .size(count);
    // SAFETY: x is (outer, size, inner), the output (outer, length, inner), and the index of that shape or (length); the kernel reads
    // x inside the axis alone, and writes every element and the flag.
    let output = unsafe {
        launch.run(blocks(count), THREADS)?;
        output.assume_init()
    };
    if count > 0 {
        check_flag(operation, &wrong, &index, size)?;
    }
    Ok(output)
}

/// x, or zeros of `shape`, with the source added at the indices along `axis`, in its order: an index of the source's shape, or of
/// rank 1 for all.
pub(super) fn scatter_add(
    operation: &str,
    x: Option<&Tensor>,
    shape: &[usize],
    index: &Tensor,
    source: &Tensor,
    axis: usize,
) -> Result<Tensor> {
    single(operation, source.dtype())?;
    let shared = index.shape() != source.shape();
    let (index, source) = (index.contiguous()?, source.contiguous()?);
    let x = x.map(Tensor::contiguous).transpose()?;
    let ((outer, size, inner), length) = (split(shape, axis), source.shape()[axis]);
    if size.max(length) > u32::MAX as usize {
        return Err(Error::argument(operation, format!("an axis of {} elements", size.max(length)))
            .expected(format!("at most {} on a CUDA device", u32::MAX)));
    }
    // The places of each line, by their index and then in their order.
    let (lines, of_keys) = if shared { (1, 1) } else { (outer * inner, inner) };
    let padded = padded(length);
    let mut keys = Unwritten::new(operation, &[lines, padded], DType::I64, source.device())?;
    let mut wrong = Tensor::zeros(&[1], DType::I32, source.device())?;
    let count = keys.count();
    let launch = Launch::new(operation, &SOURCE, "scatter_keys", source.device())?
        .read(&index)?
        .write(&mut keys)?
        .update(&mut wrong)?
        .size(size)
        .size(length)
        .value(divisor(of_keys))
        .value(divisor(padded))
        .size(count);
    // SAFETY: the index has `length` numbers for each line, `of_keys` apart; the kernel writes every key and the flag.
    let mut keys = unsafe {
        launch.run(blocks(count), THREADS)?;
        keys.assume_init()
    };
    check_flag(operation, &wrong, &index, size)?;
    sort_lines(operation, &mut keys)?;
    let mut output = Unwritten::new(operation, shape, DType::F32, source.device())?;
    let count = output.count();
    let launch = Launch::new(operation, &SOURCE, "scatter_sums", source.device())?
        .read_if(x.as_ref())?
        .read(&source)?
        .read(&keys)?
        .write(&mut output)?
        .size(length)
        .size(padded)
        .value(divisor(size))
        .value(divisor(inner))
        .value(i32::from(shared))
        .size(count);
    // SAFETY: the places in the keys are below `length`, as many as the source has along the axis; the kernel writes every element.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}
