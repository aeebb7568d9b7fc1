//! Elementwise functions of one number.

use tomograd_core::{DType, Result};

use super::Operand;
use crate::{
    cast::Cast,
    elementwise::{Chain, Function},
};

/// Defines the methods of functions without parameters.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident => $function:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the dtype isn't floating point.
        fn $name(&self) -> Result<Self> {
            Self::apply(Chain::unary(Function::$function), &[self])
        }
    )*};
}

/// Functions of one number, applied elementwise. NaN gives NaN. Their derivatives are those of [`Function`].
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::methods::*;
/// let x = Tensor::from_slice(&[-1.0f32, 0.0, 4.0], &[3], Device::Cpu)?;
/// assert_eq!(x.relu()?.sqrt()?.to_vec::<f32>()?, [0.0, 0.0, 2.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Elementwise: Operand {
    functions! {
        /// −x.
        neg => Neg;
        /// |x|.
        abs => Abs;
        /// eˣ.
        exp => Exp;
        /// The natural logarithm.
        log => Log;
        /// √x.
        sqrt => Sqrt;
        /// x².
        square => Square;
        /// 1 / x.
        reciprocal => Reciprocal;
        /// max(x, 0).
        relu => Relu;
        /// 1 / (1 + e⁻ˣ).
        sigmoid => Sigmoid;
        /// The hyperbolic tangent.
        tanh => Tanh;
        /// x · Φ(x), Φ being the normal distribution function (Hendrycks and Gimpel 2016).
        gelu => Gelu;
        /// The approximation of [`gelu`](Self::gelu) by a hyperbolic tangent.
        gelu_tanh => GeluTanh;
        /// x · sigmoid(x).
        silu => Silu;
        /// log(1 + eˣ).
        softplus => Softplus;
        /// x · tanh(softplus(x)) (Misra 2019).
        mish => Mish;
        /// x · min(max(x + 3, 0), 6) / 6.
        hardswish => Hardswish;
    }

    /// x for x > 0, slope · x otherwise.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or the slope is NaN.
    fn leaky_relu(&self, slope: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::LeakyRelu(slope)), &[self])
    }

    /// x for x > 0, α (eˣ − 1) otherwise (Clevert et al. 2015).
    ///
    /// # Errors
    /// When the dtype isn't floating point, or α is NaN.
    fn elu(&self, alpha: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::Elu(alpha)), &[self])
    }

    /// x, limited to the range between two bounds; the gradient is 0 outside of it.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// use tomograd_kernels::methods::*;
    ///
    /// let x = Tensor::from_slice(&[-2.0f32, 0.5, 2.0], &[3], Device::Cpu)?;
    /// assert_eq!(x.clamp(0.0, 1.0)?.to_vec::<f32>()?, [0.0, 0.5, 1.0]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the dtype isn't floating point, a bound is NaN, or the bounds are in the wrong order.
    fn clamp(&self, low: f64, high: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::Clamp(low, high)), &[self])
    }

    /// x to the power of a number. NaN if x is negative and the exponent isn't an integer from −64 to 64.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or the exponent is NaN.
    fn pow(&self, exponent: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::Power(exponent)), &[self])
    }

    /// x + number.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or the number is NaN.
    fn add_scalar(&self, number: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::Add(number)), &[self])
    }

    /// x · number.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or the number is NaN.
    fn mul_scalar(&self, number: f64) -> Result<Self> {
        Self::apply(Chain::unary(Function::Multiply(number)), &[self])
    }

    /// The values in another dtype (see [`Cast`]); the operand itself if it has that dtype already.
    ///
    /// # Errors
    /// When memory runs out.
    fn cast(&self, dtype: DType) -> Result<Self> {
        if dtype == self.dtype() { Ok(self.clone()) } else { Self::apply(Cast(dtype), &[self]) }
    }
}

impl<T: Operand> Elementwise for T {}
