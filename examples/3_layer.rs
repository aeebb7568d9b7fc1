//! Third task: a custom layer, with gradient checks, trained in a network.
//!
//!     cargo run --release --example 3_layer

use tomograd::prelude::*;

/// Squeeze and excitation (Hu et al. 2018): scales channels by weights computed from the whole image.
struct SqueezeExcite {
    reduce: Conv,
    expand: Conv,
}

impl SqueezeExcite {
    fn new(mut scope: Scope, channels: usize) -> Result<Self> {
        let reduce = Conv::new(scope.at("fc1"), channels, channels / 2, [1, 1])?;
        Ok(Self { reduce, expand: Conv::new(scope.at("fc2"), channels / 2, channels, [1, 1])? })
    }
}

impl Module for SqueezeExcite {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let gate = self.reduce.forward(&x.mean_spatial()?, pass)?.relu()?;
        x.mul(&self.expand.forward(&gate, pass)?.sigmoid()?)
    }
}

fn main() -> Result<()> {
    let image = Tensor::normal(&[2, 4, 5, 6], 0.0, 1.0, Seed::new(1), DType::F64, Device::Cpu)?;
    gradcheck::module(|scope| SqueezeExcite::new(scope, 4), &image)?;

    let mut params = Params::new(Device::Cpu, Seed::new(2)).with_dtype(DType::F64);
    let mut scope = params.root();
    let net = Sequential::new()
        .then(Conv::new(scope.at("stem"), 4, 8, Kernel::d2(3).padding(1))?)
        .then(Activation::Relu)
        .then(SqueezeExcite::new(scope.at("attention"), 8)?)
        .then(Conv::new(scope.at("head"), 8, 4, [1, 1])?);
    let mut optimizer = AdamW::new(&params, 1e-2)?;
    for step in 0..20 {
        let pass = Pass::train(&params, Seed::new(3).at(step))?;
        let x = pass.input(&image);
        let loss = losses::mean_squared_error(&net.forward(&x, &pass)?, &x)?;
        println!("step {step:>2}  loss {:.4}", loss.value().to_scalar()?);
        optimizer.step(&mut params, pass.backward(loss)?)?;
    }
    Ok(())
}
