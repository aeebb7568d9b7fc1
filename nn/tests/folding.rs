//! Batch norm folded into convolutions.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{
    Activation, Checkpoint, Conv, ConvNormActivation, ConvTranspose, Kernel, Loaded, Module, Norm, NormKind,
    NormOptions, Optimizer, Params, Pass, Scope, Sequential, Sgd,
};

/// How a convolution and a norm are put together.
#[derive(Debug, Clone, Copy)]
struct Case {
    rank: usize,
    transposed: bool,
    groups: usize,
    bias: bool,
    affine: bool,
    activation: Option<Activation>,
    fused: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    let flags = |bits: usize| [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0, bits & 8 > 0];
    (1..=3).flat_map(move |rank| {
        (0..16).flat_map(move |bits| {
            let [bias, affine, grouped, active] = flags(bits);
            let activation = active.then_some(Activation::LeakyRelu(0.1));
            let case = Case {
                rank,
                transposed: false,
                groups: 1 + usize::from(grouped),
                bias,
                affine,
                activation,
                fused: false,
            };
            [case, Case { transposed: true, ..case }, Case { fused: true, ..case }]
        })
    })
}

fn layers(mut scope: Scope<'_>, case: &Case) -> Result<Box<dyn Module>> {
    let kernel = Kernel::new(case.rank, 3).stride(2).padding(1).groups(case.groups).bias(case.bias);
    let options = NormOptions::new(NormKind::Batch).affine(case.affine).epsilon(1e-3);
    let options = case.activation.map_or(options, |activation| options.activation(activation));
    if case.transposed {
        let conv = ConvTranspose::new(scope.at("conv"), 4, 6, kernel)?;
        let norm = Norm::after(scope.at("norm"), &conv, options)?;
        return Ok(Box::new(Sequential::new().then(conv).then(norm)));
    }
    let conv = Conv::new(scope.at("conv"), 4, 6, kernel)?;
    if case.fused {
        let norm = Norm::new(scope.at("norm"), 6, options)?;
        return Ok(Box::new(ConvNormActivation::new(conv, norm)?));
    }
    let norm = Norm::after(scope.at("norm"), &conv, options)?;
    Ok(Box::new(Sequential::new().then(conv).then(norm)))
}

/// Fills norms with statistics as of a training: variances about 1, all else about 0.
fn fill(params: &mut Params) {
    let state: Vec<(String, Vec<usize>)> =
        params.state().map(|(name, value)| (name.to_owned(), value.shape().to_vec())).collect();
    for (name, shape) in state.iter().filter(|(name, _)| name.contains("norm") && !name.ends_with("tracked")) {
        let values = Tensor::uniform(shape, -1.0, 1.0, Seed::new(5).named(name), DType::F64, Device::Cpu).unwrap();
        let values = if name.ends_with("running_var") { values.exp().unwrap() } else { values };
        params.set(name, values.converted(params.dtype()).unwrap()).unwrap();
    }
}

fn made(case: &Case, dtype: DType) -> (Params, Box<dyn Module>) {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(dtype);
    let module = layers(params.root(), case).unwrap();
    fill(&mut params);
    (params, module)
}

fn image(rank: usize, dtype: DType) -> Tensor {
    let shape = [&[2, 4][..], &vec![5; rank]].concat();
    Tensor::normal(&shape, 0.0, 1.0, Seed::new(2), dtype, Device::Cpu).unwrap()
}

fn output(params: &Params, module: &dyn Module, image: &Tensor, recording: bool) -> Vec<f64> {
    let pass = Pass::eval(params).unwrap().recording(recording).unwrap();
    module.forward(&pass.input(image), &pass).unwrap().value().to_vec_f64().unwrap()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let largest = b.iter().fold(0f64, |most, value| most.max(value.abs()));
    assert!(largest > 0.1 && a.len() == b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / largest
}

#[test]
fn outputs_stay_the_same_in_every_form() {
    let mut count = 0;
    for case in cases() {
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let (mut params, module) = made(&case, dtype);
            let image = image(case.rank, dtype);
            let before = output(&params, &*module, &image, false);
            let weight = params.get("conv.weight").unwrap().to_vec_f64().unwrap();
            let done = params.fold_batch_norm().unwrap();
            assert_eq!((done.folded, done.left.len()), (vec!["norm".to_owned()], 0), "{case:?}");
            assert_ne!(params.get("conv.weight").unwrap().to_vec_f64().unwrap(), weight);
            for recording in [false, true] {
                let after = output(&params, &*module, &image, recording);
                assert!(distance(&after, &before) < tolerance, "{case:?} {dtype} {}", distance(&after, &before));
            }
            // The values are those of an ordinary network: without the record of the folding they give the same.
            let state: Vec<_> = params.state().map(|(name, value)| (name.to_owned(), value.clone())).collect();
            params.load(state).unwrap();
            assert!(Pass::train(&params, Seed::new(0)).is_ok(), "loading unfolds");
            assert!(distance(&output(&params, &*module, &image, false), &before) < tolerance, "{case:?} {dtype}");
            count += 1;
        }
    }
    assert_eq!(count, 3 * 16 * 3 * 2);
}

