//! Optimizer steps on the CPU, fused over all parameters: a single parallel section for each step.

use tomograd_core::{DType, Element, Result, Scratch, Tensor};

use super::{Adam, AdamStep, Sgd, SgdStep};
use crate::{
    op::with_real,
    parallel::{PartialSlots, Partition, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, dispatch},
};

/// Elements of a parallel chunk.
pub(super) const GRAIN: usize = 1 << 15;

struct SgdChunk<'a, T> {
    value: &'a mut [T],
    gradient: &'a [T],
    momentum: Option<&'a mut [T]>,
    /// Learning rate, weight decay, momentum, 1 − dampening.
    numbers: [T; 4],
    nesterov: bool,
}

impl<T: Real> Kernel for SgdChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let [rate, decay, momentum, keep] = self.numbers;
        match self.momentum {
            None => {
                for (value, &gradient) in self.value.iter_mut().zip(self.gradient) {
                    *value -= rate * (gradient + decay * *value);
                }
            }
            Some(buffer) => {
                for ((value, &gradient), buffer) in self.value.iter_mut().zip(self.gradient).zip(buffer) {
                    let gradient = gradient + decay * *value;
                    *buffer = momentum * *buffer + keep * gradient;
                    let direction = if self.nesterov { gradient + momentum * *buffer } else { *buffer };
                    *value -= rate * direction;
                }
            }
        }
    }
}

struct AdamChunk<'a, T> {
    value: &'a mut [T],
    gradient: &'a [T],
    first: &'a mut [T],
    second: &'a mut [T],
    betas: [T; 2],
    rests: [T; 2],
    /// 1 − rate · λ for AdamW, else 1.
    shrink: T,
    /// λ for Adam, else 0.
    coupled: T,
    /// rate / (1 − β₁ᵗ), √(1 − β₂ᵗ), ε.
    step: T,
    root: T,
    epsilon: T,
}

impl<T: Real> Kernel for AdamChunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let moments = self.first.iter_mut().zip(self.second);
        for ((value, &gradient), (first, second)) in self.value.iter_mut().zip(self.gradient).zip(moments) {
            let gradient = gradient + self.coupled * *value;
            *value *= self.shrink;
            *first = self.betas[0] * *first + self.rests[0] * gradient;
            *second = self.betas[1] * *second + self.rests[1] * gradient * gradient;
            *value -= self.step * *first / (second.sqrt() / self.root + self.epsilon);
        }
    }
}

/// The chunks of all tensors: (tensor, start, end).
fn tasks(counts: &[usize]) -> Vec<(usize, usize, usize)> {
    let chunks = |(tensor, &count): (usize, &usize)| {
        (0..count).step_by(GRAIN).map(move |start| (tensor, start, count.min(start + GRAIN)))
    };
    counts.iter().enumerate().flat_map(chunks).collect()
}

/// The number of chunks that one task runs: several small parameters together are worth a parallel chunk.
fn grain(tasks: &[(usize, usize, usize)]) -> usize {
    let elements: usize = tasks.iter().map(|(_, start, end)| end - start).sum();
    (GRAIN * tasks.len()).div_ceil(elements.max(1)).max(1)
}

/// The memory of all parameters of one dtype, prepared for writing. Everything that can fail has been done, and no value has
/// changed.
struct Work<'a, T, N, const STATES: usize> {
    gradients: Vec<Tensor>,
    values: Vec<Partition<'a, T>>,
    states: Vec<[Option<Partition<'a, T>>; STATES]>,
    numbers: Vec<N>,
}

impl<'a, T: Real, N: Sync, const STATES: usize> Work<'a, T, N, STATES> {
    fn new() -> Self {
        Self { gradients: Vec::new(), values: Vec::new(), states: Vec::new(), numbers: Vec::new() }
    }

