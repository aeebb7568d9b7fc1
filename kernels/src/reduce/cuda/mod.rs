//! Reductions on CUDA devices, with the same groups of axes as on the CPU.

use tomograd_core::{DType, Result, Tensor};

use super::Combine;
use crate::cuda::{Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "reduce.cu", text: include_str!("reduce.cu"), headers: &[] };

/// The most blocks that work on outputs in turn.
const MOST_BLOCKS: usize = 1 << 16;
/// Fewer columns than this are reduced by a block each.
const FEW_COLUMNS: usize = 32;
/// Terms of a segment of one thread, and of one block.
const COLUMN_TERMS: usize = 1 << 7;
const ROW_TERMS: usize = 1 << 14;
/// With as many outputs, there is enough work without segments.
const MANY: usize = 1 << 14;

/// factor · the reduction along `axes`, as a tensor of the remaining axes in their order.
pub(crate) fn reduce(x: &Tensor, axes: &[usize], combine: Combine, factor: f64) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) {
        let wide = crate::cast::cast(x, DType::F32)?;
        return crate::cast::cast(&reduce(&wide, axes, combine, factor)?, x.dtype());
    }
    single("reduce", x.dtype())?;
    let shape: Vec<usize> = (0..x.rank()).filter(|axis| !axes.contains(axis)).map(|axis| x.shape()[axis]).collect();
    let x = x.contiguous()?;
    // Groups of adjacent axes that are all reduced or all kept: (size, whether it is reduced).
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (axis, &size) in x.shape().iter().enumerate().filter(|&(_, &size)| size != 1) {
        match groups.last_mut() {
            Some((group, reduced)) if *reduced == axes.contains(&axis) => *group *= size,
            _ => groups.push((size, axes.contains(&axis))),
        }
    }
    let product = |part: &[(usize, bool)]| part.iter().map(|(size, _)| size).product::<usize>();
    let mut value = x.clone();
    // The last reduced group first.
    loop {
        let last = groups.iter().rposition(|&(_, reduced)| reduced);
        let sizes = last.map_or([product(&groups), 1, 1], |last| {
            [product(&groups[..last]), groups[last].0, product(&groups[last + 1..])]
        });
        if let Some(last) = last {
            groups.remove(last);
        }
        let done = !groups.iter().any(|&(_, reduced)| reduced);
        value = group(&value, sizes, combine, if done { factor } else { 1.0 }, done)?;
        if done {
            return value.reshape(&shape);
        }
    }
}

/// factor · the reduction along the middle axis of (outer, terms, inner): (outer · inner), in f32 where this is the `end`,
/// otherwise in f64. x is f32 or f64, and contiguous.
pub(crate) fn group(
    x: &Tensor,
    [outer, terms, inner]: [usize; 3],
    combine: Combine,
    factor: f64,
    end: bool,
) -> Result<Tensor> {
    let by_column = inner >= FEW_COLUMNS;
    let longest = if by_column { COLUMN_TERMS } else { ROW_TERMS };
    let few = if by_column { outer * inner < MANY } else { outer * inner < MANY / THREADS as usize };
    let length = if few { longest.min(terms).max(1) } else { terms.max(1) };
    let segments = terms.div_ceil(length).max(1);
    if segments == 1 {
        return segments_of(x, [outer, terms, inner], length, combine, factor, end);
    }
    let partial = segments_of(x, [outer, terms, inner], length, combine, 1.0, false)?;
    group(&partial, [outer, segments, inner], combine, factor, end)
}

/// (outer · segments · inner): factor · the reduction of each segment of `length` terms.
fn segments_of(
    x: &Tensor,
    [outer, terms, inner]: [usize; 3],
    length: usize,
    combine: Combine,
    factor: f64,
    end: bool,
) -> Result<Tensor> {
    // Of no terms, a segment is empty: the kernel's number of segments would be 0.
    let count = outer * terms.div_ceil(length).max(1) * inner;
    let kernel = match (inner >= FEW_COLUMNS, x.dtype() == DType::F32, end) {
        (false, true, true) => "reduce_rows",
        (false, true, false) => "reduce_rows_to_partial",
        (false, false, true) => "reduce_partial_rows",
        (false, false, false) => "reduce_partial_rows_to_partial",
        (true, true, true) => "reduce_columns",
        (true, true, false) => "reduce_columns_to_partial",
        (true, false, true) => "reduce_partial_columns",
        (true, false, false) => "reduce_partial_columns_to_partial",
    };
    let how = match combine {
        Combine::Sum | Combine::Mean => 0,
        Combine::Max => 1,
        Combine::Min => 2,
    };
    let dtype = if end { DType::F32 } else { DType::F64 };
    if terms == 0 {
        // A sum of nothing, or the mean of nothing; a maximum of nothing was refused.
        return Tensor::full(&[count], 0.0 * factor, dtype, x.device());
    }
    let mut output = Unwritten::new("reduce", &[count], dtype, x.device())?;
    let launch = Launch::new("reduce", &SOURCE, kernel, x.device())?
        .read(x)?
        .write(&mut output)?
        .value(how)
        .value(factor)
        .size(terms)
        .value(divisor(inner))
        .size(length)
        .value(divisor(terms.div_ceil(length)))
        .size(count);
    let blocks = if inner >= FEW_COLUMNS { blocks(count) } else { count.min(MOST_BLOCKS) };
    // SAFETY: x has outer · terms · inner elements of the kernel's first type, the output one of its second type for each
    // segment and column, and the kernel writes them all.
    unsafe {
        launch.run(blocks, THREADS)?;
        Ok(output.assume_init())
    }
}

/// The gradient of a maximum or minimum: the output's gradient at the first element, in row-major order, that equals the
/// output.
pub(super) fn first_equal(x: &Tensor, y: &Tensor, gradient: &Tensor, axes: &[usize]) -> Result<Tensor> {
    single("reduce", x.dtype())?;
    let kept = (0..x.rank()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain((0..x.rank()).filter(|axis| axes.contains(axis))).collect();
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    let (x, y, gradient) = (x.permute(&order)?.contiguous()?, y.contiguous()?, gradient.contiguous()?);
    let rows = y.count();
    let terms = x.count() / rows.max(1);
    let mut output = output_like("reduce", x.shape(), &x)?;
    let launch = Launch::new("reduce", &SOURCE, "first_equal", x.device())?
        .read(&x)?
        .read(&y)?
        .read(&gradient)?
        .write(&mut output)?
        .size(terms)
        .size(rows);
    // SAFETY: x and the output have `terms` elements for each of the elements of y and its gradient; the kernel writes them all.
    unsafe {
        launch.run(rows.min(MOST_BLOCKS), THREADS)?;
        output.assume_init().permute(&inverse)
    }
}

/// The position of the first maximum along an axis; a NaN counts as the largest.
pub(super) fn arg_max(x: &Tensor, axis: usize, shape: &[usize]) -> Result<Tensor> {
    single("arg_max", x.dtype())?;
    let x = x.contiguous()?;
    let (terms, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let mut output = Unwritten::new("arg_max", shape, DType::I64, x.device())?;
    let count = output.count();
    let launch = Launch::new("arg_max", &SOURCE, "arg_max", x.device())?
        .read(&x)?
        .write(&mut output)?
        .size(terms)
        .value(divisor(inner))
        .size(count);
    // SAFETY: x is (outer, terms, inner), the output (outer, inner), all of which the kernel writes.
    unsafe {
        launch.run(count.min(MOST_BLOCKS), THREADS)?;
        Ok(output.assume_init())
    }
}
