//! Optimizers: fused steps over all parameters, parameter groups, and state by parameter name.

mod adamw;
mod sgd;
mod state;

use std::collections::BTreeMap;

pub use adamw::AdamW;
pub use sgd::Sgd;
use tomograd_core::{Result, Tensor};

use crate::{
    Params, Update,
    check::{self, LARGEST},
};

/// Settings of a parameter group; others are the optimizer's. The optimizer's `group` checks them.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{AdamW, Group, Linear, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let (body, head) = (Linear::new(scope.at("body"), 8, 8)?, Linear::new(scope.at("head"), 8, 2)?);
/// let optimizer = AdamW::new(&params, 1e-4)?
///     .decay(1e-2)?
///     .group(|p| p.name.starts_with("head."), Group::new().rate(1e-3).decay(0.0))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    rate: Option<f64>,
    decay: Option<f64>,
}

impl Group {
    /// A group without settings of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets the weight decay of all parameters of the group, of any rank.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = Some(decay);
        self
    }
}

/// The learning rate and weight decay of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Numbers {
    rate: f64,
    decay: f64,
}

impl Numbers {
    /// Checks rate, decay and their product, with the rate multiplied by `factor`.
    fn check(&self, factor: f64) -> Result<()> {
        check::number("optimizer", "the learning rate", self.rate, 0.0..=LARGEST)?;
        check::number("optimizer", "the weight decay", self.decay, 0.0..=LARGEST)?;
        check::number("optimizer", "the factor of the learning rate", factor, 0.0..=LARGEST)?;
        check::number("optimizer", "the learning rate with its factor", self.rate * factor, 0.0..=LARGEST)?;
        check::number("optimizer", "rate times decay", self.rate * factor * self.decay, 0.0..=LARGEST)
    }
}

/// An optimizer's state by name, as saved in a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct OptimizerState {
    /// Moments and momentum: `first_moment.NAME`.
    pub tensors: Vec<(String, Tensor)>,
    /// The number of steps of each parameter that isn't in `others`.
    pub steps: u64,
    /// The step counts of parameters that differ from `steps`, by name.
    pub others: BTreeMap<String, u64>,
}

/// The interface of optimizers.
///
/// A parameter makes a step, and its step count grows, if the update has a gradient for it and it isn't frozen. So the state
/// of a parameter that is first used or unfrozen late, such as its bias correction, starts there, as in PyTorch.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_kernels::methods::*;
/// use tomograd_nn::{AdamW, Linear, Module, Optimizer, Params, Pass, schedule};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = Linear::new(params.root(), 2, 1)?;
/// let mut optimizer = AdamW::new(&params, 1e-2)?;
/// let x = Tensor::ones(&[4, 2], DType::F32, Device::Cpu)?;
/// for step in 0..10 {
///     optimizer.set_rate_factor(schedule::cosine(step, 10, 0.0))?;
///     let pass = Pass::train(&params, Seed::new(2).at(step))?;
///     let loss = layer.forward(&pass.input(&x), &pass)?.square()?.mean(..)?;
///     optimizer.step(&mut params, pass.backward(loss)?)?;
/// }
/// assert_eq!(optimizer.state().steps, 10);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Optimizer {
    /// Applies an update: changes the parameters in place, and the buffers.
    ///
    /// # Errors
    /// When the update is of another store, a parameter that isn't frozen has no gradient, or memory runs out; then nothing
    /// is changed and no step is counted.
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()>;

    /// Sets a factor of the learning rates of all groups, such as the value of a schedule.
    ///
    /// # Errors
    /// When the factor is negative, NaN, or makes a rate too large; then the previous one stays.
    fn set_rate_factor(&mut self, factor: f64) -> Result<()>;

    /// The optimizer's name in checkpoints.
    fn kind(&self) -> &'static str;

    /// The state by name, as saved in a checkpoint.
    fn state(&self) -> OptimizerState;

    /// Restores a state.
    ///
    /// # Errors
    /// When a name is unknown or missing, or a tensor doesn't fit; then nothing is changed.
    fn load_state(&mut self, state: OptimizerState) -> Result<()>;
}
