//! The functions of one and two numbers that are the steps of chains.

use tomograd_core::{Element, Error, Result};

use crate::simd::{Vector, math};

/// A function of one number, applied elementwise. NaN gives NaN, except for the power 0.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::{Context, elementwise::{Chain, Function}, run};
/// let x = Tensor::from_slice(&[-2.0f32, 3.0], &[2], Device::Cpu)?;
/// let leaky = Chain::unary(Function::LeakyRelu(0.5));
/// assert_eq!(run(&leaky, &[&x], &Context::default())?.outputs[0].to_vec::<f32>()?, [-1.0, 3.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
    /// −x.
    Neg,
    /// |x|.
    Abs,
    /// eˣ.
    Exp,
    /// The natural logarithm.
    Log,
    /// √x.
    Sqrt,
    /// x².
    Square,
    /// 1 / x.
    Reciprocal,
    /// max(x, 0).
    Relu,
    /// x for x > 0, slope · x otherwise.
    LeakyRelu(f64),
    /// x for x > 0, α (eˣ − 1) otherwise (Clevert et al. 2015).
    Elu(f64),
    /// x · Φ(x) (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU, approximated with a hyperbolic tangent.
    GeluTanh,
    /// x · sigmoid(x).
    Silu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// log(1 + eˣ).
    Softplus,
    /// x · tanh(softplus(x)) (Misra 2019).
    Mish,
    /// x · min(max(x + 3, 0), 6) / 6.
    Hardswish,
    /// x + number.
    Add(f64),
    /// x · number.
    Multiply(f64),
    /// x, limited to the range between two bounds.
    Clamp(f64, f64),
    /// x to the power of a number: by repeated squaring for an integer from −64 to 64, otherwise as exp(number · log x),
    /// which is NaN for negative x.
    Power(f64),
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const GELU_CUBIC: f64 = 0.044_715;

#[inline(always)]
fn splat<V: Vector>(value: f64) -> V {
    V::splat(V::Elem::from_f64(value))
}

