//! Optimizer steps, scaling, clipping and averaging: operations that write their targets in place.
//!
//! The formulas, and the order of their roundings, are PyTorch's.

mod cpu;
mod cuda;
mod numbers;
#[cfg(feature = "testing")]
mod proofs;

use tomograd_core::{Device, Error, Result, Tensor};

use crate::{
    Cost, InPlace, Meta,
    in_place::check::{counts, like, real},
    run_in_place,
};

#[cfg(test)]
mod tests;

/// A parameter of [`sgd_step`].
pub struct SgdParameter<'a> {
    /// The parameter.
    pub value: &'a mut Tensor,
    /// The gradient of the parameter.
    pub gradient: &'a Tensor,
    /// The momentum buffer of the parameter, zeros before the first step; `None` without momentum.
    pub momentum: Option<&'a mut Tensor>,
    /// The learning rate.
    pub rate: f64,
    /// λ: λ · value is added to the gradient.
    pub weight_decay: f64,
    /// Whether this is the parameter's first step.
    pub first_step: bool,
}

/// The attributes that all parameters of [`sgd_step`] share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// μ: buffer ← μ · buffer + (1 − dampening) · gradient.
    pub momentum: f64,
    /// The fraction of a new gradient that doesn't enter the buffer; the first gradient enters it fully.
    pub dampening: f64,
    /// Whether Nesterov momentum is used.
    pub nesterov: bool,
}

/// A parameter of [`adam_step`].
pub struct AdamParameter<'a> {
    /// The parameter.
    pub value: &'a mut Tensor,
    /// The gradient of the parameter.
    pub gradient: &'a Tensor,
    /// The first moment, zeros before the first step.
    pub first: &'a mut Tensor,
    /// The second moment, zeros before the first step.
    pub second: &'a mut Tensor,
    /// The learning rate.
    pub rate: f64,
    /// λ.
    pub weight_decay: f64,
    /// The number of this step, counted from 1 for each parameter.
    pub step: u64,
}

/// The attributes that all parameters of [`adam_step`] share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// ε.
    pub epsilon: f64,
    /// Whether weight decay is decoupled from the moments (AdamW, Loshchilov and Hutter 2019).
    pub decoupled: bool,
}

/// The attributes of an [`SgdStep`] that differ between parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdNumbers {
    /// The learning rate.
    pub rate: f64,
    /// λ: λ · value is added to the gradient.
    pub weight_decay: f64,
    /// Whether this is the parameter's first step.
    pub first_step: bool,
    /// Whether the parameter has a momentum buffer.
    pub momentum: bool,
}

/// One step of stochastic gradient descent. Targets: for each parameter the value and, if it has one, the momentum buffer.
/// Inputs: for each parameter the gradient. f32 or f64.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdStep {
    /// The shared attributes.
    pub sgd: Sgd,
    /// The attributes of each parameter.
    pub parameters: Vec<SgdNumbers>,
}

impl InPlace for SgdStep {
    fn name(&self) -> &'static str {
        "sgd_step"
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        numbers::sgd(&self.sgd)?;
        let buffers = self.parameters.iter().filter(|parameter| parameter.momentum).count();
        counts("sgd_step", targets, inputs, [self.parameters.len() + buffers, self.parameters.len()])?;
        let mut targets = targets.iter();
        for (numbers, gradient) in self.parameters.iter().zip(inputs) {
            numbers::parameter("sgd_step", numbers.rate, numbers.weight_decay)?;
            let states = usize::from(numbers.momentum);
            fits("sgd_step", &mut targets, states, gradient)?;
        }
        Ok(())
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cpu::sgd(self, targets, inputs)
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cuda::sgd(self, targets, inputs)
    }

    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        cost(6.0, targets, inputs)
    }
}

/// Checks that the next target and its `states` states have the metadata of the gradient.
fn fits<'a>(
    operation: &str,
    targets: &mut impl Iterator<Item = &'a Meta>,
    states: usize,
    gradient: &Meta,
) -> Result<()> {
    for value in targets.take(1 + states) {
        real(operation, value)?;
        like(operation, gradient, value)?;
    }
    Ok(())
}

