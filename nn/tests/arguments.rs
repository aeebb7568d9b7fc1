//! What constructors refuse, before anything runs, and that a refusal leaves everything as it was.

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::{elementwise::Function, methods::*};
use tomograd_nn::{
    AdamW, Checkpoint, Conv, ConvNormActivation, ConvTranspose, Dropout, Group, Kernel, LayerNorm, LayerNormOptions,
    Linear, LinearOptions, Module, MultiHeadAttention, Norm, NormKind, NormOptions, Optimizer, PRelu, Params, Pass,
    Scope, Sgd, Upsample, gradcheck, init::Init, losses,
};

const NUMBERS: [f64; 5] = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX];
const HUGE: usize = usize::MAX;

fn params() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

/// That `make` fails with an error that says what was expected, and leaves no parameter behind.
#[track_caller]
fn refused<T>(what: &str, make: impl FnOnce(Scope<'_>) -> Result<T>) {
    let mut params = params();
    match make(params.root().at("x")) {
        Ok(_) => panic!("{what} is taken"),
        Err(error) => assert!(error.to_string().contains("expected"), "{what}: {error}"),
    }
    assert_eq!(params.state().count(), 0, "{what}");
    // The names are free again.
    params.root().at("x").parameter("weight", &[1], Init::Constant(0.0)).unwrap();
}

#[test]
fn convolutions() {
    type Change = fn(Scope<'_>) -> Result<()>;
    let cases: [(&str, Change); 23] = [
        ("no axes", |s| Conv::new(s, 1, 1, []).map(drop)),
        ("four axes", |s| Conv::new(s, 1, 1, [1; 4]).map(drop)),
        ("no input channels", |s| Conv::new(s, 0, 1, [3]).map(drop)),
        ("no output channels", |s| Conv::new(s, 1, 0, [3]).map(drop)),
        ("a kernel of 0", |s| Conv::new(s, 1, 1, [3, 0]).map(drop)),
        ("a huge kernel", |s| Conv::new(s, 1, 1, [HUGE]).map(drop)),
        ("weights that overflow", |s| Conv::new(s, 1 << 40, 1 << 40, [3]).map(drop)),
        ("stride 0", |s| Conv::new(s, 1, 1, Kernel::d2(3).stride([1, 0])).map(drop)),
        ("dilation 0", |s| Conv::new(s, 1, 1, Kernel::d2(3).dilation(0)).map(drop)),
        ("a huge dilation", |s| Conv::new(s, 1, 1, Kernel::d2(3).dilation(HUGE)).map(drop)),
        ("a huge padding", |s| Conv::new(s, 1, 1, Kernel::d2(3).padding(HUGE)).map(drop)),
        ("a half huge padding", |s| Conv::new(s, 1, 1, Kernel::d2(3).padding(HUGE / 2)).map(drop)),
        ("stride 2^40", |s| Conv::new(s, 1, 1, Kernel::d1(3).stride(1 << 40)).map(drop)),
        ("a stride too few", |s| Conv::new(s, 1, 1, Kernel::d2(3).stride([2])).map(drop)),
        ("a padding too many", |s| Conv::new(s, 1, 1, Kernel::d1(3).padding([1, 1])).map(drop)),
        ("no groups", |s| Conv::new(s, 4, 4, Kernel::d1(3).groups(0)).map(drop)),
        ("3 groups of 4 channels", |s| Conv::new(s, 4, 3, Kernel::d1(3).groups(3)).map(drop)),
        ("3 groups of 4 output channels", |s| Conv::new(s, 3, 4, Kernel::d1(3).groups(3)).map(drop)),
        ("transposed, stride 0", |s| ConvTranspose::new(s, 1, 1, Kernel::d1(3).stride(0)).map(drop)),
        ("transposed, output padding as stride", |s| {
            ConvTranspose::new(s, 1, 1, Kernel::d1(3).stride(2).output_padding(2)).map(drop)
        }),
        ("transposed, a huge padding", |s| ConvTranspose::new(s, 1, 1, Kernel::d1(3).padding(HUGE)).map(drop)),
        ("transposed, a huge stride", |s| {
            ConvTranspose::new(s, 1, 1, Kernel::d1(3).stride(HUGE).padding(HUGE / 2)).map(drop)
        }),
        ("a norm of other channels", |mut s| {
            s.whole(|s| {
                let conv = Conv::new(s.at("conv"), 1, 4, [3])?;
                ConvNormActivation::new(conv, Norm::new(s.at("norm"), 3, NormKind::Batch)?).map(drop)
            })
        }),
    ];
    for (what, make) in cases {
        refused(what, make);
    }
    // Numbers that are unusual and right.
    let mut params = params();
    Conv::new(params.root().at("a"), 4, 4, Kernel::d1(3).stride((1 << 40) - 1).groups(4)).unwrap();
    Conv::new(params.root().at("b"), 1, 1, Kernel::from([2, 5]).padding(1 << 20).dilation([1, 1 << 20])).unwrap();
    ConvTranspose::new(params.root().at("c"), 2, 2, Kernel::d1(1).padding(7)).unwrap();
}

#[test]
fn other_layers() {
    refused("3 groups of 4 channels", |s| Norm::new(s, 4, NormKind::Group(3)));
    refused("no groups", |s| Norm::new(s, 4, NormOptions::new(NormKind::Group(0)).affine(false)));
    for kind in [NormKind::Batch, NormKind::Instance, NormKind::Group(1)] {
        refused("no channels", |s| Norm::new(s, 0, kind));
        refused("no channels", |s| Norm::new(s, 0, NormOptions::new(kind).affine(false)));
        refused("too many channels", |s| Norm::new(s, HUGE, kind));
    }
    refused("a layer norm of nothing", |s| LayerNorm::new(s, []));
    refused("a layer norm of an axis of 0", |s| LayerNorm::new(s, [3, 0]));
    refused("no inputs", |s| Linear::new(s, 0, 3));
    refused("no outputs", |s| Linear::new(s, 3, 0));
    refused("weights that overflow", |s| Linear::new(s, HUGE, LinearOptions::new(2).bias(false)));
    refused("a bias that isn't a number", |s| {
        Linear::new(s, 2, LinearOptions::new(2).bias_filled(Init::Constant(f64::NAN)))
    });
    refused("a weight that isn't a number", |s| {
        Linear::new(s, 2, LinearOptions::new(2).weight(Init::Uniform(f64::NAN)))
    });
    refused("no channels", |s| PRelu::new(s, 0));
    for (size, heads) in [(0, 1), (6, 0), (6, 4), (HUGE, 1), (1 << 40, 1)] {
        refused("heads", |s| MultiHeadAttention::new(s, size, heads));
    }
    refused("no factors", |_| Upsample::new([]));
    refused("a factor of 0", |_| Upsample::new([2, 0]));
    refused("four factors", |_| Upsample::new([1; 4]));
    for bad in NUMBERS.into_iter().chain([1.0]) {
        refused("a probability", |s| Dropout::new(s, bad));
    }
    for bad in NUMBERS.into_iter().chain([0.0]) {
        let norm = NormOptions::new(NormKind::Batch).affine(false);
        refused("an epsilon", |s| Norm::new(s, 2, norm.epsilon(bad)));
        if bad != 0.0 {
            refused("a momentum", |s| Norm::new(s, 2, norm.momentum(bad)));
        }
        refused("an epsilon", |s| LayerNorm::new(s, LayerNormOptions::new(2).epsilon(bad)));
    }
    for bad in [f64::NAN, f64::INFINITY, f64::MAX] {
        for function in [Function::LeakyRelu(bad), Function::Elu(bad), Function::Multiply(bad), Function::Add(bad)] {
            refused("an activation", |s| Norm::new(s, 2, NormOptions::new(NormKind::Instance).activation(function)));
        }
    }
    refused("bounds", |s| Norm::new(s, 2, NormOptions::new(NormKind::Instance).activation(Function::Clamp(1.0, -1.0))));
    refused("bounds", |s| {
        Norm::new(s, 2, NormOptions::new(NormKind::Instance).activation(Function::Clamp(f64::NAN, 1.0)))
    });
}

#[test]
fn upsampling_and_prelu_refuse_inputs_that_do_not_fit() {
    let mut params = params();
    let prelu = PRelu::new(params.root(), 3).unwrap();
    let pass = Pass::eval(&params).unwrap();
    let x = pass.input(&Tensor::ones(&[2, 1, 4], DType::F32, Device::Cpu).unwrap());
    // It would broadcast to three channels.
    assert!(prelu.forward(&x, &pass).unwrap_err().to_string().contains("(N, 3, ...)"));
    for factor in [HUGE, 1 << 60] {
        let layer = Upsample::new(factor).unwrap();
        assert!(layer.forward(&x, &pass).is_err());
    }
}

#[test]
fn first_values() {
    for bad in NUMBERS {
        for init in [Init::Uniform(bad), Init::Normal(bad), Init::TruncatedNormal(bad)] {
            refused("an init", |mut s| s.parameter("a", &[2], init));
        }
        if bad != -1.0 {
            refused("an init", |mut s| s.parameter("a", &[2], Init::Constant(bad)));
        }
    }
    let mut whole = params().with_dtype(DType::I64);
    assert!(whole.root().parameter("a", &[2], Init::Constant(0.0)).unwrap_err().to_string().contains("floating-point"));
    for init in [Init::FanIn(0), Init::KaimingNormal(0)] {
        refused("a fan of 0", |mut s| s.parameter("a", &[2], init));
    }
    for init in [Init::TruncatedNormal(1.0), Init::Normal(1.0), Init::FanIn(HUGE)] {
        refused("too many elements", |mut s| s.parameter("a", &[HUGE, HUGE], init));
    }
}

#[test]
fn optimizers() {
    let mut params = params();
    params.root().parameter("w", &[1], Init::Constant(1.0)).unwrap();
    for bad in NUMBERS {
        let sgd = || Sgd::new(&params, 0.1).unwrap();
        let errors = [
            AdamW::new(&params, bad).err(),
            Sgd::new(&params, bad).err(),
            AdamW::new(&params, 0.1).unwrap().decay(bad).err(),
            sgd().decay(bad).err(),
            sgd().group(|_| true, Group::new().rate(bad)).err(),
            sgd().group(|_| true, Group::new().decay(bad)).err(),
        ];
        for error in errors {
            assert!(error.unwrap().to_string().contains("expected a number from 0"));
        }
        let adamw = || AdamW::new(&params, 0.1).unwrap();
        assert!(adamw().betas([bad, 0.9]).is_err() && adamw().betas([0.9, bad]).is_err());
        assert!(adamw().epsilon(bad).is_err() && adamw().set_rate_factor(bad).is_err());
        assert!(sgd().momentum(bad).is_err());
        assert!(sgd().momentum(0.9).unwrap().dampening(bad).is_err());
    }
    let adamw = || AdamW::new(&params, 0.1).unwrap();
    assert!(adamw().betas([1.0, 0.9]).is_err() && adamw().betas([0.0, 0.0]).is_ok());
    assert!(adamw().epsilon(0.0).is_err());
    assert!(Sgd::new(&params, 0.1).unwrap().nesterov().is_err());
    assert!(Sgd::new(&params, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap().momentum(0.0).is_err());
    assert!(Sgd::new(&params, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap().dampening(0.1).is_err());
    // Two numbers that make sense alone.
    let both = AdamW::new(&params, 1e20).unwrap().group(|_| true, Group::new().decay(1e20));
    assert!(both.err().unwrap().to_string().starts_with("w: optimizer: rate times decay"));
    // A name that no parameter has.
    assert!(AdamW::new(&params, 0.1).unwrap().group(|p| p.name == "v", Group::new()).is_err());
    // What has too few digits to be trained.
    for dtype in [DType::F16, DType::BF16] {
        let mut half = self::params().with_dtype(dtype);
        half.root().parameter("w", &[1], Init::Constant(1.0)).unwrap();
        for error in [AdamW::new(&half, 0.1).err(), Sgd::new(&half, 0.1).err()] {
            assert!(error.unwrap().to_string().contains("train in f32"));
        }
    }
}

#[test]
fn updates_and_averages() {
    let mut params = params();
    let slot = params.root().parameter("w", &[2], Init::Constant(3.0)).unwrap();
    let update = |factor: f64| {
        let pass = Pass::train(&params, Seed::new(0)).unwrap();
        // As a tensor: an operation's own number is never NaN.
        let factor = pass.input(&Tensor::scalar(factor as f32, Device::Cpu).unwrap());
        let loss = pass.parameter(slot).unwrap().sum(..).unwrap().mul(&factor).unwrap();
        pass.backward(loss).unwrap()
    };
    for bad in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        assert!(update(1.0).clip_norm(bad).unwrap_err().to_string().contains("expected a number from 0"));
    }
    for bad in NUMBERS.into_iter().filter(|&bad| bad != -1.0) {
        assert!(update(1.0).scale(bad).is_err());
    }
    for gradient in [f64::NAN, f64::INFINITY] {
        // The step says so, also when updates were added, and leaves all as it is.
        let update = update(1.0).add(update(gradient).clip_norm(1.0).unwrap()).unwrap();
        let mut replica = params.replica();
        let mut optimizer = Sgd::new(&replica, 0.1).unwrap();
        assert!(optimizer.step(&mut replica, update).unwrap_err().to_string().contains("finite gradients"));
        assert_eq!(replica.get("w").unwrap().to_vec::<f32>().unwrap(), [3.0; 2]);
    }
    let norm = |update: tomograd_nn::Update| update.norm().unwrap();
    assert_eq!(norm(update(1.0).clip_norm(f64::INFINITY).unwrap()), 2f64.sqrt());
    assert_eq!(norm(update(1.0).clip_norm(0.0).unwrap()), 0.0);
    assert!((norm(update(5.0).clip_norm(1.0).unwrap()) - 1.0).abs() < 1e-6);
    let mut average = params.replica();
    for bad in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        assert!(average.ema_update(&params, bad).is_err());
    }
    assert_eq!(average.get("w").unwrap().to_vec::<f32>().unwrap(), [3.0; 2]);
}

#[test]
fn losses_and_gradient_checks() {
    let params = params();
    let pass = Pass::eval(&params).unwrap();
    let x = pass.input(&Tensor::from_slice(&[1.0f32, 2.0], &[2], Device::Cpu).unwrap());
    let y = pass.input(&Tensor::from_slice(&[1.0f32, 4.0], &[2], Device::Cpu).unwrap());
    for bad in NUMBERS.into_iter().chain([0.0, f64::MIN_POSITIVE]) {
        assert!(losses::smooth_l1(&x, &y, bad).is_err(), "{bad}");
    }
    for beta in [1e-30, 1e30] {
        let loss = losses::smooth_l1(&x, &y, beta).unwrap().value().to_scalar().unwrap();
        assert!((loss - if beta < 1.0 { 1.0 } else { 0.0 }).abs() < 1e-6, "{beta}: {loss}");
    }
    let input = Tensor::ones(&[40], DType::F64, Device::Cpu).unwrap();
    let check = |options| gradcheck::check_with(|x| x[0].square(), std::slice::from_ref(&input), options);
    let default = gradcheck::Options::default();
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        assert!(check(gradcheck::Options { step: bad, ..default }).is_err());
        assert!(check(gradcheck::Options { tolerance: bad, ..default }).is_err());
    }
    // No directions would check nothing.
    assert!(check(gradcheck::Options { directions: 0, ..default }).is_err());
    check(default).unwrap();
}

#[test]
fn stores_and_checkpoints_take_no_half() {
    let mut params = params();
    let slot = params.root().parameter("a", &[2], Init::Constant(1.0)).unwrap();
    params.root().alias("tied", slot).unwrap();
    params.root().parameter("b", &[2], Init::Constant(1.0)).unwrap();
    let value = |numbers: &[f32]| Tensor::from_slice(numbers, &[numbers.len()], Device::Cpu).unwrap();
    let load = |params: &mut Params, state: &[(&str, &[f32])]| {
        params.load(state.iter().map(|&(name, numbers)| (name.to_owned(), value(numbers))))
    };
    let good: &[f32] = &[5.0, 6.0];
    for bad in [
        &[("a", good), ("b", &[1.0, 2.0, 3.0])][..],
        &[("a", good), ("b", good), ("b", good)],
        &[("a", good), ("tied", &[5.0, 7.0]), ("b", good)],
        &[("a", good)],
        &[("a", good), ("b", good), ("c", good)],
    ] {
        assert!(load(&mut params, bad).is_err());
        assert_eq!(params.get("a").unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
    }
    load(&mut params, &[("a", good), ("tied", good), ("b", &[f32::NAN, 1.0])]).unwrap();
    assert_eq!(params.get("tied").unwrap().to_vec::<f32>().unwrap(), good);

    let path = std::env::temp_dir().join(format!("tomograd-arguments-{}", std::process::id()));
    for name in ["config", "tomograd.version", "tomograd.steps"] {
        assert!(Checkpoint::new(&params).text(name, "x").save(&path).is_err(), "{name}");
    }
    params.root().parameter("optimizer/a", &[1], Init::Constant(0.0)).unwrap();
    assert!(Checkpoint::new(&params).save(&path).is_err());
    assert!(!path.exists());
}

#[test]
fn a_layer_that_fails_half_way_leaves_no_parameters() {
    let mut params = params();
    params.root().at("x").parameter("bias", &[1], Init::Constant(0.0)).unwrap();
    let before: Vec<String> = params.state().map(|(name, _)| name.to_owned()).collect();
    // The weight could be made; the bias's name is taken.
    assert!(Conv::new(params.root().at("x"), 1, 2, [3]).is_err());
    assert!(Linear::new(params.root().at("x"), 1, 2).is_err());
    assert!(Norm::new(params.root().at("x"), 2, NormKind::Batch).is_err());
    assert!(LayerNorm::new(params.root().at("x"), [2]).is_err());
    params.root().parameter("out_proj.bias", &[1], Init::Constant(0.0)).unwrap();
    assert!(MultiHeadAttention::new(params.root(), 4, 2).is_err());
    let after: Vec<String> = params.state().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    assert!(params.get("x.weight").is_err() && params.get("in_proj_weight").is_err());
    Conv::new(params.root().at("y"), 1, 2, [3]).unwrap();
}
