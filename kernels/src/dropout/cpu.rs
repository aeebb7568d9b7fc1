//! Dropout on the CPU. The draws are sequential, since a random stream is cheapest to read in sequence.

use tomograd_core::{Element, Result, Tensor, TensorBuilder};

use super::Dropout;
use crate::op::with_real;

/// x times the mask.
pub(super) fn masked(op: &Dropout, x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    with_real!("dropout", x.dtype(), T => {
        let (_, shared) = op.draws(x.shape());
        let values = x.as_slice::<T>()?;
        let mut builder = TensorBuilder::<T>::new("dropout", x.shape(), x.device())?;
        let (mut random, scale) = (op.seed.random(), T::from_f64(1.0 / (1.0 - op.probability)));
        let zero = T::from_f64(0.0);
        let size = shared.max(1);
        for (to, from) in builder.uninit()?.chunks_mut(size).zip(values.chunks(size)) {
            let factor = if random.bernoulli(op.probability) { zero } else { scale };
            for (to, &from) in to.iter_mut().zip(from) {
                to.write(from * factor);
            }
        }
        // SAFETY: the chunks cover all elements.
        Ok(unsafe { builder.assume_init() })
    })
}