#[test]
fn a_folded_norm_leaves_the_work_to_the_convolution() {
    let case =
        Case { rank: 2, transposed: false, groups: 1, bias: false, affine: true, activation: None, fused: false };
    for case in [case, Case { fused: true, ..case }, Case { transposed: true, ..case }] {
        let (mut params, module) = made(&case, DType::F32);
        let operations = |params: &Params| {
            let pass = Pass::eval(params).unwrap().recording(true).unwrap();
            module.forward(&pass.input(&image(2, DType::F32)), &pass).unwrap();
            pass.tape().node_count()
        };
        let before = operations(&params);
        params.fold_batch_norm().unwrap();
        let leaves = params.parameters().count();
        assert_eq!(operations(&params), leaves + 1, "{case:?}: the convolution alone");
        assert_eq!(before, leaves + if case.fused { 1 } else { 2 });
        // A second time there is nothing left to fold.
        assert_eq!(params.fold_batch_norm().unwrap(), Default::default());
        assert_eq!(operations(&params), leaves + 1);
    }
}

#[test]
fn a_folded_network_refuses_training_and_its_checkpoint_is_an_ordinary_one() {
    let case =
        Case { rank: 3, transposed: false, groups: 2, bias: false, affine: false, activation: None, fused: false };
    let (mut params, module) = made(&case, DType::F64);
    let image = image(3, DType::F64);
    let before = output(&params, &*module, &image, false);
    let replica = params.replica();
    params.fold_batch_norm().unwrap();
    let error = Pass::train(&params, Seed::new(0)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Argument);
    assert!(error.to_string().contains("batch norms are folded"), "{error}");
    // By the back door too.
    let pass = Pass::eval(&params).unwrap().training(true);
    assert!(module.forward(&pass.input(&image), &pass).is_err());
    // The replica from before is as it was; one from afterwards is folded.
    assert!(Pass::train(&replica, Seed::new(0)).is_ok());
    assert_eq!(output(&replica, &*module, &image, false), before);
    assert!(Pass::train(&params.replica(), Seed::new(0)).is_err());
    assert!(distance(&output(&params.replica(), &*module, &image, false), &before) < 1e-12);

    let path = std::env::temp_dir().join(format!("tomograd-folded-{}.safetensors", std::process::id()));
    Checkpoint::new(&params).save(&path).unwrap();
    let (mut ordinary, other) = made(&case, DType::F64);
    Loaded::read(&path).unwrap().restore(&mut ordinary).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(Pass::train(&ordinary, Seed::new(0)).is_ok());
    assert!(distance(&output(&ordinary, &*other, &image, false), &before) < 1e-12);
}

#[test]
fn gradients_of_the_input_stay_the_same() {
    let case = Case {
        rank: 2,
        transposed: true,
        groups: 2,
        bias: false,
        affine: true,
        activation: Some(Activation::Tanh),
        fused: false,
    };
    let (mut params, module) = made(&case, DType::F64);
    let gradient = |params: &Params| {
        let pass = Pass::eval(params).unwrap().recording(true).unwrap();
        let x = pass.input_with_gradient(&image(2, DType::F64)).unwrap();
        let loss = module.forward(&x, &pass).unwrap().square().unwrap().sum(..).unwrap();
        pass.backward(loss).unwrap().input_gradient(&x).unwrap().to_vec::<f64>().unwrap()
    };
    let before = gradient(&params);
    params.fold_batch_norm().unwrap();
    assert!(distance(&gradient(&params), &before) < 1e-12);
}

/// A convolution in two places, each with a norm.
struct Shared {
    conv: Conv,
    norms: [Norm; 2],
}

impl Module for Shared {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        self.norms.iter().try_fold(x.clone(), |x, norm| norm.forward(&self.conv.forward(&x, pass)?, pass))
    }
}

#[test]
fn what_has_another_use_stays() {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let mut root = params.root();
    let kernel = || Kernel::d2(3).padding(1);
    let conv = Conv::new(root.at("shared"), 4, 4, kernel()).unwrap();
    let norms = ["norm.a", "norm.b"].map(|name| Norm::after(root.at(name), &conv, NormKind::Batch).unwrap());
    let shared = Shared { conv, norms };
    // A norm behind two convolutions, one that nothing is known of, an ε that rounds a variance away, one of another kind.
    let two = ["two.a", "two.b"].map(|name| Conv::new(root.at(name), 4, 4, kernel()).unwrap());
    let norm = Norm::new(root.at("norm.two"), 4, NormKind::Batch).unwrap();
    let two = two.map(|conv| ConvNormActivation::new(conv, norm.clone()).unwrap());
    let alone = Norm::new(root.at("norm.alone"), 4, NormKind::Batch).unwrap();
    let conv = Conv::new(root.at("large"), 4, 4, kernel()).unwrap();
    let large = NormOptions::new(NormKind::Batch).epsilon(2.0);
    let large = Norm::after(root.at("norm.large"), &conv, large).unwrap();
    let other = Conv::new(root.at("instance"), 4, 4, kernel()).unwrap();
    let instance = Norm::after(root.at("norm.instance"), &other, NormKind::Instance).unwrap();
    let last = Conv::new(root.at("last"), 4, 4, kernel().bias(false)).unwrap();
    let last_norm = Norm::after(root.at("norm.last"), &last, NormKind::Batch).unwrap();
    let [first, second] = two;
    let net = Sequential::new().then(shared).then(first).then(second).then(alone);
    let net = net.then(conv).then(large).then(other).then(instance).then(last).then(last_norm);
    fill(&mut params);
    let before = output(&params, &net, &image(2, DType::F64), false);
    let done = params.fold_batch_norm().unwrap();
    assert_eq!(done.folded, ["norm.last"]);
    assert_eq!(done.left, ["norm.a", "norm.b", "norm.two", "norm.alone", "norm.large"]);
    assert!(distance(&output(&params, &net, &image(2, DType::F64), false), &before) < 1e-12);
}

