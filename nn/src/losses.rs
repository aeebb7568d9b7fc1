//! Losses.

use tomograd_autodiff::Var;
use tomograd_core::{Result, Tensor};
pub use tomograd_kernels::loss::DiceCe as DiceCeOp;

/// Soft Dice, cross-entropy, or their weighted sum, of logits (N, C, spatial...) and labels, i64 (N, spatial...). The default
/// is the plain sum of both over all classes; see [`tomograd_kernels::loss::DiceCe`] for the formula.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DiceCe(pub DiceCeOp);

impl DiceCe {
    /// Soft Dice alone.
    pub fn dice() -> Self {
        Self(DiceCeOp { ce_weight: 0.0, ..DiceCeOp::default() })
    }

    /// Cross-entropy alone.
    pub fn cross_entropy() -> Self {
        Self(DiceCeOp { dice_weight: 0.0, ..DiceCeOp::default() })
    }

    /// The loss, of rank 0.
    ///
    /// # Errors
    /// When labels don't fit the logits, or one is out of range.
    pub fn forward(&self, logits: &Var, labels: &Tensor) -> Result<Var> {
        Var::apply(self.0.clone(), &[logits, &logits.tape().constant(labels.clone())])
    }
}
