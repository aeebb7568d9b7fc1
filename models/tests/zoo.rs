//! Every network against its original, by formula: `tests/golden/zoo` has what the originals give. A new golden needs
//! no new code here.

mod common;

use common::{assert_close, json, sampled, sizes, tensors};
use serde_json::Value;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_models::{Model, formula, profile, registry};

fn goldens() -> Vec<String> {
    common::zoo(".safetensors")
}

fn made(name: &str, config: &Value, device: Device, dtype: DType) -> Model {
    Model::with_dtype(config.clone(), device, Seed::new(0), dtype).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn filled(name: &str, golden: &Value, dtype: DType) -> Model {
    let mut model = made(name, &golden["config"], Device::Cpu, dtype);
    formula::fill(model.params_mut()).unwrap();
    model
}

fn inputs(golden: &Value) -> Vec<Vec<usize>> {
    golden["inputs"].as_array().unwrap().iter().map(sizes).collect()
}

/// What a golden says of a tensor besides its samples: norm, and dot product with s(`probe`).
fn summary(tensor: &Tensor) -> Result<Vec<f64>> {
    let values = tensor.to_vec_f64()?;
    let probe = formula::signed("probe", tensor.shape(), DType::F64)?.to_vec_f64()?;
    let dot = values.iter().zip(&probe).map(|(value, probe)| value * probe).sum();
    Ok(vec![values.iter().map(|value| value * value).sum::<f64>().sqrt(), dot])
}

/// Compares samples, norm and dot product. The dot product, in which terms cancel, is compared in units of the norm.
fn compare(what: &str, tensor: &Tensor, golden: &[f64], of: &[f64], samples: usize, tolerance: f64) {
    assert_close(what, &sampled(tensor, samples), golden, tolerance);
    assert_close(&format!("{what}: norm and dot product"), &summary(tensor).unwrap(), of, tolerance);
}

fn agrees(name: &str) {
    let golden_name = format!("zoo/{name}");
    let (golden, numbers) = (json(&golden_name), tensors(&golden_name));
    let samples = golden["samples"].as_u64().unwrap() as usize;
    let model = filled(name, &golden, DType::F64);
    assert_eq!(model.params().count() as u64, golden["parameter_count"].as_u64().unwrap(), "{name}");

    let entries: Vec<&str> = golden["state"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    // A further name of a parameter has the place of the first one after =.
    let mut expected: Vec<(String, String)> = Vec::new();
    for entry in entries.iter().map(|entry| entry.trim_start_matches('~')) {
        let (name, first) = match entry.split_once('=') {
            Some((name, place)) => (name, expected[place.parse::<usize>().unwrap()].0.clone()),
            None => (entry, entry.to_owned()),
        };
        expected.push((name.to_owned(), first));
    }
    let names: Vec<_> = model.params().names().map(|(name, first)| (name.to_owned(), first.to_owned())).collect();
    assert_eq!(names, expected, "{name}");
    let parameters: Vec<&str> = entries.into_iter().filter(|entry| !entry.contains(['~', '='])).collect();

    let inputs = inputs(&golden);
    let inputs: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
    for (mode, training) in [("eval", false), ("train", true)] {
        let dump = formula::dump(model.params(), model.network(), &inputs, training)
            .unwrap_or_else(|error| panic!("{name} {mode}: {error}"));
        let shapes: Vec<Vec<usize>> = golden["outputs"][mode].as_array().unwrap().iter().map(sizes).collect();
        let outputs = dump.iter().filter(|(key, _)| key.starts_with("output."));
        assert_eq!(outputs.map(|(_, value)| value.shape().to_vec()).collect::<Vec<_>>(), shapes, "{name} {mode}");
        let value = |key: &str| dump.iter().find(|(found, _)| found == key).map(|(_, value)| value);
        let whole = (0..shapes.len()).map(|k| format!("output.{k}"));
        for key in whole.chain((0..inputs.len()).map(|k| format!("grad.input.{k}"))) {
            let (what, key_of) = (format!("{name} {mode}/{key}"), format!("{mode}/{key}"));
            let found = value(&key).unwrap_or_else(|| panic!("{what} is missing"));
            compare(&what, found, &numbers[&key_of], &numbers[&format!("{key_of}.summary")], samples, 1e-9);
        }
        let norms = &numbers[&format!("{mode}/grad_norms")];
        assert_eq!(norms.len(), parameters.len(), "{name}");
        let largest = norms.iter().fold(0.0f64, |largest, &norm| largest.max(norm));
        assert!(largest > 0.0, "{name} {mode}");
        for (parameter, &expected) in parameters.iter().zip(norms) {
            let found = value(&format!("grad_norm.{parameter}")).map(|norm| norm.to_scalar().unwrap());
            // NaN: the original's parameter takes no part.
            assert_eq!(found.is_none(), expected.is_nan(), "{name} {mode}: the gradient of {parameter}");
            let Some(found) = found else { continue };
            // Both are zero but for rounding, as that of a bias before a batch norm is.
            if found.max(expected) <= 1e-14 * largest {
                continue;
            }
            let bound = 1e-7 * expected.max(1e-9 * largest);
            assert!((found - expected).abs() <= bound, "{name} {mode} {parameter}: {found}, not {expected}");
        }
        if training {
            // One step has changed the running statistics.
            let floats = dump.iter().filter(|(key, value)| key.starts_with("buffer.") && value.dtype().is_float());
            let buffers: Vec<f64> = floats.flat_map(|(_, value)| summary(value).unwrap()).collect();
            assert_close(&format!("{name}: buffers"), &buffers, &numbers["train/buffers"], 1e-9);
        }
    }

    let model = filled(name, &golden, DType::F32);
    let outputs = formula::outputs(model.params(), model.network(), &inputs).unwrap();
    assert_eq!(outputs.len(), golden["outputs"]["eval"].as_array().unwrap().len(), "{name} in f32");
    for (key, value) in &outputs {
        let what = format!("{name} in f32: {key}");
        assert_close(&what, &sampled(value, samples), &numbers[&format!("eval/{key}")], 1e-4);
    }
}

#[test]
fn networks_agree_with_their_originals() {
    for name in goldens() {
        let start = std::time::Instant::now();
        agrees(&name);
        println!("{name}: {:.2?}", start.elapsed());
    }
}

#[test]
fn networks_are_saved_and_loaded_with_their_configurations() {
    let path = std::env::temp_dir().join(format!("tomograd-zoo-{}.safetensors", std::process::id()));
    for name in goldens() {
        let golden = json(&format!("zoo/{name}"));
        let model = filled(&name, &golden, DType::F32);
        model.checkpoint().unwrap().save(&path).unwrap();
        let again = Model::load(&path, Device::Cpu).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.config(), model.config(), "{name}");
        for ((one, a), (other, b)) in model.params().state().zip(again.params().state()) {
            assert_eq!(one, other, "{name}");
            assert_eq!(a.to_vec_f64().unwrap(), b.to_vec_f64().unwrap(), "{name} {one}");
        }
    }
    std::fs::remove_file(&path).ok();
}

#[test]
fn images_of_one_and_of_several_channels_are_taken() {
    for name in goldens() {
        let golden = json(&format!("zoo/{name}"));
        for channels in [1, 4] {
            let (mut config, mut inputs) = (golden["config"].clone(), inputs(&golden));
            if config.get("in_channels").is_none() {
                continue;
            }
            (config["in_channels"], inputs[0][1]) = (channels.into(), channels);
            if config["transform_input"] == true {
                // It is for three channels.
                config["transform_input"] = false.into();
            }
            let inputs: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
            let cost = profile(&config, &inputs).unwrap_or_else(|error| panic!("{name}, {channels} channels: {error}"));
            assert!(cost.training.is_none_or(|step| step.flops > cost.inference.flops));
        }
    }
}

/// The hash of the names and shapes of the state dict, a line each.
fn state_hash(model: &Model) -> String {
    let params = model.params();
    let text: String =
        params.names().map(|(name, _)| format!("{name} {:?}\n", params.get(name).unwrap().shape())).collect();
    format!("{:016x}", formula::hash(&text))
}

#[test]
fn presets_have_the_parameters_names_and_costs_of_their_originals() {
    let presets: Vec<_> = registry::families().iter().flat_map(|family| family.presets().unwrap()).collect();
    for source in common::zoo(".presets.json") {
        let table = json(&format!("zoo/{source}.presets"));
        for (name, row) in table.as_object().unwrap() {
            let Some(preset) = presets.iter().find(|preset| preset.name == name) else {
                panic!("{source}: no preset is called {name}");
            };
            let model = made(name, &preset.config, Device::Meta, DType::F32);
            assert_eq!(model.params().count() as u64, row["parameters"].as_u64().unwrap(), "{name}");
            assert_eq!(
                state_hash(&model),
                row["state"].as_str().unwrap(),
                "{name}: names and shapes of the state dict"
            );
            if row["shape"].is_array() {
                let cost = profile(&preset.config, &[&sizes(&row["shape"])]).unwrap().inference;
                assert_eq!(2.0 * cost.multiply_adds, row["flops"].as_f64().unwrap(), "{name}: FLOPs");
            }
        }
    }
}

/// Every number of the JSON, with its path.
fn numbers(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(path.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| numbers(item, &format!("{path}/{at}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(field, value)| numbers(value, &format!("{path}/{field}"), found));
        }
        _ => (),
    }
}

#[test]
fn no_number_in_a_configuration_makes_a_network_panic_or_take_all_memory() {
    for family in registry::families() {
        let config = family.presets().unwrap().swap_remove(0).config;
        let mut paths = Vec::new();
        numbers(&config, "", &mut paths);
        assert!(!paths.is_empty(), "{family:?}");
        for path in paths {
            for number in [0.into(), 1.into(), 3.into(), (1u64 << 40).into(), u64::MAX.into(), Value::from(-1.5)] {
                let mut wrong = config.clone();
                *wrong.pointer_mut(&path).unwrap() = number.clone();
                // An error says which field: its name is in the text.
                let Err(error) = Model::new(&wrong, Device::Meta, Seed::new(0)) else { continue };
                let field = path.split('/').nth(1).unwrap();
                let text = error.to_string();
                assert!(text.contains(field), "{} with {path} = {number}: {text}", family.name());
            }
        }
    }
}

#[test]
fn preset_names_are_unique_among_all_families() {
    let mut names = std::collections::BTreeSet::new();
    for family in registry::families() {
        for preset in family.presets().unwrap() {
            assert!(names.insert(preset.name), "two presets are called {}", preset.name);
        }
    }
}
