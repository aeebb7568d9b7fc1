//! Networks against PyTorch's, by formula.

mod common;

use std::path::PathBuf;

use common::{assert_close, json, sampled, sizes, tensors};
use serde_json::json;
use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_io::safetensors;
use tomograd_models::{MeshNetConfig, Model, ResNetBlock, ResNetConfig, formula, registry::Config};
use tomograd_nn::PerAxis;

/// Compares outputs, gradients and buffers of a network of this family with the golden `name`, and its state dict's names in
/// order.
fn check(name: &str, family: &str, dtype: DType, tolerance: f64) {
    let (golden, numbers) = (json(name), tensors(name));
    let mut config = golden["attributes"].clone();
    config["network"] = json!(family);
    config["in_channels"] = golden["input"][1].clone();
    let mut model = Model::with_dtype(config, Device::Cpu, Seed::new(0), dtype).unwrap();
    assert_eq!(model.params().count() as u64, golden["parameter_count"].as_u64().unwrap());
    let state: Vec<(String, Vec<usize>)> =
        model.params().state().map(|(name, value)| (name.to_owned(), value.shape().to_vec())).collect();
    let expected: Vec<(String, Vec<usize>)> = golden["state"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry[0].as_str().unwrap().to_owned(), sizes(&entry[1])))
        .collect();
    assert_eq!(state, expected);
    formula::fill(model.params_mut()).unwrap();
    let samples = golden["samples"].as_u64().unwrap() as usize;
    for (mode, training) in [("eval", false), ("train", true)] {
        let mut dump = formula::dump(model.params(), model.network(), &[&sizes(&golden["input"])], training).unwrap();
        // Counts of batches aren't in the goldens.
        dump.retain(|(key, _)| !key.ends_with("num_batches_tracked"));
        let names = numbers.keys().filter(|name| name.starts_with(&format!("{mode}/"))).count();
        assert_eq!(dump.len(), names, "{name} {mode}");
        for (key, value) in dump {
            let expected = &numbers[&format!("{mode}/{key}")];
            // A gradient that cancels to zero (a bias before a norm) has nothing but rounding errors.
            if key.starts_with("grad_norm.") && expected[0].abs() < 1e-12 {
                assert!(value.to_scalar().unwrap().abs() < tolerance, "{mode}/{key}");
                continue;
            }
            assert_close(&format!("{mode}/{key}"), &sampled(&value, samples), expected, tolerance);
        }
    }
}

#[test]
fn unet3d_agrees_with_pytorch() {
    check("unet3d", "unet3d", DType::F64, 1e-9);
}

#[test]
fn unet2d_agrees_with_pytorch() {
    check("unet2d", "unet2d", DType::F64, 1e-9);
}

#[test]
fn resnets_agree_with_torchvision() {
    for name in ["resnet_basic", "resnet_bottleneck", "resnet_3d"] {
        check(name, "resnet", DType::F64, 1e-9);
    }
}

#[test]
fn meshnet_gives_what_its_publisher_gives() {
    // The weights that PyTorch has trained for the example `5_weights`, whose names begin with `model.`.
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/data/meshnet.safetensors");
    let config = MeshNetConfig { in_channels: 1, classes: 3, width: 8, dilations: vec![1, 2, 4, 2, 1] };
    let config = serde_json::to_value(config).unwrap();
    let mut model = Model::with_dtype(config, Device::Cpu, Seed::new(0), DType::F64).unwrap();
    let weights = safetensors::load(&file).unwrap().tensors.into_iter().map(|(name, value)| {
        let value = if value.dtype().is_float() { value.converted(DType::F64).unwrap() } else { value };
        (name.trim_start_matches("model.").to_owned(), value)
    });
    model.params_mut().load(weights).unwrap();
    let image = formula::signed("input", &[1, 1, 12, 10, 14], DType::F64).unwrap();
    let expected = tensors("meshnet_output").into_values().next().unwrap();
    assert_close("meshnet", &model.predict(&image).unwrap().to_vec_f64().unwrap(), &expected, 1e-6);
    // Of the paper of 2025, table 1: 26 channels.
    let config = MeshNetConfig::preset("stroke_lesions").unwrap();
    assert_eq!(Model::new(&config, Device::Meta, Seed::new(0)).unwrap().params().count(), 147_474);
}

#[test]
fn presets_have_as_many_parameters_as_torchvisions() {
    for (name, expected) in [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnext50_32x4d", 25_028_904),
        ("resnext101_32x8d", 88_791_336),
        ("wide_resnet50_2", 68_883_240),
        ("wide_resnet101_2", 126_886_696),
    ] {
        let config = ResNetConfig::preset(name).unwrap();
        let model = Model::new(&config, Device::Meta, Seed::new(0)).unwrap();
        assert_eq!(model.params().count(), expected, "{name}");
        let expansion = if config.block == ResNetBlock::Basic { 1 } else { 4 };
        let stages: Vec<_> = model.stages().iter().map(|s| (s.name(), s.channels(), s.reduction().clone())).collect();
        assert_eq!(stages[0], ("stem", 64, PerAxis::All(2)));
        assert_eq!(stages[4], ("layer4", 512 * expansion, PerAxis::All(32)));
        // What is said of the stages is so.
        let image = Tensor::zeros(&[1, 3, 64, 96], DType::F32, Device::Meta).unwrap();
        for (name, channels, reduction) in stages {
            let map = model.features(&image, &[name]).unwrap().into_main().unwrap();
            let PerAxis::All(reduction) = reduction else { panic!("{reduction:?}") };
            assert_eq!(map.shape(), [1, channels, 64 / reduction, 96 / reduction]);
        }
    }
}
