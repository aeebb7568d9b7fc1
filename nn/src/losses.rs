//! Losses.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Result, Tensor};
pub use tomograd_kernels::loss::DiceCe as DiceCeOp;

use crate::check;

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

    /// This loss with a weight for each class in the cross-entropy.
    ///
    /// # Errors
    /// When a weight is negative, NaN or infinite, or all are 0.
    pub fn with_class_weights(mut self, weights: &[f64]) -> Result<Self> {
        self.0.class_weights = Some(weights.to_vec());
        self.0.check_numbers()?;
        Ok(self)
    }

    /// The loss, of rank 0.
    ///
    /// # Errors
    /// When labels don't fit the logits, one is out of range, or a weight isn't a finite number of at least 0.
    pub fn forward(&self, logits: &Var, labels: &Tensor) -> Result<Var> {
        Var::apply(self.0.clone(), &[logits, &logits.tape().constant(labels.clone())])
    }
}

/// The mean of −y log σ(x) − (1 − y) log(1 − σ(x)), that is of softplus(x) − x · y: binary cross-entropy of logits x against
/// targets y between 0 and 1, which broadcast. Without overflow for any finite x; NaN for no elements, as in PyTorch.
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn binary_cross_entropy(logits: &Var, targets: &Var) -> Result<Var> {
    logits.softplus()?.sub(&logits.mul(targets)?)?.mean(..)
}

/// The mean of (x − y)²; NaN for no elements, as in PyTorch.
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn mean_squared_error(x: &Var, y: &Var) -> Result<Var> {
    x.sub(y)?.square()?.mean(..)
}

/// The mean of |x − y|; NaN for no elements, as in PyTorch.
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn mean_absolute_error(x: &Var, y: &Var) -> Result<Var> {
    x.sub(y)?.abs()?.mean(..)
}

/// The mean of d² / 2β where d = |x − y| is below β > 0, and of d − β/2 elsewhere (Girshick 2015, there with β = 1);
/// NaN for no elements, as in PyTorch.
///
/// # Errors
/// When the shapes don't broadcast, the dtypes differ, or β isn't from 10⁻³⁰ to 10³⁰.
pub fn smooth_l1(x: &Var, y: &Var, beta: f64) -> Result<Var> {
    check::number("smooth_l1", "beta", beta, check::SMALLEST..=check::LARGEST)?;
    let distance = x.sub(y)?.abs()?;
    let capped = distance.clamp(0.0, beta)?;
    capped.mul(&distance.sub(&capped.mul_scalar(0.5)?)?)?.mean(..)?.mul_scalar(1.0 / beta)
}
