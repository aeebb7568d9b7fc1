//! A 3D U-Net learns to segment the hippocampus, from the files to the masks.
//!
//!     cargo run --release --example unet3d -- --data DIR --epochs N --widths C,C,... --out DIR --resume FILE --threads N
//!         --seed S --device D --overwrite
//!
//! A run stops at once while its folder holds the weights of another one: `--resume` goes on with them, `--overwrite` begins anew.
//!
//! Without arguments it trains on the 40 cases that come with the project and predicts 12 others. `benches/accuracy/` trains
//! on all cases by the same recipe, beside PyTorch.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use clap::Parser;
use tomograd::{
    io::write_atomically,
    kernels::{
        Precision,
        settings::{Settings, with_settings},
    },
    pipeline::{
        Mean, alignment, evaluate_volumes,
        preparation::Channel,
        progress,
        transforms::{Compose, CropOrPad, Flip, RandomAffine, RandomBrightness, RandomNoise},
    },
    prelude::*,
};

/// Trains a 3D U-Net on a folder of NIfTI files and predicts the validation cases.
#[derive(Parser)]
struct Arguments {
    /// Folder with images/, labels/ and split.txt; without the last, every fifth case validates
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/hippocampus"))]
    data: PathBuf,
    /// How often each training case is seen
    #[arg(long, default_value_t = 40)]
    epochs: u64,
    /// Channels of each level of the network, the finest first
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    widths: Vec<usize>,
    /// Where checkpoints, masks, the contact sheet, epochs.csv and metrics.csv go
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// A checkpoint to go on from
    #[arg(long)]
    resume: Option<PathBuf>,
    /// Number of threads; all processors without it
    #[arg(long)]
    threads: Option<usize>,
    /// Where all random numbers come from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Writes over the weights of another run in the folder of results
    #[arg(long)]
    overwrite: bool,
    /// Trains without algorithms that round more than a plain sum (Winograd)
    #[arg(long)]
    strict: bool,
}

