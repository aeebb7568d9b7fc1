//! The network of the example `5_weights` has the same output as PyTorch with the same weights file.

#[path = "../examples/5_weights.rs"]
#[allow(dead_code)]
mod example;

use tomograd::{io::safetensors, models::formula, prelude::*};

#[test]
fn published_weights_give_the_publishers_output() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    let net = example::meshnet(params.root(), 8, 3).unwrap();
    example::load(&mut params, &root.join("examples/data/meshnet.safetensors")).unwrap();
    let expected =
        safetensors::load(&root.join("tests/golden/meshnet_output.safetensors")).unwrap().tensors.remove(0).1;
    let pass = Pass::eval(&params).unwrap();
    let x = pass.input(&formula::signed("input", &[1, 1, 12, 10, 14], DType::F32).unwrap());
    let output = net.forward(&x, &pass).unwrap();
    assert_eq!(output.shape(), expected.shape());
    let largest = expected.to_vec_f64().unwrap().into_iter().fold(0.0f64, |most, value| most.max(value.abs()));
    for (value, expected) in output.value().to_vec_f64().unwrap().into_iter().zip(expected.to_vec_f64().unwrap()) {
        // Five layers with up to 216 products each, in f32 (ε = 1.2e-7), compared with f64.
        assert!((value - expected).abs() < 1e-5 * largest, "{value}, but PyTorch {expected}");
    }
}