    fn add(
        &mut self,
        gradient: &Tensor,
        value: &'a mut Tensor,
        states: [Option<&'a mut Tensor>; STATES],
        numbers: N,
    ) -> Result<()> {
        let mut parts = [const { None }; STATES];
        for (part, state) in parts.iter_mut().zip(states) {
            *part = state.map(|state| Ok(Partition::new(state.as_mut_slice::<T>()?, GRAIN))).transpose()?;
        }
        self.gradients.push(gradient.contiguous()?);
        self.values.push(Partition::new(value.as_mut_slice::<T>()?, GRAIN));
        self.states.push(parts);
        self.numbers.push(numbers);
        Ok(())
    }

    /// Calls `chunk` with the values, the gradients, the states and the numbers of each chunk.
    fn run(self, chunk: impl Fn(&mut [T], &[T], [Option<&mut [T]>; STATES], &N) + Sync) -> Result<()> {
        let gradients: Vec<&[T]> = self.gradients.iter().map(Tensor::as_slice::<T>).collect::<Result<_>>()?;
        let tasks = tasks(&gradients.iter().map(|gradient| gradient.len()).collect::<Vec<_>>());
        parallel_for(tasks.len(), grain(&tasks), |range| {
            for &(tensor, start, end) in &tasks[range] {
                let states = self.states[tensor].each_ref().map(|state| state.as_ref().map(|s| s.take(start..end)));
                let value = self.values[tensor].take(start..end);
                chunk(value, &gradients[tensor][start..end], states, &self.numbers[tensor]);
            }
        })
    }
}

/// A parameter of a step: its value, its gradient, its optimizer states, and its index in the operation.
struct Parameter<'a, const STATES: usize> {
    value: &'a mut Tensor,
    gradient: &'a Tensor,
    states: [Option<&'a mut Tensor>; STATES],
    place: usize,
}

type Parameters<'a, const STATES: usize> = Vec<Parameter<'a, STATES>>;

/// The parameters of f32 and the others, from the targets (each value followed by the states that `has` says exist) and
/// gradients.
fn parameters<'a, const STATES: usize>(
    targets: &'a mut [&mut Tensor],
    gradients: &[&'a Tensor],
    has: impl Fn(usize) -> [bool; STATES],
) -> (Parameters<'a, STATES>, Parameters<'a, STATES>) {
    let mut targets = targets.iter_mut().map(|target| &mut **target);
    let mut all = Vec::with_capacity(gradients.len());
    for (place, &gradient) in gradients.iter().enumerate() {
        if let Some(value) = targets.next() {
            let states = has(place).map(|has| if has { targets.next() } else { None });
            all.push(Parameter { value, gradient, states, place });
        }
    }
    all.into_iter().partition(|parameter| parameter.value.dtype() == DType::F32)
}

pub(super) fn sgd(step: &SgdStep, targets: &mut [&mut Tensor], gradients: &[&Tensor]) -> Result<()> {
    let (single, double) = parameters(targets, gradients, |place| [step.parameters[place].momentum]);
    // Everything that can fail is done for all parameters before any value changes.
    let (single, double) = (sgd_work::<f32>(step, single)?, sgd_work::<f64>(step, double)?);
    run_sgd(single, &step.sgd)?;
    run_sgd(double, &step.sgd)
}

type SgdWork<'a, T> = Work<'a, T, [T; 4], 1>;

fn sgd_work<'a, T: Real>(step: &SgdStep, parameters: Parameters<'a, 1>) -> Result<SgdWork<'a, T>> {
    let mut work = Work::new();
    for Parameter { value, gradient, states, place } in parameters {
        let numbers = step.parameters[place];
        let keep = if numbers.first_step { 1.0 } else { 1.0 - step.sgd.dampening };
        let numbers = [numbers.rate, numbers.weight_decay, step.sgd.momentum, keep].map(T::from_f64);
        work.add(gradient, value, states, numbers)?;
    }
    Ok(work)
}

fn run_sgd<T: Real>(work: SgdWork<'_, T>, sgd: &Sgd) -> Result<()> {
    work.run(|value, gradient, [momentum], &numbers| {
        dispatch(SgdChunk { value, gradient, momentum, numbers, nesterov: sgd.nesterov });
    })
}

/// The numbers of Adam that differ between parameters; see [`AdamChunk`].
struct AdamNumbers<T> {
    shrink: T,
    coupled: T,
    step: T,
    root: T,
}

type AdamWork<'a, T> = Work<'a, T, AdamNumbers<T>, 2>;

pub(super) fn adam(step: &AdamStep, targets: &mut [&mut Tensor], gradients: &[&Tensor]) -> Result<()> {
    let (single, double) = parameters(targets, gradients, |_| [true; 2]);
    let (single, double) = (adam_work::<f32>(step, single)?, adam_work::<f64>(step, double)?);
    run_adam(single, &step.adam)?;
    run_adam(double, &step.adam)
}

fn adam_work<'a, T: Real>(step: &AdamStep, parameters: Parameters<'a, 2>) -> Result<AdamWork<'a, T>> {
    let (mut work, adam) = (Work::new(), &step.adam);
    for Parameter { value, gradient, states, place } in parameters {
        let super::AdamNumbers { rate, weight_decay: decay, step } = step.parameters[place];
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let corrections = adam.betas.map(|beta| 1.0 - beta.powi(power));
        let numbers = AdamNumbers {
            shrink: T::from_f64(if adam.decoupled { 1.0 - rate * decay } else { 1.0 }),
            coupled: T::from_f64(if adam.decoupled { 0.0 } else { decay }),
            step: T::from_f64(rate / corrections[0]),
            root: T::from_f64(corrections[1].sqrt()),
        };
        work.add(gradient, value, states, numbers)?;
    }
    Ok(work)
}

