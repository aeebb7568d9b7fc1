//! The selective scan on CUDA devices.

use tomograd_core::{DType, Error, Result, Tensor};

use super::{SelectiveScan, Sizes};
use crate::{
    Forward,
    cuda::{Header, Launch, Source, Unwritten, by_float},
    reduce::{Combine, cuda::reduce},
};

const SHARED: Header = Header { name: "scan.cuh", text: include_str!("scan.cuh") };
static FORWARD: Source = Source { name: "scan.cu", text: include_str!("scan.cu"), headers: &[SHARED] };
static BACKWARD: Source = Source { name: "backward.cu", text: include_str!("backward.cu"), headers: &[SHARED] };

const THREADS: u32 = 128;
/// Steps of a chunk.
const CHUNK: usize = 512;
/// With as many blocks, the device is busy.
const MANY_BLOCKS: usize = 512;
/// States of a channel, whose sums are in shared memory.
const MOST_STATES: usize = 4096;

/// The shape of the states before each chunk: (B, D, chunks, N).
pub(super) fn borders(Sizes { batch, channels, states, length, .. }: Sizes) -> [usize; 4] {
    [batch, channels, length.div_ceil(CHUNK), states]
}

/// `Scan` of the kernels.
fn numbers(op: SelectiveScan, sizes: Sizes, inputs: &[Tensor]) -> Result<[i32; 6]> {
    let Sizes { channels, groups, states, length, .. } = sizes;
    let most = i32::MAX as usize / 2;
    if states > MOST_STATES || [channels, length].iter().any(|&size| size > most) {
        return Err(Error::argument("selective_scan", format!("{states} states, {channels} channels, {length} steps"))
            .expected(format!("at most {MOST_STATES} states and {most} channels and steps on a CUDA device")));
    }
    // Rows of four steps are read at once.
    let aligned = length.is_multiple_of(4) && inputs.iter().all(|input| input.layout().offset().is_multiple_of(4));
    Ok([channels, groups, states, length, usize::from(op.delta_softplus), usize::from(aligned)].map(|size| size as i32))
}

fn optional(op: SelectiveScan, inputs: &[Tensor]) -> [Option<&Tensor>; 3] {
    op.optional().map(|place| place.map(|place| &inputs[place]))
}

fn check(dtype: DType) -> Result<()> {
    match dtype {
        DType::F16 | DType::BF16 => Ok(()),
        _ => crate::cuda::single("selective_scan", dtype),
    }
}

/// The output and, if they are wanted, the states before each chunk, of contiguous inputs.
pub(super) fn forward(op: SelectiveScan, inputs: &[Tensor], sizes: Sizes, wanted: bool) -> Result<Forward> {
    let (dtype, device) = (inputs[0].dtype(), inputs[0].device());
    check(dtype)?;
    let numbers = numbers(op, sizes, inputs)?;
    let mut y = Unwritten::new("selective_scan", inputs[0].shape(), dtype, device)?;
    let mut states =
        wanted.then(|| Unwritten::new("selective_scan", &borders(sizes), DType::F32, device)).transpose()?;
    let mut launch =
        Launch::new("selective_scan", &FORWARD, by_float(dtype, ["scan_f32", "scan_f16", "scan_bf16"]), device)?;
    for input in &inputs[..5] {
        launch = launch.read(input)?;
    }
    for input in optional(op, inputs) {
        launch = launch.read_if(input)?;
    }
    let launch = launch.write(&mut y)?.write_if(states.as_mut())?.value(numbers);
    // SAFETY: the numbers are the inputs' sizes; the kernel writes every step of y, and the states before each chunk.
    unsafe {
        launch.run_shaped([sizes.batch * sizes.channels, 1, 1], THREADS, (8 * sizes.states) as u32)?;
        Ok(Forward {
            outputs: vec![y.assume_init()],
            state: states.map(|states| states.assume_init()).into_iter().collect(),
        })
    }
}

/// The gradients of all inputs, in f32 or their dtype, from the states before each chunk and the output's gradient.
pub(super) fn backward(
    op: SelectiveScan,
    inputs: &[Tensor],
    sizes: Sizes,
    borders: &Tensor,
    dy: &Tensor,
) -> Result<Vec<Tensor>> {
    let (dtype, device) = (inputs[0].dtype(), inputs[0].device());
    check(dtype)?;
    let numbers = numbers(op, sizes, inputs)?;
    let Sizes { batch, channels, groups, states, length } = sizes;
    if batch * channels * length == 0 {
        return inputs.iter().map(|input| Tensor::zeros(input.shape(), DType::F32, device)).collect();
    }
    // Parts of a group's channels, by the shape alone: enough blocks, and less memory for their sums than for u twice.
    let of_group = channels / groups;
    let parts = of_group.min(MANY_BLOCKS.div_ceil(batch * groups)).min(2 * of_group / states.max(1)).max(1);
    // As many as have channels.
    let parts = of_group.div_ceil(of_group.div_ceil(parts));
    let new = |shape: &[usize], dtype: DType| Unwritten::new("selective_scan", shape, dtype, device);
    let over_time = [batch, channels, length];
    let of_parts = [parts, batch, groups, states, length];
    let [skip, gate, bias] = optional(op, inputs);
    let (mut du, mut ddelta) = (new(&over_time, dtype)?, new(&over_time, dtype)?);
    let mut dz = gate.map(|_| new(&over_time, dtype)).transpose()?;
    let mut da = new(&[batch, channels, states], DType::F32)?;
    let (mut db, mut dc) = (new(&of_parts, DType::F32)?, new(&of_parts, DType::F32)?);
    let mut dskip = skip.map(|_| new(&[batch, channels], DType::F32)).transpose()?;
    let mut dbias = bias.map(|_| new(&[batch, channels], DType::F32)).transpose()?;
    let kernel = by_float(dtype, ["scan_backward_f32", "scan_backward_f16", "scan_backward_bf16"]);
    let mut numbers = numbers;
    numbers[5] &= i32::from(dy.layout().offset().is_multiple_of(4));
    let launch = Launch::new("selective_scan", &BACKWARD, kernel, device)?
        .read_each(inputs[..5].iter().map(Some).chain([skip, gate, bias, Some(dy)]))?
        .read(borders)?
        .write_table::<8>(
            [
                Some(&mut du),
                Some(&mut ddelta),
                dz.as_mut(),
                Some(&mut da),
                Some(&mut db),
                Some(&mut dc),
                dskip.as_mut(),
                dbias.as_mut(),
            ]
            .into_iter(),
        )?
        .value(numbers)
        .value(parts as i32);
    // SAFETY: the numbers are the inputs' sizes; every block has channels, and the kernel writes every step, state and channel of all
    // outputs.
    let finished = unsafe {
        launch.run_shaped([batch * groups * parts, 1, 1], THREADS, (24 * states) as u32)?;
        let some = |tensor: Option<Unwritten>| tensor.map(|tensor| tensor.assume_init());
        (
            [du.assume_init(), ddelta.assume_init(), da.assume_init(), db.assume_init(), dc.assume_init()],
            [some(dskip), some(dz), some(dbias)],
        )
    };
    let ([du, ddelta, da, db, dc], [dskip, dz, dbias]) = finished;
    let sum = |x: &Tensor| reduce(x, &[0], Combine::Sum, 1.0);
    let over = |x: Option<Tensor>| x.map(|x| sum(&x)).transpose();
    let mut results = vec![du, ddelta, sum(&da)?, sum(&db)?, sum(&dc)?];
    results.extend([over(dskip)?, dz, over(dbias)?].into_iter().flatten());
    Ok(results)
}
