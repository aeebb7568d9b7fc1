//! Losses.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Result, Tensor};
pub use tomograd_kernels::loss::DiceCe as DiceCeOp;

use crate::check;

/// Soft Dice, cross-entropy, or their weighted sum, for logits (N, C, spatial...) and i64 labels (N, spatial...). The default
/// is Dice plus cross-entropy, both over all classes; see [`tomograd_kernels::loss::DiceCe`] for the formula.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{DiceCe, Params, Pass};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let logits = pass.input(&Tensor::zeros(&[1, 2, 4, 4], DType::F32, Device::Cpu)?);
/// let labels = Tensor::ones(&[1, 4, 4], DType::I64, Device::Cpu)?;
/// let loss = DiceCe::cross_entropy().with_class_weights(&[0.2, 0.8])?.forward(&logits, &labels)?;
/// assert!((loss.value().to_scalar()? - 2f64.ln()).abs() < 1e-6);
/// let loss = DiceCe::default().forward(&logits, &labels)?; // Dice + cross-entropy
/// # Ok::<(), tomograd_core::Error>(())
/// ```
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

    /// Sets a weight for each class in the cross-entropy.
    ///
    /// # Errors
    /// When a weight is negative, NaN or infinite, or all are 0.
    pub fn with_class_weights(mut self, weights: &[f64]) -> Result<Self> {
        self.0.class_weights = Some(weights.to_vec());
        self.0.check_numbers()?;
        Ok(self)
    }

    /// The loss, a scalar.
    ///
    /// # Errors
    /// When labels don't fit the logits, one is out of range, or a weight isn't a finite number of at least 0.
    pub fn forward(&self, logits: &Var, labels: &Tensor) -> Result<Var> {
        Var::apply(self.0.clone(), &[logits, &logits.tape().constant(labels.clone())])
    }
}

/// Binary cross-entropy of logits x and targets y in [0, 1], which broadcast: the mean of −y log σ(x) − (1 − y) log(1 − σ(x))
/// = softplus(x) − x · y. It doesn't overflow for any finite x; NaN if there are no elements, as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Params, Pass, losses};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let logits = pass.input(&Tensor::from_slice(&[0.0, 50.0], &[2], Device::Cpu)?);
/// let targets = pass.input(&Tensor::from_slice(&[1.0, 1.0], &[2], Device::Cpu)?);
/// let loss = losses::binary_cross_entropy(&logits, &targets)?.value().to_scalar()?;
/// assert!((loss - 2f64.ln() / 2.0).abs() < 1e-12);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn binary_cross_entropy(logits: &Var, targets: &Var) -> Result<Var> {
    logits.softplus()?.sub(&logits.mul(targets)?)?.mean(..)
}

/// The mean of (x − y)²; NaN if there are no elements, as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Params, Pass, losses};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let [x, y] = [[1.0, 2.0], [1.0, 5.0]].map(|v| Tensor::from_slice(&v, &[2], Device::Cpu).map(|v| pass.input(&v)));
/// assert_eq!(losses::mean_squared_error(&x?, &y?)?.value().to_scalar()?, 4.5);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn mean_squared_error(x: &Var, y: &Var) -> Result<Var> {
    x.sub(y)?.square()?.mean(..)
}

/// The mean of |x − y|; NaN if there are no elements, as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Params, Pass, losses};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let [x, y] = [[1.0, 2.0], [1.0, 5.0]].map(|v| Tensor::from_slice(&v, &[2], Device::Cpu).map(|v| pass.input(&v)));
/// assert_eq!(losses::mean_absolute_error(&x?, &y?)?.value().to_scalar()?, 1.5);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes don't broadcast, or the dtypes differ.
pub fn mean_absolute_error(x: &Var, y: &Var) -> Result<Var> {
    x.sub(y)?.abs()?.mean(..)
}

/// With d = |x − y|, the mean of d² / 2β where d is less than β > 0, and of d − β/2 elsewhere (Girshick 2015, with β = 1);
/// NaN if there are no elements, as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed, Tensor};
/// use tomograd_nn::{Params, Pass, losses};
/// let pass = Pass::eval(&Params::new(Device::Cpu, Seed::new(1)))?;
/// let [x, y] = [[0.0, 3.0], [0.5, 0.0]].map(|v| Tensor::from_slice(&v, &[2], Device::Cpu).map(|v| pass.input(&v)));
/// assert_eq!(losses::smooth_l1(&x?, &y?, 1.0)?.value().to_scalar()?, (0.125 + 2.5) / 2.0);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the shapes don't broadcast, the dtypes differ, or β isn't from 10⁻³⁰ to 10³⁰.
pub fn smooth_l1(x: &Var, y: &Var, beta: f64) -> Result<Var> {
    check::number("smooth_l1", "beta", beta, check::SMALLEST..=check::LARGEST)?;
    let distance = x.sub(y)?.abs()?;
    let capped = distance.clamp(0.0, beta)?;
    capped.mul(&distance.sub(&capped.mul_scalar(0.5)?)?)?.mean(..)?.mul_scalar(1.0 / beta)
}
