//! Classification networks: initial values, stages, sizes that are refused, and the memory of dense blocks.

use serde_json::{Value, json};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_models::{DenseNetConfig, Model, profile};
use tomograd_nn::Pass;

fn model(config: &Value) -> Result<Model> {
    Model::new(config, Device::Cpu, Seed::new(1))
}

fn residual(fields: Value) -> Value {
    let mut config =
        json!({"network": "resnet", "in_channels": 1, "classes": 2, "block": "basic", "layers": [1, 1], "width": 16});
    fields.as_object().unwrap().iter().for_each(|(field, value)| config[field] = value.clone());
    config
}

#[test]
fn initial_values_are_those_of_the_originals() {
    let kaiming = |fan: usize| (2.0 / fan as f64).sqrt();
    let close = |model: &Model, name: &str, expected: f64| {
        let values = model.params().get(name).unwrap().to_vec_f64().unwrap();
        let found = (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt();
        // Five standard errors.
        let bound = 5.0 / (2.0 * values.len() as f64).sqrt();
        assert!((found / expected - 1.0).abs() < bound, "{name}: {found}, not {expected}");
    };
    let all = |model: &Model, name: &str, value: f64| {
        let values = model.params().get(name).unwrap().to_vec_f64().unwrap();
        assert!(values.iter().all(|&found| found == value), "{name}");
    };

    let plain = model(&residual(json!({}))).unwrap();
    close(&plain, "layer2.0.conv2.weight", kaiming(32 * 9));
    close(&plain, "layer2.0.downsample.0.weight", kaiming(32));
    all(&plain, "layer2.0.bn2.weight", 1.0);

    // In timm a branch begins as zero; the convolutions of the attention are initialised as the others.
    let se = model(&residual(json!({"attention": "squeeze_excitation"}))).unwrap();
    all(&se, "layer2.0.bn2.weight", 0.0);
    all(&se, "layer2.0.bn1.weight", 1.0);
    close(&se, "layer2.0.se.fc2.weight", kaiming(32));

    let cbam = model(&residual(json!({"attention": "cbam"}))).unwrap();
    all(&cbam, "layer2.0.cbam.SpatialGate.spatial.bn.weight", 0.0);
    all(&cbam, "fc.bias", 0.0);
    // Uniform on ±1/√fan, as PyTorch has it.
    close(&cbam, "layer2.0.downsample.0.weight", (1.0f64 / 16.0 / 3.0).sqrt());

    let config = json!({"network": "densenet", "in_channels": 1, "classes": 2, "layers": [2], "growth_rate": 16});
    let dense = model(&config).unwrap();
    close(&dense, "features.denseblock1.denselayer2.conv2.weight", kaiming(64 * 9));
    all(&dense, "classifier.bias", 0.0);
}

#[test]
fn stages_have_the_channels_and_reductions_that_they_announce() {
    let configs = [
        residual(json!({"rank": 3, "stem_size": [3, 7, 7], "stem_stride": [1, 2, 2]})),
        residual(json!({"rank": 3, "max_pool": false, "stem_stride": [1], "layers": [1, 1, 1]})),
        residual(json!({"rank": 2, "widths": [4, 12], "shortcut_bias": true})),
        json!({"network": "densenet", "in_channels": 1, "classes": 2, "layers": [1, 2, 1], "growth_rate": 3, "width": 5}),
    ];
    for config in configs {
        let model = model(&config).unwrap();
        let rank = config.get("rank").and_then(Value::as_u64).unwrap_or(2) as usize;
        let image = Tensor::zeros(&[&[1, 1][..], &vec![32; rank]].concat(), DType::F32, Device::Cpu).unwrap();
        assert!(model.stages().len() > 2);
        for stage in model.stages() {
            let map = model.features(&image, &[stage.name()]).unwrap();
            let reduction = match stage.reduction() {
                tomograd_nn::PerAxis::All(factor) => vec![*factor; rank],
                tomograd_nn::PerAxis::Each(factors) => factors.clone(),
            };
            let sizes: Vec<usize> = reduction.iter().map(|factor| 32 / factor).collect();
            assert_eq!(map.main().unwrap().shape(), [&[1, stage.channels()], &sizes[..]].concat(), "{}", stage.name());
        }
    }
}

#[test]
fn what_the_originals_refuse_is_refused() {
    let refused = |config: Value| Model::new(&config, Device::Meta, Seed::new(0)).err().unwrap().to_string();
    let text = refused(residual(json!({"widths": [8, 4], "shortcut": "zero_padding"})));
    assert!(text.contains("shortcut zero_padding") && text.contains("become fewer"), "{text}");
    let text = refused(residual(json!({"rank": 3, "stem_size": [3, 7]})));
    assert!(text.contains("stem_size has 2 entries; expected 3"), "{text}");
    let text = refused(residual(json!({"widths": [8]})));
    assert!(text.contains("widths has 1 entries; expected 2"), "{text}");
    let text = refused(residual(json!({"width": 8, "attention": "cbam"})));
    assert!(text.contains("attention cbam") && text.contains("16 at least"), "{text}");
    let text = refused(residual(json!({"widths": [16, 8], "attention": "cbam"})));
    assert!(text.contains("attention cbam with 8 channels in layer 2"), "{text}");
    let text = refused(json!({"network": "densenet", "in_channels": 1, "classes": 2, "layers": [1], "dropout": 1.0}));
    assert!(text.contains("dropout is 1"), "{text}");

    let config = DenseNetConfig { width: 4, growth_rate: 2, in_channels: 1, ..DenseNetConfig::new([1, 1, 1, 1], 2) };
    let model = Model::new(&config, Device::Cpu, Seed::new(0)).unwrap();
    let image = |batch, size| Tensor::zeros(&[batch, 1, size, 40], DType::F32, Device::Cpu).unwrap();
    let text = model.predict(&image(1, 28)).unwrap_err().to_string();
    assert!(text.contains("all at least 29"), "{text}");
    assert_eq!(model.predict(&image(1, 29)).unwrap().shape(), [1, 2]);
    // One voxel of one image is left, which has no variance.
    let train = |batch| -> Result<()> {
        let pass = Pass::train(model.params(), Seed::new(1))?;
        let inputs = [("image", pass.input(&image(batch, 29)))].into();
        model.network().run(&inputs, &pass).map(drop)
    };
    let text = train(1).unwrap_err().to_string();
    assert!(text.contains("features.denseblock4") && text.contains("more than one value"), "{text}");
    train(2).unwrap();
}

/// Twice the layers take twice the memory, not four times: each keeps the 8 channels that it adds and the 32 between its
/// convolutions, and reads up to 400.
#[test]
fn memory_of_a_dense_block_is_linear_in_its_layers() {
    let peak = |layers: usize| {
        let config = DenseNetConfig { width: 8, growth_rate: 8, ..DenseNetConfig::new([layers], 2) };
        profile(&config, &[&[4, 3, 256, 256]]).unwrap().training.unwrap().peak as f64
    };
    let [first, second, third] = [16, 32, 48].map(peak);
    let growth = (third - second) / (second - first);
    assert!((0.95..1.15).contains(&growth), "{first} {second} {third}");
}
