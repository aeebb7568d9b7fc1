//! Grad-CAM against what it is in closed form, and what it refuses.

use serde_json::json;
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_kernels::methods::*;
use tomograd_models::Model;

fn model(config: serde_json::Value) -> Model {
    Model::with_dtype(config, Device::Cpu, Seed::new(1), DType::F64).unwrap()
}

fn resnet() -> Model {
    let config =
        json!({"network": "resnet", "in_channels": 2, "classes": 3, "block": "basic", "layers": [1, 1], "width": 4});
    model(config)
}

fn images(shape: &[usize]) -> Tensor {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap()
}

/// Before a global mean and a linear layer W, the weight of channel k for class c is W(c, k) divided by the number of
/// pixels.
#[test]
fn before_a_mean_and_a_linear_layer_it_is_the_class_activation_map() {
    let (model, images) = (resnet(), images(&[2, 2, 32, 24]));
    let maps = model.features(&images, &["layer2"]).unwrap().into_main().unwrap(); // (2, 8, 4, 3)
    let weights = model.params().get("fc.weight").unwrap();
    // For each image a class that has positive heat.
    let heat = |image, class| {
        let weights = weights.select(0, class).unwrap().reshape(&[1, 8, 1, 1]).unwrap();
        maps.narrow(0, image, 1).unwrap().mul(&weights).unwrap().sum(keep(1)).unwrap().relu().unwrap()
    };
    let total = |image, class| heat(image, class).sum(..).unwrap().to_scalar().unwrap();
    let best = |image| (0..3).max_by(|&a, &b| total(image, a).total_cmp(&total(image, b))).unwrap();
    let classes = [best(0), best(1)];
    for (image, class) in classes.into_iter().enumerate() {
        let map = heat(image, class).mul(1.0 / 12.0).unwrap();
        let expected = map.interpolate(&[32, 24], tomograd_nn::Interpolation::Linear).unwrap().to_vec::<f64>().unwrap();
        let heat = model.grad_cam(&images, "layer2", &classes).unwrap().select(0, image).unwrap();
        assert_eq!(heat.shape(), [32, 24]);
        let largest = expected.iter().fold(0.0f64, |most, value| most.max(*value));
        assert!(largest > 1e-3);
        for (value, expected) in heat.to_vec_f64().unwrap().iter().zip(&expected) {
            assert!((value - expected).abs() <= 1e-12 * largest, "{value}, not {expected}");
        }
        // Other images of the batch make no difference.
        let alone = images.narrow(0, image, 1).unwrap();
        let alone = model.grad_cam(&alone, "layer2", &[class]).unwrap().to_vec_f64().unwrap();
        assert!(alone.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-12 * largest));
    }
}

#[test]
fn networks_of_voxels_have_heat_maps_too() {
    let model = model(json!({"network": "unet3d", "in_channels": 1, "classes": 2, "widths": [2, 4]}));
    let heat = model.grad_cam(&images(&[1, 1, 8, 8, 4]), "dec.0", &[1]).unwrap();
    assert_eq!(heat.shape(), [1, 8, 8, 4]);
    assert!(heat.to_vec_f64().unwrap().iter().all(|value| *value >= 0.0));
}

#[test]
fn errors_say_what_was_expected() {
    let model = resnet();
    let two = images(&[2, 2, 32, 32]);
    let error =
        |image: &Tensor, stage: &str, classes: &[usize]| model.grad_cam(image, stage, classes).unwrap_err().to_string();
    for (text, expected) in [
        (error(&two, "layer2", &[1]), "1 classes for 2 images; expected one class for each image"),
        (error(&two, "layer2", &[1, 3]), "class 3; expected one of 3 classes"),
        (error(&two, "layer9", &[1, 1]), "did you mean layer"),
        (error(&images(&[2, 2, 32]), "layer2", &[1, 1]), "spatial"),
        (error(&images(&[2, 1, 32, 32]), "layer2", &[1, 1]), "channels"),
    ] {
        assert!(text.contains(expected), "{text}, not {expected}");
    }
}
