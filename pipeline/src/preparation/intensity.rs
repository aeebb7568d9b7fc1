//! Intensity preprocessing of a channel.

use serde::{Deserialize, Serialize};
use tomograd_core::{Error, Result, room_for};

use super::OPERATION;
use crate::transforms::{z_score, z_score_by};

/// Mean and standard deviation of an image that isn't in memory.
pub(super) type Moments = [f64; 2];

/// The intensity preprocessing of a channel: clipping, then normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intensity {
    /// Clipping; `None`: values aren't clipped.
    pub clip: Option<Clip>,
    /// Shifting and scaling; `None`: values aren't normalised.
    pub normalisation: Option<Normalisation>,
}

/// Clipping bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Clip {
    /// Two percentiles of each image's channel, 0 to 100, with linear interpolation (as NumPy's `percentile`); with
    /// `nonzero`, percentiles of the nonzero voxels, and only these are clipped.
    Percentiles {
        /// The lower percentile.
        low: f64,
        /// The upper percentile.
        high: f64,
        /// Whether voxels of value 0 are ignored.
        nonzero: bool,
    },
    /// Two values in the units of the image, such as a window of Hounsfield units.
    Window {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
}

/// Shifting and scaling of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Normalisation {
    /// Z-score: mean 0 and standard deviation 1 (that of the population) for each image; a constant channel becomes 0. See
    /// [`ZScore`](crate::transforms::ZScore).
    ZScore {
        /// Whether only nonzero voxels count and change, for images whose background was set to 0.
        nonzero: bool,
    },
    /// With mean and standard deviation of the training set: (v − mean) / deviation. For CT, whose values have an absolute
    /// meaning.
    Stored {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
}

impl Intensity {
    /// Checks the ranges of all numbers.
    pub(super) fn check(&self) -> Result<()> {
        let most = f64::from(f32::MAX);
        let fail = |what: String, expected: &str| Err(Error::argument(OPERATION, what).expected(expected));
        match self.clip {
            Some(Clip::Percentiles { low, high, .. }) if !(0.0 <= low && low < high && high <= 100.0) => {
                return fail(format!("clipping at the percentiles {low} and {high}"), "0 ≤ low < high ≤ 100");
            }
            Some(Clip::Window { low, high }) if !(-most <= low && low < high && high <= most) => {
                return fail(format!("a window of {low} to {high}"), "low < high, in f32's range");
            }
            _ => {}
        }
        match self.normalisation {
            Some(Normalisation::Stored { mean, deviation })
                if !(mean.abs() <= most && (1e-30..=most).contains(&deviation)) =>
            {
                fail(
                    format!("a mean of {mean} and a standard deviation of {deviation}"),
                    "numbers in f32's range, the deviation at least 1e-30",
                )
            }
            _ => Ok(()),
        }
    }

    /// Preprocesses the values of one channel, all of which are finite.
    pub(super) fn apply(&self, voxels: &mut [f32]) -> Result<()> {
        match self.clip {
            Some(Clip::Percentiles { low, high, nonzero }) => {
                let counts = |value: &f32| !nonzero || *value != 0.0;
                if let Some([low, high]) = percentiles(voxels.iter().copied().filter(counts), [low, high])? {
                    let all = voxels.iter_mut().filter(|value| counts(value));
                    all.for_each(|value| *value = value.clamp(low, high));
                }
            }
            Some(Clip::Window { low, high }) => {
                voxels.iter_mut().for_each(|value| *value = value.clamp(low as f32, high as f32));
            }
            None => {}
        }
        match self.normalisation {
            Some(Normalisation::ZScore { nonzero }) => z_score(voxels, nonzero),
            Some(Normalisation::Stored { mean, deviation }) => {
                voxels.iter_mut().for_each(|value| *value = ((f64::from(*value) - mean) / deviation) as f32);
            }
            None => {}
        }
        finite(voxels)
    }

    /// As [`Intensity::apply`] on a part of a channel, with the moments of the whole.
    pub(super) fn apply_with(&self, voxels: &mut [f32], moments: Option<Moments>) -> Result<()> {
        match (self.normalisation, moments) {
            (Some(Normalisation::ZScore { nonzero }), Some([mean, deviation])) => {
                Self { normalisation: None, ..*self }.apply(voxels)?;
                z_score_by(voxels, nonzero, mean, deviation);
                finite(voxels)
            }
            _ => self.apply(voxels),
        }
    }

    /// The moments that a z-score needs, `Some(None)` if there is no z-score, from passes over all values in order; `None` if a
    /// pass isn't enough.
    pub(super) fn moments(
        &self,
        mut pass: impl FnMut(&mut dyn FnMut(f32)) -> Result<()>,
    ) -> Result<Option<Option<Moments>>> {
        let clipped = |value: f32| match self.clip {
            Some(Clip::Window { low, high }) => value.clamp(low as f32, high as f32),
            _ => value,
        };
        let nonzero = match (self.clip, self.normalisation) {
            (Some(Clip::Percentiles { .. }), _) => return Ok(None),
            (_, Some(Normalisation::ZScore { nonzero })) => nonzero,
            _ => return Ok(Some(None)),
        };
        // The sums begin as those of an iterator do.
        let nothing: f64 = std::iter::empty::<f64>().sum();
        let (mut count, mut sum, mut squares) = (0usize, nothing, nothing);
        let mut counted = |add: &mut dyn FnMut(f64)| {
            pass(&mut |value| {
                let value = clipped(value);
                if !nonzero || value != 0.0 {
                    add(f64::from(value));
                }
            })
        };
        counted(&mut |value| (count, sum) = (count + 1, sum + value))?;
        let count = count.max(1) as f64;
        let mean: f64 = sum / count;
        counted(&mut |value: f64| squares += (value - mean).powi(2))?;
        let variance: f64 = squares / count;
        Ok(Some(Some([mean, variance.sqrt()])))
    }
}

fn finite(voxels: &[f32]) -> Result<()> {
    if voxels.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(Error::argument(OPERATION, "intensities beyond f32's range once they are normalised")
        .expected("values that mean and deviation fit"))
}

/// Percentiles of the values with linear interpolation; `None` if there are no values.
fn percentiles(values: impl Iterator<Item = f32> + Clone, percents: [f64; 2]) -> Result<Option<[f32; 2]>> {
    let mut sorted: Vec<f32> = room_for(OPERATION, values.clone().count())?;
    sorted.extend(values);
    sorted.sort_unstable_by(f32::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return Ok(None) };
    Ok(Some(percents.map(|percent| {
        let place = percent / 100.0 * last as f64;
        let low = place.floor() as usize;
        let [a, b] = [low, low + 1].map(|at| f64::from(sorted[at.min(last)]));
        (a + (b - a) * (place - low as f64)) as f32
    })))
}
