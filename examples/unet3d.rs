//! Trains a 3D U-Net for hippocampus segmentation, from files to masks: on the 40 cases in this repository, with predictions
//! for 12 others. `benches/accuracy/` trains on all cases by the same recipe, compared with PyTorch. For options, such as
//! another folder of cases or a checkpoint to resume from:
//!
//!     cargo run --release --example unet3d -- --help

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use tomograd::{
    kernels::{Precision, settings::Settings, settings::with_settings},
    pipeline::{preparation::Channel, transforms::*},
    prelude::*,
};

/// Trains a 3D U-Net on a folder of NIfTI files and predicts the validation cases.
#[derive(Parser)]
struct Arguments {
    /// Folder with images/, labels/ and split.txt; without the last, every fifth case is for validation
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/hippocampus"))]
    data: PathBuf,
    /// Number of epochs
    #[arg(long, default_value_t = 40)]
    epochs: u64,
    /// Channels of each level of the network, from the finest to the coarsest
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    widths: Vec<usize>,
    /// Folder of checkpoints, masks, the contact sheet, logs and metrics
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Checkpoint to resume from
    #[arg(long)]
    resume: Option<PathBuf>,
    /// Number of threads, by default all processors
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = Device::usable)]
    device: Device,
    /// Overwrites the weights of another run in the output folder
    #[arg(long)]
    overwrite: bool,
    /// Trains without algorithms that round more than direct summation (Winograd)
    #[arg(long)]
    strict: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = arguments.threads.map_or(Settings::default(), |threads| Settings::default().threads(threads));
    match with_settings(settings, || run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unet3d: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (seed, out) = (Seed::new(arguments.seed), &arguments.out);
    let precision = if arguments.strict { Precision::Strict } else { Precision::Fast };
    // Prediction needs the preparation too, so it is saved in the checkpoint.
    let preparation = Preparation::new([40, 56, 40], ["background", "anterior", "posterior"])?
        .channels([Channel::new("t1", "MR")])?
        .orientation("RAS")?
        .spacing([1.0; 3])?;
    let cases = Dataset::prepared(&arguments.data, &preparation)?;
    let split = Split::read_or_fixed(arguments.data.join("split.txt"), &cases.names())?;
    let (train, validation) = (cases.subset(&split.train)?, cases.subset(&split.validation)?);
    let augment = Compose::new()
        .then(RandomAffine { probability: 0.3, ..RandomAffine::default() })?
        .then(CropOrPad::random(preparation.patch.clone()))?
        // Only left and right are mirror images of each other.
        .then(Flip::new([0.0, 0.0, 0.5]))?
        .then(RandomBrightness::default())?
        .then(RandomNoise::default())?;
    let loader = Loader::new(Arc::new(train), 2, seed.named("loader"))?
        .transforms(augment)
        .drop_last()?
        .device(arguments.device);

    let config = UNet3dConfig { widths: arguments.widths.clone(), ..UNet3dConfig::new(preparation.classes.len()) };
    let mut params = Params::new(arguments.device, seed.named("weights"));
    let net = UNet3d::new(params.root(), &config)?;
    let optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    let learner = Learner::new(params, optimizer).schedule(schedule::one_cycle).clip_norm(12.0)?;
    let trainer = Trainer::new(learner, arguments.epochs).seed(seed).folder(out).validate_every(4)?.verbose();
    let mut trainer = trainer.config(&config)?.preparation(&preparation)?;
    if arguments.overwrite {
        trainer = trainer.overwrite();
    }
    if let Some(checkpoint) = &arguments.resume {
        trainer = trainer.resume(checkpoint);
    }
    let predict = |params: &Params, patches: &Tensor| {
        let pass = Pass::eval(params)?;
        Ok(net.forward(&pass.input(&patches.to(params.device())?), &pass)?.into_value())
    };
    println!("{} training and {} validation cases", split.train.len(), split.validation.len());
    trainer.run_with(
        &loader,
        |step| {
            let pass = step.pass()?.precision(precision)?;
            let logits = net.forward(&pass.input(step.batch.image()?), &pass)?;
            let loss = DiceCe::default().forward(&logits, step.batch.label()?)?;
            drop(logits);
            step.learn(pass, loss)
        },
        |epoch| {
            let report = preparation.evaluate(&validation, |patches| predict(epoch.params(), patches))?;
            epoch.log_classes(&report, |metrics| metrics.dice)?;
            Ok(report.mean(|metrics| metrics.dice).value)
        },
    )?;

    let (mut sheet, masks) = (ContactSheet::new(4, preparation.classes.len())?, out.join("masks"));
    let predict = |patches: &Tensor| predict(trainer.params(), patches);
    let report = preparation.evaluate_files(&validation, predict, |case| {
        sheet.add(&validation.sample(case.index())?, &preparation.label(case.mask())?)?;
        case.write_mask(&masks)
    })?;
    sheet.write(out.join("contact_sheet.png"))?;
    report.write_csv(out.join("metrics.csv"))?;
    report.write_summary_csv(out.join("summary.csv"))?;
    println!("{report}\nresults in {}", out.display());
    Ok(())
}
