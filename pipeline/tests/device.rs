//! A training and a prediction on a CUDA device (the emulator), beside the same on the CPU.

use std::{fs, path::Path, sync::Arc};

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::{Volume, geometry};
use tomograd_models::{Model, UNet3d, UNet3dConfig};
use tomograd_nn::{DiceCe, Module, Params, Pass, Sgd};
use tomograd_pipeline::{
    Learner, Loader, Preparation, Sample, Segment, Trainer,
    transforms::{Compose, Flip},
};

/// What a training leaves: the weights of the checkpoint, the loss of each step, the Dice of each epoch, and the voxels of a
/// mask that the checkpoint gives, with the logits of its patch.
struct Trained {
    weights: Vec<(String, Vec<f64>)>,
    losses: Vec<f64>,
    dice: Vec<f64>,
    logits: Vec<f64>,
    mask: Vec<u8>,
}

fn train(device: Device, folder: &Path) -> Result<Trained> {
    let seed = Seed::new(3);
    let case = |number: u64| {
        let image = Tensor::normal(&[1, 4, 4, 8], 0.0, 1.0, seed.at(number), DType::F32, Device::Cpu)?;
        let bright = image.as_slice::<f32>()?.iter().map(|&x| u8::from(x > 0.0)).collect::<Vec<_>>();
        Sample::new(format!("case_{number}"), &image, Some(&Tensor::from_slice(&bright, &[4, 4, 8], Device::Cpu)?))
    };
    let training = (0..2).map(case).collect::<Result<Vec<_>>>()?;
    let validation = vec![case(2)?];
    let loader = Loader::new(Arc::new(training), 1, seed.named("loader"))?
        .transforms(Compose::new().then(Flip::default())?)
        .device(device);
    let preparation = Preparation::new([4, 4, 8], ["dark", "bright"])?;
    let config = UNet3dConfig { in_channels: 1, classes: 2, widths: vec![2, 3] };
    let mut params = Params::new(device, seed.named("weights"));
    let net = UNet3d::new(params.root(), &config)?;
    let optimizer = Sgd::new(&params, 1.0)?.momentum(0.9)?;
    let learner = Learner::new(params, optimizer).clip_norm(12.0)?.average(0.5)?;
    let trainer = Trainer::new(learner, 4).seed(seed).folder(folder).overwrite();
    let mut trainer = trainer.config(&config)?.preparation(&preparation)?;
    let (mut losses, mut dice) = (Vec::new(), Vec::new());
    trainer.run_with(
        &loader,
        |step| {
            assert_eq!((step.batch.image()?.device(), step.batch.label()?.device()), (device, device));
            let pass = step.pass()?;
            let logits = net.forward(&pass.input(step.batch.image()?), &pass)?;
            let loss = DiceCe::default().forward(&logits, step.batch.label()?)?;
            losses.push(loss.value().to_scalar()?);
            step.learn(pass, loss)
        },
        |epoch| {
            let report = preparation.evaluate(&validation, |patches| {
                assert_eq!(patches.device(), Device::Cpu);
                let pass = Pass::eval(epoch.averaged()?)?;
                let logits = net.forward(&pass.input(&patches.to(device)?), &pass)?.into_value();
                assert_eq!(logits.device(), device);
                Ok(logits)
            })?;
            dice.push(report.mean(|metrics| metrics.dice).value);
            Ok(dice[dice.len() - 1])
        },
    )?;

    let model = Model::load(folder.join("last.safetensors"), device)?;
    let weights = model.params().state().map(|(name, value)| {
        assert_eq!(value.device(), device, "{name}");
        Ok((name.to_owned(), value.to_vec_f64()?))
    });
    let voxels = Tensor::normal(&[5, 6, 9], 0.0, 1.0, seed.named("scan"), DType::F32, Device::Cpu)?;
    let mask = model.segment(&Volume::new(voxels.clone(), geometry::from_orientation("RAS")?)?)?;
    let patch = voxels.slice(0, 0, 4, 1)?.slice(1, 0, 4, 1)?.slice(2, 0, 8, 1)?.reshape(&[1, 1, 4, 4, 8])?;
    let logits = model.predict(&patch)?;
    assert_eq!((logits.device(), mask.voxels().device()), (device, Device::Cpu));
    Ok(Trained {
        weights: weights.collect::<Result<_>>()?,
        losses,
        dice,
        logits: logits.to_vec_f64()?,
        mask: mask.voxels().to_vec::<u8>()?,
    })
}

/// The largest difference of two lists of equal length.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

#[test]
fn a_training_and_its_masks_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = tomograd_emulator::device() else { return Ok(()) };
    let folder = std::env::temp_dir().join(format!("tomograd-device-{}", std::process::id()));
    let (here, there) = (train(Device::Cpu, &folder.join("cpu"))?, train(device, &folder.join("cuda"))?);
    for ((name, here), (other, there)) in here.weights.iter().zip(&there.weights) {
        assert_eq!(name, other);
        let largest = distance(here, there);
        assert!(largest <= 1e-5, "{name} differs by {largest:e}");
    }
    assert_eq!(here.weights.len(), there.weights.len());
    // Rounding errors of f32 grow with each of the eight steps; a wrong gradient would be thousands of times larger.
    assert!(distance(&here.losses, &there.losses) <= 1e-5, "{:?} and {:?}", here.losses, there.losses);
    assert!(distance(&here.logits, &there.logits) <= 1e-4, "{:?} and {:?}", here.logits, there.logits);
    // A voxel whose logits are nearly equal may be decided otherwise, so a few may differ, and with them the Dice.
    let differ = here.mask.iter().zip(&there.mask).filter(|(a, b)| a != b).count();
    assert!(differ <= here.mask.len() / 100, "{differ} of {} voxels of the mask differ", here.mask.len());
    assert!(here.mask.iter().any(|&label| label != here.mask[0]), "a mask of one class shows nothing");
    assert!(distance(&here.dice, &there.dice) <= 0.02, "{:?} and {:?}", here.dice, there.dice);
    // A checkpoint of one device loads on another.
    let moved = Model::load(folder.join("cuda/last.safetensors"), Device::Cpu)?;
    for ((name, value), (_, there)) in moved.params().state().zip(&there.weights) {
        assert_eq!(&value.to_vec_f64()?, there, "{name}");
    }
    fs::remove_dir_all(&folder).ok();
    Ok(())
}
