//! Checks of the numbers of a step, made before any value changes.

use tomograd_core::{DType, Error, Result};

use super::{Adam, Sgd};

fn within(operation: &str, name: &str, value: f64, fits: bool, expected: &str) -> Result<()> {
    if fits {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{name} is {value}")).expected(expected.to_owned()))
}

/// Checks a number that must be finite in f32 and at least 0.
fn magnitude(operation: &str, name: &str, value: f64) -> Result<()> {
    within(operation, name, value, value >= 0.0 && (value as f32).is_finite(), "a finite number of at least 0")
}

/// Checks a learning rate and a weight decay.
pub(super) fn parameter(operation: &str, rate: f64, weight_decay: f64) -> Result<()> {
    magnitude(operation, "a learning rate", rate)?;
    magnitude(operation, "a weight decay", weight_decay)
}

pub(super) fn sgd(sgd: &Sgd) -> Result<()> {
    magnitude("sgd_step", "the momentum", sgd.momentum)?;
    within("sgd_step", "the dampening", sgd.dampening, sgd.dampening.abs() <= 1.0, "a number from −1 to 1")
}

pub(super) fn adam(adam: &Adam) -> Result<()> {
    for beta in adam.betas {
        // A number just below 1 would become 1 in f32.
        within("adam_step", "a β", beta, beta >= 0.0 && (beta as f32) < 1.0, "a number from 0 to below 1")?;
    }
    magnitude("adam_step", "ε", adam.epsilon)
}

/// Checks the number of a step, counted from 1.
pub(super) fn step(step: u64) -> Result<()> {
    if step > 0 {
        return Ok(());
    }
    Err(Error::argument("adam_step", "step 0").expected("steps counted from 1"))
}

pub(super) fn decay(decay: f64) -> Result<()> {
    within("ema_step", "the decay", decay, (0.0..=1.0).contains(&decay), "a number from 0 to 1")
}

/// Checks that a factor is finite in `dtype`; otherwise it would turn zeros into NaN.
pub(super) fn factor(factor: f64, dtype: DType) -> Result<()> {
    let finite = if dtype == DType::F32 { (factor as f32).is_finite() } else { factor.is_finite() };
    within("scale", "the factor", factor, finite, "a finite number")
}

pub(super) fn largest_norm(max: f64) -> Result<()> {
    within("clip_norm", "the largest norm", max, max >= 0.0, "a number of at least 0, or infinity")
}
