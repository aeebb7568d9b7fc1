//! What a network costs at a given size, known in milliseconds: it runs on [`Device::Meta`], whose tensors have no elements.

use serde::Serialize;
use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Error, Result, Seed, Tensor, pool};
use tomograd_kernels::trace;
use tomograd_nn::{AdamW, DiceCe, Optimizer, Pass};

use crate::{Model, Outputs};

/// What a network of some size costs.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Elements of all parameters; buffers don't count.
    pub parameters: usize,
    /// A forward run alone.
    pub inference: Cost,
    /// A training step: forward and backward run, clipping and AdamW.
    pub training: Cost,
}

/// What a run costs.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Cost {
    /// Floating-point operations, a fused multiply-add being two.
    pub flops: f64,
    /// The most bytes that all tensors take at once, parameters, moments and the input among them; what kernels need for a
    /// moment isn't counted.
    pub peak: usize,
}

/// What the network that `config` describes costs for an f32 input of this shape, (N, C, spatial...). The loss of the training
/// step is the sum of Dice and cross-entropy over all outputs, whose classes lie along axis 1.
///
/// ```
/// use tomograd_models::{UNet3dConfig, profile};
/// let profile = profile(&UNet3dConfig::new(3), &[2, 1, 256, 256, 256])?;
/// assert_eq!(profile.parameters, 5_602_595);
/// assert!(profile.training.peak > 20 << 30, "no 20 GB card trains that");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the configuration doesn't fit a network, the shape doesn't fit the network, or an output has no classes.
pub fn profile(config: &impl Serialize, input: &[usize]) -> Result<Profile> {
    let model = || Model::new(config, Device::Meta, Seed::new(0));
    let image = || Tensor::zeros(input, DType::F32, Device::Meta);
    Ok(Profile {
        parameters: model()?.params().count(),
        inference: cost(|| model()?.predict(&image()?).map(drop))?,
        training: cost(|| train(model()?, &image()?))?,
    })
}

/// The books of what `body` runs and makes.
fn cost(body: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let ((result, events), statistics) = pool::meter(|| trace::collect(body));
    result?;
    Ok(Cost { flops: events.iter().map(|event| event.cost.flops).sum(), peak: statistics.tensor_peak })
}

/// One training step.
fn train(mut model: Model, image: &Tensor) -> Result<()> {
    let mut optimizer = AdamW::new(model.params(), 1e-3)?;
    let pass = Pass::train(model.params(), Seed::new(0))?;
    let x = pass.input(image);
    let Outputs { main, aux } = model.network().outputs(&x, &pass)?;
    let mut loss: Option<Var> = None;
    // A batch holds its labels until the step is done.
    let mut batch_labels = Vec::new();
    for logits in std::iter::once(&main).chain(&aux) {
        let [batch, _, spatial @ ..] = logits.shape() else {
            return Err(Error::shape("profile", "an output of fewer than two axes")
                .expected("logits (N, C, spatial...)")
                .shapes([logits.shape()]));
        };
        let labels = Tensor::zeros(&[&[*batch], spatial].concat(), DType::I64, image.device())?;
        let term = DiceCe::default().forward(logits, &labels)?;
        batch_labels.push(labels);
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
