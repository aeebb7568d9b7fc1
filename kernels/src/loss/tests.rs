//! Losses whose divisors are zero.

use tomograd_core::{Device, Tensor};

use super::DiceCe;
use crate::{Context, Saved, run, run_backward};

/// The loss of logits (images, classes, voxels) and its gradient.
fn both(op: &DiceCe, logits: &[f32], classes: usize, labels: &[i64], images: usize) -> (f32, Vec<f32>) {
    let voxels = labels.len().checked_div(images).unwrap_or(3);
    let logits = Tensor::from_slice(logits, &[images, classes, voxels], Device::Cpu).unwrap();
    let labels = Tensor::from_slice(labels, &[images, voxels], Device::Cpu).unwrap();
    let forward = run(op, &[&logits, &labels], &Context::default()).unwrap();
    let saved = Saved::new(op, &[&logits, &labels], &forward);
    let one = Tensor::scalar(1.0f32, Device::Cpu).unwrap();
    let gradients = run_backward(op, saved, vec![Some(one)], &[true, false], &Context::default()).unwrap();
    let gradient = gradients[0].as_ref().unwrap().to_vec::<f32>().unwrap();
    (forward.outputs[0].to_vec::<f32>().unwrap()[0], gradient)
}

const LOGITS: [f32; 12] = [0.3, -0.2, 1.1, 0.4, -0.9, 0.2, 0.1, 0.8, -0.3, 0.7, 0.5, -1.2];

fn ways() -> impl Iterator<Item = DiceCe> {
    [true, false].into_iter().flat_map(|batch_dice| {
        [0.0, 1e-5].into_iter().map(move |smooth| DiceCe { batch_dice, smooth, ..DiceCe::default() })
    })
}

#[test]
fn classes_of_weight_zero_alone_have_no_cross_entropy() {
    for op in ways() {
        let weighted = DiceCe { class_weights: Some(vec![0.0, 1.0]), ..op.clone() };
        let dice = DiceCe { ce_weight: 0.0, ..op };
        // With background only, all weights are zero.
        assert_eq!(both(&weighted, &LOGITS, 2, &[0; 6], 2), both(&dice, &LOGITS, 2, &[0; 6], 2));
        let (loss, gradient) = both(&DiceCe { dice_weight: 0.0, ..weighted }, &LOGITS, 2, &[0; 6], 2);
        assert_eq!((loss, gradient), (0.0, vec![0.0; 12]));
    }
}

#[test]
fn nothing_is_lost_where_all_is_ignored() {
    for op in ways() {
        let op = DiceCe { ignore_index: Some(9), ..op };
        // No class is present or predicted, so every class counts as correct.
        assert_eq!(both(&op, &LOGITS, 2, &[9; 6], 2), (0.0, vec![0.0; 12]), "{op:?}");
        // A NaN in an ignored voxel doesn't matter either.
        let mut logits = LOGITS;
        logits[4] = f32::NAN;
        assert_eq!(both(&op, &logits, 2, &[9; 6], 2), (0.0, vec![0.0; 12]), "{op:?}");
        assert_eq!(both(&op, &[], 2, &[], 0), (0.0, vec![]), "no images, {op:?}");
        let (loss, gradient) = both(&op, &LOGITS, 2, &[9, 9, 9, 0, 1, 9], 2);
        assert!(loss.is_finite() && loss > 0.0 && gradient.iter().all(|value| value.is_finite()), "{op:?}");
        assert_eq!(gradient[..6], [0.0; 6], "the image without labels");
    }
}

/// Three classes without smoothing; one has no label and a probability that underflows to 0.
#[test]
fn an_absent_class_counts_as_right() {
    let op = DiceCe { smooth: 0.0, ce_weight: 0.0, ..DiceCe::default() };
    let logits = [0.0, 0.0, 0.0, 0.0, -200.0, -200.0];
    let (loss, gradient) = both(&op, &logits, 3, &[0, 1], 1);
    // Classes 0 and 1 give 2 · ½ / (1 + 1) each; class 2 counts as 1.
    assert!((loss - (1.0 - (0.5 + 0.5 + 1.0) / 3.0)).abs() < 1e-6, "{loss}");
    assert!(gradient.iter().all(|value| value.is_finite()));
    assert_eq!(gradient[4..], [0.0, 0.0]);
}

#[test]
fn a_nan_that_counts_makes_the_loss_nan() {
    for weights in [None, Some(vec![0.0, 1.0])] {
        let mut logits = LOGITS;
        logits[1] = f32::NAN;
        let op = DiceCe { dice_weight: 0.0, class_weights: weights, ..DiceCe::default() };
        assert!(both(&op, &logits, 2, &[0; 6], 2).0.is_nan());
    }
}

#[test]
fn weights_that_are_no_weights_are_errors() {
    let weights = |weights: &[f64]| DiceCe { class_weights: Some(weights.to_vec()), ..DiceCe::default() };
    for wrong in [
        weights(&[-1.0, 1.0]),
        weights(&[f64::NAN, 1.0]),
        weights(&[f64::INFINITY, 1.0]),
        weights(&[0.0, 0.0]),
        DiceCe { smooth: -1.0, ..DiceCe::default() },
        DiceCe { smooth: f64::NAN, ..DiceCe::default() },
        DiceCe { dice_weight: f64::NAN, ..DiceCe::default() },
        DiceCe { ce_weight: -1.0, ..DiceCe::default() },
    ] {
        assert!(wrong.check_numbers().is_err(), "{wrong:?}");
        let logits = Tensor::from_slice(&LOGITS, &[2, 2, 3], Device::Cpu).unwrap();
        let labels = Tensor::from_slice(&[0i64; 6], &[2, 3], Device::Cpu).unwrap();
        assert!(run(&wrong, &[&logits, &labels], &Context::default()).is_err(), "{wrong:?}");
    }
    assert!(weights(&[0.0, 1.0]).check_numbers().is_ok());
}
