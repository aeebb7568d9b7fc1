//! The result of a training pass: gradients and changes of buffers.

use std::sync::Arc;

use tomograd_autodiff::{Gradients, Var};
use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{methods::*, optim, run_in_place};

use crate::{
    Named, Params,
    buffers::{Change, changed},
    check,
    params::Outline,
};

/// Gradients of the parameters and changes of the buffers from one training pass, for an optimizer.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_kernels::methods::*;
/// use tomograd_nn::{Linear, Module, Params, Pass};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = Linear::new(params.root(), 2, 1)?;
/// let pass = Pass::train(&params, Seed::new(2))?;
/// let x = pass.input(&Tensor::ones(&[1, 2], DType::F32, Device::Cpu)?);
/// let loss = layer.forward(&x, &pass)?.sum(..)?;
/// let update = pass.backward(loss)?;
/// assert_eq!(update.gradient("weight").unwrap().to_vec::<f32>()?, [1.0, 1.0]);
/// let update = update.clip_norm(1.0)?; // for Optimizer::step
/// assert!((update.norm()? - 1.0).abs() < 1e-5);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "an update does nothing until an optimizer's step takes it"]
pub struct Update {
    outline: Arc<Outline>,
    pub(crate) gradients: Vec<Option<Tensor>>,
    changes: Vec<Change>,
    inputs: Gradients,
    /// Norms computed by [`Update::clip_norm`], on the gradients' device; the optimizer's step reports one that isn't finite.
    norms: Vec<Tensor>,
    stages: Named<Option<Tensor>>,
    allow_unused: bool,
}

impl Update {
    pub(crate) fn new(
        outline: Arc<Outline>,
        gradients: Vec<Option<Tensor>>,
        changes: Vec<Change>,
        inputs: Gradients,
        stages: Named<Option<Tensor>>,
    ) -> Self {
        Self { outline, gradients, changes, inputs, stages, norms: Vec::new(), allow_unused: false }
    }

    /// The gradient of an input made by [`Pass::input_with_gradient`](crate::Pass::input_with_gradient); `None` if the loss
    /// doesn't depend on it. Scaling, clipping and adding updates don't change it.
    pub fn input_gradient(&self, input: &Var) -> Option<&Tensor> {
        self.inputs.get(input)
    }

