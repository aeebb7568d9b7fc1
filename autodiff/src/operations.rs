//! The built-in operations as methods of [`Var`].

use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_kernels::{
    attention::Attention,
    cast::Cast,
    elementwise::{BinaryFunction, Chain, Function},
    index::{Concat, Gather, IndexSelect, Pad, PadMode},
    matmul::Matmul,
    pool::{AdaptiveAveragePool, AdaptiveMaxPool},
    reduce::{Combine, Reduce},
    resample::{Interpolate, Interpolation},
    scan::SelectiveScan,
    softmax::{LogSoftmax, Softmax},
    view::View,
};

use crate::Var;

/// The inputs of [`Var::selective_scan`].
#[derive(Debug, Clone, Copy)]
pub struct ScanInputs<'a> {
    /// What is scanned (B, D, L).
    pub u: &'a Var,
    /// The step sizes (B, D, L).
    pub delta: &'a Var,
    /// The rates of the states (D, N); negative ones decay.
    pub a: &'a Var,
    /// How u enters the states (B, G, N, L), or (B, N, L).
    pub b: &'a Var,
    /// How the states enter the output, like b.
    pub c: &'a Var,
    /// The factor of u in the output (D).
    pub skip: Option<&'a Var>,
    /// What the output is multiplied with, through silu (B, D, L).
    pub gate: Option<&'a Var>,
    /// What is added to delta (D).
    pub delta_bias: Option<&'a Var>,
    /// Whether the step sizes are softplus of all that.
    pub delta_softplus: bool,
}

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

    /// exp(x_i) / Σ_j exp(x_j) along `axis`, without overflow.
    ///
    /// ```
    /// use tomograd_autodiff::Tape;
    /// use tomograd_core::{Device, Tensor};
    ///
    /// let tape = Tape::off(Default::default());
    /// let x = tape.constant(Tensor::from_slice(&[0.0f64, 3.0f64.ln()], &[2], Device::Cpu)?);
    /// let y = x.softmax(0)?.value().to_vec::<f64>()?;
    /// assert!((y[0] - 0.25).abs() < 1e-12 && (y[1] - 0.75).abs() < 1e-12);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the axis is beyond the rank, the dtype isn't floating point, or memory runs out.
    pub fn softmax(&self, axis: usize) -> Result<Var> {
        Var::apply(Softmax { axis }, &[self])
    }

    /// The logarithm of [`softmax`](Self::softmax).
    ///
    /// # Errors
    /// As softmax.
    pub fn log_softmax(&self, axis: usize) -> Result<Var> {
        Var::apply(LogSoftmax { axis }, &[self])
    }

    /// The matrix product of (..., m, k) and (..., k, n); leading axes are broadcast.
    ///
    /// # Errors
    /// When shapes don't fit, dtypes differ, the variables are of two passes, or memory runs out.
    pub fn matmul(&self, other: &Var) -> Result<Var> {
        Var::apply(Matmul, &[self, other])
    }

    /// softmax(scale · self · keysᵀ + biases) · values, self being the queries (..., L, E), keys (..., S, E), values
    /// (..., S, V), and each of up to three biases broadcast to (..., L, S); 1/√E without a scale. When `causal`, query i sees
    /// the keys j ≤ i only. A query that sees no key gives zeros. See [`Attention`].
    ///
    /// # Errors
    /// When shapes don't fit, dtypes differ, the variables are of two passes, or memory runs out.
    pub fn attention(
        &self,
        keys: &Var,
        values: &Var,
        biases: &[&Var],
        scale: Option<f64>,
        causal: bool,
    ) -> Result<Var> {
        Var::apply(Attention { scale, causal }, &[&[self, keys, values], biases].concat())
    }

    /// Variables one after the other along `axis`.
    ///
    /// # Errors
    /// When there is none, their shapes differ along another axis, dtypes differ, they are of two passes, or memory runs out.
    pub fn concat(parts: &[&Var], axis: usize) -> Result<Var> {
        Var::apply(Concat { axis }, parts)
    }

    /// Parts of the given sizes along `axis`, without a copy: the reverse of [`concat`](Self::concat).
    ///
    /// # Errors
    /// When the axis is beyond the rank, or the sizes don't add up to its own.
    pub fn split(&self, sizes: &[usize], axis: usize) -> Result<Vec<Var>> {
        let whole = self.shape().get(axis).copied();
        if whole.is_none_or(|whole| sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(whole)) {
            return Err(Error::shape("split", format!("parts of {sizes:?} along axis {axis}"))
                .shapes([self.shape()])
                .expected("sizes that add up to the axis"));
        }
        let starts = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
        starts.zip(sizes).map(|(start, &size)| self.narrow(axis, start, size)).collect()
    }

    /// A border of `before[a]` elements in front of axis `a` and `after[a]` behind.
    ///
    /// # Errors
    /// When there isn't one number for each axis, a reflected border isn't narrower than its axis, or memory runs out.
    pub fn pad(&self, before: &[usize], after: &[usize], mode: PadMode) -> Result<Var> {
        Var::apply(Pad { before: before.to_vec(), after: after.to_vec(), mode }, &[self])
    }

    /// `y[.., i, ..] = x[.., index[.., i, ..], ..]` along `axis`; `index` is an i64 tensor of x's shape but along the axis.
    ///
    /// # Errors
    /// When an index is outside of the axis, shapes don't fit, or memory runs out.
    pub fn gather(&self, axis: usize, index: &Tensor) -> Result<Var> {
        Var::apply(Gather { axis }, &[self, &self.tape().constant(index.clone())])
    }

    /// `y[.., i, ..] = x[.., index[i], ..]` along `axis`; `index` is an i64 tensor of rank 1.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn index_select(&self, axis: usize, index: &Tensor) -> Result<Var> {
        Var::apply(IndexSelect { axis }, &[self, &self.tape().constant(index.clone())])
    }

    /// (N, C, spatial...) interpolated to (N, C, size...).
    ///
    /// # Errors
    /// When `size` isn't one to three sizes of at least 1, one for each spatial axis, or memory runs out.
    pub fn interpolate(&self, size: &[usize], mode: Interpolation) -> Result<Var> {
        Var::apply(Interpolate { size: size.to_vec(), mode }, &[self])
    }

    /// The means of `output` shares of (N, C, spatial...).
    ///
    /// # Errors
    /// When `output` isn't one size for each spatial axis, or memory runs out.
    pub fn adaptive_average_pool(&self, output: &[usize]) -> Result<Var> {
        Var::apply(AdaptiveAveragePool { output: output.to_vec() }, &[self])
    }

    /// The maxima of `output` shares of (N, C, spatial...).
    ///
    /// # Errors
    /// As [`adaptive_average_pool`](Self::adaptive_average_pool).
    pub fn adaptive_max_pool(&self, output: &[usize]) -> Result<Var> {
        Var::apply(AdaptiveMaxPool { output: output.to_vec() }, &[self])
    }

    /// The recurrence of Mamba; see [`SelectiveScan`].
    ///
    /// # Errors
    /// When shapes don't fit, dtypes differ, the variables are of two passes, or memory runs out.
    pub fn selective_scan(inputs: ScanInputs<'_>) -> Result<Var> {
        let ScanInputs { u, delta, a, b, c, skip, gate, delta_bias, delta_softplus } = inputs;
        let scan = SelectiveScan {
            skip: skip.is_some(),
            gate: gate.is_some(),
            delta_bias: delta_bias.is_some(),
            delta_softplus,
        };
        let all = [u, delta, a, b, c].into_iter().chain([skip, gate, delta_bias].into_iter().flatten());
        Var::apply(scan, &all.collect::<Vec<_>>())
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
        let rank = self.rank();
        if let Some(axis) = [first, second].into_iter().find(|&axis| axis >= rank) {
            return Err(Error::argument("transpose", format!("axis {axis} of {rank}"))
                .expected("an axis below the rank")
                .shapes([self.shape()]));
        }
        let mut axes: Vec<usize> = (0..rank).collect();
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
