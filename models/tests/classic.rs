//! AlexNet, VGG, GoogLeNet, Inception v3 and residual networks: initial values, sizes and outputs, beyond what the goldens say.

use serde_json::{Value, json};
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_models::{AlexNetConfig, Model, registry::Config};
use tomograd_nn::Pass;

fn model(config: &Value) -> Model {
    Model::new(config, Device::Cpu, Seed::new(3)).unwrap()
}

/// The standard deviation of a parameter, whose mean must be 0 within five standard errors.
fn deviation(model: &Model, name: &str) -> (f64, f64) {
    let values = model.params().get(name).unwrap().to_vec_f64().unwrap();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    assert!(mean.abs() <= 5.0 * deviation / count.sqrt(), "{name}: a mean of {mean}");
    (deviation, 5.0 / (2.0 * count).sqrt())
}

fn assert_deviation(model: &Model, name: &str, expected: f64) {
    let (found, error) = deviation(model, name);
    assert!((found / expected - 1.0).abs() <= error, "{name}: a deviation of {found}, not {expected}");
}

fn assert_constant(model: &Model, name: &str, expected: f64) {
    let values = model.params().get(name).unwrap().to_vec_f64().unwrap();
    assert!(values.iter().all(|&value| value == expected), "{name}: {values:?}");
}

#[test]
fn initial_values_are_those_of_the_originals() {
    let kaiming = |fan: f64| (2.0 / fan).sqrt();
    let vgg =
        model(&json!({"network": "vgg", "in_channels": 3, "classes": 9, "convolutions": [1, 2], "widths": [16, 32],
                            "hidden": 24, "batch_norm": true}));
    assert_deviation(&vgg, "features.0.weight", kaiming(16.0 * 9.0));
    assert_deviation(&vgg, "features.7.weight", kaiming(32.0 * 9.0));
    assert_deviation(&vgg, "classifier.0.weight", 0.01);
    assert_deviation(&vgg, "classifier.6.weight", 0.01);
    for name in ["features.0.bias", "features.1.bias", "classifier.3.bias", "classifier.6.bias"] {
        assert_constant(&vgg, name, 0.0);
    }
    let resnet =
        model(&json!({"network": "resnet", "in_channels": 1, "classes": 9, "block": "bottleneck", "layers": [1, 1],
                               "width": 16, "groups": 2}));
    assert_deviation(&resnet, "conv1.weight", kaiming(16.0 * 49.0));
    assert_deviation(&resnet, "layer1.0.conv2.weight", kaiming(32.0 * 9.0));
    assert_deviation(&resnet, "layer2.0.downsample.0.weight", kaiming(128.0));
    let googlenet = model(&json!({"network": "googlenet", "in_channels": 3, "classes": 9, "width": 8}));
    for name in ["conv1.conv", "inception4a.branch2.1.conv", "aux1.conv.conv", "aux2.fc1", "aux2.fc2", "fc"] {
        assert_deviation(&googlenet, &format!("{name}.weight"), 0.01);
    }
    let inception = model(&json!({"network": "inception_v3", "in_channels": 3, "classes": 9, "width": 4}));
    for (name, expected) in [
        ("Conv2d_1a_3x3.conv", 0.1),
        ("Mixed_7c.branch3x3_2a.conv", 0.1),
        ("AuxLogits.conv1.conv", 0.1),
        ("AuxLogits.fc", 0.001),
        ("fc", 0.1),
    ] {
        assert_deviation(&inception, &format!("{name}.weight"), expected);
    }
    let paper = model(&json!({"network": "alexnet", "form": "paper", "in_channels": 3, "classes": 9, "groups": 2,
                              "widths": [8, 16, 16, 16, 8], "hidden": 24}));
    for (place, bias) in [("conv1", 0.0), ("conv2", 1.0), ("conv3", 0.0), ("conv4", 1.0), ("conv5", 1.0), ("fc6", 1.0)]
    {
        assert_deviation(&paper, &format!("{place}.weight"), 0.01);
        assert_constant(&paper, &format!("{place}.bias"), bias);
    }
    assert_constant(&paper, "fc7.bias", 1.0);
    assert_constant(&paper, "fc8.bias", 0.0);
}

#[test]
fn images_that_are_too_small_are_refused_with_the_smallest_size() {
    let small = [("alexnet", 63), ("vgg", 8), ("googlenet", 15), ("inception_v3", 75)];
    let configs = [
        json!({"network": "alexnet", "in_channels": 1, "classes": 2, "widths": [2, 2, 2, 2, 2], "hidden": 2}),
        json!({"network": "vgg", "in_channels": 1, "classes": 2, "convolutions": [1, 1, 1], "widths": [2, 2, 2], "hidden": 2}),
        json!({"network": "googlenet", "in_channels": 1, "classes": 2, "width": 8}),
        json!({"network": "inception_v3", "in_channels": 1, "classes": 2, "width": 2}),
    ];
    let mut cases: Vec<(Value, usize)> = configs.into_iter().zip(small.map(|(_, size)| size)).collect();
    cases.push((
        json!({"network": "alexnet", "form": "paper", "in_channels": 1, "classes": 2, "widths": [2, 2, 2, 2, 2],
                       "hidden": 2}),
        67,
    ));
    for (config, size) in cases {
        let model = model(&config);
        let image = |shape: &[usize]| Tensor::ones(shape, DType::F32, Device::Cpu).unwrap();
        assert_eq!(model.predict(&image(&[1, 1, size, size + 1])).unwrap().shape(), [1, 2], "{config}");
        for shape in [&[1, 1, size, size - 1][..], &[1, 1, 0, size], &[1, size, size], &[1, 1, size, size, size]] {
            let error = model.predict(&image(shape)).unwrap_err().to_string();
            assert!(error.contains(&format!("all at least {size}")), "{config}: {error}");
        }
    }
}

