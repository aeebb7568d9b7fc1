//! Learners: parameters with their optimizer.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result, Seed};
use tomograd_nn::{Checkpoint, Loaded, Optimizer, Params, Pass, Update};

/// Parameters with an optimizer and settings of its use: learning-rate schedule, gradient clipping, gradient accumulation,
/// exponential moving average of the weights. A [`Trainer`](crate::Trainer) has one or several learners, such as a generator
/// and a discriminator.
///
/// The average can serve as a mean teacher: a step uses its outputs as targets.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{AdamW, Linear, Module, Params, Pass, losses, schedule};
/// use tomograd_pipeline::{Generated, Learner, Trainer};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let net = Linear::new(params.root(), 2, 1)?;
/// let optimizer = AdamW::new(&params, 1e-2)?;
/// let learner = Learner::new(params, optimizer)
///     .schedule(|step, total| schedule::linear_warmup(step, 10, 0.1) * schedule::cosine(step, total, 0.0))
///     .accumulate(2)?
///     .average(0.99)?;
/// let points = Generated::new(4, |epoch, step| {
///     Tensor::normal(&[8, 2], 0.0, 1.0, Seed::new(2).at(epoch).at(step), DType::F32, Device::Cpu)
/// });
/// Trainer::new(learner, 1).run(&points, |step| {
///     let teacher = Pass::eval(step.averaged()?)?;
///     let target = net.forward(&teacher.input(&step.batch), &teacher)?.into_value();
///     let pass = step.pass()?;
///     let prediction = net.forward(&pass.input(&step.batch), &pass)?;
///     let loss = losses::mean_squared_error(&prediction, &pass.input(&target))?;
///     step.learn(pass, loss)
/// })?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Learner {
    params: Params,
    optimizer: Box<dyn Optimizer>,
    schedule: Option<Box<Schedule>>,
    average: Option<Params>,
    settings: Settings,
    /// The sum of the updates since the last optimizer step, and their number.
    pending: Option<Update>,
    count: u64,
}

type Schedule = dyn Fn(u64, u64) -> f64;

/// The settings that a resumed run must have as well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    average: Option<f64>,
    clip_norm: Option<f64>,
    accumulate: u64,
}

impl Learner {
    /// A learner with an optimizer step for each update, at the optimizer's learning rate.
    pub fn new(params: Params, optimizer: impl Optimizer + 'static) -> Self {
        let settings = Settings { average: None, clip_norm: None, accumulate: 1 };
        let optimizer = Box::new(optimizer);
        Self { params, optimizer, schedule: None, average: None, settings, pending: None, count: 0 }
    }

    /// Multiplies the learning rates by `schedule(step, total)`: a function of [`tomograd_nn::schedule`] or a custom one.
    /// `step` counts batches from 0 over the whole run, which has `total`.
    #[must_use]
    pub fn schedule(mut self, schedule: impl Fn(u64, u64) -> f64 + 'static) -> Self {
        self.schedule = Some(Box::new(schedule));
        self
    }

    /// Clips the gradient norm of each optimizer step to `max` ([`Update::clip_norm`]); an infinite `max` only checks that
    /// gradients are finite.
    ///
    /// # Errors
    /// When `max` is negative or NaN.
    pub fn clip_norm(mut self, max: f64) -> Result<Self> {
        // JSON has no infinity, so it is stored as the largest f64.
        self.settings.clip_norm = Some(number("clip_norm", max, max >= 0.0, "0 at least")?.min(f64::MAX));
        Ok(self)
    }

    /// Keeps an exponential moving average (EMA) of the parameters: after each optimizer step it becomes decay · average + (1
    /// − decay) · parameters ([`Params::ema_update`]). It starts as the current parameters.
    ///
    /// # Errors
    /// When the decay isn't in [0, 1].
    pub fn average(mut self, decay: f64) -> Result<Self> {
        let decay = number("average", decay, (0.0..=1.0).contains(&decay), "a decay from 0 to 1")?;
        self.settings.average = Some(decay);
        self.average = Some(self.params.replica());
        Ok(self)
    }

    /// Accumulates gradients: one optimizer step with the mean gradient of `updates` updates. An incomplete rest at the end
    /// of an epoch gets its own step.
    ///
    /// # Errors
    /// When it is 0.
    pub fn accumulate(mut self, updates: u64) -> Result<Self> {
        self.settings.accumulate = super::at_least_one("accumulate", updates)?;
        Ok(self)
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Mutable parameters, for freezing or clamping. Checkpoints don't store which ones are frozen: decide it by the step
    /// number.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The average of the parameters, on which the same layers run.
    ///
    /// # Errors
    /// When none is kept.
    pub fn averaged(&self) -> Result<&Params> {
        self.average.as_ref().ok_or_else(|| {
            Error::argument("learner", "there is no running average").expected("Learner::average when it is made")
        })
    }

    /// A training pass on the parameters.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pass(&self, seed: Seed) -> Result<Pass> {
        Pass::train(&self.params, seed)
    }

    /// The parameters, after training.
    pub fn into_params(self) -> Params {
        self.params
    }

    pub(super) fn settings(&self) -> Settings {
        self.settings
    }

    pub(super) fn has_schedule(&self) -> bool {
        self.schedule.is_some()
    }

    /// The current factor of the learning rates.
    pub(super) fn factor(&self, [step, total]: [u64; 2]) -> f64 {
        self.schedule.as_ref().map_or(1.0, |schedule| schedule(step, total))
    }

    /// Adds an update, and makes an optimizer step if there are enough.
    pub(super) fn apply(&mut self, update: Update, at: [u64; 2]) -> Result<()> {
        self.pending = Some(match self.pending.take() {
            Some(sum) => sum.add(update)?,
            None => update,
        });
        self.count += 1;
        if self.count == self.settings.accumulate { self.finish(at) } else { Ok(()) }
    }

    /// Whether there are updates without an optimizer step.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Makes an optimizer step for the pending updates, if any.
    pub(super) fn finish(&mut self, at: [u64; 2]) -> Result<()> {
        let Some(mut update) = self.pending.take() else { return Ok(()) };
        if self.count > 1 {
            update = update.scale(1.0 / self.count as f64)?;
        }
        self.count = 0;
        if let Some(max) = self.settings.clip_norm {
            update = update.clip_norm(max)?;
        }
        self.optimizer.set_rate_factor(self.factor(at))?;
        self.optimizer.step(&mut self.params, update)?;
        match (&mut self.average, self.settings.average) {
            (Some(average), Some(decay)) => average.ema_update(&self.params, decay),
            _ => Ok(()),
        }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        let checkpoint = Checkpoint::new(&self.params).optimizer(&*self.optimizer);
        match &self.average {
            Some(average) => checkpoint.average(average),
            None => checkpoint,
        }
    }

    pub(super) fn restore(&mut self, loaded: &mut Loaded) -> Result<()> {
        loaded.restore(&mut self.params)?;
        loaded.restore_optimizer(&mut *self.optimizer)?;
        self.average.as_mut().map_or(Ok(()), |average| loaded.restore_average(average))
    }
}

/// Returns `value` if `fits`, else an error.
fn number(operation: &str, value: f64, fits: bool, expected: &str) -> Result<f64> {
    if fits { Ok(value) } else { Err(Error::argument(operation, format!("{value:?}")).expected(expected)) }
}
