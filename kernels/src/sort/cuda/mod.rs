//! Sorting on CUDA devices.

use tomograd_core::{DType, Error, Result, Tensor};

use super::Sort;
use crate::{
    Meta, Op,
    cuda::{Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single},
};

static SOURCE: Source = Source { name: "sort.cu", text: include_str!("sort.cu"), headers: &[] };

/// Keys that a block sorts in shared memory.
const CHUNK: usize = 1024;

/// The places of a line of `length` keys.
pub(crate) fn padded(length: usize) -> usize {
    length.next_power_of_two()
}

/// Sorts each line of keys (lines, places) in ascending order, as unsigned numbers; there is a power of two places.
///
/// # Errors
/// When the device can't be used any more.
pub(crate) fn sort_lines(operation: &str, keys: &mut Tensor) -> Result<()> {
    let (padded, count) = (keys.shape()[1], keys.count());
    let chunks = count.div_ceil(CHUNK);
    let device = keys.device();
    let launch = |kernel: &'static str, keys: &mut Tensor, numbers: &[usize], blocks: usize| -> Result<()> {
        let launch = Launch::new(operation, &SOURCE, kernel, device)?.update(keys)?;
        let launch = numbers.iter().fold(launch, |launch, &number| launch.size(number));
        // SAFETY: the numbers are those of the kernels: the keys are lines of `padded` places, `count` in all, which is what they
        // read and write.
        unsafe { launch.run(blocks, THREADS) }
    };
    launch("sort_chunks", keys, &[padded, count], chunks)?;
    let mut width = 2 * CHUNK;
    while width <= padded {
        let mut distance = width / 2;
        while distance >= CHUNK {
            launch("sort_exchange", keys, &[padded, width, distance, count / 2], blocks(count / 2))?;
            distance /= 2;
        }
        launch("sort_merge", keys, &[padded, width, count], chunks)?;
        width *= 2;
    }
    Ok(())
}

/// The elements in order, and their positions.
pub(super) fn sort(op: &Sort, x: &Tensor, output: &Meta) -> Result<(Tensor, Tensor)> {
    single(op.name(), x.dtype())?;
    let x = x.contiguous()?;
    let (size, inner) = (x.shape()[op.axis], x.shape()[op.axis + 1..].iter().product::<usize>());
    if size > u32::MAX as usize {
        return Err(Error::argument(op.name(), format!("an axis of {size} elements"))
            .expected(format!("at most {} on a CUDA device", u32::MAX)));
    }
    let (lines, padded) = (x.count() / size.max(1), padded(size));
    let mut keys = Unwritten::new(op.name(), &[lines, padded], DType::I64, x.device())?;
    let count = keys.count();
    let launch = Launch::new(op.name(), &SOURCE, "sort_keys", x.device())?
        .read(&x)?
        .write(&mut keys)?
        .value(i32::from(op.descending))
        .size(size)
        .value(divisor(inner))
        .value(divisor(padded))
        .size(count);
    // SAFETY: x has `size` elements for each line, and the kernel writes every key.
    let mut keys = unsafe {
        launch.run(blocks(count), THREADS)?;
        keys.assume_init()
    };
    sort_lines(op.name(), &mut keys)?;
    let mut values = output_like(op.name(), &output.shape, &x)?;
    let mut places = Unwritten::new(op.name(), &output.shape, DType::I64, x.device())?;
    let count = values.count();
    let launch = Launch::new(op.name(), &SOURCE, "sort_take", x.device())?
        .read(&x)?
        .read(&keys)?
        .write(&mut values)?
        .write(&mut places)?
        .size(size)
        .size(padded)
        .value(divisor(output.shape[op.axis]))
        .value(divisor(inner))
        .size(count);
    // SAFETY: at most `size` of each line are taken, whose keys hold positions of x; the kernel writes every element of both outputs.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok((values.assume_init(), places.assume_init()))
    }
}
