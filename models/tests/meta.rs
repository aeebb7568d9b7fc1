//! Networks on the meta device: the whole step runs there, and its memory statistics are those of the CPU.

use serde_json::json;
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor, memory};
use tomograd_kernels::settings::{Settings, with_settings};
use tomograd_models::{
    Model, UNet2dConfig, UNet3dConfig, profile,
    registry::{Task, families},
};
use tomograd_nn::{AdamW, DiceCe, Optimizer, Pass};

/// A training step of a network, as a user writes it: Dice and cross-entropy of logits, mean squares of other outputs.
fn step(model: &mut Model, image: &Tensor) -> Result<()> {
    let mut optimizer = AdamW::new(model.params(), 1e-3)?;
    let pass = Pass::train(model.params(), Seed::new(1))?;
    let name = model.network().inputs()[0];
    let mut outputs = model.network().run(&[(name, pass.input(image))].into(), &pass)?.into_iter();
    let dice = |logits: Var| {
        let labels = [&logits.shape()[..1], &logits.shape()[2..]].concat();
        DiceCe::default().forward(&logits, &Tensor::zeros(&labels, DType::I64, image.device())?)
    };
    let main = outputs.next().map(|(_, logits)| dice(logits)).unwrap()?;
    let loss = outputs.try_fold(main, |sum, (name, output)| {
        sum.add(&if name.starts_with("logits") { dice(output)? } else { output.square()?.mean(..)? })
    })?;
    assert_eq!(loss.value().device(), image.device());
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

fn assert_close(what: &str, predicted: usize, measured: usize) {
    let ratio = predicted as f64 / measured as f64;
    println!("{what}: predicted {predicted}, measured {measured} bytes: {ratio:.4}");
    assert!((0.9..=1.1).contains(&ratio), "{what}: predicted {predicted}, measured {measured} bytes: {ratio:.3}");
}

fn compare(name: &str, config: &serde_json::Value, input: &[usize]) -> Result<()> {
    let predicted = profile(config, &[input])?;
    let image = Tensor::normal(input, 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu)?;
    let model = || Model::new(config, Device::Cpu, Seed::new(0));
    assert_eq!(predicted.parameters, model()?.params().count());
    let image_bytes = image.count() * 4;
    let training = measured(|| step(&mut model()?, &image))? + image_bytes;
    assert_close(&format!("{name} {input:?} training"), predicted.training.peak, training);
    let inference = measured(|| model()?.predict(&image).map(drop))? + image_bytes;
    assert_close(&format!("{name} {input:?} inference"), predicted.inference.peak, inference);
    assert!(predicted.training.flops > 2.5 * predicted.inference.flops);
    Ok(())
}

/// One test, since the CPU's pool is the process's.
#[test]
fn the_meta_device_knows_what_the_cpu_will_take() {
    let three = UNet3dConfig { in_channels: 1, classes: 3, widths: vec![8, 16, 32] };
    let two = UNet2dConfig { in_channels: 1, classes: 2, widths: vec![8, 16, 32] };
    let (three, two) = (serde_json::to_value(three).unwrap(), serde_json::to_value(two).unwrap());
    for size in [[2, 1, 32, 32, 32], [1, 1, 40, 56, 40]] {
        compare("unet3d", &three, &size).unwrap();
    }
    for size in [[2, 1, 128, 128], [3, 1, 100, 140]] {
        compare("unet2d", &two, &size).unwrap();
    }
    let dense = json!({"network": "densenet", "in_channels": 1, "classes": 2, "layers": [12, 6], "growth_rate": 8, "width": 16});
    let residual =
        json!({"network": "resnet", "in_channels": 1, "classes": 2, "block": "basic", "layers": [2, 2], "width": 16});
    compare("densenet", &dense, &[4, 1, 160, 160]).unwrap();
    compare("resnet", &residual, &[4, 1, 160, 160]).unwrap();
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
        step(&mut model, &image).unwrap();
        let logits = model.predict(&image).unwrap();
        if family.card().task == Task::Segmentation && is_padded {
            assert_eq!(logits.shape()[2..], input[2..]);
        }
        assert_eq!(logits.to_vec::<f32>().unwrap_err().kind(), ErrorKind::Device);
    }
}
