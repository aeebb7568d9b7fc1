//! The training loop with validation, logs and checkpoints.
//!
//! The user writes the training step. The [`Trainer`] does the rest: it counts epochs and steps, validates, schedules
//! learning rates, averages weights, accumulates gradients, stops early, writes logs and checkpoints, and resumes from these
//! bit for bit.

mod batches;
mod learner;
mod log;
mod run;
mod state;
mod step;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tomograd_core::{Error, Result, Seed};
use tomograd_nn::Params;

pub use batches::{Batches, Generated};
pub use learner::Learner;
pub use step::{Step, Validation};

use state::Progress;

/// The file names of checkpoints.
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
/// The default name of a single learner.
const MODEL: &str = "model";

/// A training loop: epochs over batches, with a training step that is a user-defined function.
///
/// ```
/// use std::sync::Arc;
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{AdamW, Conv, DiceCe, Kernel, Module, Params, Pass, schedule};
/// use tomograd_pipeline::{Learner, Loader, Sample, Trainer};
/// # let image = Tensor::normal(&[1, 8, 8], 0.0, 1.0, Seed::new(2), tomograd_core::DType::F32, Device::Cpu)?;
/// # let label = Tensor::zeros(&[8, 8], tomograd_core::DType::U8, Device::Cpu)?;
/// # let cases = vec![Sample::new("a", &image, Some(&label))?, Sample::new("b", &image, Some(&label))?];
/// # let folder = std::env::temp_dir().join(format!("tomograd-trainer-doc-{}", std::process::id()));
/// let seed = Seed::new(7);
/// let loader = Loader::new(Arc::new(cases), 2, seed.named("loader"))?;
/// let mut params = Params::new(Device::Cpu, seed.named("weights"));
/// let net = Conv::new(params.root(), 1, 2, Kernel::d2(3).padding(1))?;
/// let optimizer = AdamW::new(&params, 1e-3)?;
///
/// let learner = Learner::new(params, optimizer).schedule(schedule::one_cycle).clip_norm(12.0)?.average(0.99)?;
/// let mut trainer = Trainer::new(learner, 4).seed(seed).folder(&folder).validate_every(2)?.patience(10)?;
/// trainer.run_with(
///     &loader,
///     |step| {
///         let pass = step.pass()?;
///         let logits = net.forward(&pass.input(step.batch.image()?), &pass)?;
///         let loss = DiceCe::default().forward(&logits, step.batch.label()?)?;
///         step.learn(pass, loss)
///     },
///     |validation| {
///         let pass = Pass::eval(validation.averaged()?)?;
///         let batch = loader.epoch(0).next().unwrap()?;
///         let logits = net.forward(&pass.input(batch.image()?), &pass)?;
///         let loss = DiceCe::default().forward(&logits, batch.label()?)?.value().to_scalar()?;
///         validation.log("validation_loss", loss)?;
///         Ok(-loss) // The score: the higher, the better.
///     },
/// )?;
/// assert!(trainer.best().is_some() && folder.join("best.safetensors").exists());
/// let params = trainer.params(); // as trained
/// # assert_eq!(params.count(), 20);
/// # let table = std::fs::read_to_string(folder.join("epochs.csv")).unwrap();
/// # assert!(table.starts_with("epoch,loss,step_seconds,validation_loss\n"), "{table}");
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Files
/// In the [`folder`](Self::folder), if one is set: `last.safetensors`, the state at the end of the last epoch (or at a step,
/// [`save_every`](Self::save_every)); `best.safetensors`, that of the epoch with the best score; `epochs.csv`, a row per
/// epoch with the means of the values logged by the steps, the seconds per step, and the values logged by the validation; and
/// `events.out.tfevents.*` for TensorBoard. A folder with weights of another run is rejected.
///
/// # Resuming
/// A run that is interrupted at any time (even by `kill -9`) and [resumed](Self::resume) from its last checkpoint continues
/// as if without interruption: files are written atomically, and log entries after the checkpoint are removed. Weights,
/// checkpoints and logs are equal byte for byte, except for times, if steps and batches depend on their numbers and seeds
/// only.
pub struct Trainer {
    learners: Vec<(String, Learner)>,
    epochs: u64,
    seed: Seed,
    folder: Option<PathBuf>,
    resume: Option<PathBuf>,
    overwrite: bool,
    validate_every: u64,
    patience: Option<u64>,
    save_every: Option<u64>,
    log_every: u64,
    verbose: bool,
    config: Option<Value>,
    preparation: Option<Value>,
    progress: Progress,
    /// The number of steps at the last checkpoint.
    saved: u64,
}

