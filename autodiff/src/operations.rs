//! The built-in operations as methods of [`Var`].

use tomograd_core::{DType, Result};
use tomograd_kernels::{
    cast::Cast,
    elementwise::{BinaryFunction, Chain, Function},
    reduce::{Combine, Reduce},
    view::View,
};

use crate::Var;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident => $function:expr;)*) => {
        impl Var {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// When the dtype isn't floating point, or memory runs out.
            pub fn $name(&self) -> Result<Var> {
                Var::apply(Chain::unary($function), &[self])
            }
        )*}
    };
}

unary! {
    /// −x.
    neg => Function::Neg;
    /// |x|.
    abs => Function::Abs;
    /// eˣ.
    exp => Function::Exp;
    /// The natural logarithm.
    log => Function::Log;
    /// √x.
    sqrt => Function::Sqrt;
    /// x².
    square => Function::Square;
    /// max(x, 0).
    relu => Function::Relu;
    /// 1 / (1 + e⁻ˣ).
    sigmoid => Function::Sigmoid;
    /// The hyperbolic tangent.
    tanh => Function::Tanh;
    /// x · Φ(x), Φ being the normal distribution function (Hendrycks and Gimpel 2016).
    gelu => Function::Gelu;
    /// x · sigmoid(x).
    silu => Function::Silu;
    /// log(1 + eˣ).
    softplus => Function::Softplus;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident => $function:expr;)*) => {
        impl Var {$(
            $(#[$doc])*
            ///
            /// Sizes of 1 and missing leading axes are broadcast.
            ///
            /// # Errors
            /// When shapes don't broadcast, dtypes differ, the variables are of two passes, or memory runs out.
            pub fn $name(&self, other: &Var) -> Result<Var> {
                Var::apply(Chain::binary($function), &[self, other])
            }
        )*}
    };
}

impl Var {
    /// x for x > 0, slope · x otherwise.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn leaky_relu(&self, slope: f64) -> Result<Var> {
        Var::apply(Chain::unary(Function::LeakyRelu(slope)), &[self])
    }

    /// x + number.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn add_scalar(&self, number: f64) -> Result<Var> {
        Var::apply(Chain::unary(Function::Add(number)), &[self])
    }

    /// x · number.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn mul_scalar(&self, number: f64) -> Result<Var> {
        Var::apply(Chain::unary(Function::Multiply(number)), &[self])
    }

    fn reduce(&self, combine: Combine, axes: Vec<usize>, keep_axes: bool) -> Result<Var> {
        Var::apply(Reduce { combine, axes, keep_axes }, &[self])
    }

    /// The sum of all elements, a tensor of rank 0.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn sum(&self) -> Result<Var> {
        self.reduce(Combine::Sum, (0..self.rank()).collect(), false)
    }

    /// The mean of all elements, a tensor of rank 0.
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn mean(&self) -> Result<Var> {
        self.reduce(Combine::Mean, (0..self.rank()).collect(), false)
    }

    /// The sum over `axes`, which stay with size 1.
    ///
    /// # Errors
    /// When an axis is beyond the rank or named twice, the dtype isn't floating point, or memory runs out.
    pub fn sum_axes(&self, axes: &[usize]) -> Result<Var> {
        self.reduce(Combine::Sum, axes.to_vec(), true)
    }

    /// The mean over all axes but the first two, which stay with size 1: (N, C, 1, ...).
    ///
    /// # Errors
    /// When the dtype isn't floating point, or memory runs out.
    pub fn mean_spatial(&self) -> Result<Var> {
        self.reduce(Combine::Mean, (2..self.rank()).collect(), true)
    }

    /// The axes in the order of `axes`, without a copy.
    ///
    /// # Errors
    /// When `axes` isn't a permutation of all axes.
    pub fn permute(&self, axes: &[usize]) -> Result<Var> {
        Var::apply(View::Permute(axes.to_vec()), &[self])
    }

    /// Axes `first` and `second` exchanged, without a copy.
    ///
    /// # Errors
    /// When an axis is beyond the rank.
    pub fn transpose(&self, first: usize, second: usize) -> Result<Var> {
        let mut axes: Vec<usize> = (0..self.rank().max(first + 1).max(second + 1)).collect();
        axes.swap(first, second);
        self.permute(&axes)
    }

    /// `length` elements of `axis` from `start` in steps of `step`, without a copy.
    ///
    /// # Errors
    /// When they leave the axis, or the step is 0.
    pub fn slice(&self, axis: usize, start: usize, length: usize, step: usize) -> Result<Var> {
        Var::apply(View::Slice { axis, start, length, step }, &[self])
    }

    /// Elements `start..start + length` of `axis`, without a copy.
    ///
    /// # Errors
    /// When they leave the axis.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Var> {
        self.slice(axis, start, length, 1)
    }

    /// The same elements in row-major order as another shape.
    ///
    /// # Errors
    /// When the number of elements differs, or memory runs out.
    pub fn reshape(&self, shape: &[usize]) -> Result<Var> {
        Var::apply(View::Reshape(shape.to_vec()), &[self])
    }

    /// Axes of size 1, and new leading axes, repeated to `shape`, without a copy.
    ///
    /// # Errors
    /// When an axis that isn't 1 would change.
    pub fn expand(&self, shape: &[usize]) -> Result<Var> {
        Var::apply(View::Expand(shape.to_vec()), &[self])
    }

    /// The values in another dtype.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn cast(&self, dtype: DType) -> Result<Var> {
        if dtype == self.dtype() { Ok(self.clone()) } else { Var::apply(Cast(dtype), &[self]) }
    }
}

binary! {
    /// x + y.
    add => BinaryFunction::Add;
    /// x − y.
    sub => BinaryFunction::Sub;
    /// x · y, element by element.
    mul => BinaryFunction::Mul;
    /// x / y.
    div => BinaryFunction::Div;
    /// The larger of both.
    max => BinaryFunction::Max;
    /// The smaller of both.
    min => BinaryFunction::Min;
}