fn run_adam<T: Real>(work: AdamWork<'_, T>, adam: &Adam) -> Result<()> {
    let betas = adam.betas.map(T::from_f64);
    let rests = adam.betas.map(|beta| T::from_f64(1.0 - beta));
    let epsilon = T::from_f64(adam.epsilon);
    work.run(|value, gradient, moments, numbers| {
        let [Some(first), Some(second)] = moments else { unreachable!("Adam has two moments a parameter") };
        let &AdamNumbers { shrink, coupled, step, root } = numbers;
        dispatch(AdamChunk { value, gradient, first, second, betas, rests, shrink, coupled, step, root, epsilon });
    })
}

struct Squares<'a, T>(&'a [T]);

impl<T: Real> Kernel for Squares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0f64; 16];
        let mut blocks = self.0.chunks_exact(16);
        for block in &mut blocks {
            for (lane, value) in lanes.iter_mut().zip(block) {
                *lane += value.to_f64() * value.to_f64();
            }
        }
        for (lane, value) in lanes.iter_mut().zip(blocks.remainder()) {
            *lane += value.to_f64() * value.to_f64();
        }
        lanes.iter().sum()
    }
}

/// √Σ x² over all elements of all tensors, in f64 and in a fixed order.
pub(super) fn global_norm(tensors: &[&Tensor]) -> Result<f64> {
    let tensors: Vec<Tensor> = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<_>>()?;
    for tensor in &tensors {
        with_real!("global_norm", tensor.dtype(), T => tensor.as_slice::<T>().map(|_| ()))?;
    }
    let tasks = tasks(&tensors.iter().map(Tensor::count).collect::<Vec<_>>());
    let mut partial = Scratch::<f64>::new("global_norm", tasks.len())?;
    let mut slots = PartialSlots::new(partial.zeroed(), 1)?;
    let parts = slots.slots();
    parallel_for(tasks.len(), grain(&tasks), |range| {
        for i in range {
            let (tensor, start, end) = tasks[i];
            let squares = with_real!("global_norm", tensors[tensor].dtype(), T => {
                tensors[tensor].as_slice::<T>().map(|values| dispatch(Squares(&values[start..end])))
            });
            // The dtypes were checked above.
            parts.block(i)[0] = or_give_up(squares);
        }
    })?;
    drop(parts);
    Ok(slots.sum().first().copied().unwrap_or(0.0).sqrt())
}

/// Writes the norm of the other targets to the first, and scales them so that the norm is at most `max`, if it is finite.
pub(super) fn clip(max: f64, targets: &mut [&mut Tensor]) -> Result<()> {
    let Some((number, gradients)) = targets.split_first_mut() else { return Ok(()) };
    let norm = global_norm(&gradients.iter().map(|gradient| &**gradient).collect::<Vec<_>>())?;
    with_real!("clip_norm", number.dtype(), T => number.as_mut_slice::<T>().map(|number| number[0] = T::from_f64(norm)))?;
    let factor = max / (norm + 1e-6);
    match norm.is_finite() && factor < 1.0 {
        true => gradients.iter_mut().try_for_each(|gradient| scale(gradient, factor)),
        false => Ok(()),
    }
}

/// x ← factor · x.
pub(super) fn scale(tensor: &mut Tensor, factor: f64) -> Result<()> {
    with_real!("scale", tensor.dtype(), T => {
        let (values, factor) = (tensor.as_mut_slice::<T>()?, T::from_f64(factor));
        let count = values.len();
        let values = Partition::new(values, GRAIN);
        parallel_for(count, GRAIN, |range| values.take(range).iter_mut().for_each(|x| *x *= factor))
    })
}

struct Average<'a, T>(&'a mut [T], &'a [T], T);

impl<T: Real> Kernel for Average<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let keep = T::ONE - self.2;
        for (average, &value) in self.0.iter_mut().zip(self.1) {
            *average = self.2 * *average + keep * value;
        }
    }
}

/// average ← decay · average + (1 − decay) · value.
pub(super) fn average(average: &mut Tensor, value: &Tensor, decay: f64) -> Result<()> {
    with_real!("ema_step", average.dtype(), T => {
        let (target, value, decay) = (average.as_mut_slice::<T>()?, value.as_slice::<T>()?, T::from_f64(decay));
        let target = Partition::new(target, GRAIN);
        parallel_for(value.len(), GRAIN, |range| {
            dispatch(Average(target.take(range.clone()), &value[range], decay));
        })
    })
}
