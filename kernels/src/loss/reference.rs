//! Reference: voxel by voxel, from the definition.

use tomograd_core::{Result, Tensor};

use super::{DiceCe, Sums};

pub(super) fn dice_ce(op: &DiceCe, logits: &Tensor, labels: &Tensor) -> Result<Vec<Tensor>> {
    let (batch, classes) = (logits.shape()[0], logits.shape()[1]);
    let voxels: usize = logits.shape()[2..].iter().product();
    let (x, t) = (logits.to_vec::<f64>()?, labels.to_vec::<i64>()?);
    let mut groups = vec![Sums::from_slice(&vec![0.0; 3 * classes + 2]); op.groups(batch)];
    for n in 0..batch {
        let sums = &mut groups[if op.batch_dice { 0 } else { n }];
        for v in 0..voxels {
            let label = t[n * voxels + v];
            if Some(label) == op.ignore_index {
                continue;
            }
            let label = label as usize;
            let logit = |c: usize| x[(n * classes + c) * voxels + v];
            let largest = (0..classes).map(logit).fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = (0..classes).map(|c| (logit(c) - largest).exp()).sum();
            for c in 0..classes {
                sums.probability[c] += (logit(c) - largest).exp() / total;
            }
            sums.intersection[label] += (logit(label) - largest).exp() / total;
            sums.label[label] += 1.0;
            sums.entropy += op.class_weight(label) * (total.ln() + largest - logit(label));
            sums.weight += op.class_weight(label);
        }
    }
    Ok(vec![Tensor::scalar(op.value(&groups), logits.device())?])
}
