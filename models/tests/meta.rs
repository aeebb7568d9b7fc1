//! Networks on the meta device: the whole step runs there, and its memory statistics are those of the CPU.

mod common;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor, memory};
use tomograd_kernels::settings::{Settings, with_settings};
use tomograd_models::{
    Model, UNet2dConfig, UNet3dConfig, profile,
    registry::{Task, families},
};
use tomograd_nn::{AdamW, DiceCe, Named, Optimizer, Pass};

/// The inputs of a network, in its order.
fn named(model: &Model, images: &[Tensor]) -> Named<Tensor> {
    model.network().inputs().iter().copied().zip(images.iter().cloned()).collect()
}

/// A training step of a network, as a user writes it: Dice and cross-entropy of logits of voxels, mean squares of other outputs.
fn step(model: &mut Model, images: &[Tensor]) -> Result<()> {
    let mut optimizer = AdamW::new(model.params(), 1e-3)?;
    let pass = Pass::train(model.params(), Seed::new(1))?;
    let device = images[0].device();
    // A batch holds its labels until the step is done.
    let mut labels = Vec::new();
    let inputs = named(model, images).try_map(|image| Ok(pass.input(&image)))?;
    let mut loss: Option<Var> = None;
    for (name, output) in model.network().run(&inputs, &pass)?.into_iter() {
        let term = if name.starts_with("logits") && output.rank() > 2 {
            let shape = [&output.shape()[..1], &output.shape()[2..]].concat();
            labels.push(Tensor::zeros(&shape, DType::I64, device)?);
            DiceCe::default().forward(&output, &labels[labels.len() - 1])?
        } else {
            output.square()?.mean(..)?
        };
        loss = Some(match loss {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    let loss = loss.unwrap();
    assert_eq!(loss.value().device(), device);
    let update = pass.backward(loss)?.clip_norm(12.0)?;
    optimizer.step(model.params_mut(), update)
}

/// The most bytes of tensors on the CPU while `body` runs.
fn measured(body: impl FnOnce() -> Result<()>) -> Result<usize> {
    memory::trim(Device::Cpu)?;
    memory::reset_peak(Device::Cpu)?;
    let before = memory::statistics(Device::Cpu)?.live;
    with_settings(Settings::default().threads(2), body)?;
    Ok(memory::statistics(Device::Cpu)?.tensor_peak - before)
}

/// Configurations whose training takes more than is predicted. The gradient of a PReLU's slope is one map more on the CPU for a moment,
/// before it is summed: in networks of two or three layers that is more than a tenth.
const SHALLOW: [&str; 3] = ["discriminator_linear", "monai_classifier_2d", "regressor_3d"];

/// A line if a prediction and what was measured are further apart than a tenth.
fn compared(what: &str, predicted: usize, measured: usize) -> Option<String> {
    let ratio = predicted as f64 / measured as f64;
    let line = format!("{what}: predicted {predicted}, measured {measured} bytes: {ratio:.4}");
    println!("{line}");
    let least = if SHALLOW.iter().any(|name| what.starts_with(name)) { 0.85 } else { 0.9 };
    (!(least..=1.1).contains(&ratio)).then_some(line)
}

/// Lines of what is further apart than a tenth, in a training step and in inference.
fn compare(name: &str, config: &Value, inputs: &[Vec<usize>]) -> Result<Vec<String>> {
    let shapes: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
    let predicted = profile(config, &shapes)?;
    // The images count as well, in both.
    let images = || {
        let image = |(seed, shape): (u64, &Vec<usize>)| {
            Tensor::normal(shape, 0.0, 1.0, Seed::new(seed), DType::F32, Device::Cpu)
        };
        (2..).zip(inputs).map(image).collect::<Result<Vec<_>>>()
    };
    let model = || Model::new(config, Device::Cpu, Seed::new(0));
    assert_eq!(predicted.parameters, model()?.params().count());
    let training = measured(|| step(&mut model()?, &images()?))?;
    let inference = measured(|| model().and_then(|model| model.run(&named(&model, &images()?))).map(drop))?;
    let step_cost = predicted.training.expect("a network that trains on these inputs");
    assert!(step_cost.flops > 2.0 * predicted.inference.flops, "{name}: {predicted:?}");
    let training = compared(&format!("{name} {inputs:?} training"), step_cost.peak, training);
    let inference = compared(&format!("{name} {inputs:?} inference"), predicted.inference.peak, inference);
    Ok(training.into_iter().chain(inference).collect())
}

/// The configurations of `tests/golden/zoo`, with so many images as inputs that inference takes `LEAST` bytes. With the few voxels of the
/// goldens, parameters would be nearly all of it, and a map too many wouldn't show.
fn goldens() -> BTreeMap<String, (Value, Vec<Vec<usize>>)> {
    const LEAST: usize = 1 << 20;
    let mut found = BTreeMap::new();
    for name in common::zoo(".safetensors") {
        let golden = common::json(&format!("zoo/{name}"));
        let config = golden["config"].clone();
        let mut inputs: Vec<Vec<usize>> = golden["inputs"].as_array().unwrap().iter().map(common::sizes).collect();
        let peak = |inputs: &[Vec<usize>]| {
            let shapes: Vec<&[usize]> = inputs.iter().map(Vec::as_slice).collect();
            profile(&config, &shapes).unwrap_or_else(|error| panic!("{name}: {error}")).inference.peak
        };
        while peak(&inputs) < LEAST {
            inputs.iter_mut().for_each(|shape| shape[0] *= 2);
        }
        found.insert(name.clone(), (config.clone(), inputs));
    }
    found
}

/// One test, since the CPU's pool is the process's.
#[test]
fn the_meta_device_knows_what_the_cpu_will_take() {
    let mut wrong = Vec::new();
    let mut check = |name: &str, config: &Value, inputs: &[Vec<usize>]| {
        wrong.extend(compare(name, config, inputs).unwrap_or_else(|error| panic!("{name}: {error}")));
    };
    let three = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![8, 16, 32] };
    let two = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![8, 16, 32] };
    let (three, two) = (serde_json::to_value(three).unwrap(), serde_json::to_value(two).unwrap());
    check("unet3d", &three, &[vec![2, 1, 32, 32, 32]]);
    check("unet3d", &three, &[vec![1, 1, 40, 56, 40]]);
    check("unet2d", &two, &[vec![2, 1, 128, 128]]);
    check("unet2d", &two, &[vec![3, 1, 100, 140]]);
    let dense = json!({"network": "densenet", "in_channels": 1, "classes": 2, "layers": [12, 6], "growth_rate": 8, "width": 16});
    let residual =
        json!({"network": "resnet", "in_channels": 1, "classes": 2, "block": "basic", "layers": [2, 2], "width": 16});
    check("densenet", &dense, &[vec![4, 1, 160, 160]]);
    check("resnet", &residual, &[vec![4, 1, 160, 160]]);
    let mut seen = std::collections::BTreeSet::from(["unet3d".to_owned(), "unet2d".to_owned()]);
    for (name, (config, inputs)) in goldens() {
        check(&name, &config, &inputs);
        seen.insert(config["network"].as_str().unwrap().to_owned());
    }
    assert!(families().iter().all(|family| seen.contains(family.name())), "{seen:?}");
    assert!(wrong.is_empty(), "{} peaks:\n{}", wrong.len(), wrong.join("\n"));
}

/// The shape of a large input of this network: of the size that its configuration names, or `voxels` wide.
fn input_of(config: &serde_json::Value, rank: usize, voxels: usize) -> Vec<usize> {
    let number = |field: &str| config.get(field).and_then(serde_json::Value::as_u64).map(|number| number as usize);
    if let Some(latent) = number("latent_size").filter(|_| number("in_channels").is_none()) {
        return vec![2, latent];
    }
    let channels = number("in_channels").unwrap();
    let size = match config.get("size").and_then(serde_json::Value::as_array) {
        Some(size) => size.iter().map(|size| size.as_u64().unwrap() as usize).collect(),
        None if config["network"] == "fully_connected" => Vec::new(),
        None => vec![voxels; number("rank").unwrap_or(rank)],
    };
    [&[2, channels][..], &size].concat()
}

#[test]
fn every_network_trains_on_the_meta_device_and_reads_nothing() {
    for family in families() {
        let config = family.presets().unwrap().swap_remove(0).config;
        let mut model = Model::new(&config, Device::Meta, Seed::new(0)).unwrap();
        // An unpadded network takes other sizes, and its logits are smaller.
        let is_padded = config.get("padded").is_none_or(|padded| padded == true);
        let input = input_of(&config, family.card().ranks[0], if is_padded { 1024 } else { 1020 });
        let start = std::time::Instant::now();
        let profile = profile(&config, &[&input]).unwrap();
        println!("{} {input:?}: {profile:?} in {:?}", family.name(), start.elapsed());
        let image = Tensor::zeros(&input, DType::F32, Device::Meta).unwrap();
        step(&mut model, std::slice::from_ref(&image)).unwrap();
        let logits = model.predict(&image).unwrap();
        if family.card().task == Task::Segmentation && is_padded {
            assert_eq!(logits.shape()[2..], input[2..]);
        }
        assert_eq!(logits.to_vec::<f32>().unwrap_err().kind(), ErrorKind::Device);
    }
}
