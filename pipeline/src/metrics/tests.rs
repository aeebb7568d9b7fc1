use proptest::prelude::*;
use tomograd_core::Device;

use super::{distance_transform::squared_distances, *};

proptest! {
    #[test]
    fn distances_are_those_of_brute_force(
        shape in [1usize..7, 1usize..7, 1usize..7],
        spacing in [0.3f64..3.0, 0.3f64..3.0, 0.3f64..3.0],
        density in 0u32..=8,
        seed: u64,
    ) {
        let mut random = tomograd_core::Seed::new(seed).random();
        let sites: Vec<bool> = (0..shape.iter().product()).map(|_| random.bernoulli(f64::from(density) / 16.0)).collect();
        let places = |index: usize| {
            [index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]]
        };
        let distances = squared_distances(&sites, shape, spacing);
        for (index, distance) in distances.into_iter().enumerate() {
            let expected = sites.iter().enumerate().filter(|(_, site)| **site).map(|(site, _)| {
                let (a, b) = (places(index), places(site));
                (0..3).map(|i| ((a[i] as f64 - b[i] as f64) * spacing[i]).powi(2)).sum::<f64>()
            }).fold(f64::INFINITY, f64::min);
            prop_assert!(distance == expected || (distance - expected).abs() <= 1e-9 * (1.0 + expected));
        }
    }
}

fn tensor(values: &[u8], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, Device::Cpu).unwrap()
}

#[test]
fn a_shifted_square() {
    // 2×2 squares, one voxel apart along the last axis.
    let truth = tensor(&[1, 1, 0, 0, 1, 1, 0, 0], &[2, 4]);
    let prediction = tensor(&[0, 1, 1, 0, 0, 1, 1, 0], &[2, 4]);
    let metrics = evaluate(&prediction, &truth, &[1.0, 2.0], 3).unwrap();
    assert_eq!(metrics[0].dice, 0.5);
    assert!((metrics[0].iou - 1.0 / 3.0).abs() < 1e-15);
    assert_eq!(metrics[0].hd95, 2.0);
    assert_eq!(metrics[0].assd, 1.0);
    assert!(
        metrics[1].dice.is_nan() && metrics[1].iou.is_nan() && metrics[1].hd95.is_nan() && metrics[1].assd.is_nan()
    );
}

#[test]
fn one_empty_mask_has_no_distance() {
    let metrics = evaluate(&tensor(&[0; 4], &[1, 2, 2]), &tensor(&[0, 1, 1, 0], &[1, 2, 2]), &[1.0; 3], 2).unwrap();
    assert_eq!((metrics[0].dice, metrics[0].iou), (0.0, 0.0));
    assert!(metrics[0].hd95.is_nan() && metrics[0].assd.is_nan());
}

#[test]
fn percentiles_are_linear_between_values() {
    assert!((percentile(&mut [4.0, 1.0, 3.0, 2.0], 0.95) - 3.85).abs() < 1e-12);
    assert_eq!(percentile(&mut [7.0], 0.95), 7.0);
}

#[test]
fn bad_values_and_shapes_are_errors() {
    let truth = tensor(&[0, 1, 2, 0], &[2, 2]);
    let error = evaluate(&truth, &truth, &[1.0; 2], 2).unwrap_err().to_string();
    assert!(error.contains("value 2 at voxel [1, 0]"), "{error}");
    assert!(evaluate(&truth, &tensor(&[0; 4], &[4]), &[1.0; 2], 3).is_err());
    assert!(evaluate(&truth, &truth, &[1.0], 3).is_err());
    assert!(evaluate(&truth, &truth, &[1.0, 0.0], 3).is_err());
}
