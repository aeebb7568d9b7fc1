//! Losses, optimizers, schedules, layers, the selective scan and initial values against PyTorch's.

mod common;

use common::{assert_close, json, sampled, sizes, tensors};
use serde_json::Value;
use tomograd_autodiff::{Tape, Var, methods::*};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::{
    Context,
    elementwise::{Chain, Function, Step},
};
use tomograd_models::formula;
use tomograd_nn::{
    Activation, AdamW, AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, Conv, ConvTranspose, DiceCe, Group,
    Interpolate, Interpolation, Kernel, LayerNorm, LayerNormOptions, Linear, LinearOptions, LocalResponseNorm,
    LocalResponseNormOptions, LogSoftmax, MaxPool, Module, MultiHeadAttention, Norm, NormKind, NormOptions, Optimizer,
    PRelu, Params, Pass, Scope, Sgd, Softmax, Window, losses, schedule,
};

fn cases(golden: &Value) -> impl Iterator<Item = (&str, &str, &Value, &Value)> {
    golden["cases"].as_array().unwrap().iter().map(|case| {
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        (text("name"), text("kind"), &case["attributes"], case)
    })
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn params() -> Params {
    Params::new(Device::Cpu, Seed::new(0)).with_dtype(DType::F64)
}

#[test]
fn losses() {
    let (golden, numbers) = (json("losses"), tensors("losses"));
    let shape = sizes(&golden["label"]);
    let classes = size(&golden["classes"]);
    let labels: Vec<i64> = formula::uniform("label", shape.iter().product())
        .unwrap()
        .iter()
        .map(|u| (u * classes as f64) as i64)
        .collect();
    let labels = Tensor::from_slice(&labels, &shape, Device::Cpu).unwrap();
    let input = formula::signed("input", &sizes(&golden["input"]), DType::F64).unwrap();
    let other = formula::signed("target", input.shape(), DType::F64).unwrap();
    let one_hot = labels.one_hot(classes, 1, DType::F64).unwrap();
    let mut compared = 0;
    for (name, _, attributes, case) in cases(&golden) {
        let pass = Pass::train(&params(), Seed::new(0)).unwrap();
        let x = pass.input_with_gradient(&input).unwrap();
        let other = pass.input(&other);
        let dice_ce = |mut loss: DiceCe| {
            loss.0.include_background = attributes["include_background"] != false;
            loss.0.batch_dice = attributes["batch"] != false;
            loss.0.ignore_index = attributes["ignore_index"].as_i64();
            // The golden's weights were made in f32.
            let weight = |value: &Value| f64::from(number(value) as f32);
            loss.0.class_weights = attributes["weight"].as_array().map(|weights| weights.iter().map(weight).collect());
            loss.forward(&x, &labels)
        };
        let loss = match name {
            "dice_ce" => dice_ce(DiceCe::default()),
            // Not there yet.
            "ce_smooth" => continue,
            "bce_logits" => losses::binary_cross_entropy(&x, &pass.input(&one_hot)),
            "mse" => losses::mean_squared_error(&x, &other),
            "l1" => losses::mean_absolute_error(&x, &other),
            "smooth_l1" => losses::smooth_l1(&x, &other, number(&attributes["beta"])),
            _ if name.starts_with("ce") => dice_ce(DiceCe::cross_entropy()),
            _ => dice_ce(DiceCe::dice()),
        };
        let loss = loss.unwrap();
        assert_close(name, &[loss.value().to_scalar().unwrap()], &[number(&case["value"])], 1e-12);
        let update = pass.backward(loss).unwrap();
        let gradient = sampled(update.input_gradient(&x).unwrap(), size(&golden["samples"]));
        assert_close(name, &gradient, &numbers[&format!("{name}/grad.input")], 1e-10);
        compared += 1;
    }
    assert_eq!(compared, 11);
}

#[test]
fn optimizers() {
    let (golden, numbers) = (json("optimizers"), tensors("optimizers"));
    for (name, kind, attributes, _) in cases(&golden) {
        let mut params = params();
        let slot = params.root().parameter("weight", &[7], tomograd_nn::init::Init::Constant(0.0)).unwrap();
        formula::fill(&mut params).unwrap();
        let rate = number(&attributes["lr"]);
        // The parameter has one axis, so that decay must be asked for.
        let decay = Group::new().decay(attributes["weight_decay"].as_f64().unwrap_or(0.0));
        let adamw = || AdamW::new(&params, rate).unwrap().group(|_| true, decay).unwrap();
        let mut optimizer: Box<dyn Optimizer> = match kind {
            "SGD" => {
                let momentum = attributes["momentum"].as_f64().unwrap_or(0.0);
                let sgd = Sgd::new(&params, rate).unwrap().momentum(momentum).unwrap().group(|_| true, decay).unwrap();
                Box::new(if attributes["nesterov"] == true { sgd.nesterov().unwrap() } else { sgd })
            }
            "Adam" => Box::new(adamw().coupled()),
            _ => Box::new(adamw()),
        };
        let mut values = Vec::new();
        for step in 1..=5 {
            let pass = Pass::train(&params, Seed::new(0)).unwrap();
            let gradient = pass.input(&formula::signed(&format!("grad.{step}"), &[7], DType::F64).unwrap());
            let loss = pass.parameter(slot).unwrap().mul(&gradient).unwrap().sum(..).unwrap();
            let update = pass.backward(loss).unwrap();
            optimizer.step(&mut params, update).unwrap();
            values.extend(params.get("weight").unwrap().to_vec_f64().unwrap());
        }
        assert_close(name, &values, &numbers[name], 1e-13);
    }
}

#[test]
fn schedules() {
    let golden = json("schedules");
    let base = number(&golden["base_lr"]);
    for (name, kind, attributes, case) in cases(&golden) {
        let whole = |key: &str| attributes[key].as_u64().unwrap();
        let rate = |step: u64| match kind {
            "StepLR" => base * schedule::step(step, whole("step_size"), number(&attributes["gamma"])),
            "CosineAnnealingLR" => base * schedule::cosine(step, whole("T_max"), number(&attributes["eta_min"]) / base),
            "PolynomialLR" => base * schedule::polynomial(step, whole("total_iters"), number(&attributes["power"])),
            "OneCycleLR" => number(&attributes["max_lr"]) * schedule::one_cycle(step, whole("total_steps")),
            "LinearLR" => {
                base * schedule::linear_warmup(step, whole("total_iters"), number(&attributes["start_factor"]))
            }
            _ => panic!("{kind} is unknown"),
        };
        let expected: Vec<f64> = case["lr"].as_array().unwrap().iter().map(number).collect();
        let rates: Vec<f64> = (0..expected.len() as u64).map(rate).collect();
        assert_close(name, &rates, &expected, 1e-12);
    }
}

/// The layer of a golden whose input has `rank` axes.
fn layer(scope: Scope<'_>, kind: &str, a: &Value, rank: usize) -> Result<Box<dyn Module>> {
    let list = |key: &str| sizes(&a[key]);
    let window = || Window::new(list("kernel")).stride(list("stride")).padding(list("padding"));
    let kernel = || {
        let kernel = Kernel::from(list("kernel")).stride(list("stride")).padding(list("padding"));
        kernel.dilation(list("dilation")).groups(size(&a["groups"])).bias(a["bias"] == true)
    };
    let channels = a["channels"].as_u64().unwrap_or(0) as usize;
    let unary = |function: Activation| -> Box<dyn Module> { Box::new(function) };
    let axis = || a["axis"].as_i64().unwrap().rem_euclid(rank as i64) as usize;
    Ok(match kind {
        "conv" => Box::new(Conv::new(scope, size(&a["inputs"]), size(&a["outputs"]), kernel())?),
        "conv_transpose" => {
            let kernel = kernel().output_padding(list("output_padding"));
            Box::new(ConvTranspose::new(scope, size(&a["inputs"]), size(&a["outputs"]), kernel)?)
        }
        "batch_norm" | "instance_norm" | "group_norm" => {
            let kind = match kind {
                "batch_norm" => NormKind::Batch,
                "instance_norm" => NormKind::Instance,
                _ => NormKind::Group(size(&a["groups"])),
            };
            let options = NormOptions::new(kind).affine(a["affine"] != false).epsilon(number(&a["eps"]));
            Box::new(Norm::new(scope, channels, options.momentum(a["momentum"].as_f64().unwrap_or(0.1)))?)
        }
        "layer_norm" => {
            Box::new(LayerNorm::new(scope, LayerNormOptions::new(list("shape")).epsilon(number(&a["eps"])))?)
        }
        "local_response_norm" => {
            // PyTorch's alpha is of the mean.
            let alpha = number(&a["alpha"]) / number(&a["size"]);
            let options = LocalResponseNormOptions::new(size(&a["size"])).alpha(alpha);
            Box::new(LocalResponseNorm::new(options.beta(number(&a["beta"])).k(number(&a["k"])))?)
        }
        "max_pool" => Box::new(MaxPool::new(window().ceil_mode(a["ceil_mode"] == true))?),
        "avg_pool" => Box::new(AveragePool::new(window().count_padding(a["count_include_pad"] == true))?),
        "adaptive_avg_pool" => Box::new(AdaptiveAveragePool::new(list("size"))?),
        "adaptive_max_pool" => Box::new(AdaptiveMaxPool::new(list("size"))?),
        "interpolate" => {
            let mode = match (a["mode"].as_str(), a["align_corners"] == true) {
                (Some("nearest"), _) => Interpolation::Nearest,
                (_, false) => Interpolation::Linear,
                (_, true) => Interpolation::LinearCorners,
            };
            Box::new(Interpolate { size: list("size"), mode })
        }
        "linear" => Box::new({
            let outputs = LinearOptions::new(size(&a["outputs"])).bias(a["bias"] == true);
            Linear::new(scope, size(&a["inputs"]), outputs)?
        }),
        "multi_head_attention" => Box::new(MultiHeadAttention::new(scope, size(&a["size"]), size(&a["heads"]))?),
        "prelu" => Box::new(PRelu::new(scope, channels)?),
        "softmax" => Box::new(Softmax { axis: axis() }),
        "log_softmax" => Box::new(LogSoftmax { axis: axis() }),
        "relu" => unary(Activation::Relu),
        "relu6" => unary(Activation::Clamp(0.0, 6.0)),
        "leaky_relu" => unary(Activation::LeakyRelu(number(&a["slope"]))),
        "elu" => unary(Activation::Elu(number(&a["alpha"]))),
        "gelu" if a["approximate"] == "tanh" => unary(Activation::GeluTanh),
        "gelu" => unary(Activation::Gelu),
        "silu" => unary(Activation::Silu),
        "sigmoid" => unary(Activation::Sigmoid),
        "tanh" => unary(Activation::Tanh),
        "softplus" => unary(Activation::Softplus),
        "mish" => unary(Activation::Mish),
        "hardswish" => unary(Activation::Hardswish),
        "hardsigmoid" => Box::new(
            Chain::unary(Activation::Add(3.0))
                .then(Step::Unary(Function::Clamp(0.0, 6.0)))
                .then(Step::Unary(Function::Multiply(1.0 / 6.0))),
        ),
        _ => panic!("{kind} is unknown"),
    })
}

#[test]
fn layers() {
    let (golden, numbers) = (json("layers"), tensors("layers"));
    let samples = size(&golden["samples"]);
    for (name, kind, attributes, case) in cases(&golden) {
        let mut params = params();
        let shape = sizes(&case["input"]);
        let layer =
            layer(params.root(), kind, attributes, shape.len()).unwrap_or_else(|error| panic!("{name}: {error}"));
        formula::fill(&mut params).unwrap();
        let scale = attributes["input_scale"].as_f64().unwrap_or(1.0);
        let input = formula::signed("input", &shape, DType::F64).unwrap();
        let scaled: Vec<f64> = input.to_vec_f64().unwrap().iter().map(|x| x * scale).collect();
        let input = Tensor::from_slice(&scaled, input.shape(), Device::Cpu).unwrap();
        let training = attributes["train"] != false;
        let pass = Pass::new(&params, Seed::new(0), training, true, Context::default()).unwrap();
        let x = pass.input_with_gradient(&input).unwrap();
        let output = layer.forward(&x, &pass).unwrap_or_else(|error| panic!("{name}: {error}"));
        let cotangent = pass.input(&formula::signed("cotangent.0", output.shape(), DType::F64).unwrap());
        let loss = output.mul(&cotangent).unwrap().mean(..).unwrap();
        let update = pass.backward(loss).unwrap();
        let mut place = 0;
        for result in case["results"].as_array().unwrap() {
            let key = result[0].as_str().unwrap();
            let value = match key.split_once('.') {
                None => Some(output.value().clone()),
                Some(("grad", "input")) => update.input_gradient(&x).cloned(),
                Some(("grad", parameter)) => update.gradient(parameter).cloned(),
                Some((_, buffer)) => update.buffer(&params, buffer).unwrap(),
            };
            let value = value.unwrap_or_else(|| panic!("{name} gives no {key}"));
            assert_eq!(value.shape(), sizes(&result[1]), "{name} {key}");
            let values = sampled(&value, samples);
            let expected = &numbers[name][place..place + values.len()];
            place += values.len();
            // PyTorch's hardsigmoid has 1/6 in f32.
            let tolerance = if kind == "hardsigmoid" { 1e-7 } else { 1e-10 };
            assert_close(&format!("{name} {key}"), &values, expected, tolerance);
        }
    }
}

#[test]
fn attention() {
    let (golden, numbers) = (json("attention"), tensors("attention"));
    let samples = size(&golden["samples"]);
    for (name, _, attributes, case) in cases(&golden) {
        let params = params();
        let pass = Pass::train(&params, Seed::new(0)).unwrap();
        let mut names = vec!["q".to_owned(), "k".to_owned(), "v".to_owned()];
        let mut inputs = Vec::new();
        for (i, shape) in case["inputs"].as_array().unwrap().iter().enumerate() {
            if i >= 3 {
                names.push(format!("bias.{}", i - 3));
            }
            let factor = if i >= 3 { 2.0 } else { 1.0 };
            let values = formula::signed(&names[i], &sizes(shape), DType::F64).unwrap();
            let values: Vec<f64> = values.to_vec_f64().unwrap().iter().map(|value| value * factor).collect();
            let values = Tensor::from_slice(&values, &sizes(shape), Device::Cpu).unwrap();
            inputs.push(pass.input_with_gradient(&values).unwrap());
        }
        let [q, k, v, biases @ ..] = &inputs[..] else { panic!("{name}") };
        let (scale, causal) = (attributes["scale"].as_f64(), attributes["causal"] == true);
        let y = q.attention(k, v, &biases.iter().collect::<Vec<_>>(), scale, causal).unwrap();
        assert_close(name, &sampled(y.value(), samples), &numbers[&format!("{name}/output")], 1e-12);
        let cotangent = pass.input(&formula::signed("cotangent", y.shape(), DType::F64).unwrap());
        let loss = y.mul(&cotangent).unwrap().mean(..).unwrap();
        let update = pass.backward(loss).unwrap();
        for (input, of) in inputs.iter().zip(&names) {
            let gradient = sampled(update.input_gradient(input).unwrap(), samples);
            assert_close(&format!("{name} {of}"), &gradient, &numbers[&format!("{name}/grad.{of}")], 1e-10);
        }
    }
}

#[test]
fn selective_scan() {
    let (golden, numbers) = (json("scan"), tensors("scan"));
    for (name, _, attributes, case) in cases(&golden) {
        let [batch, channels, states, length] =
            ["batch", "channels", "states", "length"].map(|key| size(&attributes[key]));
        let groups = attributes["groups"].as_u64().map(|groups| groups as usize);
        let over_time = [batch, channels, length];
        let over_states: Vec<usize> = [batch].into_iter().chain(groups).chain([states, length]).collect();
        let tape = Tape::recording(Context::default());
        let leaf = |name: &str, shape: &[usize]| tape.leaf(formula::signed(name, shape, DType::F64).unwrap()).unwrap();
        let uniform = |name: &str, shape: &[usize], start: f64, slope: f64| {
            let values = formula::uniform(name, shape.iter().product()).unwrap();
            let values: Vec<f64> = values.iter().map(|u| start + slope * u).collect();
            tape.leaf(Tensor::from_slice(&values, shape, Device::Cpu).unwrap()).unwrap()
        };
        let softplus = attributes["delta_softplus"] == true;
        let delta = if softplus { leaf("delta", &over_time) } else { uniform("delta", &over_time, 0.0, 1.0) };
        let (u, a) = (leaf("u", &over_time), uniform("a", &[channels, states], -0.2, -1.0));
        let (b, c) = (leaf("b", &over_states), leaf("c", &over_states));
        let optional =
            |attribute: &str, name: &str, shape: &[usize]| (attributes[attribute] == true).then(|| leaf(name, shape));
        let skip = optional("skip", "skip", &[channels]);
        let gate = optional("gate", "z", &over_time);
        let bias = optional("delta_bias", "delta_bias", &[channels]);
        let output = Var::selective_scan(ScanInputs {
            u: &u,
            delta: &delta,
            a: &a,
            b: &b,
            c: &c,
            skip: skip.as_ref(),
            gate: gate.as_ref(),
            delta_bias: bias.as_ref(),
            delta_softplus: softplus,
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        let cotangent = tape.constant(formula::signed("cotangent.0", output.shape(), DType::F64).unwrap());
        let gradients = tape.backward(&output.mul(&cotangent).unwrap().mean(..).unwrap()).unwrap();
        let mut place = 0;
        for result in case["results"].as_array().unwrap() {
            let key = result[0].as_str().unwrap();
            let input = match key {
                "output" => None,
                "grad.u" => Some(&u),
                "grad.delta" => Some(&delta),
                "grad.a" => Some(&a),
                "grad.b" => Some(&b),
                "grad.c" => Some(&c),
                "grad.skip" => skip.as_ref(),
                "grad.z" => gate.as_ref(),
                "grad.delta_bias" => bias.as_ref(),
                _ => panic!("{key} is unknown"),
            };
            let value = input.map_or(output.value(), |input| gradients.get(input).unwrap());
            assert_eq!(value.shape(), sizes(&result[1]), "{name} {key}");
            let norm = value.to_vec_f64().unwrap().iter().map(|x| x * x).sum::<f64>().sqrt();
            assert_close(&format!("norm of {name} {key}"), &[norm], &[number(&result[2])], 1e-10);
            let values = sampled(value, size(&golden["samples"]));
            let expected = &numbers[name][place..place + values.len()];
            place += values.len();
            assert_close(&format!("{name} {key}"), &values, expected, 1e-10);
        }
    }
}

#[test]
fn initial_values() {
    for (name, _, _, case) in cases(&json("init")) {
        let mut params = params();
        let root = params.root();
        let weight = sizes(&case["values"]["weight"]["shape"]);
        let module: Box<dyn Module> = match name {
            "conv3d" | "conv3d_grouped" | "conv2d" => {
                let groups = if name == "conv3d_grouped" { 4 } else { 1 };
                let kernel = Kernel::from(&weight[2..]).groups(groups);
                Box::new(Conv::new(root, weight[1] * groups, weight[0], kernel).unwrap())
            }
            "conv_transpose3d" => Box::new(ConvTranspose::new(root, weight[0], weight[1], &weight[2..]).unwrap()),
            "linear" => Box::new(Linear::new(root, weight[1], weight[0]).unwrap()),
            "layer_norm" => Box::new(LayerNorm::new(root, &weight).unwrap()),
            _ => Box::new(Norm::new(root, weight[0], NormKind::Instance).unwrap()),
        };
        drop(module);
        for (parameter, expected) in case["values"].as_object().unwrap() {
            let values = params.get(parameter).unwrap().to_vec_f64().unwrap();
            if expected["distribution"] == "constant" {
                assert!(values.iter().all(|&value| value == number(&expected["value"])), "{name} {parameter}");
                continue;
            }
            let (low, high) = (number(&expected["low"]), number(&expected["high"]));
            assert!(values.iter().all(|value| (low..=high).contains(value)), "{name} {parameter}");
            if values.len() > 1000 {
                let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
                assert!((deviation / number(&expected["std"]) - 1.0).abs() < 0.1, "{name} {parameter}: {deviation}");
            }
        }
    }
}