impl Trainer {
    /// A training of one learner for `epochs` epochs.
    pub fn new(learner: Learner, epochs: u64) -> Self {
        Self {
            learners: vec![(MODEL.to_owned(), learner)],
            epochs,
            seed: Seed::new(0),
            folder: None,
            resume: None,
            overwrite: false,
            validate_every: 1,
            patience: None,
            save_every: None,
            log_every: 1,
            verbose: false,
            config: None,
            preparation: None,
            progress: Progress::default(),
            saved: 0,
        }
    }

    /// A training of several named learners, such as a generator and a discriminator. Checkpoints store the weights of the
    /// first learner as if it were the only one.
    ///
    /// ```
    /// use tomograd_autodiff::{Var, methods::*};
    /// use tomograd_core::{DType, Device, Result, Seed, Tensor};
    /// use tomograd_nn::{AdamW, Linear, Module, Params, Pass, losses};
    /// use tomograd_pipeline::{Generated, Learner, Trainer};
    /// let noise = |seed: Seed| Tensor::normal(&[8, 1], 0.0, 1.0, seed, DType::F32, Device::Cpu);
    /// let [mut first, mut second] = [1, 2].map(|seed| Params::new(Device::Cpu, Seed::new(seed)));
    /// let (generator, discriminator) = (Linear::new(first.root(), 1, 1)?, Linear::new(second.root(), 1, 1)?);
    /// // The discriminator's loss for `x` as real (1) or generated (0).
    /// let adversarial_loss = |x: &Var, pass: &Pass, truth: f64| -> Result<Var> {
    ///     let truth = Tensor::full(x.shape(), truth, DType::F32, Device::Cpu)?;
    ///     losses::binary_cross_entropy(&discriminator.forward(x, pass)?, &pass.input(&truth))
    /// };
    /// let optimizers = (AdamW::new(&first, 1e-2)?, AdamW::new(&second, 1e-2)?);
    /// let learners = [Learner::new(first, optimizers.0), Learner::new(second, optimizers.1)];
    /// let mut trainer = Trainer::of_several(["generator", "discriminator"].into_iter().zip(learners), 2)?;
    /// let real = Generated::new(3, |epoch, step| noise(Seed::new(3).at(epoch).at(step))?.add_scalar(4.0));
    /// trainer.run(&real, |step| {
    ///     let pass = step.learner("generator")?.pass(step.seed)?;
    ///     let generated = generator.forward(&pass.input(&noise(step.seed)?), &pass)?;
    ///     let constant = generated.value().clone();
    ///     // The gradient passes through the discriminator, whose parameters are constants in the generator's pass.
    ///     let frozen = Pass::eval(step.learner("discriminator")?.params())?.on(pass.tape());
    ///     let loss = adversarial_loss(&generated, &frozen, 1.0)?;
    ///     step.learn_as("generator", pass, loss)?;
    ///
    ///     let pass = step.learner("discriminator")?.pass(step.seed)?;
    ///     let loss = adversarial_loss(&pass.input(&step.batch), &pass, 1.0)?;
    ///     let loss = loss.add(&adversarial_loss(&pass.input(&constant), &pass, 0.0)?)?;
    ///     step.learn_as("discriminator", pass, loss)
    /// })?;
    /// assert_eq!(trainer.epoch(), 2);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there are none, or a name is empty, contains a `/`, or is used twice.
    pub fn of_several<N: Into<String>>(learners: impl IntoIterator<Item = (N, Learner)>, epochs: u64) -> Result<Self> {
        let learners: Vec<(String, Learner)> =
            learners.into_iter().map(|(name, learner)| (name.into(), learner)).collect();
        let twice = |place: usize| learners[..place].iter().any(|(name, _)| *name == learners[place].0);
        let bad = |place: &usize| learners[*place].0.is_empty() || learners[*place].0.contains('/') || twice(*place);
        if let Some(place) = (0..learners.len()).find(bad) {
            return Err(Error::argument("trainer", format!("a learner called {:?}", learners[place].0))
                .expected("a name of its own for each, without /"));
        }
        let mut several = learners.into_iter();
        let (name, first) =
            several.next().ok_or_else(|| Error::argument("trainer", "no learner").expected("one at least"))?;
        let mut trainer = Self::new(first, epochs);
        trainer.learners[0].0 = name;
        trainer.learners.extend(several);
        Ok(trainer)
    }

