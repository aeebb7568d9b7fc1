//! Random streams: two uses draw differently, the same use draws the same.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::settings::{Settings, with_settings};
use tomograd_nn::{Dropout, Module, Params, Pass, gradcheck, init::Init};

fn ones(count: usize) -> Tensor {
    Tensor::ones(&[count], DType::F32, Device::Cpu).unwrap()
}

fn dropout(params: &mut Params) -> Dropout {
    Dropout::new(params.root().at("d"), 0.5).unwrap()
}

fn drawn(y: &Var) -> Vec<f32> {
    y.value().to_vec().unwrap()
}

/// How many of two independent masks of 1000 agree: 500 ± 6 deviations.
fn assert_independent(a: &[f32], b: &[f32]) {
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    assert!(a.len() == 1000 && (405..=595).contains(&same), "{same} of {} agree", a.len());
}

#[test]
fn every_use_in_a_pass_drops_others() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let dropout = dropout(&mut params);
    let other = Dropout::new(params.root().at("e"), 0.5).unwrap();
    // A second layer at the same place in the tree of names.
    let twin = dropout.clone();
    let run = |threads: usize| {
        with_settings(Settings::default().threads(threads), || {
            let pass = Pass::train(&params, Seed::new(3)).unwrap();
            let x = pass.input(&ones(1000));
            let mut masks: Vec<Vec<f32>> = Vec::new();
            for layer in [&dropout, &dropout, &other, &twin, &dropout] {
                masks.push(drawn(&layer.forward(&x, &pass).unwrap()));
            }
            for (fork, uses) in [(pass.fork(0), 2), (pass.fork(1), 1), (pass.fork(0), 1), (pass.fork(0).fork(0), 1)] {
                (0..uses).for_each(|_| masks.push(drawn(&dropout.forward(&x, &fork).unwrap())));
            }
            masks
        })
    };
    let masks = run(1);
    for (i, a) in masks.iter().enumerate() {
        masks[..i].iter().for_each(|b| assert_independent(a, b));
    }
    assert_eq!(masks, run(3));
    // The first use draws what the pass's seed and the layer's name give.
    let mut random = Seed::new(3).named("d").random();
    let first: Vec<f32> = (0..1000).map(|_| if random.bernoulli(0.5) { 0.0 } else { 2.0 }).collect();
    assert_eq!(masks[0], first);
}

/// w · dropout(dropout(x) + x), so that the weight's gradient says what was dropped.
struct Twice(Dropout, tomograd_nn::Slot);

impl Module for Twice {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let once = self.0.forward(x, pass)?.add(x)?;
        self.0.forward(&once, pass)?.mul(&pass.parameter(self.1)?)
    }
}

#[test]
fn what_is_computed_again_drops_the_same() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let weight = params.root().parameter("w", &[1000], Init::Constant(1.0)).unwrap();
    let module: Arc<dyn Module> = Arc::new(Twice(dropout(&mut params), weight));
    let run = |checkpointed: bool| {
        let pass = Pass::train(&params, Seed::new(3)).unwrap();
        let x = pass.input(&ones(1000));
        let outputs: Vec<Var> = (0..3)
            .map(|_| match checkpointed {
                true => pass.checkpoint(&module, &x).unwrap(),
                false => module.forward(&x, &pass).unwrap(),
            })
            .collect();
        let values: Vec<Vec<f32>> = outputs.iter().map(drawn).collect();
        let mut loss = outputs[0].sum(..).unwrap();
        for (weight, y) in [10.0, 100.0].into_iter().zip(&outputs[1..]) {
            loss = loss.add(&y.sum(..).unwrap().mul_scalar(weight).unwrap()).unwrap();
        }
        let update = pass.backward(loss).unwrap();
        (values, update.gradient("w").unwrap().to_vec::<f32>().unwrap())
    };
    let (values, gradient) = run(false);
    assert_ne!(values[0], values[1]);
    assert_eq!(run(true), (values, gradient));
}

#[test]
fn a_gradient_check_draws_the_same_each_time() {
    let x = Tensor::normal(&[6, 5], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
    gradcheck::module(
        |mut scope| {
            let weight = scope.parameter("w", &[5], Init::Normal(1.0))?;
            Ok(Twice(Dropout::new(scope.at("d"), 0.5)?, weight))
        },
        &x,
    )
    .unwrap();
}