const CLASSES: usize = 3;
const CLASS_NAMES: [&str; CLASSES] = ["background", "anterior", "posterior"];
/// Depth, height and width of a training patch.
const PATCH: [usize; 3] = [40, 56, 40];
const BATCH: usize = 2;
const WEIGHTS: [&str; 2] = ["last.safetensors", "best.safetensors"];
const RATE: f64 = 3e-3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match arguments.threads {
        Some(threads) => Settings::default().threads(threads),
        None => Settings::default(),
    };
    match with_settings(settings, || run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("unet3d: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let device: Device = arguments.device.parse()?;
    let seed = Seed::new(arguments.seed);
    let precision = if arguments.strict { Precision::Strict } else { Precision::Fast };
    keep_weights(arguments)?;
    let masks = arguments.out.join("masks");
    std::fs::create_dir_all(&masks).map_err(|error| Error::io("create", masks.display(), error))?;

    // What prediction needs as well: it travels in the checkpoint.
    let preparation = Preparation::new(PATCH, CLASS_NAMES)?
        .channels([Channel::new("t1", "MR")])?
        .orientation("RAS")?
        .spacing([1.0; 3])?;
    let cases = Dataset::prepared(&arguments.data, &preparation)?;
    let split_file = arguments.data.join("split.txt");
    let split = if split_file.exists() { Split::read(split_file)? } else { Split::fixed(&cases.names()) };
    let (train, validation) = (cases.subset(&split.train)?, cases.subset(&split.validation)?);
    let augment = Compose::new()
        .then(RandomAffine { probability: 0.3, ..RandomAffine::default() })?
        .then(CropOrPad::random(PATCH))?
        // Left and right are mirror images; front and back, top and bottom are not.
        .then(Flip::new([0.0, 0.0, 0.5]))?
        .then(RandomBrightness::default())?
        .then(RandomNoise::default())?;
    let loader = Loader::new(Arc::new(train), BATCH, seed.named("loader"))?.transforms(augment).drop_last()?;
    let steps = loader.steps();
    let total = steps * arguments.epochs;

    let config = UNet3dConfig { widths: arguments.widths.clone(), ..UNet3dConfig::new(CLASSES) };
    let config_text = format!("{config:?}");
    let mut params = Params::new(device, seed.named("weights"));
    let net = UNet3d::new(params.root(), &config)?;
    let mut optimizer = AdamW::new(&params, RATE)?.decay(1e-2)?;
    let (mut first_epoch, mut best) = (0, 0.0);
    if arguments.resume.is_none() {
        // The best weights of an earlier run would stay until this one has better ones.
        for name in WEIGHTS {
            match std::fs::remove_file(arguments.out.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", name, error));
                }
                _ => {}
            }
        }
    }
    if let Some(path) = &arguments.resume {
        let mut loaded = Loaded::read(path)?;
        let run = format!("{config_text} {seed:?} {total}");
        if loaded.text("run")? != run {
            return Err(Error::argument(
                "resume",
                format!("{} is of another run: {}", path.display(), loaded.text("run")?),
            )
            .expected(run));
        }
        loaded.restore(&mut params)?;
        loaded.restore_optimizer(&mut optimizer)?;
        let number =
            |text: &str| text.parse::<f64>().map_err(|_| Error::format("resume", format!("{text:?} isn't a number")));
        first_epoch = number(loaded.text("epoch")?)? as u64;
        best = number(loaded.text("best")?)?;
    }
    println!(
        "{} parameters, {} training and {} validation cases, {total} steps",
        params.count(),
        split.train.len(),
        split.validation.len()
    );

    let log_file = arguments.out.join("epochs.csv");
    // After the Dice of each class, over how many of the validation cases it is the mean.
    let names: Vec<&str> = preparation.foreground().collect();
    let counts: Vec<String> = names.iter().map(|name| format!("{name}_defined")).collect();
    let mut log = format!("epoch,loss,step_seconds,{},{}\n", names.join(","), counts.join(","));
    if first_epoch > 0 {
        log = match std::fs::read_to_string(&log_file) {
            Ok(text) if text.starts_with(&log) => text,
            Ok(_) => {
                return Err(Error::argument("resume", format!("{} has other columns", log_file.display()))
                    .expected(format!("{}, or no such file", log.trim_end())));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => log,
            Err(error) => return Err(Error::io("read", log_file.display(), error)),
        };
    }
    for epoch in first_epoch..arguments.epochs {
        let bar = progress::bar(steps, format!("epoch {}", epoch + 1));
        let (mut sum, begin) = (0.0, Instant::now());
        for (index, batch) in (0..).zip(loader.epoch(epoch)) {
            let batch = batch?;
            let step = epoch * steps + index;
            let pass = Pass::train(&params, seed.at(step))?.precision(precision)?;
            let logits = net.forward(&pass.input(batch.image()?), &pass)?;
            let loss = DiceCe::default().forward(&logits, batch.label()?)?;
            drop(logits);
            let value = loss.value().to_scalar()?;
            if !value.is_finite() {
                return Err(Error::argument("loss", format!("{value} in epoch {}, step {index}", epoch + 1))
                    .expected("a finite number")
                    .within(format!("cases {}", batch.names.join(", "))));
            }
            sum += value;
            let update = pass.backward(loss)?.clip_norm(12.0)?;
            optimizer.set_rate_factor(schedule::one_cycle(step, total))?;
            optimizer.step(&mut params, update)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        let (loss, step_seconds) = (sum / steps as f64, begin.elapsed().as_secs_f64() / steps as f64);
        let validate_now = epoch % 4 == 3 || epoch + 1 == arguments.epochs;
        let report = validate_now.then(|| validate(&params, &net, &preparation, &validation)).transpose()?;
        let dice = report.as_ref().map(|report| report.mean(|m| m.dice));
        println!(
            "epoch {:>3}  loss {loss:.4}{}  {:.0} s",
            epoch + 1,
            dice.map_or(String::new(), |dice| format!("  validation Dice {dice:.4}")),
            start.elapsed().as_secs_f64()
        );
        let dice = dice.map(|dice| dice.value);
        let improved = dice.is_some_and(|dice| dice > best);
        best = dice.map_or(best, |dice| best.max(dice));
        let checkpoint = Checkpoint::new(&params)
            .optimizer(&optimizer)
            .config(&config)?
            .preparation(&preparation)?
            .text("run", format!("{config_text} {seed:?} {total}"))
            .text("epoch", (epoch + 1).to_string())
            .text("best", best.to_string());
        if improved {
            checkpoint.save(arguments.out.join("best.safetensors"))?;
        }
        checkpoint.save(arguments.out.join("last.safetensors"))?;
        let class_dice = |class| report.as_ref().map(|r| r.class_mean(class, |m| m.dice)).transpose();
        let dice = (1..CLASSES).map(class_dice).collect::<Result<Vec<_>>>()?;
        let column = |text: fn(&Mean) -> String| {
            dice.iter().map(|dice| dice.as_ref().map_or(String::new(), text)).collect::<Vec<_>>().join(",")
        };
        let (means, counts) = (column(|dice| dice.value.to_string()), column(|dice| dice.defined.to_string()));
        log += &format!("{},{loss},{step_seconds},{means},{counts}\n", epoch + 1);
        write_atomically(&log_file, |writer| {
            writer.write_all(log.as_bytes()).map_err(|error| Error::io("write", log_file.display(), error))
        })?;
    }

    let report = predict(&params, &net, &preparation, &arguments.out, &validation)?;
    report.write_csv(arguments.out.join("metrics.csv"))?;
    report.write_summary_csv(arguments.out.join("summary.csv"))?;
    println!("{report}\n{:.0} s; results in {}", start.elapsed().as_secs_f64(), arguments.out.display());
    Ok(())
}

/// That no weights of another run lie where this one will write its own.
fn keep_weights(arguments: &Arguments) -> Result<()> {
    let resumed = arguments.resume.as_ref().and_then(|path| path.canonicalize().ok());
    let here = arguments.out.canonicalize().ok();
    // Going on from a checkpoint of this folder, it is the same run.
    if arguments.overwrite || resumed.is_some_and(|resumed| resumed.parent() == here.as_deref()) {
        return Ok(());
    }
    match WEIGHTS.map(|name| arguments.out.join(name)).into_iter().find(|file| file.exists()) {
        Some(file) => Err(Error::argument("out", format!("{} holds the weights of another run", file.display()))
            .expected("another folder for --out, --resume with that file, or --overwrite")),
        None => Ok(()),
    }
}

/// The network's logits for a batch of patches.
fn logits(params: &Params, net: &UNet3d, patches: &Tensor) -> Result<Tensor> {
    let pass = Pass::eval(params)?;
    Ok(net.forward(&pass.input(patches), &pass)?.into_value())
}

/// How well the network does on prepared cases, in their prepared grid.
fn validate(params: &Params, net: &UNet3d, preparation: &Preparation, cases: &Dataset) -> Result<Report> {
    let mut report = Report::new(preparation.foreground());
    for index in 0..cases.len() {
        let sample = cases.sample(index)?;
        let prediction = preparation
            .labels(sample.image()?, |patches| logits(params, net, patches))
            .map_err(|error| error.within(format!("case {}", sample.name)))?;
        report.add(&sample.name, evaluate(&prediction, sample.label()?, sample.spacing(), CLASSES)?)?;
    }
    Ok(report)
}

/// Writes a mask of each validation case in the grid of its image, and the contact sheet.
fn predict(params: &Params, net: &UNet3d, preparation: &Preparation, out: &Path, cases: &Dataset) -> Result<Report> {
    let mut report = Report::new(preparation.foreground());
    let mut sheet = ContactSheet::new(4, CLASSES)?;
    for (index, name) in cases.names().iter().enumerate() {
        let (image, truth) = (Volume::read(cases.image_file(name)?)?, Volume::read(cases.label_file(name)?)?);
        let mask = preparation
            .segment(&image, |patches| logits(params, net, patches))
            .map_err(|error| error.within(format!("case {name}")))?;
        report.add(name, evaluate_volumes(&mask, &truth, CLASSES, alignment::TOLERANCE)?)?;
        sheet.add(&cases.sample(index)?, &preparation.label(&mask)?)?;
        mask.write(out.join("masks").join(format!("{name}.nii.gz")))?;
    }
    sheet.write(out.join("contact_sheet.png"))?;
    Ok(report)
}
