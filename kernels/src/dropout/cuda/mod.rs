//! Dropout on CUDA devices: the bits are those of the CPU.

use tomograd_core::{Result, Tensor};

use super::Dropout;
use crate::cuda::{Launch, Source, THREADS, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "dropout.cu", text: include_str!("dropout.cu"), headers: &[] };

/// x times the mask.
pub(super) fn masked(op: &Dropout, x: &Tensor) -> Result<Tensor> {
    single("dropout", x.dtype())?;
    let x = x.contiguous()?;
    let (_, shared) = op.draws(x.shape());
    let mut output = output_like("dropout", x.shape(), &x)?;
    let count = output.count();
    let scale = (1.0 / (1.0 - op.probability)) as f32;
    let launch = Launch::new("dropout", &SOURCE, if shared == 1 { "dropout" } else { "dropout_channels" }, x.device())?
        .read(&x)?
        .write(&mut output)?
        .value(op.seed.to_words())
        .value(op.probability)
        .value(scale);
    let launch = if shared == 1 {
        launch.value(i32::from(x.layout().offset().is_multiple_of(2)))
    } else {
        launch.value(divisor(shared))
    };
    let threads = if shared == 1 { count.div_ceil(2) } else { count };
    // SAFETY: the kernel reads and writes `count` elements, which is all of both.
    unsafe {
        launch.size(count).run(blocks(threads), THREADS)?;
        Ok(output.assume_init())
    }
}
