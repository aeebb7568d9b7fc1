//! Optimizers' steps: each parameter counts its own, a failed step is none, and states are kept. Right values are PyTorch's.

use std::path::PathBuf;

use tomograd_core::{Device, ErrorKind, Seed, Tensor};
use tomograd_kernels::methods::*;
use tomograd_nn::{
    AdamW, Checkpoint, Conv, Group, Loaded, Module, Norm, NormKind, Optimizer, Params, Pass, Sgd, Slot, Update,
    init::Init,
};

/// Two weights of 1, `early` and `late`.
fn two() -> (Params, [Slot; 2]) {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let slots = ["early", "late"].map(|name| params.root().parameter(name, &[1], Init::Constant(1.0)).unwrap());
    (params, slots)
}

/// Gradients of 2 for the first weight and of 3 for the second one, if it has a part.
fn update(params: &Params, slots: [Slot; 2], late: bool) -> Update {
    let pass = Pass::train(params, Seed::new(0)).unwrap();
    let [a, b] = slots.map(|slot| pass.parameter(slot).unwrap());
    let mut loss = a.mul_scalar(2.0).unwrap();
    if late {
        loss = loss.add(&b.mul_scalar(3.0).unwrap()).unwrap();
    }
    pass.backward(loss.sum(..).unwrap()).unwrap()
}

fn value(params: &Params, name: &str) -> f64 {
    params.get(name).unwrap().to_scalar().unwrap()
}

fn adamw(params: &Params) -> Box<dyn Optimizer> {
    Box::new(AdamW::new(params, 0.1).unwrap())
}

fn sgd(params: &Params) -> Box<dyn Optimizer> {
    Box::new(Sgd::new(params, 0.1).unwrap().momentum(0.9).unwrap().dampening(0.5).unwrap())
}

