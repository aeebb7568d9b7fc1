//! Norms on the CPU: moments are combined in a fixed order into statistics, which are then applied to the data.

mod rows;
pub(super) mod scaling;
mod small_images;

pub(super) use rows::row_moments;

use tomograd_core::{Element, Result, Tensor};

use super::{Moments, Norm, Statistics};
use crate::{Context, Forward, Meta, Saved, op::with_real, simd::Real};
use scaling::Scaling;
use small_images::{merged, separated};

impl Norm {
    /// Inputs `first` and `first + 1` of shape (C), as f64; `all` are the inputs after x.
    fn pair(all: &[&Tensor], first: usize) -> Result<[Vec<f64>; 2]> {
        Ok([all[first].to_vec_f64()?, all[first + 1].to_vec_f64()?])
    }

    /// γ and β, or ones and zeros.
    fn affine_values(&self, rest: &[&Tensor], channels: usize) -> Result<[Vec<f64>; 2]> {
        if self.affine { Self::pair(rest, 0) } else { Ok([vec![1.0; channels], vec![0.0; channels]]) }
    }

    /// For given statistics: center, scale and shift of each channel, or `None` if a channel needs a `power` too.
    pub(crate) fn folded<T: Real>(&self, rest: &[&Tensor], channels: usize) -> Result<Option<[Vec<T>; 3]>> {
        let affine = self.affine_values(rest, channels)?;
        let mut numbers = [const { Vec::new() }; 3];
        for (channel, scaling) in self.given(rest)?.iter().enumerate() {
            let line = scaling.line::<T>(affine.each_ref().map(|values| values[channel]));
            if line.power != T::ONE {
                return Ok(None);
            }
            for (numbers, number) in numbers.iter_mut().zip([line.center, line.scale, line.shift]) {
                numbers.push(number);
            }
        }
        Ok(Some(numbers))
    }

    /// The scaling of each channel for given statistics.
    fn given(&self, rest: &[&Tensor]) -> Result<Vec<Scaling>> {
        let [mean, variance] = Self::pair(rest, 2 * usize::from(self.affine))?;
        let scaling = |(mean, variance)| Scaling::given(mean, variance, self.epsilon);
        Ok(mean.into_iter().zip(variance).map(scaling).collect())
    }

    /// The moments of each set, combined in the order of images and channels.
    fn joined(&self, moments: &[Moments], batch: usize, channels: usize) -> Vec<Moments> {
        let mut sets = vec![Moments::default(); self.set_count(batch, channels)];
        for n in 0..batch {
            for channel in 0..channels {
                let set = &mut sets[self.set_of(n, channel, channels)];
                *set = set.join(moments[n * channels + channel]);
            }
        }
        sets
    }