    /// Sets the random seed: step number n uses `seed.at(n)`.
    #[must_use]
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the folder of checkpoints and logs, which is created if necessary.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Resumes from this checkpoint.
    #[must_use]
    pub fn resume(mut self, checkpoint: impl Into<PathBuf>) -> Self {
        self.resume = Some(checkpoint.into());
        self
    }

    /// Resumes from the last checkpoint in the [`folder`](Self::folder) if there is one, and starts from the beginning
    /// otherwise, so that the same command can be repeated until the training is complete.
    ///
    /// # Errors
    /// When no folder has been set.
    pub fn resume_if_there(mut self) -> Result<Self> {
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::argument("trainer", "resume_if_there without a folder").expected("Trainer::folder before it")
        })?;
        // In the first epoch, the best checkpoint is written before the last one and has the same state.
        self.resume = [LAST, BEST].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
        Ok(self)
    }

    /// Allows replacing the files of another run in the folder.
    #[must_use]
    pub fn overwrite(mut self) -> Self {
        self.overwrite = true;
        self
    }

    /// Validates every `epochs` epochs and after the last one. By default: after every epoch.
    ///
    /// # Errors
    /// When it is 0.
    pub fn validate_every(mut self, epochs: u64) -> Result<Self> {
        self.validate_every = at_least_one("validate_every", epochs)?;
        Ok(self)
    }

    /// Early stopping: stops after this many consecutive validations without a better score.
    ///
    /// # Errors
    /// When it is 0.
    pub fn patience(mut self, validations: u64) -> Result<Self> {
        self.patience = Some(at_least_one("patience", validations)?);
        Ok(self)
    }

    /// Also writes the last checkpoint every `steps` steps, not only at the end of an epoch. While a learner is accumulating
    /// gradients ([`Learner::accumulate`]), this is postponed.
    ///
    /// # Errors
    /// When it is 0.
    pub fn save_every(mut self, steps: u64) -> Result<Self> {
        self.save_every = Some(at_least_one("save_every", steps)?);
        Ok(self)
    }

    /// Writes step values to TensorBoard only every `steps` steps. By default: every step.
    ///
    /// # Errors
    /// When it is 0.
    pub fn log_every(mut self, steps: u64) -> Result<Self> {
        self.log_every = at_least_one("log_every", steps)?;
        Ok(self)
    }

    /// Prints a line per epoch and, in a terminal, a progress bar.
    #[must_use]
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    /// Sets the configuration of the first learner's network, for checkpoints. A run with another configuration can't be
    /// resumed.
    ///
    /// # Errors
    /// When it can't be serialised to JSON.
    pub fn config(mut self, config: &impl Serialize) -> Result<Self> {
        self.config = Some(json("configuration", config)?);
        Ok(self)
    }

    /// Sets what prediction needs besides the network, a [`Preparation`](crate::Preparation), for checkpoints. A run with
    /// another one can't be resumed.
    ///
    /// # Errors
    /// When it can't be serialised to JSON.
    pub fn preparation(mut self, preparation: &impl Serialize) -> Result<Self> {
        self.preparation = Some(json("preparation", preparation)?);
        Ok(self)
    }

    /// The parameters of the first learner.
    pub fn params(&self) -> &Params {
        self.learners[0].1.params()
    }

    /// The learner called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names.
    pub fn learner(&self, name: &str) -> Result<&Learner> {
        Ok(&self.learners[step::find(&self.learners, name)?].1)
    }

    /// The learners and their names, after training.
    pub fn into_learners(self) -> Vec<(String, Learner)> {
        self.learners
    }

    /// The number of completed epochs.
    pub fn epoch(&self) -> u64 {
        self.progress.epoch
    }

    /// The best validation score so far.
    pub fn best(&self) -> Option<f64> {
        self.progress.best
    }
}

/// Checks that a count isn't 0.
fn at_least_one(operation: &str, count: u64) -> Result<u64> {
    if count > 0 { Ok(count) } else { Err(Error::argument(operation, "0").expected("1 at least")) }
}

fn json(what: &str, value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::argument("trainer", format!("the {what} has no JSON")).source(error))
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path.display(), error)),
        _ => Ok(()),
    }
}
