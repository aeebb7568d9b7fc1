//! What a training pass learned.

use std::{collections::BTreeMap, sync::Arc};

use tomograd_autodiff::{Gradients, Var};
use tomograd_core::{Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{
    Context,
    elementwise::{BinaryFunction, Chain},
    optim, run,
};

/// Gradients of the parameters and new values of the buffers, from one training pass, to be given to an optimizer.
#[derive(Debug)]
#[must_use = "an update does nothing until an optimizer's step takes it"]
pub struct Update {
    pub(crate) structure: u64,
    names: Arc<Vec<String>>,
    frozen: Arc<Vec<bool>>,
    pub(crate) gradients: Vec<Option<Tensor>>,
    pub(crate) buffers: BTreeMap<usize, Tensor>,
    inputs: Gradients,
    allow_unused: bool,
}

impl Update {
    pub(crate) fn new(
        structure: u64,
        names: Arc<Vec<String>>,
        frozen: Arc<Vec<bool>>,
        gradients: Vec<Option<Tensor>>,
        buffers: BTreeMap<usize, Tensor>,
        inputs: Gradients,
    ) -> Self {
        Self { structure, names, frozen, gradients, buffers, inputs, allow_unused: false }
    }

    /// The gradient of an input made by [`Pass::input_with_gradient`](crate::Pass::input_with_gradient); `None` when it had no
    /// part in the loss. Sums, scales and bounds of updates leave it alone.
    pub fn input_gradient(&self, input: &Var) -> Option<&Tensor> {
        self.inputs.get(input)
    }

    /// The gradient of the parameter called `name`; `None` for one that is frozen or had no part in the loss.
    pub fn gradient(&self, name: &str) -> Option<&Tensor> {
        self.names.iter().position(|other| other == name).and_then(|index| self.gradients.get(index)?.as_ref())
    }

    /// The new value of the buffer called `name`; `None` when the pass didn't change it.
    pub fn buffer(&self, name: &str) -> Option<&Tensor> {
        self.buffers.get(&self.names.iter().position(|other| other == name)?)
    }

    /// Lets parameters have no gradient: they are then left as they are.
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

    /// Scales all gradients down so that their norm is at most `max` (as PyTorch: by max / (norm + 10⁻⁶)).
    ///
    /// # Errors
    /// When the norm isn't finite, or memory runs out.
    pub fn clip_norm(self, max: f64) -> Result<Self> {
        let norm = self.norm()?;
        if !norm.is_finite() {
            return Err(Error::argument("clip_norm", format!("the gradients' norm is {norm}"))
                .expected("finite gradients (a smaller learning rate?)"));
        }
        let factor = max / (norm + 1e-6);
        if factor < 1.0 { self.scale(factor) } else { Ok(self) }
    }

    /// Multiplies all gradients.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn scale(mut self, factor: f64) -> Result<Self> {
        self.gradients.iter_mut().flatten().try_for_each(|gradient| optim::scale(gradient, factor))?;
        Ok(self)
    }

    /// Adds another update's gradients, for accumulation and replicas; of the buffers the later ones stay.
    ///
    /// # Errors
    /// When the other is of another store.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn add(mut self, other: Update) -> Result<Self> {
        if self.structure != other.structure {
            return Err(Error::new(ErrorKind::Name, "update", "updates of two networks are added"));
        }
        for (sum, gradient) in self.gradients.iter_mut().zip(other.gradients) {
            *sum = match (sum.take(), gradient) {
                (Some(a), Some(b)) => {
                    run(&Chain::binary(BinaryFunction::Add), &[&a, &b], &Context::default())?.outputs.pop()
                }
                (a, b) => a.or(b),
            };
        }
        self.buffers.extend(other.buffers);
        Ok(self)
    }

    /// Fails when a parameter that isn't frozen got no gradient.
    pub(crate) fn check_used(&self) -> Result<()> {
        if self.allow_unused {
            return Ok(());
        }
        for (index, gradient) in self.gradients.iter().enumerate() {
            if gradient.is_none() && !self.frozen[index] {
                return Err(Error::new(
                    ErrorKind::Graph,
                    "update",
                    format!("parameter {} had no part in the loss", self.names[index]),
                )
                .expected("a gradient for each parameter that isn't frozen (or allow_unused)"));
            }
        }
        Ok(())
    }
}
