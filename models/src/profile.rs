//! The cost of a network at a given size, computed in milliseconds on [`Device::Meta`], whose tensors have no elements.

use serde::Serialize;
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Seed, Tensor, memory};
use tomograd_kernels::trace;
use tomograd_nn::{AdamW, DiceCe, Named, Optimizer, Pass};

use crate::Model;

/// The cost of a network at some size.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// The number of elements of all parameters; buffers aren't counted.
    pub parameters: usize,
    /// A forward pass in inference mode.
    pub inference: Cost,
    /// A training step: forward and backward pass, clipping and AdamW. `None` if the network runs on these inputs but doesn't
    /// train on them, as a batch norm doesn't on one value of each channel.
    pub training: Option<Cost>,
}

/// The cost of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Floating-point operations; a fused multiply-add counts as two.
    pub flops: f64,
    /// The multiply-adds of convolutions and matrix products among them, which papers call FLOPs or MACs.
    pub multiply_adds: f64,
    /// The peak memory of all tensors in bytes, including parameters, moments and the input; temporary buffers of kernels
    /// aren't counted.
    pub peak: usize,
}

/// The cost of the network described by `config` for f32 inputs of these shapes, in the order of the network's inputs; an
/// image is (N, C, spatial...). The loss of the training step is a sum over all outputs: Dice and cross-entropy for outputs
/// called `logits…` that have a class for each voxel, the mean square for others.
///
/// ```
/// use tomograd_models::{UNet3dConfig, profile};
/// let profile = profile(&UNet3dConfig::new(3), &[&[2, 1, 256, 256, 256]])?;
/// assert_eq!(profile.parameters, 5_602_595);
/// assert!(profile.training.is_some_and(|step| step.peak > 20 << 30), "no 20 GB card trains that");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the configuration is invalid, the network has fewer inputs, or a shape doesn't fit.
pub fn profile(config: &impl Serialize, inputs: &[&[usize]]) -> Result<Profile> {
    let model = || Model::new(config, Device::Meta, Seed::new(0));
    // Once, since a model beside that which is measured would count.
    let names = model()?.network().inputs();
    let tensors =
        || -> Result<Named<Tensor>> {
            if inputs.len() > names.len() {
                return Err(Error::argument("profile", format!("shapes of {} inputs", inputs.len()))
                    .expected(format!("at most {}: {}", names.len(), names.join(", "))));
            }
            let tensor = |(&name, &shape)| Ok((name, Tensor::zeros(shape, DType::F32, Device::Meta)?));
            names.iter().zip(inputs).map(tensor).collect()
        };
    Ok(Profile {
        parameters: model()?.params().count(),
        inference: cost(|| model()?.run(&tensors()?).map(drop))?,
        training: match cost(|| train(model()?, &tensors()?)) {
            Err(error) if error.kind() == ErrorKind::Shape => None,
            cost => Some(cost?),
        },
    })
}

/// Runs `body` and measures its operations and peak memory.
fn cost(body: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let ((result, events), statistics) = memory::meter(|| trace::collect(body));
    result?;
    Ok(Cost {
        flops: events.iter().map(|event| event.cost.flops).sum(),
        multiply_adds: events.iter().map(|event| event.cost.multiply_adds).sum(),
        peak: statistics.tensor_peak,
    })
}

/// One training step.
fn train(mut model: Model, inputs: &Named<Tensor>) -> Result<()> {
    let mut optimizer = AdamW::new(model.params(), 1e-3)?;
    let pass = Pass::train(model.params(), Seed::new(0))?;
    let inputs = inputs.iter().map(|(name, value)| (name, pass.input(value))).collect();
    let outputs = model.network().run(&inputs, &pass)?;
    let mut loss: Option<Var> = None;
    // A real batch holds its labels until the step is done, so they count.
    let mut batch_labels = Vec::new();
    for (name, output) in outputs {
        let term = match output.shape() {
            [batch, _, spatial @ ..] if name.starts_with("logits") && !spatial.is_empty() => {
                let labels = Tensor::zeros(&[&[*batch], spatial].concat(), DType::I64, output.value().device())?;
                let term = DiceCe::default().forward(&output, &labels)?;
                batch_labels.push(labels);
                term
            }
            _ => output.square()?.mean(..)?,
        };
        loss = Some(match loss {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    let loss = loss.ok_or_else(|| Error::argument("profile", "the network has no output"))?;
    let update = pass.backward(loss)?.clip_norm(12.0)?;
    optimizer.step(model.params_mut(), update)?;
    drop(batch_labels);
    Ok(())
}
