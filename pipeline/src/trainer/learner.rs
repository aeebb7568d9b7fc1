//! Parameters and what changes them.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result, Seed};
use tomograd_nn::{Checkpoint, Loaded, Optimizer, Params, Pass, Update};

/// A store of parameters with its optimizer, and how that is to be used: learning-rate schedule, bound of the gradients' norm,
/// gradient accumulation, a running average of the weights. A [`Trainer`](crate::Trainer) has one, or several: a generator
/// and a discriminator.
///
/// The running average can be a teacher: a step takes its answers as targets.
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
///     let answer = net.forward(&pass.input(&step.batch), &pass)?;
///     let loss = losses::mean_squared_error(&answer, &pass.input(&target))?;
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
    /// The sum of the updates since the last step, and how many they are.
    pending: Option<Update>,
    count: u64,
}

type Schedule = dyn Fn(u64, u64) -> f64;

/// The numbers of a learner, which a resumed run must have as well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    average: Option<f64>,
    clip_norm: Option<f64>,
    accumulate: u64,
}

impl Learner {
    /// The parameters, changed by this optimizer at its own rate, one step an update.
    pub fn new(params: Params, optimizer: impl Optimizer + 'static) -> Self {
        let settings = Settings { average: None, clip_norm: None, accumulate: 1 };
        let optimizer = Box::new(optimizer);
        Self { params, optimizer, schedule: None, average: None, settings, pending: None, count: 0 }
    }

    /// With learning rates multiplied by `schedule(step, total)`: a function of [`tomograd_nn::schedule`], or one's own. Steps
    /// are batches, counted from 0 over the whole run of `total`.
    #[must_use]
    pub fn schedule(mut self, schedule: impl Fn(u64, u64) -> f64 + 'static) -> Self {
        self.schedule = Some(Box::new(schedule));
        self
    }

    /// With the gradients of each optimizer step scaled down to a norm of at most `max` ([`Update::clip_norm`]); an infinite
    /// one asks only that they be finite.
    ///
    /// # Errors
    /// When `max` is negative or NaN.
    pub fn clip_norm(mut self, max: f64) -> Result<Self> {
        // That of JSON, which has no infinity.
        self.settings.clip_norm = Some(number("clip_norm", max, max >= 0.0, "0 at least")?.min(f64::MAX));
        Ok(self)
    }

    /// With a running average (EMA) of the parameters: after each optimizer step it becomes decay · average + (1 − decay) ·
    /// parameters ([`Params::ema_update`]). It begins as the parameters are now.
    ///
    /// # Errors
    /// When the decay isn't in [0, 1].
    pub fn average(mut self, decay: f64) -> Result<Self> {
        let decay = number("average", decay, (0.0..=1.0).contains(&decay), "a decay from 0 to 1")?;
        self.settings.average = Some(decay);
        self.average = Some(self.params.replica());
        Ok(self)
    }

    /// With one optimizer step for the mean of the gradients of `updates` updates, as if their batches were one. What is left
    /// at the end of an epoch makes a step of its own.
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

    /// The parameters, to be frozen or bounded. A checkpoint doesn't keep what is frozen: let the step's number decide it.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// The running average of the parameters, on which the same layers run.
    ///
    /// # Errors
    /// When there is none.
    pub fn averaged(&self) -> Result<&Params> {
        self.average.as_ref().ok_or_else(|| {
            Error::argument("learner", "there is no running average").expected("Learner::average when it is made")
        })
    }

    /// A training pass through the parameters.
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

    /// What the learning rates are multiplied by.
    pub(super) fn factor(&self, [step, total]: [u64; 2]) -> f64 {
        self.schedule.as_ref().map_or(1.0, |schedule| schedule(step, total))
    }

    /// Takes an update up, and makes a step when there are enough.
    pub(super) fn apply(&mut self, update: Update, at: [u64; 2]) -> Result<()> {
        self.pending = Some(match self.pending.take() {
            Some(sum) => sum.add(update)?,
            None => update,
        });
        self.count += 1;
        if self.count == self.settings.accumulate { self.finish(at) } else { Ok(()) }
    }

    /// Whether there are updates that no step was made for.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Makes a step for the updates that wait, if there are any.
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

/// `value`, if it is as it should be.
fn number(operation: &str, value: f64, fits: bool, expected: &str) -> Result<f64> {
    if fits { Ok(value) } else { Err(Error::argument(operation, format!("{value:?}")).expected(expected)) }
}
