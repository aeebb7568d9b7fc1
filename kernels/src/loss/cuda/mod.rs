//! Dice and cross-entropy on CUDA devices. The sums and the loss stay there; the host reads one flag, whether a label is wrong.

use tomograd_core::{DType, Device, Result, Tensor};

use super::{DiceCe, cpu};
use crate::{
    Forward, Saved,
    cuda::{Launch, Source, THREADS, Unwritten, blocks, output_like, single},
    reduce::{Combine, cuda::group},
};

static SOURCE: Source = Source { name: "dice_ce.cu", text: include_str!("dice_ce.cu"), headers: &[] };

/// Voxels of a block, and the most blocks of an image.
const CHUNK: usize = 1 << 12;
const MOST_CHUNKS: usize = 1 << 10;
const MOST_BLOCKS: usize = 65535;

/// The `Sizes` of the kernels.
fn sizes(op: &DiceCe, logits: &Tensor) -> [i64; 5] {
    let voxels: usize = logits.shape()[2..].iter().product();
    let ignored = op.ignore_index;
    let [batch, classes] = [logits.shape()[0], logits.shape()[1]];
    [batch as i64, classes as i64, voxels as i64, ignored.unwrap_or(0), i64::from(ignored.is_some())]
}

/// The `Loss` of the kernels: numbers of f64 and of i64, all as bits.
fn numbers(op: &DiceCe, groups: usize) -> [u64; 5] {
    let [dice, entropy, smooth] = [op.dice_weight, op.ce_weight, op.smooth].map(f64::to_bits);
    [dice, entropy, smooth, op.first_class() as u64, groups as u64]
}

fn class_weights(op: &DiceCe, device: Device) -> Result<Option<Tensor>> {
    op.class_weights.as_ref().map(|weights| Tensor::from_slice(weights, &[weights.len()], device)).transpose()
}

/// The loss, with the sums of each group as state.
pub(super) fn forward(op: &DiceCe, logits: &Tensor, labels: &Tensor) -> Result<Forward> {
    single("dice_ce", logits.dtype())?;
    let (logits, labels, device) = (logits.contiguous()?, labels.contiguous()?, logits.device());
    let (batch, classes) = (logits.shape()[0], logits.shape()[1]);
    let voxels: usize = logits.shape()[2..].iter().product();
    let (groups, width) = (op.groups(batch), 3 * classes + 2);
    let sums = if batch * voxels == 0 {
        Tensor::zeros(&[groups, width], DType::F64, device)?
    } else {
        let mut shift = output_like("dice_ce", &[batch, voxels], &logits)?;
        let mut wrong = Tensor::zeros(&[1], DType::I32, device)?;
        let launch = Launch::new("dice_ce", &SOURCE, "dice_ce_shift", device)?
            .read(&logits)?
            .read(&labels)?
            .write(&mut shift)?
            .update(&mut wrong)?
            .value(sizes(op, &logits));
        // SAFETY: logits and labels have the sizes; the kernel writes a number for each voxel, and the flag.
        let shift = unsafe {
            launch.run(blocks(batch * voxels), THREADS)?;
            shift.assume_init()
        };
        if wrong.to_scalar()? != 0.0 {
            // The host finds the first wrong label, and says which.
            cpu::check_labels(op, &labels.to_vec::<i64>()?, classes)?;
        }
        let length = CHUNK.max(voxels.div_ceil(MOST_CHUNKS));
        let chunks = voxels.div_ceil(length);
        let mut partial = Unwritten::new("dice_ce", &[batch, chunks, width], DType::F64, device)?;
        let weights = class_weights(op, device)?;
        let launch = Launch::new("dice_ce", &SOURCE, "dice_ce_sums", device)?
            .read(&logits)?
            .read(&labels)?
            .read(&shift)?
            .read_if(weights.as_ref())?
            .write(&mut partial)?
            .value(sizes(op, &logits))
            .size(length);
        // SAFETY: every label that counts is a class; a block writes the sums of its chunk.
        let partial = unsafe {
            launch.run_shaped([chunks, batch.min(MOST_BLOCKS), 1], THREADS, 0)?;
            partial.assume_init()
        };
        // The images of a group are adjacent.
        let terms = batch / groups * chunks;
        group(&partial, [groups, terms, width], Combine::Sum, 1.0, false)?.reshape(&[groups, width])?
    };
    let mut loss = output_like("dice_ce", &[], &logits)?;
    let launch = Launch::new("dice_ce", &SOURCE, "dice_ce_value", device)?
        .read(&sums)?
        .write(&mut loss)?
        .value(sizes(op, &logits))
        .value(numbers(op, groups));
    // SAFETY: there are as many sums of each group as the kernel reads; it writes the loss.
    unsafe {
        launch.run(1, 1)?;
        Ok(Forward { outputs: vec![loss.assume_init()], state: vec![sums] })
    }
}

/// gradient · ∂loss/∂logits.
pub(super) fn backward(op: &DiceCe, saved: &Saved, gradient: &Tensor) -> Result<Tensor> {
    single("dice_ce", gradient.dtype())?;
    let (logits, labels) = (saved.input(0)?.contiguous()?, saved.input(1)?.contiguous()?);
    let (sums, device) = (saved.state(0)?, logits.device());
    let (batch, classes, groups) = (logits.shape()[0], logits.shape()[1], sums.shape()[0]);
    let weights = class_weights(op, device)?;
    let mut slopes = output_like("dice_ce", &[groups, 3, classes], &logits)?;
    let launch = Launch::new("dice_ce", &SOURCE, "dice_ce_slopes", device)?
        .read(sums)?
        .read_if(weights.as_ref())?
        .write(&mut slopes)?
        .value(sizes(op, &logits))
        .value(numbers(op, groups));
    // SAFETY: there are as many sums of each group as the kernel reads; it writes three numbers for each class of each group.
    let slopes = unsafe {
        launch.run(blocks(groups * classes), THREADS)?;
        slopes.assume_init()
    };
    let mut dx = output_like("dice_ce", logits.shape(), &logits)?;
    let voxels: usize = logits.shape()[2..].iter().product();
    let launch = Launch::new("dice_ce", &SOURCE, "dice_ce_gradient", device)?
        .read(&logits)?
        .read(&labels)?
        .read(&slopes)?
        .read(gradient)?
        .write(&mut dx)?
        .value(sizes(op, &logits))
        .size((batch / groups.max(1)).max(1));
    // SAFETY: the labels were checked by the forward run; the kernel writes all classes of every voxel.
    unsafe {
        launch.run(blocks(batch * voxels), THREADS)?;
        Ok(dx.assume_init())
    }
}
