//! Replicas, averages, shared weights, dropout, checkpoints.

use tomograd_core::{DType, Device, ErrorKind, Seed, Tensor};
use tomograd_kernels::methods::*;
use tomograd_nn::{AdamW, Checkpoint, Conv, Dropout, Loaded, Module, Optimizer, Params, Pass, Sgd, Update, init::Init};

fn params() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

fn image() -> Tensor {
    Tensor::normal(&[2, 1, 5, 6], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap()
}

fn conv(params: &mut Params) -> Conv {
    Conv::new(params.root().at("c"), 1, 2, [3, 3]).unwrap()
}

fn update(module: &dyn Module, params: &Params) -> Update {
    let pass = Pass::train(params, Seed::new(0)).unwrap();
    let loss = module.forward(&pass.input(&image()), &pass).unwrap().square().unwrap().mean(..).unwrap();
    pass.backward(loss).unwrap()
}

fn step(optimizer: &mut dyn Optimizer, module: &dyn Module, params: &mut Params) {
    let update = update(module, params);
    optimizer.step(params, update).unwrap();
}

fn weight(params: &Params) -> Vec<f32> {
    params.get("c.weight").unwrap().to_vec().unwrap()
}

#[test]
fn an_average_follows_and_runs_on_the_same_layers() {
    let mut params = params();
    let conv = conv(&mut params);
    let mut average = params.replica();
    let before = weight(&params);
    let mut optimizer = Sgd::new(&params, 0.5).unwrap();
    step(&mut optimizer, &conv, &mut params);
    average.ema_update(&params, 0.75).unwrap();
    for ((average, before), after) in weight(&average).into_iter().zip(before).zip(weight(&params)) {
        assert!((average - (0.75 * before + 0.25 * after)).abs() < 1e-6);
    }
    let pass = Pass::eval(&average).unwrap();
    conv.forward(&pass.input(&image()), &pass).unwrap();
    assert_eq!(average.root().parameter("new", &[1], Init::Constant(0.0)).unwrap_err().kind(), ErrorKind::Name);
    assert_eq!(average.ema_update(&self::params(), 0.5).unwrap_err().kind(), ErrorKind::Name);
    let summed = update(&conv, &params).add(update(&conv, &average)).unwrap();
    optimizer.step(&mut params, summed).unwrap();
}

#[test]
fn shared_weights_have_two_names_and_one_value() {
    let mut params = params();
    let slot = params.root().parameter("first", &[2], Init::Constant(1.0)).unwrap();
    params.root().at("tied").alias("weight", slot).unwrap();
    assert_eq!((params.count(), params.state().count()), (2, 1));
    let value = Tensor::full(&[2], 3.0, DType::F32, Device::Cpu).unwrap();
    params.load([("tied.weight".to_owned(), value)]).unwrap();
    assert_eq!(params.get("first").unwrap().to_vec::<f32>().unwrap(), [3.0, 3.0]);
    assert!(params.root().alias("first", slot).is_err(), "a name given twice");
    assert!(self::params().root().alias("x", slot).is_err(), "a slot of another store");
}

#[test]
fn a_scope_has_all_its_names_again() {
    let mut params = params();
    let slot = params.root().at("a").parameter("weight", &[2], Init::Constant(1.0)).unwrap();
    params.root().at("a").alias("tied", slot).unwrap();
    params.root().at("a").constant_buffer("mean", &[1], 0.0).unwrap();
    params.root().at("ab").parameter("weight", &[2], Init::Constant(1.0)).unwrap();
    let mut root = params.root();
    root.alias_all("b.c", "a").unwrap();
    root.at("b").alias_all("d", "c").unwrap();
    let names: Vec<(&str, &str)> = params.names().collect();
    let (weight, mean) = ("a.weight", "a.mean");
    let own = [(weight, weight), ("a.tied", weight), (mean, mean), ("ab.weight", "ab.weight")];
    let again = [("b.c.weight", weight), ("b.c.tied", weight), ("b.c.mean", mean)];
    let once_more = [("b.d.weight", weight), ("b.d.tied", weight), ("b.d.mean", mean)];
    assert_eq!(names, [&own[..], &again, &once_more].concat());
    assert_eq!(params.state().count(), 3);
    let before = params.names().count();
    assert!(params.root().alias_all("e", "c").unwrap_err().to_string().contains("no name begins with c."));
    // A name that is taken is met half way: no name is added.
    params.root().at("e").parameter("mean", &[1], Init::Constant(1.0)).unwrap();
    assert!(params.root().alias_all("e", "a").is_err());
    assert_eq!(params.names().count(), before + 1);
}

#[test]
fn a_part_without_use_stays_frozen() {
    let mut params = params();
    for name in ["head.1", "head.10", "body"] {
        params.root().at(name).parameter("weight", &[2], Init::Constant(1.0)).unwrap();
        params.root().at(name).constant_buffer("mean", &[1], 0.0).unwrap();
    }
    params.root().at("head.1").freeze();
    let frozen = |params: &Params| -> Vec<String> {
        params.parameters().filter(|info| info.frozen).map(|info| info.name.to_owned()).collect()
    };
    assert_eq!(frozen(&params), ["head.1.weight"]);
    params.freeze(|p| p.name.starts_with("body."));
    assert_eq!(frozen(&params), ["head.1.weight", "body.weight"]);
    params.freeze(|_| false);
    assert_eq!(frozen(&params), ["head.1.weight"]);
    assert_eq!(frozen(&params.replica()), ["head.1.weight"]);
}

#[test]
fn variables_of_two_passes_are_not_mixed() {
    let mut params = params();
    let conv = conv(&mut params);
    let other = Pass::train(&params, Seed::new(0)).unwrap();
    let x = other.input_with_gradient(&image()).unwrap();
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    assert_eq!(conv.forward(&x, &pass).unwrap_err().kind(), ErrorKind::Graph);
}

#[test]
fn modes_are_independent() {
    let mut params = params();
    let conv = conv(&mut params);
    let dropout = Dropout::new(params.root().at("d"), 0.5).unwrap();
    assert!(Dropout::new(params.root(), 1.0).is_err());
    // Saliency: gradients of the input without training mode.
    let pass = Pass::eval(&params).unwrap().recording(true).unwrap();
    let x = pass.input_with_gradient(&image()).unwrap();
    let y = dropout.forward(&x, &pass).unwrap();
    assert_eq!(y.value().to_vec::<f32>().unwrap(), image().to_vec::<f32>().unwrap());
    let loss = conv.forward(&y, &pass).unwrap().sum(..).unwrap();
    let update = pass.backward(loss).unwrap();
    assert_eq!(update.input_gradient(&x).unwrap().shape(), image().shape());
    // Dropout at inference: training mode without recording.
    let drop = |seed: u64| {
        let pass = Pass::eval(&params).unwrap().training(true).seed(Seed::new(seed));
        let ones = Tensor::ones(&[1000], DType::F32, Device::Cpu).unwrap();
        dropout.forward(&pass.input(&ones), &pass).unwrap().value().to_vec::<f32>().unwrap()
    };
    let kept = drop(3).iter().filter(|&&x| x == 2.0).count();
    assert!((400..600).contains(&kept) && drop(3).iter().all(|&x| x == 0.0 || x == 2.0), "{kept}");
    assert!(drop(3) == drop(3) && drop(3) != drop(4));
}

#[test]
fn a_resumed_run_gives_the_same_weights_and_bytes() {
    let path = |name: &str| std::env::temp_dir().join(format!("tomograd-stores-{}-{name}", std::process::id()));
    let (first, second) = (path("first"), path("second"));
    let make = |seed| {
        let mut params = Params::new(Device::Cpu, Seed::new(seed));
        let conv = conv(&mut params);
        let optimizer = AdamW::new(&params, 0.1).unwrap().decay(0.01).unwrap();
        (params, conv, optimizer)
    };
    let (mut params, conv, mut optimizer) = make(1);
    step(&mut optimizer, &conv, &mut params);
    let save = |params: &Params, optimizer: &AdamW, path| {
        let checkpoint =
            Checkpoint::new(params).optimizer(optimizer).average(&params.replica()).random(Seed::new(9).at(4));
        checkpoint.text("epoch", "3").save(path).unwrap();
    };
    save(&params, &optimizer, &first);
    let (mut resumed, resumed_conv, mut resumed_optimizer) = make(2);
    let mut average = resumed.replica();
    {
        let mut loaded = Loaded::read(&first).unwrap();
        loaded.restore(&mut resumed).unwrap();
        loaded.restore_average(&mut average).unwrap();
        let mut other = Sgd::new(&resumed, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap();
        assert_eq!(loaded.restore_optimizer(&mut other).unwrap_err().kind(), ErrorKind::Argument);
        loaded.restore_optimizer(&mut resumed_optimizer).unwrap();
        assert_eq!((loaded.random().unwrap(), loaded.text("epoch").unwrap()), (Seed::new(9).at(4), "3"));
        assert_eq!(loaded.text("none").unwrap_err().kind(), ErrorKind::Name);
    }
    assert_eq!(weight(&average), weight(&params));
    step(&mut optimizer, &conv, &mut params);
    step(&mut resumed_optimizer, &resumed_conv, &mut resumed);
    assert_eq!(weight(&params), weight(&resumed));
    save(&params, &optimizer, &first);
    save(&resumed, &resumed_optimizer, &second);
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&second).unwrap());
    std::fs::remove_file(&first).unwrap();
    std::fs::remove_file(&second).unwrap();
}

