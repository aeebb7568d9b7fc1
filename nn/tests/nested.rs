//! Checkpointed segments in checkpointed segments.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_nn::{Conv, Dropout, Module, Params, Pass, Stage};

/// Convolution and tanh, then what lies within, as a segment of its own at the `depth`s that are checkpointed.
struct Level {
    conv: Conv,
    dropout: Dropout,
    stage: Stage,
    within: Option<(Arc<dyn Module>, bool)>,
}

impl Module for Level {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let map = self.dropout.forward(&self.conv.forward(x, pass)?.tanh()?, pass)?;
        let map = pass.stage(self.stage, map)?;
        match &self.within {
            Some((within, true)) => pass.checkpoint(within, &map)?.add(&map),
            Some((within, false)) => within.forward(&map, pass)?.add(&map),
            None => Ok(map),
        }
    }
}

/// Gradients of all parameters and of the stages that are kept.
fn gradients(checkpointed: [bool; 3], keep: &[&str]) -> Vec<f64> {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let mut within: Option<(Arc<dyn Module>, bool)> = None;
    for (depth, checkpointed) in checkpointed.into_iter().enumerate() {
        let mut root = params.root();
        let mut scope = root.at(format!("level{depth}"));
        let conv = Conv::new(scope.at("conv"), 2, 2, [1, 1]).unwrap();
        let dropout = Dropout::new(scope.at("dropout"), 0.3).unwrap();
        let stage = scope.stage("map", 2, 1).unwrap();
        within = Some((Arc::new(Level { conv, dropout, stage, within: within.take() }), checkpointed));
    }
    let pass = Pass::train(&params, Seed::new(3)).unwrap().keep_stages(keep).unwrap();
    let x = Tensor::normal(&[1, 2, 4, 3], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
    let x = pass.input(&x);
    let (net, checkpointed) = within.unwrap();
    let y = if checkpointed { pass.checkpoint(&net, &x) } else { net.forward(&x, &pass) }.unwrap();
    let mut loss = y.square().unwrap().sum(..).unwrap();
    for (_, map) in pass.stages().unwrap() {
        loss = loss.add(&map.square().unwrap().mean(..).unwrap()).unwrap();
    }
    let update = pass.backward(loss).unwrap();
    let of_parameters = params.parameters().map(|info| update.gradient(info.name).unwrap().to_vec::<f64>().unwrap());
    let of_stages = keep.iter().map(|name| update.stage_gradient(name).unwrap().to_vec::<f64>().unwrap());
    of_parameters.chain(of_stages).flatten().collect()
}

#[test]
fn gradients_are_those_without_segments() {
    for keep in [&[][..], &["level0.map"], &["level2.map", "level1.map", "level0.map"]] {
        let expected = gradients([false; 3], keep);
        for bits in 1..8 {
            let checkpointed = [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
            let actual = gradients(checkpointed, keep);
            assert_eq!(actual.len(), expected.len());
            for (a, b) in actual.iter().zip(&expected) {
                assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{checkpointed:?} {keep:?}: {a} {b}");
            }
        }
    }
}
