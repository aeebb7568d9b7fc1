//! Networks on a CUDA device (the emulator), beside the same networks on the CPU: the model's code is the same.

mod common;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::trace;
use tomograd_models::{Model, UNet2dConfig, UNet3d, UNet3dConfig, profile, registry::families};
use tomograd_nn::{
    Conv, DiceCe, Kernel, LayerNorm, Linear, LinearOptions, Module, MultiHeadAttention, Named, Optimizer, Params, Pass,
    Scope, Sgd, Slot, init::Init,
};

/// Parameters after some training steps, and the losses.
fn train(
    device: Device,
    shape: &[usize],
    dense: bool,
    build: fn(Scope<'_>) -> Result<Box<dyn Module>>,
) -> Result<(Params, Vec<f64>)> {
    let seed = Seed::new(7);
    let image = Tensor::normal(shape, 0.0, 1.0, seed.named("image"), DType::F32, Device::Cpu)?.to(device)?;
    let mut random = seed.named("label").random();
    let labels_shape = if dense { [&shape[..1], &shape[2..]].concat() } else { shape[..1].to_vec() };
    let labels: Vec<i64> = (0..labels_shape.iter().product::<usize>()).map(|_| random.below(3) as i64).collect();
    let label = Tensor::from_slice(&labels, &labels_shape, device)?;
    let mut params = Params::new(device, seed);
    let net = build(params.root())?;
    let loss_of = if dense { DiceCe::default() } else { DiceCe::cross_entropy() };
    // Not Adam, which would divide the rounding errors of gradients that are zero, of the biases before a norm, by themselves.
    let mut optimizer = Sgd::new(&params, 1e-2)?.momentum(0.9)?.decay(1e-2)?;
    let mut losses = Vec::new();
    for step in 0..3 {
        let pass = Pass::train(&params, seed.at(step))?;
        let logits = net.forward(&pass.input(&image), &pass)?;
        assert_eq!(logits.value().device(), device);
        let loss = loss_of.forward(&logits, &label)?;
        losses.push(loss.value().to_scalar()?);
        let update = pass.backward(loss)?.clip_norm(1.0)?;
        optimizer.step(&mut params, update)?;
    }
    Ok((params, losses))
}

/// Three training steps give the CPU's weights, but for rounding, and the same bits each time.
fn weights_are_those_of_the_cpu(
    shape: &[usize],
    dense: bool,
    build: fn(Scope<'_>) -> Result<Box<dyn Module>>,
) -> Result<()> {
    let Some(device) = tomograd_emulator::device() else { return Ok(()) };
    let (here, losses) = train(Device::Cpu, shape, dense, build)?;
    let (there, losses_there) = train(device, shape, dense, build)?;
    let (again, losses_again) = train(device, shape, dense, build)?;
    assert_eq!(losses_there, losses_again, "losses of a second run");
    for (here, there) in losses.iter().zip(&losses_there) {
        assert!((here - there).abs() <= 1e-5 * here.abs(), "the losses {losses:?} became {losses_there:?}");
    }
    let mut largest = 0.0f64;
    for ((name, here), ((_, there), (_, again))) in here.state().zip(there.state().zip(again.state())) {
        assert_eq!(there.device(), device, "{name}");
        let (here, there) = (here.to_vec_f64()?, there.to_vec_f64()?);
        assert_eq!(there, again.to_vec_f64()?, "{name} of a second run");
        largest = here.iter().zip(&there).fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
    }
    assert!(largest <= 1e-4, "the weights differ by {largest:e}");
    println!("the weights differ by at most {largest:e}, the losses are {losses_there:?}");
    Ok(())
}

#[test]
fn a_unet_trains_as_on_the_cpu() -> Result<()> {
    weights_are_those_of_the_cpu(&[1, 1, 6, 4, 8], true, |scope| {
        let config = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![3, 5] };
        Ok(Box::new(UNet3d::new(scope, &config)?))
    })
}

#[test]
fn folded_batch_norms_give_the_same_outputs() -> Result<()> {
    let Some(device) = tomograd_emulator::device() else { return Ok(()) };
    let config = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![3, 4] };
    let image = Tensor::normal(&[1, 1, 6, 8], 0.0, 1.0, Seed::new(3), DType::F32, device)?;
    let mut model = Model::new(&config, device, Seed::new(4))?;
    let before = model.predict(&image)?.to_vec_f64()?;
    let folded = model.fold_batch_norm()?;
    assert!(!folded.folded.is_empty() && folded.left.is_empty(), "{folded:?}");
    assert!(model.params().state().all(|(_, value)| value.device() == device));
    for (after, before) in model.predict(&image)?.to_vec_f64()?.iter().zip(&before) {
        assert!((after - before).abs() <= 1e-5 * (1.0 + before.abs()), "{after} instead of {before}");
    }
    Ok(())
}

