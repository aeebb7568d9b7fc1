//! The metrics of SciPy, NumPy and MONAI on unions of ellipsoids (`tests/golden/metrics.json`).

use serde_json::Value;
use tomograd_core::{Device, Tensor};
use tomograd_io::{Volume, geometry};
use tomograd_pipeline::{alignment, compare_volumes, evaluate};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// 1 in the union of the ellipsoids.
fn mask(balls: &Value, shape: &[usize]) -> Tensor {
    let balls: Vec<_> =
        balls.as_array().unwrap().iter().map(|b| (numbers(&b["center"]), numbers(&b["radii"]))).collect();
    let inside = |index: usize| {
        let place = [index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]];
        let distance = |(centre, radii): &(Vec<f64>, Vec<f64>)| -> f64 {
            (0..3).map(|d| ((place[d] as f64 - centre[d]) / radii[d]).powi(2)).sum()
        };
        balls.iter().any(|ball| distance(ball) <= 1.0)
    };
    let values: Vec<u8> = (0..shape.iter().product()).map(|index| u8::from(inside(index))).collect();
    Tensor::from_slice(&values, shape, Device::Cpu).unwrap()
}

#[test]
fn metrics_agree_with_scipy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/metrics.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let shape: Vec<usize> = numbers(&golden["shape"]).into_iter().map(|size| size as usize).collect();
    let spacing = numbers(&golden["spacing"]);
    let cases = golden["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let [prediction, reference] = ["prediction", "reference"].map(|part| mask(&case[part], &shape));
        let found = evaluate(&prediction, &reference, &spacing, 2).unwrap()[0];
        // The affine counts from the last axis.
        let affine = geometry::from_spacing([spacing[2], spacing[1], spacing[0]]).unwrap();
        let [a, b] = [&prediction, &reference].map(|mask| Volume::new(mask.clone(), affine).unwrap());
        let compared = compare_volumes(&a, &b, 2, alignment::TOLERANCE, 2.0).unwrap()[0];
        let pairs = [
            ("dice", found.dice),
            ("iou", found.iou),
            ("hd95", found.hd95),
            ("assd", found.assd),
            ("surface_dice", compared.surface_dice),
        ];
        for (quantity, found) in pairs {
            // Null stands for what isn't defined; the IoU of empty masks isn't given.
            let expected = match &case["results"].get(quantity) {
                None => continue,
                Some(expected) => expected.as_f64().unwrap_or(f64::NAN),
            };
            assert_eq!(found.is_nan(), expected.is_nan(), "{}: {quantity}", case["name"]);
            // MONAI divides in f32.
            let tolerance = if quantity == "surface_dice" { 1e-7 } else { 1e-12 };
            assert!(
                found.is_nan() || (found - expected).abs() < tolerance,
                "{}: {quantity} {found} {expected}",
                case["name"]
            );
        }
    }
}