#[test]
fn several_stores_lie_in_one_checkpoint() {
    let path = std::env::temp_dir().join(format!("tomograd-several-{}.safetensors", std::process::id()));
    let (mut first, mut second) = (params(), Params::new(Device::Cpu, Seed::new(9)));
    let (conv, other) = (conv(&mut first), conv(&mut second));
    let mut optimizers = (AdamW::new(&first, 0.1).unwrap(), Sgd::new(&second, 0.1).unwrap().momentum(0.5).unwrap());
    step(&mut optimizers.0, &conv, &mut first);
    for _ in 0..2 {
        step(&mut optimizers.1, &other, &mut second);
    }
    let mut average = second.replica();
    average.set("c.weight", first.get("c.weight").unwrap().clone()).unwrap();
    let beside = || Checkpoint::new(&second).optimizer(&optimizers.1).average(&average).random(Seed::new(5));
    let with = |name: &str, store: Checkpoint| Checkpoint::new(&first).optimizer(&optimizers.0).store(name, store);
    with("teacher", beside().config(&[1, 2]).unwrap()).save(&path).unwrap();

    let mut loaded = Loaded::read(&path).unwrap();
    assert_eq!(loaded.state().count(), 2);
    assert!(loaded.config_as::<Vec<u32>>().is_err());
    assert_eq!(loaded.text("tomograd.version").unwrap(), "3");
    let missing = loaded.take_store("student").err().map(|error| error.to_string()).unwrap();
    assert_eq!(missing, "checkpoint: the checkpoint has no store \"student\"; expected one of [teacher]");
    let mut taken = loaded.take_store("teacher").unwrap();
    assert!(loaded.take_store("teacher").is_err());
    let (mut again, mut again_second) = (params(), Params::new(Device::Cpu, Seed::new(4)));
    self::conv(&mut again);
    self::conv(&mut again_second);
    let mut again_average = again_second.replica();
    loaded.restore(&mut again).unwrap();
    taken.restore(&mut again_second).unwrap();
    taken.restore_average(&mut again_average).unwrap();
    assert_eq!(weight(&again), weight(&first));
    assert_eq!((weight(&again_second), weight(&again_average)), (weight(&second), weight(&average)));
    assert_eq!((taken.random().unwrap(), taken.config_as::<Vec<u32>>().unwrap()), (Seed::new(5), vec![1, 2]));
    let mut sgd = Sgd::new(&again_second, 0.1).unwrap().momentum(0.5).unwrap();
    assert!(taken.restore_optimizer(&mut AdamW::new(&again_second, 0.1).unwrap()).is_err());
    taken.restore_optimizer(&mut sgd).unwrap();
    assert_eq!(sgd.state().steps, 2);
    loaded.restore_optimizer(&mut AdamW::new(&again, 0.1).unwrap()).unwrap();

    // Names that couldn't be told apart, and what a further store can't have.
    for store in
        [with("", beside()), with("a/b", beside()), with("a", beside().text("b", "c")), with("a", with("b", beside()))]
    {
        assert!(store.save(&path).is_err());
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn both_names_of_a_shared_weight_are_loaded_without_elements() {
    let mut params = Params::new(Device::Meta, Seed::new(1));
    let mut root = params.root();
    let weight = root.parameter("a.weight", &[3], Init::Constant(1.0)).unwrap();
    root.alias("b.weight", weight).unwrap();
    let ones = || Tensor::ones(&[3], DType::F32, Device::Meta).unwrap();
    params.load([("a.weight".to_owned(), ones()), ("b.weight".to_owned(), ones())]).unwrap();
}