#[test]
fn a_convolution_of_another_store_is_left_alone() {
    let [mut first, mut second] = [1, 2].map(|seed| Params::new(Device::Cpu, Seed::new(seed)));
    let conv = Conv::new(first.root().at("a").at("long").at("way"), 1, 2, [1]).unwrap();
    Norm::after(second.root().at("norm"), &conv, NormKind::Batch).unwrap();
    assert_eq!(second.fold_batch_norm().unwrap().left, ["norm"]);
    assert!(first.fold_batch_norm().unwrap().left.is_empty());
}

#[test]
fn works_without_elements() {
    let mut params = Params::new(Device::Meta, Seed::new(1));
    let case = Case { rank: 2, transposed: true, groups: 2, bias: false, affine: true, activation: None, fused: false };
    let module: Arc<dyn Module> = Arc::from(layers(params.root(), &case).unwrap());
    assert_eq!(params.fold_batch_norm().unwrap().folded.len(), 1);
    let pass = Pass::eval(&params).unwrap();
    let image = Tensor::zeros(&[1, 4, 5, 5], DType::F32, Device::Meta).unwrap();
    assert_eq!(module.forward(&pass.input(&image), &pass).unwrap().shape(), [1, 6, 9, 9]);
}

/// norm1(a(x)) + norm2(a(x)) + norm2(b(x)).
struct Crossed {
    convs: [Conv; 2],
    norms: [Norm; 2],
}

impl Module for Crossed {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let branch = |conv: usize, norm: usize| self.norms[norm].forward(&self.convs[conv].forward(x, pass)?, pass);
        branch(0, 0)?.add(&branch(0, 1)?)?.add(&branch(1, 1)?)
    }
}

#[test]
fn a_convolution_that_a_shared_norm_reads_as_well_stays() {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let mut root = params.root();
    let convs = ["a", "b"].map(|name| Conv::new(root.at(name), 4, 4, Kernel::d2(3).padding(1)).unwrap());
    let norms = ["norm1", "norm2"].map(|name| Norm::new(root.at(name), 4, NormKind::Batch).unwrap());
    for (conv, norm) in [(0, 0), (0, 1), (1, 1)] {
        ConvNormActivation::new(convs[conv].clone(), norms[norm].clone()).unwrap();
    }
    let network = Crossed { convs, norms };
    fill(&mut params);
    let before = output(&params, &network, &image(2, DType::F64), false);
    assert!(params.fold_batch_norm().unwrap().folded.is_empty());
    assert_eq!(output(&params, &network, &image(2, DType::F64), false), before);
}

#[test]
fn a_folded_store_takes_no_step_and_no_average() {
    let case = cases().next().unwrap();
    let case = Case { rank: 2, ..case };
    let (mut params, module) = made(&case, DType::F64);
    let mut optimizer = Sgd::new(&params, 0.1).unwrap();
    // The update is of before the folding, which a pass would refuse.
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    let loss = module.forward(&pass.input(&image(2, DType::F64)), &pass).unwrap().square().unwrap().mean(..).unwrap();
    let update = pass.backward(loss).unwrap();
    let mut average = params.replica();
    params.fold_batch_norm().unwrap();
    let before = output(&params, &*module, &image(2, DType::F64), false);
    assert!(optimizer.step(&mut params, update).is_err());
    assert_eq!(output(&params, &*module, &image(2, DType::F64), false), before);
    assert!(average.ema_update(&params, 0.5).is_err());
}

#[test]
fn a_scope_that_fails_leaves_no_convolution_to_fold_into() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let mut root = params.root();
    let norm = Norm::new(root.at("norm"), 4, NormKind::Batch).unwrap();
    let failed = root.whole(|scope| {
        ConvNormActivation::new(Conv::new(scope.at("conv"), 4, 4, Kernel::d2(3))?, norm.clone())?;
        Conv::new(scope.at("conv"), 4, 4, Kernel::d2(3))
    });
    assert!(failed.is_err());
    assert!(params.fold_batch_norm().unwrap().folded.is_empty());
}
