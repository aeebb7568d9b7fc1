//! Bootstrap intervals of means over cases.

use tomograd_core::{Error, Result, Seed, room_for};

use super::percentile;

/// The percentile bootstrap interval of the mean of `values`: cases are drawn with replacement `resamples` times, and the
/// interval holds the middle `level` (0.95 for 95 %) of the means (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
/// chapter 13). It depends on the seed alone.
///
/// ```
/// use tomograd_core::Seed;
/// use tomograd_pipeline::bootstrap_interval;
/// let [low, high] = bootstrap_interval(&[0.7, 0.8, 0.9, 0.8, 0.85], 2000, 0.95, Seed::new(0))?;
/// assert!(0.7 < low && low < 0.81 && 0.81 < high && high < 0.9);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When there are no values, or one isn't within ±10³⁰⁰, `resamples` isn't 1 to 1 000 000, or `level` isn't between 0 and 1.
pub fn bootstrap_interval(values: &[f64], resamples: usize, level: f64, seed: Seed) -> Result<[f64; 2]> {
    let fail = |what: String, expected: &str| Err(Error::argument("bootstrap", what).expected(expected));
    // Differences of larger values would overflow.
    if values.is_empty() || values.iter().any(|value| value.is_nan() || value.abs() > 1e300) {
        return fail(format!("{} values, or one beyond 1e300", values.len()), "at least one value within ±1e300");
    }
    if !(1..=1_000_000).contains(&resamples) {
        return fail(format!("{resamples} resamples"), "1 to 1000000");
    }
    if !(level > 0.0 && level < 1.0) {
        return fail(format!("a level of {level}"), "more than 0 and less than 1");
    }
    let mut random = seed.random();
    let mut means: Vec<f64> = room_for("bootstrap", resamples)?;
    let count = values.len() as f64;
    for _ in 0..resamples {
        // Divided first, so that the sum doesn't overflow.
        let drawn = (0..values.len()).map(|_| values[random.below(values.len() as u64) as usize] / count);
        means.push(drawn.sum());
    }
    let outside = (1.0 - level) / 2.0;
    Ok([percentile(&mut means, outside), percentile(&mut means, 1.0 - outside)])
}
