//! The training loop.

use std::{path::Path, time::Instant};

use tomograd_core::{Error, Result};
use tomograd_nn::{Checkpoint, Loaded};

use super::{
    BEST, Batches, LAST, Step, Trainer, Validation,
    log::{Log, Row, Values},
    remove,
    state::{self, Progress, Run},
};

/// The function of a validation.
type Validate<'a> = dyn FnMut(&mut Validation<'_>) -> Result<f64> + 'a;

impl Trainer {
    /// Trains without validation: calls `step` with each batch of the remaining epochs.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with), and when [`patience`](Self::patience) is set.
    pub fn run<L: Batches>(
        &mut self,
        batches: &L,
        step: impl FnMut(&mut Step<'_, L::Batch>) -> Result<()>,
    ) -> Result<()> {
        if self.patience.is_some() {
            return Err(Error::argument("trainer", "patience without validation").expected("Trainer::run_with"));
        }
        self.train(batches, step, None)
    }

    /// Trains: calls `step` with each batch of the remaining epochs, and `validate` at the end of the epochs
    /// given by [`validate_every`](Self::validate_every). `validate` returns a score; higher is better.
    ///
    /// # Errors
    /// Those of the functions and the batches, with the epoch and the step (both from 1) and the cases; when the folder has
    /// files of another run and [`overwrite`](Self::overwrite) isn't set; when the checkpoint to resume is of another run;
    /// and when a file can't be read or written.
    pub fn run_with<L: Batches>(
        &mut self,
        batches: &L,
        step: impl FnMut(&mut Step<'_, L::Batch>) -> Result<()>,
        mut validate: impl FnMut(&mut Validation<'_>) -> Result<f64>,
    ) -> Result<()> {
        self.train(batches, step, Some(&mut validate))
    }

    fn train<L: Batches>(
        &mut self,
        batches: &L,
        mut step: impl FnMut(&mut Step<'_, L::Batch>) -> Result<()>,
        mut validate: Option<&mut Validate<'_>>,
    ) -> Result<()> {
        let (start, steps) = (Instant::now(), batches.steps());
        let total = steps.checked_mul(self.epochs).ok_or_else(|| {
            Error::argument("trainer", format!("{} epochs of {steps} steps", self.epochs))
                .expected("fewer than 2⁶⁴ steps")
        })?;
        let run = self.identity(steps);
        let mut log = self.begin(&run)?;
        if self.verbose {
            let count: usize = self.learners.iter().map(|(_, learner)| learner.params().count()).sum();
            println!("{count} parameters, {total} steps in {} epochs", self.epochs);
        }
        while self.progress.epoch < self.epochs && !self.is_out_of_patience() {
            let epoch = self.progress.epoch;
            let within = |error: Error| error.within(format!("epoch {}", epoch + 1));
            let step_seconds = self.run_epoch(batches, total, &mut step, &run, log.as_mut()).map_err(within)?;
            let values = std::mem::take(&mut self.progress.values);
            (self.progress.epoch, self.progress.step) = (epoch + 1, 0);
            let mut row = Row {
                epoch: epoch + 1,
                step_seconds,
                training: &values,
                validation: Values::default(),
                score: None,
                pictures: Vec::new(),
            };
            let mut improved = false;
            let due = (epoch + 1).is_multiple_of(self.validate_every) || epoch + 1 == self.epochs;
            if let Some(validate) = validate.as_mut().filter(|_| due) {
                improved = self.validate(epoch, &mut **validate, &mut row).map_err(within)?;
            }
            if self.verbose {
                report(&row, start);
            }
            if let Some(log) = &mut log {
                log.epoch((epoch + 1) * steps, row)?;
            }
            if improved {
                self.save(&run, BEST)?;
            }
            self.save(&run, LAST)?;
        }
        Ok(())
    }

    /// Runs the remaining steps of the current epoch; returns the seconds per step.
    fn run_epoch<L: Batches>(
        &mut self,
        batches: &L,
        total: u64,
        function: &mut impl FnMut(&mut Step<'_, L::Batch>) -> Result<()>,
        run: &Run,
        mut log: Option<&mut Log>,
    ) -> Result<f64> {
        let (epoch, first) = (self.progress.epoch, self.progress.step);
        let bar = Bar::new(self.verbose, run.steps.saturating_sub(first), epoch);
        let begin = Instant::now();
        for batch in batches.batches(epoch, first) {
            let number = epoch * run.steps + self.progress.step;
            let mut step = Step {
                epoch,
                number,
                seed: self.seed.at(number),
                batch: batch?,
                learners: &mut self.learners,
                total,
                values: Values::default(),
            };
            let place = |error: Error, batch: &L::Batch, index: u64| {
                let cases = batches.describe(batch);
                let error = if cases.is_empty() { error } else { error.within(cases) };
                error.within(format!("step {}", index + 1))
            };
            function(&mut step).map_err(|error| place(error, &step.batch, self.progress.step))?;
            let values = step.values;
            self.progress.values.merge(&values)?;
            self.progress.step += 1;
            if let Some(log) = log.as_deref_mut() {
                log.step(number + 1, values.means())?;
                for (name, learner) in self.learners.iter().filter(|(_, learner)| learner.has_schedule()) {
                    let factor = learner.factor([number, total]);
                    log.step(number + 1, [(&format!("{name}_rate_factor")[..], factor)])?;
                }
            }
            bar.advance();
            if self.is_time_to_save(run.steps) {
                log.as_deref_mut().map_or(Ok(()), Log::flush)?;
                self.save(run, LAST)?;
            }
        }
        if self.progress.step != run.steps {
            return Err(Error::argument("trainer", format!("{} batches", self.progress.step))
                .expected(format!("{}, as Batches::steps says", run.steps)));
        }
        let last = (epoch * run.steps + run.steps).saturating_sub(1);
        self.learners.iter_mut().try_for_each(|(_, learner)| learner.finish([last, total]))?;
        Ok(begin.elapsed().as_secs_f64() / run.steps.saturating_sub(first).max(1) as f64)
    }

    /// Runs the validation; returns whether the score is the best so far.
    fn validate(&mut self, epoch: u64, function: &mut Validate<'_>, row: &mut Row<'_>) -> Result<bool> {
        let mut validation =
            Validation { epoch, learners: &self.learners, values: Values::default(), pictures: Vec::new() };
        let score = function(&mut validation).map_err(|error| error.within("validation"))?;
        (row.validation, row.pictures) = (validation.values, validation.pictures);
        row.score = Some(score);
        let improved = score.is_finite() && self.progress.best.is_none_or(|best| score > best);
        if improved {
            self.progress.best = Some(score);
        }
        self.progress.since_best = if improved { 0 } else { self.progress.since_best.saturating_add(1) };
        Ok(improved)
    }

    fn is_out_of_patience(&self) -> bool {
        self.patience.is_some_and(|patience| self.progress.since_best >= patience)
    }

    /// Whether a checkpoint is due within an epoch; at the end of an epoch, one is written anyway.
    fn is_time_to_save(&self, steps: u64) -> bool {
        let due = self.save_every.is_some_and(|every| self.done(steps) / every > self.saved / every);
        due && self.progress.step < steps && !self.learners.iter().any(|(_, learner)| learner.is_pending())
    }

    /// The steps since the start of the run.
    fn done(&self, steps: u64) -> u64 {
        self.progress.epoch.saturating_mul(steps).saturating_add(self.progress.step)
    }

    fn identity(&self, steps: u64) -> Run {
        let scheduled = self.learners.iter().any(|(_, learner)| learner.has_schedule());
        Run {
            seed: self.seed.to_words(),
            steps,
            epochs: scheduled.then_some(self.epochs),
            learners: self.learners.iter().map(|(name, learner)| (name.clone(), learner.settings())).collect(),
        }
    }

    /// Restores the checkpoint, if one was set, and opens the logs.
    fn begin(&mut self, run: &Run) -> Result<Option<Log>> {
        let resume = self.resume.take();
        let here = |folder: &Path| match &resume {
            Some(path) => path
                .canonicalize()
                .is_ok_and(|path| folder.canonicalize().is_ok_and(|folder| path.parent() == Some(&folder))),
            // A second call continues the first one.
            None => self.progress != Progress::default(),
        };
        let goes_on = self.folder.as_deref().is_some_and(here);
        let kept = self.folder.as_deref().filter(|_| !goes_on && !self.overwrite);
        let mut kept = kept.into_iter().flat_map(|folder| [LAST, BEST].map(|name| folder.join(name)));
        if let Some(file) = kept.find(|file| file.exists()) {
            return Err(Error::argument("trainer", format!("{} holds the weights of another run", file.display()))
                .expected("another folder, to resume that file, or to overwrite it"));
        }
        if let Some(path) = &resume {
            self.restore(path, run)?;
        }
        let Some(folder) = self.folder.clone() else { return Ok(None) };
        std::fs::create_dir_all(&folder).map_err(|error| Error::io("create", folder.display(), error))?;
        if goes_on {
            // A checkpoint other than the last one: without this, an interruption before the next checkpoint would lead back to
            // a last one that the logs no longer know.
            let other = resume.as_ref().is_some_and(|path| path.file_name() != Some(LAST.as_ref()));
            if other || !folder.join(LAST).exists() {
                self.save(run, LAST)?;
            }
            return Log::resume(&folder, self.progress.epoch, self.done(run.steps), self.log_every).map(Some);
        }
        // Otherwise the best weights of an earlier run would stay until the first validation.
        [LAST, BEST].iter().try_for_each(|name| remove(&folder.join(name)))?;
        Log::create(&folder, self.log_every).map(Some)
    }

    fn restore(&mut self, path: &Path, run: &Run) -> Result<()> {
        let mut loaded = Loaded::read(path)?;
        let kept = [&self.config, &self.preparation].map(|kept| kept.as_ref().unwrap_or(&serde_json::Value::Null));
        let progress = state::progress(&loaded, path, run, kept)?;
        for (place, (name, learner)) in self.learners.iter_mut().enumerate() {
            let within = |error: Error| error.within(path.display().to_string());
            match place {
                0 => learner.restore(&mut loaded).map_err(within)?,
                _ => loaded.take_store(name).and_then(|mut store| learner.restore(&mut store)).map_err(within)?,
            }
        }
        self.progress = progress;
        self.saved = self.done(run.steps);
        Ok(())
    }

    fn save(&mut self, run: &Run, name: &str) -> Result<()> {
        self.saved = self.done(run.steps);
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut checkpoint = self.learners[0].1.checkpoint().random(self.seed);
        if let Some(config) = &self.config {
            checkpoint = checkpoint.config(config)?;
        }
        if let Some(preparation) = &self.preparation {
            checkpoint = checkpoint.preparation(preparation)?;
        }
        let with = |checkpoint: Checkpoint, (name, learner): &(String, super::Learner)| {
            checkpoint.store(name, learner.checkpoint())
        };
        let checkpoint = self.learners[1..].iter().fold(checkpoint, with);
        checkpoint.text(state::TEXT, state::to_json(run, &self.progress)?).save(folder.join(name))
    }
}

/// Prints the line of an epoch.
fn report(row: &Row<'_>, start: Instant) {
    let values: String = row.training.means().map(|(name, mean)| format!("  {name} {mean:.4}")).collect();
    let score = row.score.map_or(String::new(), |score| format!("  score {score:.4}"));
    println!("epoch {:>3}{values}{score}  {:.0} s", row.epoch, start.elapsed().as_secs_f64());
}

/// A progress bar, if requested and the feature is enabled.
struct Bar {
    #[cfg(feature = "progress")]
    bar: Option<indicatif::ProgressBar>,
}

impl Bar {
    #[cfg(feature = "progress")]
    fn new(wanted: bool, steps: u64, epoch: u64) -> Self {
        Self { bar: wanted.then(|| crate::progress::bar(steps, format!("epoch {}", epoch + 1))) }
    }

    #[cfg(not(feature = "progress"))]
    fn new(_: bool, _: u64, _: u64) -> Self {
        Self {}
    }

    fn advance(&self) {
        #[cfg(feature = "progress")]
        self.bar.iter().for_each(|bar| bar.inc(1));
    }
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
    }
}
