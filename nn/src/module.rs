//! What all layers and networks have in common.

use tomograd_autodiff::Var;
use tomograd_core::Result;

use crate::Pass;

/// A layer or network with one input and one output. Immutable: its parameters lie in [`Params`](crate::Params).
pub trait Module: Send + Sync {
    /// Computes the output.
    ///
    /// # Errors
    /// When the input doesn't fit.
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var>;
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        (**self).forward(x, pass)
    }
}

/// Modules one after the other.
pub struct Sequential(pub Vec<Box<dyn Module>>);

impl Module for Sequential {
    fn forward(&self, x: &Var, pass: &mut Pass) -> Result<Var> {
        self.0.iter().try_fold(x.clone(), |x, module| module.forward(&x, pass))
    }
}
