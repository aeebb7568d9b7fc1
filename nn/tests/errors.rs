//! What parameters, passes and updates refuse.

use tomograd_core::{DType, Device, ErrorKind, Seed, Tensor};
use tomograd_kernels::methods::*;
use tomograd_nn::{
    Activation, AdamW, Conv, ConvNormActivation, Kernel, Linear, Module, Norm, NormKind, NormOptions, Optimizer,
    Params, Pass, Sgd,
};

fn params() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

fn image() -> Tensor {
    Tensor::normal(&[2, 1, 5, 6], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap()
}

#[test]
fn a_name_given_twice_and_a_slot_of_another_store() {
    let mut params = params();
    let conv = Conv::new(params.root().at("a"), 1, 2, [3, 3]).unwrap();
    let error = Conv::new(params.root().at("a"), 1, 2, [3, 3]).unwrap_err();
    assert!(error.to_string().contains("a.weight is given twice"), "{error}");
    let error = Conv::new(params.root().at("enc").at(2), 1, 2, [3, 0]).unwrap_err();
    assert_eq!(error.to_string(), "enc.2: conv: the kernel: [3, 0]; expected 1 at least");
    let other = self::params();
    let pass = Pass::eval(&other).unwrap();
    assert_eq!(conv.forward(&pass.input(&image()), &pass).unwrap_err().kind(), ErrorKind::Name);
}

#[test]
fn unused_frozen_and_used_up() {
    let mut params = params();
    let used = Conv::new(params.root().at("used"), 1, 2, [3, 3]).unwrap();
    Conv::new(params.root().at("unused"), 1, 2, [3, 3]).unwrap();
    let mut optimizer = Sgd::new(&params, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap();
    let run = |params: &Params| {
        let pass = Pass::train(params, Seed::new(0)).unwrap();
        let loss = used.forward(&pass.input(&image()), &pass).unwrap().square().unwrap().mean(..).unwrap();
        // A fork outlives its pass, but not the graph.
        let fork = pass.fork(0);
        let update = pass.backward(loss).unwrap();
        assert_eq!(used.forward(&fork.input(&image()), &fork).unwrap_err().kind(), ErrorKind::Graph);
        update
    };
    let update = run(&params);
    let mut replica = params.replica();
    assert_eq!(optimizer.step(&mut replica, run(&params)).unwrap_err().kind(), ErrorKind::Name);
    let error = optimizer.step(&mut params, update).unwrap_err();
    assert!(error.to_string().contains("unused.weight had no part"), "{error}");
    params.freeze(|p| p.name.starts_with("unused"));
    let before = params.get("unused.weight").unwrap().to_vec::<f32>().unwrap();
    let update = run(&params);
    optimizer.step(&mut params, update).unwrap();
    assert_eq!(params.get("unused.weight").unwrap().to_vec::<f32>().unwrap(), before);
}

#[test]
fn an_error_names_the_layer() {
    let mut params = params();
    let mut root = params.root();
    let mut scope = root.at("enc.2");
    let conv = Conv::new(scope.at("conv"), 3, 2, [3, 3]).unwrap();
    let norm = Norm::new(scope.at("norm"), 2, NormKind::Instance).unwrap();
    let linear = Linear::new(scope.at("head"), 7, 2).unwrap();
    let fused = ConvNormActivation::new(conv.clone(), norm.clone()).unwrap();
    let layers: [(&dyn Module, &str); 4] = [
        (&conv, "enc.2.conv: conv: "),
        (&norm, "enc.2.norm: norm: "),
        (&linear, "enc.2.head: linear: "),
        (&fused, "enc.2.conv: conv"),
    ];
    for (layer, start) in layers {
        let pass = Pass::eval(&params).unwrap();
        let error = layer.forward(&pass.input(&image()), &pass).unwrap_err().to_string();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn loading_names_what_is_missing_and_unexpected() {
    let mut params = params();
    Conv::new(params.root().at("a"), 1, 1, [1]).unwrap();
    let error = params.load([("b".to_owned(), image())]).unwrap_err();
    assert!(error.to_string().contains("missing: [a.weight, a.bias]; unexpected: [b]"), "{error}");
}

#[test]
fn batch_norm_keeps_running_statistics() {
    let mut params = params();
    let norm = Norm::new(params.root().at("n"), 1, NormKind::Batch).unwrap();
    let mut optimizer = AdamW::new(&params, 0.0).unwrap();
    let x = image();
    let values: Vec<f64> = x.to_vec_f64().unwrap();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let unbiased = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0);
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    let loss = norm.forward(&pass.input(&x), &pass).unwrap().square().unwrap().sum(..).unwrap();
    let update = pass.backward(loss).unwrap();
    optimizer.step(&mut params, update).unwrap();
    let get = |name: &str| params.get(name).unwrap().to_vec_f64().unwrap()[0];
    assert!((get("n.running_mean") - 0.1 * mean).abs() < 1e-7);
    assert!((get("n.running_var") - (0.9 + 0.1 * unbiased)).abs() < 1e-6);
    assert_eq!(get("n.num_batches_tracked"), 1.0);
}

#[test]
fn a_checkpointed_module_learns_the_same() {
    use std::sync::Arc;
    let mut params = params();
    let module: Arc<dyn Module> = Arc::new({
        let conv = Conv::new(params.root().at("c"), 1, 4, Kernel::d2(3).padding(1)).unwrap();
        let norm = Norm::new(
            params.root().at("n"),
            4,
            NormOptions::new(NormKind::Instance).activation(Activation::LeakyRelu(0.01)),
        )
        .unwrap();
        ConvNormActivation::new(conv, norm).unwrap()
    });
    let gradient = |checkpointed: bool| {
        let pass = Pass::train(&params, Seed::new(0)).unwrap();
        let x = pass.input(&image());
        let y = if checkpointed { pass.checkpoint(&module, &x) } else { module.forward(&x, &pass) };
        let loss = y.unwrap().square().unwrap().mean(..).unwrap();
        pass.backward(loss).unwrap().gradient("c.weight").unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(gradient(false), gradient(true));
}