    /// The forward pass. `moments` of each (image, channel) are computed here if they aren't given. `inputs` are taken by
    /// value, so that in inference y can reuse x's memory. The state is x and the statistics (3, sets): the mean, its
    /// rounding error, and √(variance + ε).
    pub(crate) fn forward_with(
        &self,
        context: &Context,
        mut inputs: Vec<Tensor>,
        moments: Option<&[Moments]>,
    ) -> Result<Forward> {
        if self.merges(inputs[0].shape()) {
            let (x, channels) = (inputs[0].contiguous()?, inputs[0].shape()[1]);
            inputs[0] = merged(&x)?;
            let moments = moments.map(|moments| self.joined(moments, x.shape()[0], channels));
            // The copy isn't kept, so the result takes its place.
            let mut forward = self.forward_with(&context.inference(true), inputs, moments.as_deref())?;
            forward.outputs[0] = separated(&forward.outputs[0], x.shape())?;
            if !context.inference {
                forward.state.insert(0, x);
            }
            return Ok(forward);
        }
        let x = inputs.remove(0).contiguous()?;
        let rest: Vec<&Tensor> = inputs.iter().collect();
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        with_real!("norm", x.dtype(), T => {
            let mut extra = Vec::new();
            let scalings = if self.statistics == Statistics::Running {
                self.given(&rest)?
            } else {
                let own;
                let moments = match moments {
                    Some(moments) => moments,
                    None => {
                        own = rows::moments::<T>(&x)?;
                        &own
                    }
                };
                let mut sets = self.joined(moments, batch, channels);
                let scalings = self.scalings_of(&mut sets, x.as_slice::<T>()?, batch, channels);
                if self.statistics == Statistics::Batch {
                    for unbiased in [false, true] {
                        let value =
                            |set: &Moments| if unbiased { set.squares / (set.count - 1.0) } else { set.mean + set.rest };
                        let values: Vec<T> = sets.iter().map(|set| T::from_f64(value(set))).collect();
                        extra.push(Tensor::from_slice(&values, &[channels], x.device())?);
                    }
                }
                scalings
            };
            let sets = scalings.len();
            let statistics: Vec<f64> = [
                scalings.iter().map(|scaling| scaling.mean).collect::<Vec<f64>>(),
                scalings.iter().map(|scaling| scaling.rest).collect(),
                scalings.iter().map(|scaling| scaling.deviation).collect(),
            ]
            .concat();
            let state = Tensor::from_slice(&statistics, &[3, sets], x.device())?;
            let affine = self.affine_values(&rest, channels)?;
            let scalings = self.scalings(&state, batch, channels)?;
            let (y, kept) = if context.inference {
                (rows::apply_in_place::<T>(x, &scalings, &affine, self.activation)?, None)
            } else {
                (rows::apply::<T>(&x, &scalings, &affine, self.activation)?, Some(x))
            };
            let outputs = std::iter::once(y).chain(extra).collect();
            Ok(Forward { outputs, state: kept.into_iter().chain([state]).collect() })
        })
    }

    /// The scaling of each set of x's rows. Moments that aren't finite because squares overflowed are recomputed.
    fn scalings_of<T: Real>(&self, sets: &mut [Moments], x: &[T], batch: usize, channels: usize) -> Vec<Scaling> {
        let length = x.len().checked_div(batch * channels).unwrap_or(0);
        let scaling = |(number, set)| {
            // The (image, channel) pairs of the set: the inverse of `set_of`.
            let (pairs, step) = match self.statistics {
                Statistics::Instance => (number..number + 1, 1),
                Statistics::Group(groups) => (number * (channels / groups)..(number + 1) * (channels / groups), 1),
                Statistics::Batch | Statistics::Running => (number..batch * channels, channels),
            };
            Scaling::of(set, self.epsilon, pairs.step_by(step).map(|i| &x[i * length..][..length]))
        };
        sets.iter_mut().enumerate().map(scaling).collect()
    }

    /// The scaling of each (image, channel), from the statistics of the sets in the state.
    fn scalings(&self, state: &Tensor, batch: usize, channels: usize) -> Result<Vec<Scaling>> {
        let statistics = state.as_slice::<f64>()?;
        let sets = statistics.len() / 3;
        Ok((0..batch * channels)
            .map(|i| {
                let set = self.set_of(i / channels, i % channels, channels);
                let [mean, rest, deviation] = [0, 1, 2].map(|k| statistics[k * sets + set]);
                Scaling { mean, rest, deviation }
            })
            .collect())
    }

