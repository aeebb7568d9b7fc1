//! Feature maps by the names of stages, and their gradients.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{Activation, Conv, Kernel, Linear, Module, Params, Pass, PerAxis, Scope, Stage};

const SIZE: [usize; 2] = [5, 6];
const CHANNELS: usize = 3;
const CLASSES: usize = 2;

/// Convolution, ReLU, the stage `maps`, and what follows it.
struct Classifier {
    first: Conv,
    maps: Stage,
    tail: Tail,
}

/// Another convolution, the stage `deep`, the mean over space, a linear layer.
struct Tail {
    second: Conv,
    deep: Stage,
    head: Linear,
}

impl Classifier {
    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let first = Conv::new(scope.at("first"), 1, CHANNELS, Kernel::d2(3).padding(1))?;
        let maps = scope.stage("maps", CHANNELS, 1)?;
        let second = Conv::new(scope.at("second"), CHANNELS, 4, Kernel::d2(3).stride(2).padding(1))?;
        let deep = scope.stage("deep", 4, 2)?;
        let head = Linear::new(scope.at("head"), 4, CLASSES)?;
        Ok(Self { first, maps, tail: Tail { second, deep, head } })
    }
}

impl Module for Tail {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let deep = pass.stage(self.deep, self.second.forward(x, pass)?.tanh()?)?;
        self.head.forward(&deep.mean_spatial()?.flatten(1..)?, pass)
    }
}

impl Module for Classifier {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let maps = Activation::Relu.forward(&self.first.forward(x, pass)?, pass)?;
        self.tail.forward(&pass.stage(self.maps, maps)?, pass)
    }
}

struct Setting {
    params: Params,
    net: Arc<Classifier>,
    image: Tensor,
}

fn setting() -> Setting {
    let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
    let net = Arc::new(Classifier::new(params.root()).unwrap());
    let image = Tensor::normal(&[2, 1, 5, 6], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
    Setting { params, net, image }
}

fn score(logits: &Var, class: usize) -> Var {
    logits.select(1, class).unwrap().sum(..).unwrap()
}

fn run(setting: &Setting, pass: &Pass, checkpointed: bool) -> Var {
    let x = pass.input(&setting.image);
    let module: Arc<dyn Module> = setting.net.clone();
    if checkpointed { pass.checkpoint(&module, &x).unwrap() } else { module.forward(&x, pass).unwrap() }
}

/// Grad-CAM (Selvaraju et al. 2017) with the framework: ReLU(Σ_k α_k A_k), α_k the mean of ∂score/∂A_k over space.
fn grad_cam(setting: &Setting, class: usize, checkpointed: bool) -> Vec<f64> {
    let pass = Pass::eval(&setting.params).unwrap().recording(true).unwrap().keep_stages(["maps"]).unwrap();
    let loss = score(&run(setting, &pass, checkpointed), class);
    let maps = pass.stages().unwrap().take("maps").unwrap().into_value();
    let update = pass.backward(loss).unwrap();
    let weights = update.stage_gradient("maps").unwrap().mean_spatial().unwrap();
    weights.mul(&maps).unwrap().sum(1).unwrap().relu().unwrap().to_vec::<f64>().unwrap()
}

/// The same from the feature maps by plain loops, with derivatives by differences of the rest of the network.
fn by_differences(setting: &Setting, class: usize) -> Vec<f64> {
    let Setting { params, net, image } = setting;
    let maps = {
        let pass = Pass::eval(params).unwrap();
        net.first.forward(&pass.input(image), &pass).unwrap().relu().unwrap().value().to_vec::<f64>().unwrap()
    };
    let shape = [2, CHANNELS, SIZE[0], SIZE[1]];
    let score_of = |maps: &[f64]| {
        let pass = Pass::eval(params).unwrap();
        let maps = pass.input(&Tensor::from_slice(maps, &shape, Device::Cpu).unwrap());
        score(&net.tail.forward(&maps, &pass).unwrap(), class).value().to_scalar().unwrap()
    };
    let (plane, step) = (SIZE[0] * SIZE[1], 1e-5);
    let mut cam = vec![0.0; 2 * plane];
    for (channel, map) in maps.chunks(plane).enumerate() {
        let derivative = |voxel: usize| {
            let moved = |by: f64| {
                let mut maps = maps.clone();
                maps[channel * plane + voxel] += by;
                score_of(&maps)
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        };
        let weight = (0..plane).map(derivative).sum::<f64>() / plane as f64;
        let of_image = &mut cam[channel / CHANNELS * plane..][..plane];
        of_image.iter_mut().zip(map).for_each(|(cam, value)| *cam += weight * value);
    }
    cam.iter().map(|value| value.max(0.0)).collect()
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    let scale = b.iter().fold(0f64, |most, value| most.max(value.abs()));
    assert!(scale > 1e-3 && a.len() == b.len(), "{b:?}");
    a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= tolerance * scale, "{a} {b}"));
}