/// A vision transformer of two blocks: patches of 4 × 4, tokens of 12 numbers in 3 heads, learned positions.
struct Transformer {
    patches: Conv,
    positions: Slot,
    blocks: Vec<(LayerNorm, MultiHeadAttention, LayerNorm, Linear, Linear)>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    const SIZE: usize = 12;

    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let size = Self::SIZE;
        let patches = Conv::new(scope.at("patches"), 1, size, Kernel::d2(4).stride(4))?;
        let positions = scope.parameter("positions", &[1, 12, size], Init::Normal(0.02))?;
        let block = |mut scope: Scope<'_>| {
            Ok((
                LayerNorm::new(scope.at("norm1"), size)?,
                MultiHeadAttention::new(scope.at("attention"), size, 3)?,
                LayerNorm::new(scope.at("norm2"), size)?,
                Linear::new(scope.at("inner"), size, 2 * size)?,
                Linear::new(scope.at("outer"), 2 * size, size)?,
            ))
        };
        let blocks = vec![block(scope.at("0"))?, block(scope.at("1"))?];
        Ok(Self {
            patches,
            positions,
            blocks,
            norm: LayerNorm::new(scope.at("norm"), size)?,
            head: Linear::new(scope.at("head"), size, 3)?,
        })
    }
}

impl Module for Transformer {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let maps = self.patches.forward(x, pass)?;
        let tokens = maps.flatten(2..)?.transpose(1, 2)?;
        let mut x = tokens.add(&pass.parameter(self.positions)?)?;
        for (norm1, attention, norm2, inner, outer) in &self.blocks {
            x = x.add(&attention.forward(&norm1.forward(&x, pass)?, pass)?)?;
            let hidden = inner.forward(&norm2.forward(&x, pass)?, pass)?.gelu()?;
            x = x.add(&outer.forward(&hidden, pass)?)?;
        }
        self.head.forward(&self.norm.forward(&x, pass)?.mean(1)?, pass)
    }
}

#[test]
fn a_vision_transformer_trains_as_on_the_cpu() -> Result<()> {
    weights_are_those_of_the_cpu(&[2, 1, 12, 16], false, |scope| Ok(Box::new(Transformer::new(scope)?)))
}

/// Mamba: a gated selective scan behind a causal depthwise convolution (Gu and Dao 2023), of sequences (N, 2, L).
struct Mamba {
    input: Linear,
    conv: Conv,
    steps: Linear,
    states: Linear,
    rates: Slot,
    skip: Slot,
    bias: Slot,
    output: Linear,
    head: Linear,
}

impl Mamba {
    const SIZE: usize = 6;
    const STATES: usize = 4;

    fn new(mut scope: Scope<'_>) -> Result<Self> {
        let (size, states) = (Self::SIZE, Self::STATES);
        Ok(Self {
            input: Linear::new(scope.at("in"), 2, LinearOptions::new(2 * size).bias(false))?,
            conv: Conv::new(scope.at("conv"), size, size, Kernel::d1(3).padding(2).groups(size))?,
            steps: Linear::new(scope.at("steps"), size, LinearOptions::new(size).bias(false))?,
            states: Linear::new(scope.at("states"), size, LinearOptions::new(2 * states).bias(false))?,
            rates: scope.parameter("rates", &[size, states], Init::Uniform(1.0))?,
            skip: scope.parameter("skip", &[size], Init::Constant(1.0))?,
            bias: scope.parameter("bias", &[size], Init::Uniform(0.5))?,
            output: Linear::new(scope.at("out"), size, size)?,
            head: Linear::new(scope.at("head"), size, 3)?,
        })
    }
}

impl Module for Mamba {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let (size, states, length) = (Self::SIZE, Self::STATES, x.shape()[2]);
        let both = self.input.forward(&x.transpose(1, 2)?, pass)?.split(&[size; 2], 2)?;
        // Causal: the steps behind the last one are cut off.
        let u = self.conv.forward(&both[0].transpose(1, 2)?, pass)?.narrow(2, 0, length)?.silu()?;
        let along = u.transpose(1, 2)?;
        let coefficients = self.states.forward(&along, pass)?.transpose(1, 2)?.split(&[states; 2], 1)?;
        let y = Var::selective_scan(ScanInputs {
            u: &u,
            delta: &self.steps.forward(&along, pass)?.transpose(1, 2)?,
            a: &pass.parameter(self.rates)?.exp()?.neg()?,
            b: &coefficients[0],
            c: &coefficients[1],
            skip: Some(&pass.parameter(self.skip)?),
            gate: Some(&both[1].transpose(1, 2)?),
            delta_bias: Some(&pass.parameter(self.bias)?),
            delta_softplus: true,
        })?;
        let y = self.output.forward(&y.transpose(1, 2)?, pass)?;
        self.head.forward(&y.mean(1)?, pass)
    }
}

#[test]
fn a_mamba_trains_as_on_the_cpu() -> Result<()> {
    weights_are_those_of_the_cpu(&[2, 2, 21], false, |scope| Ok(Box::new(Mamba::new(scope)?)))
}