/// The cost of reading and writing the targets, with `each` operations for each element of the inputs.
fn cost(each: f64, targets: &[Meta], inputs: &[Meta]) -> Cost {
    let elements: usize = inputs.iter().map(Meta::count).sum();
    Cost::of(each * elements as f64, &[targets, inputs].concat(), targets)
}

/// One step of stochastic gradient descent for all parameters, f32 or f64.
///
/// # Errors
/// When a number is out of range, a gradient or buffer doesn't fit its parameter, a dtype isn't f32 or f64, or memory runs
/// out. In that case no value has changed.
pub fn sgd_step(parameters: &mut [SgdParameter<'_>], sgd: &Sgd) -> Result<()> {
    let (mut targets, mut gradients, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for SgdParameter { value, gradient, momentum, rate, weight_decay, first_step } in parameters {
        let momentum = momentum.as_deref_mut();
        let (rate, weight_decay, first_step) = (*rate, *weight_decay, *first_step);
        numbers.push(SgdNumbers { rate, weight_decay, first_step, momentum: momentum.is_some() });
        gradients.push(*gradient);
        targets.push(&mut **value);
        targets.extend(momentum);
    }
    run_in_place(&SgdStep { sgd: *sgd, parameters: numbers }, &mut targets, &gradients)
}

/// The attributes of an [`AdamStep`] that differ between parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamNumbers {
    /// The learning rate.
    pub rate: f64,
    /// λ.
    pub weight_decay: f64,
    /// The number of this step, counted from 1 for each parameter.
    pub step: u64,
}

/// One step of Adam or AdamW. Targets: for each parameter the value, the first and the second moment. Inputs: for each
/// parameter the gradient. f32 or f64.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamStep {
    /// The shared attributes.
    pub adam: Adam,
    /// The attributes of each parameter.
    pub parameters: Vec<AdamNumbers>,
}

impl InPlace for AdamStep {
    fn name(&self) -> &'static str {
        "adam_step"
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        numbers::adam(&self.adam)?;
        counts("adam_step", targets, inputs, [3 * self.parameters.len(), self.parameters.len()])?;
        let mut targets = targets.iter();
        for (numbers, gradient) in self.parameters.iter().zip(inputs) {
            numbers::parameter("adam_step", numbers.rate, numbers.weight_decay)?;
            numbers::step(numbers.step)?;
            fits("adam_step", &mut targets, 2, gradient)?;
        }
        Ok(())
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cpu::adam(self, targets, inputs)
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cuda::adam(self, targets, inputs)
    }

    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        cost(13.0, targets, inputs)
    }
}

/// One step of Adam or AdamW for all parameters, f32 or f64.
///
/// # Errors
/// When a number is out of range, a gradient or moment doesn't fit its parameter, a dtype isn't f32 or f64, or memory runs
/// out. In that case no value has changed.
pub fn adam_step(parameters: &mut [AdamParameter<'_>], adam: &Adam) -> Result<()> {
    let (mut targets, mut gradients, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
    for AdamParameter { value, gradient, first, second, rate, weight_decay, step } in parameters {
        numbers.push(AdamNumbers { rate: *rate, weight_decay: *weight_decay, step: *step });
        gradients.push(*gradient);
        targets.extend([&mut **value, &mut **first, &mut **second]);
    }
    run_in_place(&AdamStep { adam: *adam, parameters: numbers }, &mut targets, &gradients)
}

/// √Σ x² over all elements of all tensors, accumulated in f64 in a fixed order; returned to the host.
///
/// # Errors
/// When a tensor isn't f32 or f64 (on a CUDA device, isn't f32), they have no elements (on the meta device), or memory runs out.
pub fn global_norm(tensors: &[&Tensor]) -> Result<f64> {
    match tensors.first().map_or(Device::Cpu, |tensor| tensor.device()) {
        Device::Cuda(_) => cuda::norm_on_host(tensors),
        _ => cpu::global_norm(tensors),
    }
}

/// Scales gradients by a common factor so that √Σ x² over all of them is at most `max` (like PyTorch, by max / (norm +
/// 10⁻⁶)). Targets: a scalar that receives the norm before scaling, then the gradients; f32 or f64. If the norm isn't finite,
/// the gradients aren't changed, so that the caller can decide. Norm and factor stay on the device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClipNorm {
    /// The largest norm.
    pub max: f64,
}

impl InPlace for ClipNorm {
    fn name(&self) -> &'static str {
        "clip_norm"
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        numbers::largest_norm(self.max)?;
        counts("clip_norm", targets, inputs, [targets.len().max(1), 0])?;
        if targets[0].count() != 1 {
            return Err(Error::shape("clip_norm", "the first target becomes the norm")
                .expected("one number, and then the gradients")
                .shapes([&targets[0].shape[..]]));
        }
        targets.iter().try_for_each(|target| real("clip_norm", target))
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], _: &[&Tensor]) -> Result<()> {
        cpu::clip(self.max, targets)
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], _: &[&Tensor]) -> Result<()> {
        cuda::clip(self.max, targets)
    }

    fn cost(&self, targets: &[Meta], _: &[Meta]) -> Cost {
        Cost::of(3.0 * targets.iter().map(Meta::count).sum::<usize>() as f64, &[targets, targets].concat(), targets)
    }
}

