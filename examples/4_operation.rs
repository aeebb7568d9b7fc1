//! Fourth job: an operation of one's own with its own backward run, checked against differences.
//!
//!     cargo run --release --example 4_operation

use tomograd::{
    kernels::{
        Context, Forward, Meta, Op, Saved, check,
        elementwise::{BinaryFunction, Chain, Function, Step},
        run,
    },
    prelude::*,
};

/// x / √(1 + x²), the inverse square root unit (Carlile et al. 2017): like tanh, of simple arithmetic.
#[derive(Debug, Clone)]
struct Isru;

/// (1 + x²)^power · factor.
fn scaled(power: f64, x: &Tensor, factor: &Tensor, context: &Context) -> Result<Tensor> {
    let unary = Step::Unary;
    let chain = Chain::unary(Function::Square).then(unary(Function::Add(1.0))).then(unary(Function::Power(power)));
    Ok(run(&chain.then(Step::Binary(BinaryFunction::Mul, 1)), &[x, factor], context)?.outputs.remove(0))
}

impl Op for Isru {
    fn name(&self) -> &'static str {
        "isru"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("isru", inputs, 1, 1)?;
        Ok(inputs.to_vec())
    }

    fn forward_cpu(&self, context: &Context, x: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(scaled(-0.5, x[0], x[0], context)?))
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        dy: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        dy.iter().map(|dy| dy.as_ref().map(|dy| scaled(-1.5, saved.input(0)?, dy, context)).transpose()).collect()
    }
}

fn main() -> Result<()> {
    let x = Tensor::normal(&[3, 4], 0.0, 1.0, Seed::new(1), DType::F64, Device::Cpu)?;
    gradcheck::operation(Isru, std::slice::from_ref(&x))?;
    let tape = Tape::recording(Context::default());
    println!("{:?}", Var::apply(Isru, &[&tape.leaf(x)?])?.value().to_vec::<f64>()?);
    Ok(())
}
