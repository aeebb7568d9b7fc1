//! Reading the goldens of `tests/golden`.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::Value;
use tomograd_core::Tensor;
use tomograd_io::safetensors;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// The names of the files in `tests/golden/zoo` that end in `ending`, without it.
#[allow(dead_code, reason = "not every test file walks the zoo's goldens")]
pub fn zoo(ending: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(folder().join("zoo")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect();
    names.sort();
    // To look at one network alone: TOMOGRAD_GOLDEN=resnet cargo test -p tomograd-models --test zoo
    let chosen = std::env::var("TOMOGRAD_GOLDEN").unwrap_or_default();
    names.retain(|name| name.contains(&chosen));
    names
}

/// `NAME.json`.
pub fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(format!("{name}.json"))).unwrap()).unwrap()
}

/// `NAME.safetensors`.
#[allow(dead_code, reason = "not every test file reads tensors")]
pub fn tensors(name: &str) -> BTreeMap<String, Vec<f64>> {
    let contents = safetensors::load(&folder().join(format!("{name}.safetensors"))).unwrap();
    contents.tensors.into_iter().map(|(name, tensor)| (name, tensor.to_vec_f64().unwrap())).collect()
}

/// A list of sizes.
#[allow(dead_code, reason = "not every test file reads sizes")]
pub fn sizes(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect()
}

/// At most `samples` elements: number i at ⌊i · n / samples⌋.
#[allow(dead_code, reason = "not every test file has samples")]
pub fn sampled(tensor: &Tensor, samples: usize) -> Vec<f64> {
    let values = tensor.to_vec_f64().unwrap();
    let n = values.len();
    if n <= samples { values } else { (0..samples).map(|i| values[i * n / samples]).collect() }
}

#[allow(dead_code, reason = "not every test file compares lists")]
/// That two lists agree within `tolerance` of the largest expected magnitude.
pub fn assert_close(what: &str, actual: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-12f64, |scale, value| scale.max(value.abs()));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= tolerance * scale, "{what}[{i}]: {a} but PyTorch {e} (largest {scale})");
    }
}