    /// The gradient of the loss with respect to the feature map of the stage called `name`, which the pass kept
    /// ([`Pass::keep_stages`](crate::Pass::keep_stages)), through everything computed from it, including checkpointed
    /// segments. Scaling, clipping and adding updates don't change it.
    ///
    /// # Errors
    /// When the pass didn't keep such a stage (the error has the nearest name), or the loss doesn't depend on it.
    pub fn stage_gradient(&self, name: &str) -> Result<&Tensor> {
        self.stages.get(name)?.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Graph, "stage_gradient", format!("the stage {name} had no part in the loss"))
                .expected("a loss that follows from its feature map")
        })
    }

    /// The gradient of the parameter called `name`; `None` if it is frozen or the loss doesn't depend on it.
    pub fn gradient(&self, name: &str) -> Option<&Tensor> {
        self.gradients.get(self.outline.index(name)?)?.as_ref()
    }

    /// The value of the buffer called `name` of `params` after the update; `None` if the update doesn't change it.
    ///
    /// # Errors
    /// When the update is of another store, or memory runs out.
    pub fn buffer(&self, params: &Params, name: &str) -> Result<Option<Tensor>> {
        self.check_store(params)?;
        match self.outline.index(name) {
            Some(index) => changed(index, &params.entries[index].value, self.changes.iter()),
            None => Ok(None),
        }
    }

    /// The new values of all buffers that change, by their index in the store.
    pub(crate) fn buffers(&self, params: &Params) -> Result<Vec<(usize, Tensor)>> {
        let indices: std::collections::BTreeSet<usize> = self.changes.iter().map(|(index, _)| *index).collect();
        let value = |index| {
            let value = changed(index, &params.entries[index].value, self.changes.iter())?;
            Ok(value.map(|value| (index, value)))
        };
        indices.into_iter().filter_map(|index| value(index).transpose()).collect()
    }

    pub(crate) fn check_store(&self, params: &Params) -> Result<()> {
        if self.outline.structure == params.structure() && self.outline.names.len() == params.entries.len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Name, "update", "the update is of another store than the parameters")
            .expected("the parameters that the pass was made for, or a replica"))
    }

    /// Allows parameters without a gradient; the optimizer leaves them unchanged.
    pub fn allow_unused(mut self) -> Self {
        self.allow_unused = true;
        self
    }

    /// √Σ g² over all gradients.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn norm(&self) -> Result<f64> {
        optim::global_norm(&self.gradients.iter().flatten().collect::<Vec<_>>())
    }

    /// Scales all gradients down so that their norm is at most `max` (as in PyTorch, by max / (norm + 10⁻⁶)). With an
    /// infinite `max`, gradients only have to be finite. Gradients whose norm isn't finite stay unchanged and the optimizer's
    /// step rejects them; so nothing waits for the norm here.
    ///
    /// # Errors
    /// When `max` is negative or NaN, or memory runs out.
    pub fn clip_norm(mut self, max: f64) -> Result<Self> {
        check::number("clip_norm", "the largest norm", max, 0.0..=f64::INFINITY)?;
        if let Some(gradient) = self.gradients.iter().flatten().next() {
            let mut norm = Tensor::zeros(&[], DType::F64, gradient.device())?;
            let gradients = self.gradients.iter_mut().flatten();
            run_in_place(
                &optim::ClipNorm { max },
                &mut std::iter::once(&mut norm).chain(gradients).collect::<Vec<_>>(),
                &[],
            )?;
            self.norms.push(norm);
        }
        Ok(self)
    }

    /// Fails if a clipped norm isn't finite. A step reads this number on the host and no other.
    pub(crate) fn check_finite(&self) -> Result<()> {
        for norm in self.norms.iter().filter(|norm| norm.device() != Device::Meta) {
            let norm = norm.to(Device::Cpu)?.to_scalar()?;
            if !norm.is_finite() {
                return Err(Error::argument("clip_norm", format!("the gradients' norm is {norm}"))
                    .expected("finite gradients (a smaller learning rate?)"));
            }
        }
        Ok(())
    }

    /// Multiplies all gradients; changes of buffers stay the same.
    ///
    /// # Errors
    /// When the factor is NaN or beyond ±10³⁰, or memory runs out.
    pub fn scale(mut self, factor: f64) -> Result<Self> {
        check::number("scale", "the factor", factor, -check::LARGEST..=check::LARGEST)?;
        let mut gradients: Vec<&mut Tensor> = self.gradients.iter_mut().flatten().collect();
        run_in_place(&optim::Scale { factor }, &mut gradients, &[])?;
        Ok(self)
    }

    /// Adds another update's gradients, for accumulation and data parallelism. Its changes of buffers are appended, as if the
    /// second pass had started where the first one ended.
    ///
    /// # Errors
    /// When `other` is of another store.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn add(mut self, other: Update) -> Result<Self> {
        if self.outline.structure != other.outline.structure || self.gradients.len() != other.gradients.len() {
            return Err(Error::new(ErrorKind::Name, "update", "updates of two networks are added"));
        }
        for (sum, gradient) in self.gradients.iter_mut().zip(other.gradients) {
            *sum = match (sum.take(), gradient) {
                (Some(a), Some(b)) => Some(a.add(&b)?),
                (a, b) => a.or(b),
            };
        }
        self.changes.extend(other.changes);
        self.norms.extend(other.norms);
        Ok(self)
    }

    /// Fails if a parameter that isn't frozen has no gradient.
    pub(crate) fn check_used(&self) -> Result<()> {
        if self.allow_unused {
            return Ok(());
        }
        for (index, gradient) in self.gradients.iter().enumerate() {
            if gradient.is_none() && !self.outline.constant[index] {
                return Err(Error::new(
                    ErrorKind::Graph,
                    "update",
                    format!("parameter {} had no part in the loss", self.outline.names[index]),
                )
                .expected("a gradient for each parameter that isn't frozen (or allow_unused)"));
            }
        }
        Ok(())
    }
}
