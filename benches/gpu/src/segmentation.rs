//! A training of `unet3d` on the scans that travel with the program, by the recipe of the example `unet3d`, with its Dice.

use std::{fs, path::Path, sync::Arc, time::Instant};

use serde_json::json;
use tomograd::{
    pipeline::{preparation::Channel, transforms::*},
    prelude::*,
};

use crate::{Row, Setup};

/// Seconds that the training may take; the number of epochs follows from the time of the first.
const SECONDS: f64 = 40.0;
/// The most epochs, as many as the example has.
const EPOCHS: u64 = 40;
/// The folder of scans in the archive.
const FOLDER: &str = "data/";

/// The one training.
pub fn items() -> Vec<String> {
    vec!["unet3d on the hippocampus".to_owned()]
}

/// Trains on the device: the mean Dice of the validation cases, of each class too, epochs and seconds.
///
/// # Errors
/// When no scans travel with the program, or the training fails.
pub fn run(setup: &Setup, _: &str) -> Result<Row> {
    if setup.archive.under(FOLDER).next().is_none() {
        return Err(
            Error::argument("segmentation", "no scans travel with this program").expected("a program of `make`")
        );
    }
    let folder = std::env::temp_dir().join(format!("tomograd-gpu-scans-{}", std::process::id()));
    let result = setup.archive.extract(FOLDER, &folder).and_then(|()| train(setup, &folder));
    fs::remove_dir_all(&folder).ok();
    result
}

fn train(setup: &Setup, folder: &Path) -> Result<Row> {
    let (seed, device) = (Seed::new(0), setup.device);
    let preparation = Preparation::new(setup.choose([4, 4, 8], [40, 56, 40]), ["background", "anterior", "posterior"])?
        .channels([Channel::new("t1", "MR")])?
        .orientation("RAS")?
        .spacing([1.0; 3])?;
    let cases = Dataset::prepared(folder, &preparation)?.cache(Cache::memory(1 << 30))?;
    let split = Split::read_or_fixed(folder.join("split.txt"), &cases.names())?;
    let (training, validation) = (cases.subset(&split.train)?, cases.subset(&split.validation)?);
    let augment = Compose::new()
        .then(RandomAffine { probability: 0.3, ..RandomAffine::default() })?
        .then(CropOrPad::random(preparation.patch.clone()))?
        .then(Flip::new([0.0, 0.0, 0.5]))?
        .then(RandomBrightness::default())?
        .then(RandomNoise::default())?;
    let loader = Loader::new(Arc::new(training), 2, seed.named("loader"))?.transforms(augment).device(device);
    let widths = setup.choose(vec![2, 3], vec![16, 32, 64, 128]);
    let config = UNet3dConfig { widths, ..UNet3dConfig::new(preparation.classes.len()) };
    let build = || {
        let mut params = Params::new(device, seed.named("weights"));
        UNet3d::new(params.root(), &config).map(|net| (params, net))
    };
    let per_epoch = split.train.len().div_ceil(2) as u64;
    // One epoch of `epochs`; the loss of its last step.
    let learn = |params: &mut Params, net: &UNet3d, optimizer: &mut dyn Optimizer, epoch: u64, epochs: u64| {
        let mut last = f64::NAN;
        for (step, batch) in (epoch * per_epoch..).zip(loader.epoch(epoch)) {
            let batch = batch?;
            optimizer.set_rate_factor(schedule::one_cycle(step, epochs * per_epoch))?;
            let pass = Pass::train(params, seed.at(step))?;
            let logits = net.forward(&pass.input(batch.image()?), &pass)?;
            let loss = DiceCe::default().forward(&logits, batch.label()?)?;
            drop(logits);
            last = loss.value().to_scalar()?;
            let update = pass.backward(loss)?.clip_norm(12.0)?;
            optimizer.step(params, update)?;
        }
        Ok::<f64, Error>(last)
    };
    // One epoch that is thrown away: it compiles, loads and fills the caches, and says how long the others take.
    let (mut params, net) = build()?;
    let mut optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    learn(&mut params, &net, &mut optimizer, 0, 1)?;
    let epochs = match setup.effort {
        crate::Effort::Small => 1,
        crate::Effort::Whole => {
            let start = Instant::now();
            learn(&mut params, &net, &mut optimizer, 0, 1)?;
            (SECONDS / start.elapsed().as_secs_f64()).clamp(2.0, EPOCHS as f64) as u64
        }
    };

    let (mut params, net) = build()?;
    let mut optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    let (start, mut loss) = (Instant::now(), f64::NAN);
    for epoch in 0..epochs {
        loss = learn(&mut params, &net, &mut optimizer, epoch, epochs)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let report = preparation.evaluate(&validation, |patches| {
        let pass = Pass::eval(&params)?;
        Ok(net.forward(&pass.input(&patches.to(device)?), &pass)?.into_value())
    })?;
    let classes: Vec<f64> = (1..preparation.classes.len())
        .map(|class| report.class_mean(class, |metrics| metrics.dice).map(|mean| mean.value))
        .collect::<Result<_>>()?;
    Ok(json!({
        "training_cases": split.train.len(), "validation_cases": split.validation.len(), "epochs": epochs,
        "steps": epochs * per_epoch,
        "seconds": seconds, "last_loss": loss, "dice": report.mean(|metrics| metrics.dice).value, "dice_of_classes": classes,
    }))
}