/// x ← factor · x for each target, f32 or f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The factor, finite in the targets' dtype.
    pub factor: f64,
}

impl InPlace for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        counts("scale", targets, inputs, [targets.len(), 0])?;
        for target in targets {
            real("scale", target)?;
            numbers::factor(self.factor, target.dtype)?;
        }
        Ok(())
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], _: &[&Tensor]) -> Result<()> {
        targets.iter_mut().try_for_each(|target| cpu::scale(target, self.factor))
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], _: &[&Tensor]) -> Result<()> {
        cuda::scale(targets, self.factor)
    }

    fn cost(&self, targets: &[Meta], _: &[Meta]) -> Cost {
        cost(1.0, targets, targets)
    }
}

/// x ← factor · x, in place.
///
/// # Errors
/// When the factor isn't finite in the tensor's dtype, the tensor isn't f32 or f64, or memory runs out.
pub fn scale(tensor: &mut Tensor, factor: f64) -> Result<()> {
    run_in_place(&Scale { factor }, &mut [tensor], &[])
}

/// average ← decay · average + (1 − decay) · value: targets are averages, inputs their values. f32 or f64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmaStep {
    /// The fraction of an average that is kept.
    pub decay: f64,
}

impl InPlace for EmaStep {
    fn name(&self) -> &'static str {
        "ema_step"
    }

    fn check(&self, targets: &[Meta], inputs: &[Meta]) -> Result<()> {
        numbers::decay(self.decay)?;
        counts("ema_step", targets, inputs, [inputs.len(), inputs.len()])?;
        let mut targets = targets.iter();
        inputs.iter().try_for_each(|value| fits("ema_step", &mut targets, 0, value))
    }

    fn apply_cpu(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        // Everything that can fail is done before any value changes.
        let values: Vec<Tensor> = inputs.iter().map(|value| value.contiguous()).collect::<Result<_>>()?;
        targets.iter_mut().zip(&values).try_for_each(|(average, value)| cpu::average(average, value, self.decay))
    }

    fn apply_cuda(&self, targets: &mut [&mut Tensor], inputs: &[&Tensor]) -> Result<()> {
        cuda::average(targets, inputs, self.decay)
    }

    fn cost(&self, targets: &[Meta], inputs: &[Meta]) -> Cost {
        cost(3.0, targets, inputs)
    }
}

/// average ← decay · average + (1 − decay) · value, in place, for each pair (average, value): an exponential moving average
/// of a network's parameters.
///
/// # Errors
/// When the decay isn't between 0 and 1, a value doesn't fit its average, a tensor isn't f32 or f64, or memory runs out.
pub fn ema_step(pairs: &mut [(&mut Tensor, &Tensor)], decay: f64) -> Result<()> {
    let (mut targets, values): (Vec<&mut Tensor>, Vec<&Tensor>) =
        pairs.iter_mut().map(|(average, value)| (&mut **average, *value)).unzip();
    run_in_place(&EmaStep { decay }, &mut targets, &values)
}