fn nesterov(params: &Params) -> Box<dyn Optimizer> {
    Box::new(Sgd::new(params, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap())
}

type Make = fn(&Params) -> Box<dyn Optimizer>;

/// After steps 11 and 12 in PyTorch, the second weight having had gradients only then.
const CASES: [(Make, [[f64; 2]; 2]); 3] = [
    (adamw, [[-0.09999999449999862, 0.9000000003333333], [-0.19999999399999868, 0.8000000006666673]]),
    (sgd, [[-4.510484768720001, 0.7], [-5.259436291848002, 0.28]]),
    (nesterov, [[-9.883731656658002, 0.43], [-11.375358490992202, -0.383]]),
];

fn assert_values(params: &Params, expected: [f64; 2]) {
    for (name, expected) in ["early", "late"].into_iter().zip(expected) {
        let value = value(params, name);
        assert!((value - expected).abs() < 2e-6 * (1.0 + expected.abs()), "{name} is {value}, in PyTorch {expected}");
    }
}

#[test]
fn a_parameter_begins_when_its_first_gradient_comes() {
    for (make, expected) in CASES {
        // Unused first, or frozen first.
        for frozen in [false, true] {
            let (mut params, slots) = two();
            let mut optimizer = make(&params);
            for step in 1..=12 {
                let late = step > 10;
                params.freeze(|p| frozen && !late && p.name == "late");
                let update = update(&params, slots, late || frozen);
                optimizer.step(&mut params, if late { update } else { update.allow_unused() }).unwrap();
                if late {
                    assert_values(&params, expected[step - 11]);
                }
            }
            let state = optimizer.state();
            assert_eq!((state.steps, state.others.into_iter().collect::<Vec<_>>()), (12, vec![("late".to_owned(), 2)]));
        }
    }
}

#[test]
fn a_parameter_frozen_after_the_pass_stays_as_it_is() {
    let (mut params, slots) = two();
    let mut optimizer = adamw(&params);
    let update = update(&params, slots, true);
    params.freeze(|p| p.name == "late");
    optimizer.step(&mut params, update).unwrap();
    assert_eq!(value(&params, "late"), 1.0);
    assert_ne!(value(&params, "early"), 1.0);
    assert_eq!(optimizer.state().others["late"], 0);
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tomograd-steps-{}-{name}", std::process::id()))
}

#[test]
fn numbers_of_steps_survive_a_checkpoint() {
    for (make, expected) in CASES {
        let (mut params, slots) = two();
        let mut optimizer = make(&params);
        let file = path("survive");
        for step in 1..=11 {
            let update = update(&params, slots, step > 10);
            optimizer.step(&mut params, update.allow_unused()).unwrap();
        }
        Checkpoint::new(&params).optimizer(&*optimizer).save(&file).unwrap();
        let (mut resumed, slots) = two();
        let mut other = make(&resumed);
        let mut loaded = Loaded::read(&file).unwrap();
        assert_eq!(loaded.text("tomograd.version").unwrap(), "2");
        loaded.restore(&mut resumed).unwrap();
        loaded.restore_optimizer(&mut *other).unwrap();
        let update = update(&resumed, slots, true);
        other.step(&mut resumed, update).unwrap();
        assert_values(&resumed, expected[1]);
        std::fs::remove_file(&file).unwrap();
    }
}

#[test]
fn a_failed_load_leaves_the_optimizer_and_the_file_whole() {
    let (mut params, slots) = two();
    let mut optimizer = adamw(&params);
    let one = update(&params, slots, true);
    optimizer.step(&mut params, one).unwrap();
    let before = optimizer.state();
    let good = optimizer.state();
    let change = |what: &str| {
        let mut state = good.clone();
        // The first moments fit, so that a load that goes on as it reads would have taken them.
        state.tensors[0].1 = Tensor::from_slice(&[7f32], &[1], Device::Cpu).unwrap();
        let last = state.tensors.len() - 1;
        match what {
            "missing" => state.tensors.truncate(last),
            "unknown" => state.tensors.push(("first_moment.other".to_owned(), state.tensors[0].1.clone())),
            "shape" => state.tensors[last].1 = Tensor::from_slice(&[7f32, 8.0], &[2], Device::Cpu).unwrap(),
            "dtype" => state.tensors[last].1 = Tensor::from_slice(&[7f64], &[1], Device::Cpu).unwrap(),
            "twice" => state.tensors.push(state.tensors[0].clone()),
            _ => _ = state.others.insert("other".to_owned(), 3),
        }
        state.steps = 9;
        state
    };
    for what in ["missing", "unknown", "shape", "dtype", "twice", "steps"] {
        assert!(optimizer.load_state(change(what)).is_err(), "{what}");
        let state = optimizer.state();
        assert_eq!((state.steps, state.others.len()), (1, 0), "{what}");
        for ((name, value), (_, expected)) in state.tensors.iter().zip(&before.tensors) {
            assert_eq!(value.to_vec::<f32>().unwrap(), expected.to_vec::<f32>().unwrap(), "{what}: {name}");
        }
    }
    // A checkpoint of another network is refused and still holds its state.
    let file = path("whole");
    Checkpoint::new(&params).optimizer(&*optimizer).save(&file).unwrap();
    let mut loaded = Loaded::read(&file).unwrap();
    let mut larger = two().0;
    larger.root().parameter("more", &[1], Init::Constant(1.0)).unwrap();
    assert!(loaded.restore_optimizer(&mut *adamw(&larger)).is_err());
    loaded.restore_optimizer(&mut *adamw(&params)).unwrap();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_failed_step_is_no_step() {
    for ((make, _), first) in CASES.into_iter().zip([0.9, 0.8, 0.62]) {
        let (mut params, slots) = two();
        let mut optimizer = make(&params);
        let unused = update(&params, slots, false);
        let error = optimizer.step(&mut params, unused).unwrap_err();
        assert!(error.to_string().contains("late had no part"), "{error}");
        let (other, others) = two();
        assert_eq!(optimizer.step(&mut params, update(&other, others, true)).unwrap_err().kind(), ErrorKind::Name);
        assert_eq!((value(&params, "early"), optimizer.state().steps), (1.0, 0));
        for bad in [f64::NAN, -1.0, f64::INFINITY, f64::MAX] {
            assert!(optimizer.set_rate_factor(bad).unwrap_err().to_string().contains("expected"));
        }
        let update = update(&params, slots, true);
        optimizer.step(&mut params, update).unwrap();
        // A first step, by PyTorch: AdamW's is the rate, SGD's rate · 2, with Nesterov's look ahead 1.9 times that.
        assert!((value(&params, "early") - first).abs() < 1e-6, "{}", value(&params, "early"));
    }
}

/// What version 1 wrote, by the program of that time: after three steps, and after a fourth.
#[test]
fn checkpoints_with_one_number_of_steps_are_taken_up() {
    let golden = |name: &str| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoint");
        Loaded::read(folder.join(format!("{name}.safetensors"))).unwrap()
    };
    for kind in ["adamw", "sgd"] {
        let mut params = Params::new(Device::Cpu, Seed::new(5));
        let conv = Conv::new(params.root().at("conv"), 1, 2, [3, 3]).unwrap();
        let norm = Norm::new(params.root().at("norm"), 2, NormKind::Batch).unwrap();
        let group = Group::new().decay(0.01);
        let mut optimizer: Box<dyn Optimizer> = match kind {
            "adamw" => Box::new(AdamW::new(&params, 0.1).unwrap().group(|_| true, group).unwrap()),
            _ => Box::new(
                Sgd::new(&params, 0.1)
                    .unwrap()
                    .momentum(0.9)
                    .unwrap()
                    .nesterov()
                    .unwrap()
                    .group(|_| true, group)
                    .unwrap(),
            ),
        };
        let mut before = golden(&format!("{kind}_3"));
        assert_eq!(before.text("tomograd.version").unwrap(), "1");
        before.restore(&mut params).unwrap();
        before.restore_optimizer(&mut *optimizer).unwrap();
        assert_eq!((optimizer.state().steps, optimizer.state().others.len()), (3, 0));
        let x = Tensor::normal(&[2, 1, 4, 5], 0.0, 1.0, Seed::new(2), tomograd_core::DType::F32, Device::Cpu).unwrap();
        let pass = Pass::train(&params, Seed::new(0)).unwrap();
        let y = conv.forward(&pass.input(&x), &pass).unwrap();
        let loss = norm.forward(&y, &pass).unwrap().exp().unwrap().mean(..).unwrap();
        let update = pass.backward(loss).unwrap();
        optimizer.step(&mut params, update).unwrap();
        let after = golden(&format!("{kind}_4"));
        let mut moved = 0.0f64;
        for ((name, expected), (_, start)) in after.state().zip(before.state()) {
            // A bias before a norm has no gradient but rounding errors, which Adam's division makes as large as any.
            if kind == "adamw" && name == "conv.bias" {
                continue;
            }
            let (value, expected) = (params.get(name).unwrap().to_vec_f64().unwrap(), expected.to_vec_f64().unwrap());
            for ((value, expected), start) in value.iter().zip(&expected).zip(start.to_vec_f64().unwrap()) {
                assert!((value - expected).abs() < 1e-5, "{kind} {name}: {value} but {expected}");
                moved = moved.max((expected - start).abs());
            }
        }
        assert!(moved > 0.01, "the fourth step moves something");
        // As long as all parameters count alike, the file is one that older programs read.
        let file = path(kind);
        Checkpoint::new(&params).optimizer(&*optimizer).save(&file).unwrap();
        assert_eq!(Loaded::read(&file).unwrap().text("tomograd.version").unwrap(), "1");
        std::fs::remove_file(&file).unwrap();
    }
}

/// The values of a weight and a bias, 1 at first, after a step with gradients of 0: what the decay has left.
fn decayed<O: Optimizer>(make: impl FnOnce(&Params) -> tomograd_core::Result<O>) -> [f64; 2] {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let mut scope = params.root();
    let slots = [("head.weight", &[1, 1][..]), ("head.bias", &[1])]
        .map(|(name, shape)| scope.parameter(name, shape, Init::Constant(1.0)).unwrap());
    let mut optimizer = make(&params).unwrap();
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    let [weight, bias] = slots.map(|slot| pass.parameter(slot).unwrap().mul_scalar(0.0).unwrap());
    let loss = weight.sum(..).unwrap().add(&bias.sum(..).unwrap()).unwrap();
    let update = pass.backward(loss).unwrap();
    optimizer.step(&mut params, update).unwrap();
    ["head.weight", "head.bias"].map(|name| value(&params, name))
}

#[test]
fn decay_is_for_weights_unless_a_group_says_otherwise() {
    let close = |values: [f64; 2], expected: [f64; 2]| {
        let near = values.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-6);
        assert!(near, "{values:?} but {expected:?}");
    };
    let all = |_: &tomograd_nn::ParamInfo<'_>| true;
    let bias = |p: &tomograd_nn::ParamInfo<'_>| p.name.ends_with("bias");
    // 1 − rate · decay, in either optimizer, as the gradient is 0.
    close(decayed(|p| AdamW::new(p, 0.1)), [1.0, 1.0]);
    close(decayed(|p| AdamW::new(p, 0.1)?.decay(0.5)), [0.95, 1.0]);
    close(decayed(|p| Sgd::new(p, 0.1)?.decay(0.5)), [0.95, 1.0]);
    close(decayed(|p| AdamW::new(p, 0.1)?.group(all, Group::new().decay(0.5))), [0.95, 0.95]);
    // Whatever the order; the last group that says something counts, and what it doesn't say is the optimizer's.
    close(decayed(|p| AdamW::new(p, 0.1)?.group(all, Group::new().rate(0.2))?.decay(0.5)), [0.9, 1.0]);
    let groups = [Group::new().rate(0.2).decay(0.5), Group::new().decay(1.0)];
    close(decayed(|p| Sgd::new(p, 0.1)?.group(all, groups[0])?.group(bias, groups[1])), [0.9, 0.8]);
}

#[test]
fn a_state_is_moved_to_the_device_of_the_parameters() {
    let optimizer = |device: Device| {
        let mut params = Params::new(device, Seed::new(1));
        params.root().parameter("w", &[2, 3], Init::Constant(1.0)).unwrap();
        AdamW::new(&params, 1e-3).unwrap()
    };
    let (mut cpu, mut meta) = (optimizer(Device::Cpu), optimizer(Device::Meta));
    meta.load_state(cpu.state()).unwrap();
    assert!(meta.state().tensors.iter().all(|(_, moment)| moment.device() == Device::Meta));
    // Nothing leads back from a device without elements.
    assert!(cpu.load_state(meta.state()).is_err());
    assert!(cpu.state().tensors.iter().all(|(_, moment)| moment.device() == Device::Cpu));
}
