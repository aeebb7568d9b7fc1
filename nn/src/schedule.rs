//! Learning-rate schedules: pure functions of the step that return a factor of the base rate.
//!
//! A schedule of 0 steps has its last value from the first step on. Invalid numbers, such as a negative power or NaN, give
//! whatever the formula gives; [`Optimizer::set_rate_factor`](crate::Optimizer::set_rate_factor) rejects a factor that is
//! negative or not finite.

use std::f64::consts::PI;

/// The completed fraction of `total` steps at `step`, from 0 to 1; 1 if `total` is 0.
fn part(step: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { step.min(total) as f64 / total as f64 }
}

/// (1 − step / total)^power, and 0 from `total` on; if `total` is 0, always 0 (1 if the power is 0).
///
/// ```
/// use tomograd_nn::schedule;
/// assert_eq!(schedule::polynomial(50, 100, 2.0), 0.25);
/// ```
pub fn polynomial(step: u64, total: u64, power: f64) -> f64 {
    (1.0 - part(step, total)).powf(power)
}

/// Cosine annealing from 1 to `least` in `total` steps (Loshchilov and Hutter 2017), then `least`; if `total` is 0,
/// always `least`.
///
/// ```
/// use tomograd_nn::schedule;
/// assert_eq!([0, 100, 200].map(|step| schedule::cosine(step, 100, 0.1)), [1.0, 0.1, 0.1]);
/// ```
pub fn cosine(step: u64, total: u64, least: f64) -> f64 {
    least + (1.0 - least) * (1.0 + (PI * part(step, total)).cos()) / 2.0
}

/// gamma^⌊step / every⌋; always 1 if `every` is 0.
///
/// ```
/// use tomograd_nn::schedule;
/// assert_eq!([0, 29, 30, 60].map(|epoch| schedule::step(epoch, 30, 0.5)), [1.0, 1.0, 0.5, 0.25]);
/// ```
pub fn step(step: u64, every: u64, gamma: f64) -> f64 {
    gamma.powf(step.checked_div(every).unwrap_or(0) as f64)
}

/// Linear warm-up from `start` to 1 in `steps` steps, to be multiplied with another schedule; always 1 if `steps` is 0.
///
/// ```
/// use tomograd_nn::schedule;
/// let factor = |step| schedule::linear_warmup(step, 10, 0.0) * schedule::cosine(step, 100, 0.0);
/// assert_eq!([factor(0), factor(100)], [0.0, 0.0]);
/// ```
pub fn linear_warmup(step: u64, steps: u64, start: f64) -> f64 {
    start + (1.0 - start) * part(step, steps)
}

/// The one-cycle schedule (Smith and Topin 2018) with PyTorch's defaults and cosine annealing: from 1/25 up to 1 within the
/// first 30 % of `total` steps, then down to 1/25 · 10⁻⁴ at step `total` − 1, and constant from there; if `total` is 0,
/// always that.
///
/// ```
/// use tomograd_nn::schedule;
/// let [first, peak, last] = [0, 29, 99].map(|step| schedule::one_cycle(step, 100));
/// assert!((first - 0.04).abs() < 1e-12 && (peak - 1.0).abs() < 1e-2 && last < 1e-5);
/// ```
pub fn one_cycle(step: u64, total: u64) -> f64 {
    let (first, last) = (1.0 / 25.0, 1.0 / 25.0 / 1e4);
    if total == 0 {
        return last;
    }
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

    #[test]
    fn a_schedule_of_no_steps_is_over() {
        for at in [0, 1, 7, u64::MAX] {
            assert_eq!(linear_warmup(at, 0, 0.0), 1.0);
            assert_eq!(polynomial(at, 0, 0.9), 0.0);
            assert_eq!(cosine(at, 0, 0.25), 0.25);
            assert_eq!(step(at, 0, 0.1), 1.0);
            assert_eq!(one_cycle(at, 0), 1.0 / 25.0 / 1e4);
        }
    }

    #[test]
    fn short_schedules_are_pytorchs() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} but PyTorch {b}");
        for (at, rate) in [0.25, 1.0, 1.0].into_iter().enumerate() {
            close(linear_warmup(at as u64, 1, 0.25), rate);
        }
        for (at, rate) in [1.0, 0.0, 0.0].into_iter().enumerate() {
            close(polynomial(at as u64, 1, 0.9), rate);
        }
        for (at, rate) in [1.0, 0.5, 0.0].into_iter().enumerate() {
            close(cosine(at as u64, 2, 0.0), rate);
        }
        for (at, rate) in [1.0, 0.5, 0.25].into_iter().enumerate() {
            close(step(at as u64, 1, 0.5), rate);
        }
        for (at, rate) in [0.04, 0.811745653949763, 0.28306099820869923, 4e-6, 4e-6].into_iter().enumerate() {
            close(one_cycle(at as u64, 4), rate);
        }
        for (at, rate) in [0.52, 1.0, 0.9504846320134737].into_iter().enumerate() {
            close(one_cycle(at as u64 + 1, 10), rate);
        }
        close(one_cycle(0, 1), 4e-6);
        close(linear_warmup(u64::MAX, u64::MAX, 0.0), 1.0);
    }
}