#[test]
fn grad_cam_is_that_of_the_formula_also_in_a_checkpointed_segment() {
    let setting = setting();
    for class in 0..CLASSES {
        let plain = grad_cam(&setting, class, false);
        assert_close(&plain, &by_differences(&setting, class), 1e-8);
        assert_close(&grad_cam(&setting, class, true), &plain, 1e-13);
    }
}

/// A loss of a feature map beside that of the output: gradients of parameters and of both stages.
fn with_a_loss_of_a_map(setting: &Setting, checkpointed: bool) -> Vec<Vec<f64>> {
    let pass = Pass::train(&setting.params, Seed::new(0)).unwrap().keep_stages(["deep", "maps"]).unwrap();
    let logits = run(setting, &pass, checkpointed);
    let stages = pass.stages().unwrap();
    assert_eq!(stages.names().collect::<Vec<_>>(), ["deep", "maps"]);
    let loss = score(&logits, 0).add(&stages.get("deep").unwrap().square().unwrap().sum(..).unwrap()).unwrap();
    let loss = loss.add(&stages.get("maps").unwrap().mean(..).unwrap()).unwrap();
    drop((logits, stages));
    let update = pass.backward(loss).unwrap();
    let gradients = ["deep", "maps"].map(|name| update.stage_gradient(name).unwrap());
    let parameters = ["first.weight", "second.bias"].map(|name| update.gradient(name).unwrap());
    gradients.into_iter().chain(parameters).map(|gradient| gradient.to_vec::<f64>().unwrap()).collect()
}

#[test]
fn a_loss_of_a_feature_map_reaches_parameters_also_in_a_checkpointed_segment() {
    let setting = setting();
    let (plain, again) = (with_a_loss_of_a_map(&setting, false), with_a_loss_of_a_map(&setting, true));
    plain.iter().zip(&again).for_each(|(plain, again)| assert_close(again, plain, 1e-13));
}

#[test]
fn a_pass_that_keeps_nothing_runs_as_without_stages_and_one_that_does_gives_the_same_bits() {
    let setting = setting();
    let plain = Pass::train(&setting.params, Seed::new(0)).unwrap();
    let expected = run(&setting, &plain, false).value().to_vec::<f64>().unwrap();
    assert!(plain.stages().unwrap().is_empty());
    let keeping = Pass::train(&setting.params, Seed::new(0)).unwrap().keep_stages(["maps"]).unwrap();
    let actual = run(&setting, &keeping, false).value().to_vec::<f64>().unwrap();
    assert_eq!(keeping.tape().node_count(), plain.tape().node_count() + 2);
    assert_eq!(expected, actual);
    // In whichever order a pass is told.
    let late = Pass::eval(&setting.params).unwrap().keep_stages(["maps"]).unwrap().recording(true).unwrap();
    let loss = score(&run(&setting, &late, false), 0);
    assert!(late.backward(loss).unwrap().stage_gradient("maps").is_ok());
    let eval = Pass::eval(&setting.params).unwrap().keep_stages(["maps"]).unwrap();
    assert_eq!(run(&setting, &eval, true).value().to_vec::<f64>().unwrap(), expected);
    assert_eq!(eval.stages().unwrap().main().unwrap().shape(), [2, CHANNELS, SIZE[0], SIZE[1]]);
    assert_eq!(eval.tape().node_count(), 0);
}

#[test]
fn a_second_run_has_names_of_its_own() {
    let setting = setting();
    let pass = Pass::train(&setting.params, Seed::new(0)).unwrap().keep_stages(["deep"]).unwrap();
    let first = score(&run(&setting, &pass, false), 0);
    let second = score(&run(&setting, &pass, true), 0).mul(3.0).unwrap();
    assert_eq!(pass.stages().unwrap().names().collect::<Vec<_>>(), ["deep", "deep.1"]);
    let update = pass.backward(first.add(&second).unwrap()).unwrap();
    let gradients = ["deep", "deep.1"].map(|name| update.stage_gradient(name).unwrap().to_vec::<f64>().unwrap());
    let thrice: Vec<f64> = gradients[0].iter().map(|gradient| 3.0 * gradient).collect();
    assert_close(&gradients[1], &thrice, 1e-13);
}

