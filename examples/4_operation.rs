//! Fourth task: a custom operation with its own backward pass, checked against finite differences.
//!
//!     cargo run --release --example 4_operation

use tomograd::prelude::*;

/// x / √(1 + x²), the inverse square root unit (Carlile et al. 2017): similar to tanh, but cheap to compute. Its derivative
/// is (1 + x²)^(−3/2).
fn isru(x: &Var) -> Result<Var> {
    let power = |x: &Tensor, exponent| x.square()?.add(1.0)?.pow(exponent);
    Var::custom(&[x], move |x| x[0].mul(&power(&x[0], -0.5)?), move |x, _, dy| Ok(vec![dy.mul(&power(&x[0], -1.5)?)?]))
}

fn main() -> Result<()> {
    let x = Tensor::normal(&[3, 4], 0.0, 1.0, Seed::new(1), DType::F64, Device::Cpu)?;
    gradcheck::check(|vars| isru(&vars[0]), std::slice::from_ref(&x))?;
    println!("{}", isru(&Tape::recording(Default::default()).leaf(x)?)?);
    Ok(())
}
