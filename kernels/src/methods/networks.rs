//! Building blocks of networks that have no parameters of their own.

use tomograd_core::Result;

use super::Operand;
use crate::{
    attention::Attention,
    matmul::Matmul,
    pool::{AdaptiveAveragePool, AdaptiveMaxPool},
    resample::{Interpolate, Interpolation},
    scan::SelectiveScan,
    softmax::{LogSoftmax, Softmax},
};

/// The inputs of [`Networks::selective_scan`].
#[derive(Debug, Clone, Copy)]
pub struct ScanInputs<'a, T> {
    /// The input sequences (B, D, L).
    pub u: &'a T,
    /// The step sizes (B, D, L).
    pub delta: &'a T,
    /// The rates of the states (D, N); negative rates decay.
    pub a: &'a T,
    /// The coefficients with which u enters the states: (B, G, N, L), or (B, N, L).
    pub b: &'a T,
    /// The coefficients with which the states enter the output: shaped like b.
    pub c: &'a T,
    /// The factor of u in the output (D).
    pub skip: Option<&'a T>,
    /// The gate (B, D, L): the output is multiplied by silu of it.
    pub gate: Option<&'a T>,
    /// The bias that is added to delta (D).
    pub delta_bias: Option<&'a T>,
    /// Whether softplus is applied to delta plus bias.
    pub delta_softplus: bool,
}

/// Matrix products, softmax, attention, scans, interpolation and adaptive pooling.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_kernels::methods::*;
/// let (a, b) = (Tensor::ones(&[2, 3], DType::F32, Device::Cpu)?, Tensor::ones(&[3, 4], DType::F32, Device::Cpu)?);
/// let product = a.matmul(&b)?;
/// assert_eq!(product.shape(), [2, 4]);
/// assert_eq!(product.softmax(1)?.to_vec::<f32>()?, [0.25; 8]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Networks: Operand {
    /// The matrix product of (..., m, k) and (..., k, n); leading axes are broadcast.
    ///
    /// # Errors
    /// When shapes don't fit, or dtypes differ.
    fn matmul(&self, other: &Self) -> Result<Self> {
        Self::apply(Matmul, &[self, other])
    }

    /// exp(x_i) / Σ_j exp(x_j) along `axis`, without overflow.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// use tomograd_kernels::methods::*;
    ///
    /// let x = Tensor::from_slice(&[0.0f64, 3.0f64.ln()], &[2], Device::Cpu)?;
    /// let y = x.softmax(0)?.to_vec::<f64>()?;
    /// assert!((y[0] - 0.25).abs() < 1e-12 && (y[1] - 0.75).abs() < 1e-12);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the axis is beyond the rank, or the dtype isn't floating point.
    fn softmax(&self, axis: usize) -> Result<Self> {
        Self::apply(Softmax { axis }, &[self])
    }

    /// The logarithm of [`softmax`](Self::softmax).
    ///
    /// # Errors
    /// As for [`softmax`](Self::softmax).
    fn log_softmax(&self, axis: usize) -> Result<Self> {
        Self::apply(LogSoftmax { axis }, &[self])
    }

    /// softmax(scale · self · keysᵀ + biases) · values, where self holds the queries (..., L, E), with keys (..., S, E),
    /// values (..., S, V), and up to three biases, each of which broadcasts to (..., L, S). The default scale is 1/√E. When
    /// `causal`, query i sees only the keys j ≤ i. A query that sees no key gives zeros. See [`Attention`].
    ///
    /// # Errors
    /// When shapes don't fit, or dtypes differ.
    fn attention(
        &self,
        keys: &Self,
        values: &Self,
        biases: &[&Self],
        scale: Option<f64>,
        causal: bool,
    ) -> Result<Self> {
        Self::apply(Attention { scale, causal }, &[&[self, keys, values], biases].concat())
    }

    /// Interpolates (N, C, spatial...) to (N, C, size...).
    ///
    /// # Errors
    /// When `size` doesn't have one size of at least 1 for each of one to three spatial axes.
    fn interpolate(&self, size: &[usize], mode: Interpolation) -> Result<Self> {
        Self::apply(Interpolate { size: size.to_vec(), mode }, &[self])
    }

    /// Adaptive average pooling of (N, C, spatial...) to `output` positions along each spatial axis.
    ///
    /// # Errors
    /// When `output` doesn't have one size for each spatial axis.
    fn adaptive_average_pool(&self, output: &[usize]) -> Result<Self> {
        Self::apply(AdaptiveAveragePool { output: output.to_vec() }, &[self])
    }

    /// Adaptive max pooling of (N, C, spatial...) to `output` positions along each spatial axis.
    ///
    /// # Errors
    /// As [`adaptive_average_pool`](Self::adaptive_average_pool).
    fn adaptive_max_pool(&self, output: &[usize]) -> Result<Self> {
        Self::apply(AdaptiveMaxPool { output: output.to_vec() }, &[self])
    }

    /// The recurrence of Mamba; see [`SelectiveScan`].
    ///
    /// # Errors
    /// When shapes don't fit, or dtypes differ.
    fn selective_scan(inputs: ScanInputs<'_, Self>) -> Result<Self> {
        let ScanInputs { u, delta, a, b, c, skip, gate, delta_bias, delta_softplus } = inputs;
        let scan = SelectiveScan {
            skip: skip.is_some(),
            gate: gate.is_some(),
            delta_bias: delta_bias.is_some(),
            delta_softplus,
        };
        let all = [u, delta, a, b, c].into_iter().chain([skip, gate, delta_bias].into_iter().flatten());
        Self::apply(scan, &all.collect::<Vec<_>>())
    }
}

impl<T: Operand> Networks for T {}
