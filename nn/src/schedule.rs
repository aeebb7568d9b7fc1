//! Learning-rate schedules: pure functions of the step that give the factor of the base rate.

use std::f64::consts::PI;

/// (1 − step / total)^power, 0 from `total` on.
pub fn polynomial(step: u64, total: u64, power: f64) -> f64 {
    (1.0 - step.min(total) as f64 / total.max(1) as f64).powf(power)
}

/// From 1 to `least` along half a cosine of `total` steps (Loshchilov and Hutter 2017).
pub fn cosine(step: u64, total: u64, least: f64) -> f64 {
    let part = step.min(total) as f64 / total.max(1) as f64;
    least + (1.0 - least) * (1.0 + (PI * part).cos()) / 2.0
}

/// gamma^⌊step / every⌋.
pub fn step(step: u64, every: u64, gamma: f64) -> f64 {
    gamma.powf((step / every.max(1)) as f64)
}

/// From `start` up to 1 in a straight line of `steps` steps; a factor to be multiplied with another schedule's.
pub fn linear_warmup(step: u64, steps: u64, start: f64) -> f64 {
    start + (1.0 - start) * (step.min(steps) as f64 / steps.max(1) as f64)
}

/// The one-cycle schedule (Smith and Topin 2018) with PyTorch's defaults: from 1/25 up to 1 along half a cosine within the
/// first 30 % of `total` steps, then down to 1/25 · 10⁻⁴.
pub fn one_cycle(step: u64, total: u64) -> f64 {
    let (first, last) = (1.0 / 25.0, 1.0 / 25.0 / 1e4);
    let half = |from: f64, to: f64, part: f64| to + (from - to) / 2.0 * (1.0 + (PI * part).cos());
    let peak = 0.3 * total as f64 - 1.0;
    let end = total as f64 - 1.0;
    let step = (step as f64).min(end);
    if step <= peak { half(first, 1.0, step / peak) } else { half(1.0, last, (step - peak) / (end - peak)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_have_their_ends() {
        assert_eq!((polynomial(0, 10, 0.9), polynomial(10, 10, 0.9)), (1.0, 0.0));
        assert_eq!((cosine(0, 10, 0.0), cosine(10, 10, 0.0)), (1.0, 0.0));
        assert_eq!((step(29, 30, 0.1), step(30, 30, 0.1)), (1.0, 0.1));
        assert!((one_cycle(0, 50) - 0.04).abs() < 1e-12);
        assert!((one_cycle(14, 50) - 1.0).abs() < 1e-12);
        assert!((one_cycle(49, 50) - 4e-6).abs() < 1e-12);
    }
}
