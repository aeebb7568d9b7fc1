//! Trains a 2D segmentation network of the zoo on slices of the volumes in this repository, and predicts the validation volumes
//! slice by slice. By default it is a small U-Net; another one by the name of its preset, whose input, output and number of
//! axes are changed to those of the job:
//!
//!     cargo run --release --example segment2d -- --preset half_unet

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use serde_json::{Value, json};
use tomograd::{
    kernels::settings::{Settings, with_settings},
    models::registry,
    pipeline::{preparation::Channel, transforms::*},
    prelude::*,
};

/// Trains a 2D segmentation network on slices, and predicts the validation volumes.
#[derive(Parser)]
struct Arguments {
    /// Preset of the zoo, such as half_unet, u2netp, res_unet; without it, a U-Net of four levels
    #[arg(long)]
    preset: Option<String>,
    /// Folder with images/, labels/ and split.txt; without the last, every fifth case is for validation
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/hippocampus"))]
    data: PathBuf,
    /// Number of epochs
    #[arg(long, default_value_t = 24)]
    epochs: u64,
    /// Folder of checkpoints, masks, the contact sheet, logs and metrics
    #[arg(long, default_value = "out/segment2d")]
    out: PathBuf,
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
}

/// Height and width of the slices; multiples of 16, which most networks take.
const SLICE: [usize; 2] = [64, 48];
/// Neighbouring slices of each volume in a batch, and volumes.
const SLICES: usize = 8;
const VOLUMES: usize = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = arguments.threads.map_or(Settings::default(), |threads| Settings::default().threads(threads));
    match with_settings(settings, || run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segment2d: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration of the network: one channel to logits of `classes` classes, in 2D.
fn config(preset: Option<&str>, classes: usize) -> Result<Value> {
    let Some(name) = preset else {
        return Ok(json!({ "network": "unet2d", "in_channels": 1, "classes": classes, "widths": [16, 32, 64, 128] }));
    };
    let two_dimensional = |family: &&registry::Family| {
        family.card().task == registry::Task::Segmentation && family.card().ranks.contains(&2)
    };
    let (mut names, mut found) = (Vec::new(), None);
    for family in registry::families().iter().filter(two_dimensional) {
        for preset in family.presets()? {
            names.push(preset.name);
            if preset.name == name {
                found = Some(preset.config);
            }
        }
    }
    let Some(mut config) = found else {
        let error = Error::argument("segment2d", format!("no preset for 2D segmentation is called {name}"));
        return Err(error.expected(format!("one of {}", names.join(", "))));
    };
    let job = [
        ("in_channels", json!(1)),
        ("classes", json!(classes)),
        ("out_channels", json!(classes)),
        ("rank", json!(2)),
        ("sigmoid", json!(false)),
    ];
    for (field, value) in job {
        config.get_mut(field).into_iter().for_each(|old| *old = value.clone());
    }
    Ok(config)
}

fn run(arguments: &Arguments) -> Result<()> {
    let (seed, out) = (Seed::new(arguments.seed), &arguments.out);
    let prepared = |patch: &[usize]| {
        Preparation::new(patch, ["background", "anterior", "posterior"])?
            .channels([Channel::new("t1", "MR")])?
            .orientation("RAS")?
            .spacing([1.0; 3])
    };
    // Volumes are segmented plane by plane; the checkpoint gets the same preparation for single planes.
    let (preparation, plane) = (prepared(&[1, SLICE[0], SLICE[1]])?, prepared(&SLICE)?);
    let classes = preparation.classes.len();
    let cases = Dataset::prepared(&arguments.data, &preparation)?;
    let split = Split::read_or_fixed(arguments.data.join("split.txt"), &cases.names())?;
    let (train, validation) = (cases.subset(&split.train)?, cases.subset(&split.validation)?);
    let augment = Compose::new()
        .then(RandomAffine { probability: 0.3, ..RandomAffine::default() })?
        .then(CropOrPad::random([SLICES, SLICE[0], SLICE[1]]))?
        // Only left and right are mirror images of each other.
        .then(Flip::new([0.0, 0.0, 0.5]))?
        .then(RandomBrightness::default())?
        .then(RandomNoise::default())?;
    let loader = Loader::new(Arc::new(train), VOLUMES, seed.named("loader"))?
        .transforms(augment)
        .drop_last()?
        .device(arguments.device);

    let config = config(arguments.preset.as_deref(), classes)?;
    let mut params = Params::new(arguments.device, seed.named("weights"));
    let (net, config) = registry::build(params.root(), &config)?;
    let optimizer = AdamW::new(&params, 3e-3)?.decay(1e-2)?;
    let learner = Learner::new(params, optimizer).schedule(schedule::one_cycle).clip_norm(12.0)?;
    let trainer = Trainer::new(learner, arguments.epochs).seed(seed).folder(out).validate_every(8)?.verbose();
    let mut trainer = trainer.config(&config)?.preparation(&plane)?;
    if arguments.overwrite {
        trainer = trainer.overwrite();
    }
    let predict = |params: &Params, slices: &Tensor| {
        let pass = Pass::eval(params)?;
        let slices = pass.input(&slices.squeeze(2)?.to(params.device())?);
        net.run(&[("image", slices)].into(), &pass)?.into_main()?.into_value().unsqueeze(2)
    };
    println!("{}: {} training and {} validation volumes", config["network"], split.train.len(), split.validation.len());
    trainer.run_with(
        &loader,
        |step| {
            // (N, C, D, H, W): each plane becomes an image of its own.
            let slices = step.batch.image()?.permute(&[0, 2, 1, 3, 4])?.flatten(..2)?;
            let label = step.batch.label()?.flatten(..2)?;
            let pass = step.pass()?;
            let outputs = net.run(&[("image", pass.input(&slices))].into(), &pass)?;
            // With deep supervision there are several outputs of the size of the image; a guided network has one for the whole
            // slice besides: whether it shows any class.
            let any = label.cast(DType::F32)?.max(1..)?.gt(0.0)?.cast(DType::I64)?;
            let losses = outputs.iter().map(|(_, logits)| match logits.rank() {
                2 => DiceCe::cross_entropy().forward(logits, &any),
                _ => DiceCe::default().forward(logits, &label),
            });
            let losses = losses.collect::<Result<Vec<Var>>>()?;
            let loss = Var::stack(&losses.iter().collect::<Vec<_>>(), 0)?.mean(..)?;
            drop((outputs, losses));
            step.learn(pass, loss)
        },
        |epoch| {
            let report = preparation.evaluate(&validation, |slices| predict(epoch.params(), slices))?;
            epoch.log_classes(&report, |metrics| metrics.dice)?;
            Ok(report.mean(|metrics| metrics.dice).value)
        },
    )?;

    let (mut sheet, masks) = (ContactSheet::new(6, classes)?, out.join("masks"));
    let predict = |slices: &Tensor| predict(trainer.params(), slices);
    let report = preparation.evaluate_files(&validation, predict, |case| {
        sheet.add(&validation.sample(case.index())?, &preparation.label(case.mask())?)?;
        case.write_mask(&masks)
    })?;
    sheet.write(out.join("overlays.png"))?;
    report.write_csv(out.join("metrics.csv"))?;
    report.write_summary_csv(out.join("summary.csv"))?;
    println!("{report}\nresults in {}", out.display());
    Ok(())
}