#[test]
fn auxiliary_heads_run_in_training_alone() {
    for (name, size, heads) in [
        ("googlenet", 32, &["logits", "logits_aux2", "logits_aux1"][..]),
        ("inception_v3", 299, &["logits", "logits_aux"]),
    ] {
        let mut config = json!({"network": name, "in_channels": 1, "classes": 3, "width": 8});
        for (auxiliary, training, expected) in
            [(true, true, heads), (true, false, &heads[..1]), (false, true, &heads[..1])]
        {
            config["auxiliary"] = auxiliary.into();
            let model = Model::new(&config, Device::Meta, Seed::new(0)).unwrap();
            assert_eq!(model.params().state().any(|(name, _)| name.to_lowercase().starts_with("aux")), auxiliary);
            let pass = Pass::eval(model.params()).unwrap().training(training);
            let image = pass.input(&Tensor::zeros(&[2, 1, size, size], DType::F32, Device::Meta).unwrap());
            let outputs = model.network().run(&[("image", image)].into(), &pass).unwrap();
            assert_eq!(outputs.names().collect::<Vec<_>>(), expected, "{name}");
        }
    }
}

#[test]
fn the_auxiliary_head_of_inception_needs_the_size_of_the_paper() {
    let config = json!({"network": "inception_v3", "in_channels": 1, "classes": 3, "width": 2});
    let model = Model::new(&config, Device::Meta, Seed::new(0)).unwrap();
    let pass = Pass::train(model.params(), Seed::new(0)).unwrap();
    let image = pass.input(&Tensor::zeros(&[2, 1, 299, 298], DType::F32, Device::Meta).unwrap());
    let error = model.network().run(&[("image", image)].into(), &pass).unwrap_err().to_string();
    assert!(error.contains("all at least 299"), "{error}");
}

#[test]
fn the_paper_of_alexnet_without_groups_has_more_parameters() {
    let config = AlexNetConfig { groups: 1, ..AlexNetConfig::preset("alexnet_2012").unwrap() };
    assert_eq!(Model::new(&config, Device::Meta, Seed::new(0)).unwrap().params().count(), 62_378_344);
}

#[test]
fn dropout_acts_in_training_alone() {
    for config in [
        json!({"network": "alexnet", "in_channels": 1, "classes": 3, "widths": [4, 4, 4, 4, 8], "hidden": 16}),
        json!({"network": "alexnet", "form": "paper", "in_channels": 1, "classes": 3, "widths": [4, 4, 4, 4, 8], "hidden": 16}),
        json!({"network": "vgg", "in_channels": 1, "classes": 3, "convolutions": [1, 1], "widths": [4, 8], "hidden": 16}),
    ] {
        let model = model(&config);
        let image = Tensor::normal(&[1, 1, 80, 80], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
        let run = |seed: u64, training: bool| {
            let pass = Pass::train(model.params(), Seed::new(seed)).unwrap().training(training);
            let image = pass.input(&image);
            let outputs = model.network().run(&[("image", image)].into(), &pass).unwrap();
            outputs.into_main().unwrap().value().to_vec::<f32>().unwrap()
        };
        assert_ne!(run(1, true), run(2, true), "{config}");
        assert_eq!(run(1, true), run(1, true), "{config}");
        assert_eq!(run(1, false), run(2, false), "{config}");
    }
}

#[test]
fn wrong_fields_are_explained() {
    for (network, field, value, expected) in [
        ("alexnet", "groups", json!(3), "groups that divide all widths"),
        ("alexnet", "widths", json!([8, 8]), "widths has 2 entries; expected 5"),
        ("alexnet", "dropout", json!(1.0), "dropout is 1"),
        ("vgg16", "widths", json!([8, 8]), "widths has 2 entries"),
        ("googlenet", "width", json!(12), "a multiple of 8"),
        ("googlenet", "in_channels", json!(1), "transform_input with in_channels 1"),
        ("googlenet", "auxiliary_dropout", json!(-0.5), "auxiliary_dropout is -0.5"),
        ("inception_v3", "width", json!(33), "a multiple of 2"),
        ("fully_connected", "activation", json!({"leaky_relu": 1e300}), "LeakyRelu(1e300)"),
        ("monai_classifier", "last_activation", json!({"elu": 1e300}), "Elu(1e300)"),
    ] {
        let families = tomograd_models::registry::families();
        let preset = families.iter().find_map(|family| family.preset(network).ok()).unwrap();
        let mut config = preset.config;
        config[field] = value;
        let error = Model::new(&config, Device::Meta, Seed::new(0)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