    /// The gradients of all inputs.
    pub(super) fn gradients(
        &self,
        saved: Saved,
        mut gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut results = vec![None; needed.len()];
        if gradients.iter().all(Option::is_none) {
            return Ok(results);
        }
        let x = saved.input(0)?.contiguous()?;
        if self.merges(x.shape()) {
            let mut saved = saved;
            let gradient = gradients[0].take().map(|dy| merged(&dy)).transpose()?;
            gradients[0] = gradient;
            let merged = merged(&x)?;
            saved.metas[0] = Meta::from(&merged);
            saved.inputs[0] = Some(merged);
            let mut results = self.gradients(saved, gradients, needed)?;
            if let Some(dx) = &mut results[0] {
                *dx = separated(dx, x.shape())?;
            }
            return Ok(results);
        }
        // Taken out of `gradients`, so that dx can reuse its memory.
        let dy = match gradients[0].take() {
            Some(dy) => dy.contiguous()?,
            None => Tensor::zeros(x.shape(), x.dtype(), x.device())?,
        };
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        let rest: Vec<&Tensor> = (1..self.input_count()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        let affine = self.affine_values(&rest, channels)?;
        let scalings = self.scalings(saved.state(0)?, batch, channels)?;
        with_real!("norm", x.dtype(), T => {
            // For each (image, channel): Σ g and Σ g x̂, where g is the gradient before the activation.
            let sums = rows::backward_sums::<T>(&x, &dy, &scalings, &affine, self.activation)?;
            let mut sets = vec![[0.0; 2]; self.set_count(batch, channels)];
            let mut by_channel = vec![[0.0; 2]; channels];
            for (i, sums) in sums.iter().enumerate() {
                let channel = i % channels;
                for k in 0..2 {
                    sets[self.set_of(i / channels, channel, channels)][k] += affine[0][channel] * sums[k];
                    by_channel[channel][k] += sums[k];
                }
            }
            if needed[0] {
                let values = x.count() / sets.len().max(1);
                // The batch mean and variance are outputs too; their gradients contribute to every element of the channel.
                let extra = |output: usize| -> Result<Vec<f64>> {
                    match gradients.get(output).and_then(Option::as_ref) {
                        Some(gradient) => gradient.to_vec_f64(),
                        None => Ok(vec![0.0; channels]),
                    }
                };
                let (of_mean, of_variance) = (extra(1)?, extra(2)?);
                let count = values as f64;
                let through: Vec<[f64; 2]> = (0..batch * channels)
                    .map(|i| {
                        if self.statistics == Statistics::Running {
                            return [0.0; 2];
                        }
                        let (channel, deviation) = (i % channels, scalings[i].deviation);
                        let sums = sets[self.set_of(i / channels, channel, channels)];
                        // The coefficients of 1 and of x̂ in dx.
                        let mut through = sums.map(|sum| -sum / (deviation * count));
                        if self.statistics == Statistics::Batch {
                            through[0] += of_mean[channel] / count;
                            through[1] += 2.0 * of_variance[channel] * deviation / (count - 1.0);
                        }
                        through
                    })
                    .collect();
                results[0] = Some(rows::backward_data::<T>(&x, dy, &scalings, &affine, self.activation, &through)?);
            }
            let vector = |k: usize| {
                let values: Vec<T> = by_channel.iter().map(|sums| T::from_f64(sums[k])).collect();
                Tensor::from_slice(&values, &[channels], x.device())
            };
            if self.affine {
                results[1] = needed[1].then(|| vector(1)).transpose()?;
                results[2] = needed[2].then(|| vector(0)).transpose()?;
            }
            if self.statistics == Statistics::Running {
                let first = 1 + 2 * usize::from(self.affine);
                let deviations: Vec<f64> = self.given(&rest)?.iter().map(|scaling| scaling.deviation).collect();
                let given = |power: i32, k: usize, factor: f64| {
                    let values: Vec<T> = (0..channels)
                        .map(|c| {
                            let divisor = deviations[c].powi(power);
                            T::from_f64(factor * affine[0][c] * by_channel[c][k] / divisor)
                        })
                        .collect();
                    Tensor::from_slice(&values, &[channels], x.device())
                };
                // ∂/∂mean = −γ Σ g / d; ∂/∂variance = −½ γ Σ g x̂ / d², where d is the deviation.
                results[first] = needed[first].then(|| given(1, 0, -1.0)).transpose()?;
                results[first + 1] = needed[first + 1].then(|| given(2, 1, -0.5)).transpose()?;
            }
            Ok(results)
        })
    }

    /// Recomputes the output.
    pub(super) fn again(&self, saved: &Saved) -> Result<Tensor> {
        let x = saved.input(0)?.contiguous()?;
        let merges = self.merges(x.shape());
        let (shape, x) = (x.shape().to_vec(), if merges { merged(&x)? } else { x });
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        let rest: Vec<&Tensor> = (1..self.input_count()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        let affine = self.affine_values(&rest, channels)?;
        let scalings = self.scalings(saved.state(0)?, batch, channels)?;
        let y = with_real!("norm", x.dtype(), T => rows::apply_in_place::<T>(x, &scalings, &affine, self.activation))?;
        if merges { separated(&y, &shape) } else { Ok(y) }
    }
}
