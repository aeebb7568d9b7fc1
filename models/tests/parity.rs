//! Networks against PyTorch's, by formula.

mod common;

use common::{assert_close, json, sampled, sizes, tensors};
use serde_json::json;
use tomograd_core::{DType, Device, Seed};
use tomograd_models::{Model, formula};

/// Compares outputs, gradients and buffers of the network `name` with its golden, and its state dict's names in order.
fn check(name: &str, dtype: DType, tolerance: f64) {
    let (golden, numbers) = (json(name), tensors(name));
    let mut config = golden["attributes"].clone();
    config["network"] = json!(name);
    config["in_channels"] = json!(1);
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
        let mut dump = formula::dump(model.params(), model.network(), &sizes(&golden["input"]), training).unwrap();
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
    check("unet3d", DType::F64, 1e-9);
}

#[test]
fn unet2d_agrees_with_pytorch() {
    check("unet2d", DType::F64, 1e-9);
}