impl Function {
    /// The name of the method.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Function::Neg => "neg",
            Function::Abs => "abs",
            Function::Exp => "exp",
            Function::Log => "log",
            Function::Sqrt => "sqrt",
            Function::Square => "square",
            Function::Reciprocal => "reciprocal",
            Function::Relu => "relu",
            Function::LeakyRelu(_) => "leaky_relu",
            Function::Elu(_) => "elu",
            Function::Gelu => "gelu",
            Function::GeluTanh => "gelu_tanh",
            Function::Silu => "silu",
            Function::Sigmoid => "sigmoid",
            Function::Tanh => "tanh",
            Function::Softplus => "softplus",
            Function::Mish => "mish",
            Function::Hardswish => "hardswish",
            Function::Add(_) => "add_scalar",
            Function::Multiply(_) => "mul_scalar",
            Function::Clamp(..) => "clamp",
            Function::Power(_) => "pow",
        }
    }

    /// Checks that the function's numbers aren't NaN, which would make every element NaN; infinities are allowed.
    ///
    /// # Errors
    /// When a number is NaN, or the bounds of [`Clamp`](Function::Clamp) are in the wrong order.
    pub(crate) fn check(self, operation: &str) -> Result<()> {
        let sound = match self {
            Function::LeakyRelu(number)
            | Function::Elu(number)
            | Function::Add(number)
            | Function::Multiply(number)
            | Function::Power(number) => !number.is_nan(),
            Function::Clamp(low, high) => low <= high,
            _ => true,
        };
        if sound {
            return Ok(());
        }
        Err(Error::argument(operation, format!("{self:?}")).expected("numbers, the lower bound first"))
    }

    /// f(x).
    #[inline(always)]
    pub fn value<V: Vector>(self, x: V) -> V {
        if V::CALLS { called(|x| self.inlined_value(x), x) } else { self.inlined_value(x) }
    }

    #[inline(always)]
    fn inlined_value<V: Vector>(self, x: V) -> V {
        let (zero, one) = (V::zero(), splat::<V>(1.0));
        match self {
            Function::Neg => x.neg(),
            Function::Abs => x.abs(),
            Function::Exp => math::exp(x),
            Function::Log => math::ln(x),
            Function::Sqrt => x.sqrt(),
            Function::Square => x.mul(x),
            Function::Reciprocal => one.div(x),
            Function::Relu => zero.max(x),
            Function::LeakyRelu(slope) => V::select(zero.lt(x), x, x.mul(splat(slope))),
            Function::Elu(alpha) => V::select(zero.lt(x), x, math::expm1(x).mul(splat(alpha))),
            Function::Gelu => x.mul(normal_cdf(x)),
            Function::GeluTanh => {
                let half = splat::<V>(0.5);
                x.mul(half).mul(one.add(math::tanh(gelu_argument(x))))
            }
            Function::Silu => x.mul(math::sigmoid(x)),
            Function::Sigmoid => math::sigmoid(x),
            Function::Tanh => math::tanh(x),
            Function::Softplus => math::softplus(x),
            Function::Mish => x.mul(math::tanh(math::softplus(x))),
            Function::Hardswish => {
                let gate = splat::<V>(6.0).min(zero.max(x.add(splat(3.0))));
                x.mul(gate).mul(splat(1.0 / 6.0))
            }
            Function::Add(number) => x.add(splat(number)),
            Function::Multiply(number) => x.mul(splat(number)),
            Function::Clamp(low, high) => splat::<V>(high).min(splat::<V>(low).max(x)),
            Function::Power(number) => power(x, number),
        }
    }

    /// f'(x). At a kink it has the same value as in PyTorch (0 at zero for ReLU and |x|). For functions with kinks it isn't
    /// necessarily NaN at NaN: there the NaN output makes the loss NaN, and so the gradient that arrives here.
    #[inline(always)]
    pub fn derivative<V: Vector>(self, x: V) -> V {
        if V::CALLS { called(|x| self.inlined_derivative(x), x) } else { self.inlined_derivative(x) }
    }

    #[inline(always)]
    fn inlined_derivative<V: Vector>(self, x: V) -> V {
        let (zero, one) = (V::zero(), splat::<V>(1.0));
        match self {
            Function::Neg => splat(-1.0),
            Function::Abs => V::select(zero.lt(x), one, V::select(x.lt(zero), splat(-1.0), zero)),
            Function::Exp => math::exp(x),
            Function::Log => one.div(x),
            Function::Sqrt => splat::<V>(0.5).div(x.sqrt()),
            Function::Square => x.add(x),
            Function::Reciprocal => one.div(x.mul(x)).neg(),
            Function::Relu => V::select(zero.lt(x), one, zero),
            Function::LeakyRelu(slope) => V::select(zero.lt(x), one, splat(slope)),
            Function::Elu(alpha) => V::select(zero.lt(x), one, math::exp(x).mul(splat(alpha))),
            Function::Gelu => {
                // Φ(x) + x φ(x), where φ is the normal density.
                let density = math::exp(x.mul(x).mul(splat(-0.5))).mul(splat(0.398_942_280_401_432_7));
                x.mul_add(density, normal_cdf(x))
            }
            Function::GeluTanh => {
                let (half, t) = (splat::<V>(0.5), math::tanh(gelu_argument(x)));
                let slope = x.mul(x).mul_add(splat(3.0 * GELU_CUBIC), one).mul(splat(SQRT_2_OVER_PI));
                let curve = x.mul(half).mul(one.sub(t.mul(t))).mul(slope);
                half.mul(one.add(t)).add(curve)
            }
            Function::Silu => {
                let gate = math::sigmoid(x);
                gate.mul(x.mul_add(one.sub(gate), one))
            }
            Function::Sigmoid => {
                let gate = math::sigmoid(x);
                gate.mul(one.sub(gate))
            }
            Function::Tanh => {
                let t = math::tanh(x);
                one.sub(t.mul(t))
            }
            Function::Softplus => math::sigmoid(x),
            Function::Mish => {
                let t = math::tanh(math::softplus(x));
                x.mul(math::sigmoid(x)).mul_add(one.sub(t.mul(t)), t)
            }
            Function::Hardswish => {
                let middle = x.mul_add(splat(1.0 / 3.0), splat(0.5));
                V::select(x.le(splat(-3.0)), zero, V::select(x.lt(splat(3.0)), middle, one))
            }
            Function::Add(_) => one,
            Function::Multiply(number) => splat(number),
            Function::Clamp(low, high) => V::select(V::mask_and(splat::<V>(low).le(x), x.le(splat(high))), one, zero),
            Function::Power(0.0) => zero,
            Function::Power(number) => power(x, number - 1.0).mul(splat(number)),
        }
    }
}

