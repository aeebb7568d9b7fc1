//! Reference: element by element, with the standard library's functions.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use tomograd_core::{Result, Tensor, broadcast_shapes};

use super::{BinaryFunction, Chain, Function, Step};

/// erf(x) = 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (1·3·5···(2n+1)): all terms have the same sign.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// The larger number; NaN if either is (the standard library's `max` would return the other number).
pub(crate) fn larger(x: f64, y: f64) -> f64 {
    if x.is_nan() || x > y { x } else { y }
}

fn unary(function: Function, x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    let softplus = if x == f64::INFINITY {
        x
    } else if x > 0.0 {
        x + (-x).exp().ln_1p()
    } else {
        x.exp().ln_1p()
    };
    match function {
        Function::Neg => -x,
        Function::Abs => x.abs(),
        Function::Exp => x.exp(),
        Function::Log => x.ln(),
        Function::Sqrt => x.sqrt(),
        Function::Square => x * x,
        Function::Reciprocal => 1.0 / x,
        Function::Relu => larger(x, 0.0),
        Function::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                slope * x
            }
        }
        Function::Elu(alpha) => {
            if x > 0.0 {
                x
            } else {
                alpha * x.exp_m1()
            }
        }
        Function::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
        Function::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        Function::Silu => x * sigmoid,
        Function::Sigmoid => sigmoid,
        Function::Tanh => x.tanh(),
        Function::Softplus => softplus,
        Function::Mish => x * softplus.tanh(),
        Function::Hardswish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Function::Add(number) => x + number,
        Function::Multiply(number) => x * number,
        Function::Clamp(low, high) => x.clamp(low, high),
        Function::Power(number) => x.powf(number),
    }
}

fn binary(function: BinaryFunction, x: f64, y: f64) -> f64 {
    match function {
        BinaryFunction::Add => x + y,
        BinaryFunction::Sub => x - y,
        BinaryFunction::Mul => x * y,
        BinaryFunction::Div => x / y,
        BinaryFunction::ReverseSub => y - x,
        BinaryFunction::ReverseDiv => y / x,
        BinaryFunction::Max => larger(x, y),
        BinaryFunction::Min => -larger(-x, -y),
    }
}

pub(super) fn chain(chain: &Chain, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
    let shape = broadcast_shapes("chain", &shapes)?;
    let inputs: Vec<Vec<f64>> = inputs.iter().map(|x| x.expand(&shape)?.to_vec::<f64>()).collect::<Result<_>>()?;
    let values: Vec<f64> = (0..shape.iter().product())
        .map(|i| {
            chain.steps.iter().fold(inputs[0][i], |x, step| match *step {
                Step::Unary(function) => unary(function, x),
                Step::Binary(function, k) => binary(function, x, inputs[k][i]),
            })
        })
        .collect();
    Ok(vec![Tensor::from_slice(&values, &shape, tomograd_core::Device::Cpu)?])
}