/// Outputs, then gradients by parameter, of a training pass.
fn pass(
    config: &serde_json::Value,
    shapes: &[Vec<usize>],
    device: Device,
    dtype: DType,
) -> Result<Vec<(String, Vec<f64>)>> {
    let model = Model::with_dtype(config.clone(), device, Seed::new(0), dtype)?;
    let images: Vec<Tensor> = (2..)
        .zip(shapes)
        .map(|(seed, shape)| {
            let image = Tensor::normal(shape, 0.0, 1.0, Seed::new(seed), DType::F32, Device::Cpu)?;
            image.converted(dtype)?.to(device)
        })
        .collect::<Result<_>>()?;
    let pass = Pass::train(model.params(), Seed::new(1))?;
    let inputs: Named<Tensor> = model.network().inputs().iter().copied().zip(images.iter().cloned()).collect();
    let forward = || -> Result<(Vec<(String, Var)>, Var)> {
        let inputs = inputs.clone().try_map(|image| Ok(pass.input(&image)))?;
        let outputs: Vec<(String, Var)> =
            model.network().run(&inputs, &pass)?.into_iter().map(|(name, output)| (name.to_string(), output)).collect();
        let mut loss: Option<Var> = None;
        for (_, output) in &outputs {
            let term = output.square()?.mean(..)?;
            loss = Some(loss.map_or(Ok(term.clone()), |loss| loss.add(&term))?);
        }
        Ok((outputs, loss.unwrap_or_else(|| unreachable!("a network has an output"))))
    };
    let (result, events) = trace::collect(forward);
    let (outputs, loss) = result?;
    for event in &events {
        assert_eq!(event.device, device, "{} of {:?} between the input and the loss", event.operation, event.shapes);
    }
    let mut results = Vec::new();
    for (name, output) in &outputs {
        results.push((name.clone(), output.value().to_vec_f64()?));
    }
    let update = pass.backward(loss)?;
    for (name, _) in model.params().state() {
        if let Some(gradient) = update.gradient(name) {
            results.push((name.to_owned(), gradient.to_vec_f64()?));
        }
    }
    Ok(results)
}

/// Of each family the golden configuration that costs the least: outputs and gradients are as near to those in f64 as the
/// CPU's, and nothing between the input and the loss is done by the host.
#[test]
fn every_family_gives_the_outputs_and_gradients_of_the_cpu() {
    let Some(device) = tomograd_emulator::device() else { return };
    let mut cheapest = std::collections::BTreeMap::new();
    for name in common::zoo(".safetensors") {
        let golden = common::json(&format!("zoo/{name}"));
        let config = golden["config"].clone();
        let inputs: Vec<Vec<usize>> = golden["inputs"].as_array().unwrap().iter().map(common::sizes).collect();
        let shapes: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
        let flops = profile(&config, &shapes).unwrap().training.unwrap().flops;
        let family = config["network"].as_str().unwrap().to_owned();
        let entry = cheapest.entry(family).or_insert((f64::INFINITY, String::new(), config.clone(), inputs.clone()));
        if flops < entry.0 {
            *entry = (flops, name, config, inputs);
        }
    }
    let chosen = std::env::var("TOMOGRAD_GOLDEN").unwrap_or_default();
    for family in
        families().iter().filter(|family| chosen.is_empty() && family.name() != "unet3d" && family.name() != "unet2d")
    {
        assert!(cheapest.contains_key(family.name()), "no golden of {}", family.name());
    }
    let mut wrong = Vec::new();
    for (family, (flops, name, config, mut inputs)) in cheapest {
        if family == "u2net" {
            // Its deepest maps have one voxel; of two images, whose voxels are mostly equal there, a norm makes nothing but roundings.
            inputs.iter_mut().for_each(|shape| shape[0] *= 4);
        }
        let start = std::time::Instant::now();
        let results =
            [(Device::Cpu, DType::F64), (Device::Cpu, DType::F32), (device, DType::F32)].map(|(device, dtype)| {
                pass(&config, &inputs, device, dtype).unwrap_or_else(|error| panic!("{name}: {error}"))
            });
        let [exact, here, there] = &results;
        // The largest difference from f64, as a part of the largest element, and where it is.
        let off = |results: &[(String, Vec<f64>)]| {
            assert_eq!(results.len(), exact.len(), "{name}");
            let mut worst = (0.0f64, "");
            for ((what, exact), (other, values)) in exact.iter().zip(results) {
                assert_eq!((what, exact.len()), (other, values.len()), "{name}");
                let scale = exact.iter().fold(1e-3f64, |scale, value| scale.max(value.abs()));
                for (exact, value) in exact.iter().zip(values) {
                    let difference = (exact - value).abs() / scale;
                    if difference.is_nan() || difference > worst.0 {
                        worst = (difference, what);
                    }
                }
            }
            worst
        };
        let ((here, _), (there, place)) = (off(here), off(there));
        let line =
            format!("{family} ({name}): {flops:.1e} operations, off by {there:.1e} at {place}, the CPU by {here:.1e}");
        println!("{line}, {:?}", start.elapsed());
        // Norms over few voxels magnify roundings: those of the CPU say how much.
        if there.is_nan() || there > 1e-4 + 8.0 * here || there > 0.05 {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