#[test]
fn stages_are_listed_and_wrong_names_explained() {
    let Setting { mut params, net, image } = setting();
    let stages: Vec<_> = params.stages().iter().map(|s| (s.name(), s.channels(), s.reduction().clone())).collect();
    assert_eq!(stages, [("maps", 3, PerAxis::All(1)), ("deep", 4, PerAxis::All(2))]);
    let error = Pass::eval(&params).unwrap().keep_stages(["map"]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Name);
    assert!(error.to_string().contains("no stage is called map, did you mean maps?"), "{error}");
    // Not come by yet; without a part in the loss.
    let pass = Pass::train(&params, Seed::new(0)).unwrap().keep_stages(["maps"]).unwrap();
    assert!(pass.stages().unwrap_err().to_string().contains("hasn't come by the stage maps"));
    let loss = net.first.forward(&pass.input(&image), &pass).unwrap().sum(..).unwrap();
    let update = pass.backward(loss).unwrap();
    assert!(update.stage_gradient("maps").is_err() && update.stage_gradient("deep").is_err());
    // A stage of another store, a name that is taken, numbers without sense, a replica.
    let mut other = Params::new(Device::Cpu, Seed::new(0));
    let foreign = other.root().at("backbone").stage("s", 1, [1, 2]).unwrap();
    assert_eq!(other.stages()[0].name(), "backbone.s");
    let pass = Pass::eval(&params).unwrap().keep_stages(["maps"]).unwrap();
    assert!(pass.stage(foreign, pass.input(&image)).is_err());
    for (name, channels, reduction) in [("maps", 1, 1), ("other", 0, 1), ("other", 1, 0)] {
        assert!(params.root().stage(name, channels, reduction).is_err());
    }
    assert!(params.replica().root().stage("other", 1, 1).is_err());
    // All or nothing.
    let failed = params.root().whole(|scope| {
        scope.stage("other", 1, 1)?;
        Conv::new(scope.at("first"), 1, 1, [1])
    });
    assert!(failed.is_err() && params.stages().len() == 2);
}

/// The gradients of all parameters where a loss reads collected maps, in nested calls too.
fn collected(setting: &Setting, checkpointed: bool) -> Vec<Vec<f64>> {
    let Setting { params, net, .. } = setting;
    let pass = Pass::train(params, Seed::new(0)).unwrap();
    let stages = [net.tail.deep, net.maps];
    let (inner, outer) =
        pass.collect(&stages[1..], || pass.collect(&stages, || Ok(run(setting, &pass, checkpointed)))).unwrap();
    let (logits, maps) = inner;
    assert_eq!(outer[0].value().to_vec::<f64>().unwrap(), maps[1].value().to_vec::<f64>().unwrap());
    assert!(pass.stages().unwrap().is_empty());
    let terms = [score(&logits, 1), maps[0].square().unwrap().sum(..).unwrap(), outer[0].mean(..).unwrap()];
    let loss = terms[0].add(&terms[1]).unwrap().add(&terms[2]).unwrap();
    drop((logits, maps, outer, terms));
    let update = pass.backward(loss).unwrap();
    params.parameters().map(|info| update.gradient(info.name).unwrap().to_vec::<f64>().unwrap()).collect()
}

#[test]
fn collected_maps_have_their_history_also_from_a_checkpointed_segment() {
    let setting = setting();
    let (plain, again) = (collected(&setting, false), collected(&setting, true));
    plain.iter().zip(&again).for_each(|(plain, again)| assert_close(again, plain, 1e-13));
    // What isn't come by is an error, and nothing is collected afterwards.
    let pass = Pass::eval(&setting.params).unwrap();
    let error = pass.collect(&[setting.net.maps], || Ok(())).unwrap_err().to_string();
    assert!(error.contains("hasn't come by the stage maps"), "{error}");
    let failed = pass.collect(&[setting.net.maps], || -> Result<()> { Err(tomograd_core::Error::argument("x", "y")) });
    assert!(failed.is_err());
    run(&setting, &pass, false);
    assert!(pass.collect(&[setting.net.maps], || Ok(())).is_err());
}

#[test]
fn a_second_run_has_no_name_of_another_stage() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let mut root = params.root();
    let stages = [root.stage("a", 1, 1).unwrap(), root.at("a").stage("1", 1, 1).unwrap()];
    let pass = Pass::eval(&params).unwrap().keep_stages(["a", "a.1"]).unwrap();
    let x = pass.input(&Tensor::ones(&[1, 1, 2, 2], DType::F32, Device::Cpu).unwrap());
    let y = pass.stage(stages[0], x).unwrap();
    // Its second run would be called a.1.
    assert!(pass.stage(stages[0], y.clone()).unwrap_err().to_string().contains("as another stage is"));
    pass.stage(stages[1], y).unwrap();
    assert_eq!(pass.stages().unwrap().names().collect::<Vec<_>>(), ["a", "a.1"]);
}
