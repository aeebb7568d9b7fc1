//! Batch norm folded into whole networks.

use tomograd_core::{DType, Device, Seed};
use tomograd_models::{Model, formula, registry};

/// A network of each family with batch norms, small, and the shape of an image that fits it.
fn models(dtype: DType) -> Vec<(Model, Vec<usize>)> {
    let configs = [
        (
            serde_json::json!({"network": "unet2d", "in_channels": 1, "classes": 2, "widths": [4, 8, 8]}),
            vec![2, 1, 16, 24],
        ),
        (
            serde_json::json!({"network": "resnet", "rank": 3, "in_channels": 1, "classes": 4, "block": "bottleneck",
                               "layers": [2, 1], "width": 8}),
            vec![2, 1, 16, 18, 20],
        ),
        (
            serde_json::json!({"network": "resnet", "in_channels": 3, "classes": 4, "block": "basic", "layers": [1, 2],
                               "width": 8}),
            vec![1, 3, 32, 20],
        ),
        (
            serde_json::json!({"network": "resnet", "in_channels": 1, "classes": 4, "block": "basic", "layers": [1, 1],
                               "width": 16, "shortcut_bias": true, "attention": "cbam"}),
            vec![1, 1, 24, 20],
        ),
        (
            serde_json::json!({"network": "meshnet", "in_channels": 1, "classes": 2, "width": 4, "dilations": [1, 2, 1]}),
            vec![1, 1, 6, 7, 8],
        ),
        (
            serde_json::json!({"network": "unet3plus", "in_channels": 1, "classes": 2, "widths": [2, 3, 4], "supervision": "deep"}),
            vec![1, 1, 8, 12],
        ),
        (
            serde_json::json!({"network": "half_unet", "in_channels": 1, "classes": 2, "width": 4, "levels": 3}),
            vec![1, 1, 9, 12],
        ),
        (
            serde_json::json!({"network": "u2net", "in_channels": 1, "classes": 2, "encoder": vec![[2, 3]; 6],
                               "decoder": vec![[2, 3]; 5]}),
            vec![1, 1, 21, 34],
        ),
    ];
    let model = |(config, shape)| {
        let mut model = Model::with_dtype(config, Device::Cpu, Seed::new(1), dtype).unwrap();
        formula::fill(model.params_mut()).unwrap();
        (model, shape)
    };
    configs.into_iter().map(model).collect()
}

#[test]
fn outputs_stay_the_same_and_checkpoints_are_those_of_ordinary_networks() {
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        for (mut model, shape) in models(dtype) {
            let name = model.config()["network"].as_str().unwrap().to_owned();
            let image = formula::signed("input", &shape, dtype).unwrap();
            let before = model.predict(&image).unwrap().to_vec_f64().unwrap();
            let largest = before.iter().fold(0f64, |most, value| most.max(value.abs()));
            let close = |model: &Model| {
                let after = model.predict(&image).unwrap().to_vec_f64().unwrap();
                let distance = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(distance <= tolerance * largest, "{name} {dtype}: {distance} of {largest}");
            };
            let norms = model.params().state().filter(|(name, _)| name.ends_with("running_mean")).count();
            let done = model.fold_batch_norm().unwrap();
            assert_eq!((done.folded.len(), done.left), (norms, vec![]), "{name}");
            close(&model);
            let path = std::env::temp_dir().join(format!("tomograd-folded-model-{}", std::process::id()));
            model.checkpoint().unwrap().save(&path).unwrap();
            let mut again = Model::load(&path, Device::Cpu).unwrap();
            std::fs::remove_file(&path).unwrap();
            close(&again);
            assert_eq!(again.fold_batch_norm().unwrap().folded.len(), norms);
            close(&again);
        }
    }
}

#[test]
fn every_batch_norm_of_the_zoo_can_be_folded() {
    for family in registry::families() {
        let config = family.presets().unwrap().swap_remove(0).config;
        let mut model = Model::new(&config, Device::Meta, Seed::new(0)).unwrap();
        let mut done = model.fold_batch_norm().unwrap();
        let mut norms_before = |ends: &[&str]| {
            let count = done.left.len();
            done.left.retain(|name| !ends.iter().any(|end| name.ends_with(end)));
            count - done.left.len()
        };
        // A pre-activated norm follows a sum or several maps, not a convolution.
        match family.name() {
            "res_unet" => assert_eq!(norms_before(&[".conv_block.0"]), 6),
            // These run twice, in front of the convolution and behind it.
            "fcn" => assert_eq!(norms_before(&[".bn"]), 10),
            "densenet" => assert_eq!(norms_before(&[".norm", ".norm1", ".norm5"]), 62),
            _ => (),
        }
        assert!(done.left.is_empty(), "{}: {:?}", family.name(), done.left);
    }
}