/// Calls a function without inlining it, so that the compiler doesn't make a separate loop for it.
#[inline(never)]
fn called<V: Vector>(function: impl Fn(V) -> V, x: V) -> V {
    function(x)
}

/// x to the power of a number.
#[inline(always)]
fn power<V: Vector>(x: V, number: f64) -> V {
    let one = splat::<V>(1.0);
    if number.fract() != 0.0 || number.abs() > 64.0 {
        return math::exp(math::ln(x).mul(splat(number)));
    }
    let (mut result, mut square, mut rest) = (one, x, number.abs() as u32);
    while rest > 0 {
        if rest % 2 == 1 {
            result = result.mul(square);
        }
        square = square.mul(square);
        rest /= 2;
    }
    if number < 0.0 { one.div(result) } else { result }
}

/// The cumulative distribution function Φ of the normal distribution.
#[inline(always)]
fn normal_cdf<V: Vector>(x: V) -> V {
    let half = splat::<V>(0.5);
    math::erf(x.mul(splat(std::f64::consts::FRAC_1_SQRT_2))).mul_add(half, half)
}

#[inline(always)]
fn gelu_argument<V: Vector>(x: V) -> V {
    x.mul(x).mul_add(splat(GELU_CUBIC), splat(1.0)).mul(x).mul(splat(SQRT_2_OVER_PI))
}

/// A function of two numbers, applied elementwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryFunction {
    /// x + y.
    Add,
    /// x − y.
    Sub,
    /// x · y.
    Mul,
    /// x / y.
    Div,
    /// y − x.
    ReverseSub,
    /// y / x.
    ReverseDiv,
    /// The larger number, or NaN if either is; if both are equal, each gets half of the gradient.
    Max,
    /// The smaller number, or NaN if either is; if both are equal, each gets half of the gradient.
    Min,
}

impl BinaryFunction {
    /// The name of the method.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BinaryFunction::Add => "add",
            BinaryFunction::Sub => "sub",
            BinaryFunction::Mul => "mul",
            BinaryFunction::Div => "div",
            BinaryFunction::ReverseSub => "reverse_sub",
            BinaryFunction::ReverseDiv => "reverse_div",
            BinaryFunction::Max => "maximum",
            BinaryFunction::Min => "minimum",
        }
    }

    /// f(x, y).
    #[inline(always)]
    pub fn value<V: Vector>(self, x: V, y: V) -> V {
        match self {
            BinaryFunction::Add => x.add(y),
            BinaryFunction::Sub => x.sub(y),
            BinaryFunction::Mul => x.mul(y),
            BinaryFunction::Div => x.div(y),
            BinaryFunction::ReverseSub => y.sub(x),
            BinaryFunction::ReverseDiv => y.div(x),
            // `max` and `min` return the second operand if either is NaN, so a NaN in y is propagated; `select` propagates
            // one in x.
            BinaryFunction::Max => V::select(x.eq(x), x.max(y), x),
            BinaryFunction::Min => V::select(x.eq(x), x.min(y), x),
        }
    }

    /// ∂f/∂x and ∂f/∂y.
    #[inline(always)]
    pub fn derivatives<V: Vector>(self, x: V, y: V) -> (V, V) {
        let (zero, half, one) = (V::zero(), splat::<V>(0.5), splat::<V>(1.0));
        let larger = |a: V, b: V| V::select(b.lt(a), one, V::select(a.eq(b), half, zero));
        match self {
            BinaryFunction::Add => (one, one),
            BinaryFunction::Sub => (one, one.neg()),
            BinaryFunction::Mul => (y, x),
            BinaryFunction::Div => (one.div(y), x.div(y.mul(y)).neg()),
            BinaryFunction::ReverseSub => (one.neg(), one),
            BinaryFunction::ReverseDiv => (y.div(x.mul(x)).neg(), one.div(x)),
            BinaryFunction::Max => (larger(x, y), larger(y, x)),
            BinaryFunction::Min => (larger(y, x), larger(x, y)),
        }
    }
}
