//! What the goldens of the U-Nets with several outputs don't show: refused sizes, logits, the gate, memory.

use serde_json::{Value, json};
use tomograd_core::{DType, Device, ErrorKind, Seed, Tensor};
use tomograd_models::{Model, formula, profile, registry};
use tomograd_nn::Named;

fn small() -> [Value; 4] {
    [
        json!({"network": "unet3plus", "in_channels": 1, "classes": 2, "widths": [2, 3, 4], "supervision": "deep_guided"}),
        json!({"network": "res_unet", "in_channels": 1, "classes": 2, "widths": [2, 3, 4]}),
        json!({"network": "half_unet", "in_channels": 1, "classes": 2, "width": 4, "levels": 3}),
        json!({"network": "u2net", "in_channels": 1, "classes": 2, "encoder": [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2], [1, 2]],
               "decoder": [[1, 2], [1, 2], [1, 2], [1, 2], [1, 2]]}),
    ]
}

fn filled(config: &Value) -> Model {
    let mut model = Model::with_dtype(config.clone(), Device::Cpu, Seed::new(1), DType::F64).unwrap();
    formula::fill(model.params_mut()).unwrap();
    model
}

fn outputs(model: &Model, shape: &[usize]) -> Named<Tensor> {
    model.run(&[("image", formula::signed("input", shape, DType::F64).unwrap())].into()).unwrap()
}

#[test]
fn sizes_that_the_originals_refuse_are_refused_with_the_sizes_that_fit() {
    for (config, wrong, right, expected) in [
        (0, vec![1, 1, 8, 6], vec![1, 1, 8, 4], "2 spatial axes, all multiples of 4"),
        (1, vec![1, 1, 9, 8], vec![1, 1, 12, 8], "2 spatial axes, all multiples of 4"),
        (2, vec![1, 1, 3, 8], vec![1, 1, 4, 5], "2 spatial axes, all at least 4"),
        (3, vec![1, 1, 0, 8], vec![1, 1, 1, 3], "2 spatial axes, all at least 1"),
    ] {
        let model = filled(&small()[config]);
        for shape in [wrong, vec![1, 1, 8], vec![1, 1, 8, 8, 8]] {
            let image = Tensor::zeros(&shape, DType::F64, Device::Cpu).unwrap();
            let error = model.predict(&image).unwrap_err();
            assert!(error.kind() == ErrorKind::Shape && error.to_string().contains(expected), "{error}");
        }
        let spatial = right[2..].to_vec();
        for (_, map) in outputs(&model, &right).iter().filter(|(name, _)| !name.ends_with("presence")) {
            assert_eq!(map.shape(), [&[1, 2], &spatial[..]].concat());
        }
    }
    let odd = json!({"network": "half_unet", "in_channels": 1, "classes": 2, "width": 5});
    let error = Model::new(&odd, Device::Meta, Seed::new(0)).err().unwrap().to_string();
    assert!(error.contains("width is 5, with Ghost modules; expected an even number"), "{error}");
}

#[test]
fn probabilities_are_the_sigmoid_of_the_logits() {
    for mut config in small() {
        let probabilities = outputs(&filled(&config), &[2, 1, 16, 32]);
        config["sigmoid"] = json!(false);
        let logits = outputs(&filled(&config), &[2, 1, 16, 32]);
        assert!(logits.len() == probabilities.len() && logits.names().next() == Some("logits"));
        for (name, logits) in logits.iter() {
            let other = probabilities.get(&name.replace("logits", "probabilities")).unwrap().to_vec::<f64>().unwrap();
            for (x, p) in logits.to_vec::<f64>().unwrap().into_iter().zip(other) {
                assert!((1.0 / (1.0 + (-x).exp()) - p).abs() < 1e-14);
            }
        }
    }
}

#[test]
fn an_image_without_the_organ_has_logits_of_zero() {
    let mut config = small()[0].clone();
    config["sigmoid"] = json!(false);
    let mut model = filled(&config);
    // The largest of a map plus its bias decides, for all images alike.
    for (bias, organ) in [([100.0, -100.0], false), ([-100.0, 100.0], true)] {
        let bias = Tensor::from_slice(&bias, &[2], Device::Cpu).unwrap();
        model.params_mut().set("cls.1.bias", bias).unwrap();
        for (name, map) in outputs(&model, &[2, 1, 8, 8]).iter().filter(|(name, _)| !name.ends_with("presence")) {
            assert_eq!(map.to_vec::<f64>().unwrap().iter().any(|&logit| logit != 0.0), organ, "{name}");
        }
    }
}

#[test]
fn unet_3plus_starts_as_the_authors_do() {
    let config = json!({"network": "unet3plus", "in_channels": 3, "classes": 9, "widths": [16, 32],
                        "supervision": "deep_guided"});
    let model = Model::new(&config, Device::Cpu, Seed::new(1)).unwrap();
    for (name, fan) in [("conv2.conv1.0", 144.0), ("h1_Cat_hd1_conv", 144.0), ("outconv2", 288.0), ("cls.1", 32.0)] {
        let values = model.params().get(&format!("{name}.weight")).unwrap().to_vec_f64().unwrap();
        let count = values.len() as f64;
        let square = values.iter().map(|value| value * value).sum::<f64>() / count;
        // Five standard deviations of the mean square of normal numbers.
        assert!((square * fan / 2.0 - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "{name}: {square}");
    }
}

/// The peak of an inference in units of a feature map of full size; parameters and image don't count.
fn peak(preset: &str, family: &str, channels: usize) -> f64 {
    let config = registry::family(family).unwrap().preset(preset).unwrap().config;
    let shape = [1, config["in_channels"].as_u64().unwrap() as usize, 1024, 1024];
    let profile = profile(&config, &[&shape]).unwrap();
    let others = 4 * (profile.parameters + shape.iter().product::<usize>());
    (profile.inference.peak - others) as f64 / (4 * channels * 1024 * 1024) as f64
}

#[test]
fn inference_holds_few_maps() {
    // The enlarged coarsest map of 1,024 channels, that is 16, while the encoder's maps and what the decoder has found remain.
    assert!(peak("unet_3plus", "unet3plus", 64) < 20.0);
    // A joined map of 192 channels, its norm, and the shortcut: 3 + 3 + 1.
    assert!(peak("res_unet", "res_unet", 64) < 7.2);
    // The sum, an enlarged map, and the new sum.
    assert!(peak("half_unet", "half_unet", 64) < 3.4);
    // Two maps that the last block reads, and its first convolution.
    assert!(peak("u2net", "u2net", 64) < 3.4);
}
