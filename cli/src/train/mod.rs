//! `tomograd train CONFIG [--out DIR] [--resume] [--overwrite] [--epochs N]`.

mod config;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde_json::json;
use tomograd::{
    models::registry,
    pipeline::transforms::{Compose, CropOrPad, Flip, RandomAffine, RandomBrightness, RandomNoise},
    prelude::*,
};

use self::config::Config;
use crate::{Failure, print::print_line};

/// A segmentation network from a configuration in JSON.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd train --example > liver.json                      (a configuration to begin with)
  tomograd train liver.json
  tomograd train liver.json --resume                         (goes on where it was interrupted, to the same bits)
  tomograd predict liver/best.safetensors scans/ --out masks")]
pub(crate) struct Train {
    /// The configuration; paths in it are relative to its folder
    #[arg(required_unless_present = "example")]
    config: Option<PathBuf>,
    /// Prints a configuration with every field, and trains nothing
    #[arg(long)]
    example: bool,
    /// The folder of checkpoints, logs and metrics, in place of the configuration's
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The number of epochs, in place of the configuration's
    #[arg(long)]
    epochs: Option<u64>,
    /// Goes on from the last checkpoint of the folder, if there is one
    #[arg(long)]
    resume: bool,
    /// Replaces another run in the folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// cpu or cuda:N
    #[arg(long, default_value = "cpu", value_parser = Device::usable)]
    device: Device,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
}

impl Train {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if self.example {
            print_line!("{}", config::EXAMPLE);
            return Ok(());
        }
        let path = self.config.as_deref().unwrap_or(Path::new(""));
        let mut config = Config::read(path)?;
        config.training.epochs = self.epochs.unwrap_or(config.training.epochs);
        let out = self.out.clone().unwrap_or_else(|| config.out.clone());
        self.train(&config, &out).map_err(|error| error.within(path.display().to_string()))?;
        Ok(())
    }

    fn train(&self, config: &Config, out: &Path) -> Result<()> {
        let training = &config.training;
        let seed = Seed::new(training.seed);
        let cases = config.dataset()?;
        let preparation = config.preparation(&cases)?;
        let cases = cases.preparation(&preparation)?;
        let split = match &config.split {
            Some(path) => Split::read(path)?,
            None => Split::fixed(&cases.names()),
        };
        let (train, validation) = (cases.subset(&split.train)?, cases.subset(&split.validation)?);
        let augment = self.augmentation(config, &preparation)?;
        let loader = Loader::new(Arc::new(train), training.batch, seed.named("loader"))?
            .transforms(augment)
            .workers(training.workers)?
            .drop_last()?
            .device(self.device);

        let mut params = Params::new(self.device, seed.named("weights"));
        let (net, network) = registry::build(params.root(), &config.network(&preparation))?;
        let optimizer = AdamW::new(&params, training.learning_rate)?.decay(training.weight_decay)?;
        let learner = Learner::new(params, optimizer).schedule(schedule::one_cycle).clip_norm(training.clip_norm)?;
        let mut trainer = Trainer::new(learner, training.epochs)
            .seed(seed)
            .folder(out)
            .validate_every(training.validate_every)?
            .verbose()
            .config(&network)?
            .preparation(&preparation)?;
        if self.overwrite {
            trainer = trainer.overwrite();
        }
        if self.resume {
            trainer = trainer.resume_if_there()?;
        }
        let predict = |params: &Params, patches: &Tensor| {
            let pass = Pass::eval(params)?;
            let patches = pass.input(&patches.to(params.device())?);
            Ok(net.run(&[("image", patches)].into(), &pass)?.into_main()?.into_value())
        };
        eprintln!("{} training and {} validation cases", split.train.len(), split.validation.len());
        trainer.run_with(
            &loader,
            |step| {
                let pass = step.pass()?;
                let outputs = net.run(&[("image", pass.input(step.batch.image()?))].into(), &pass)?;
                let label = step.batch.label()?;
                // With deep supervision there are several outputs of the size of the image.
                let losses = outputs.iter().map(|(_, logits)| DiceCe::default().forward(logits, label));
                let losses = losses.collect::<Result<Vec<_>>>()?;
                let loss = Var::stack(&losses.iter().collect::<Vec<_>>(), 0)?.mean(..)?;
                drop((outputs, losses));
                step.learn(pass, loss)
            },
            |epoch| {
                let report = preparation.evaluate(&validation, |patches| predict(epoch.params(), patches))?;
                epoch.log_classes(&report, |metrics| metrics.dice)?;
                Ok(report.mean(|metrics| metrics.dice).value)
            },
        )?;
        let report =
            preparation.evaluate_files(&validation, |patches| predict(trainer.params(), patches), |_| Ok(()))?;
        report.write_csv(out.join("metrics.csv"))?;
        report.write_summary_csv(out.join("summary.csv"))?;
        if self.json {
            let dice = report.mean(|metrics| metrics.dice);
            print_line!("{}", json!({"out": out.display().to_string(), "epochs": trainer.epoch(), "dice": dice.value}));
        } else {
            print_line!("{report}\nresults in {}", out.display());
        }
        Ok(())
    }

    /// Patches of the network's size, and random changes of them if the configuration wants these.
    fn augmentation(&self, config: &Config, preparation: &Preparation) -> Result<Compose> {
        let training = &config.training;
        let mut transforms = Compose::new();
        if training.augment {
            transforms = transforms.then(RandomAffine { probability: 0.3, ..RandomAffine::default() })?;
        }
        transforms = transforms.then(CropOrPad::random(preparation.patch.clone()))?;
        if let Some(mirror) = &training.mirror {
            transforms = transforms.then(Flip::new(mirror.clone()))?;
        }
        if training.augment {
            transforms = transforms.then(RandomBrightness::default())?.then(RandomNoise::default())?;
        }
        Ok(transforms)
    }
}
