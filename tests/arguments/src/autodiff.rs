//! Cases of `tomograd-autodiff`.

use tomograd::{
    autodiff::{Var, gradcheck, methods::*},
    core::{DType, Device, Error, Result, Seed, Tensor},
};

use proptest::{prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};

use crate::walk::cases;

fn values(shape: &[usize]) -> Result<Tensor> {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F32, Device::Cpu)
}

/// A value of a strategy.
fn one(strategy: impl Strategy<Value = Tensor>) -> Result<Tensor> {
    let tree = strategy.new_tree(&mut TestRunner::deterministic());
    tree.map(|tree| tree.current()).map_err(|reason| Error::argument("test", reason.to_string()))
}

cases! {
    "autodiff::gradcheck::check_with": (
        step: f64 = 1e-5,
        tolerance: f64 = 1e-6,
        elementwise: usize = 32,
        directions: u64 = 4,
    ) => {
        let options = gradcheck::Options { step, tolerance, elementwise, directions, seed: Seed::new(1) };
        let wrong = |vars: &[Var]| vars[0].detach().mul(&vars[0]);
        let x = [values(&[3])?];
        // A check must accept the right gradient and reject the wrong one, unless the tolerance is huge.
        gradcheck::check_with(|vars| vars[0].square(), &x, options)?;
        Ok::<_, Error>(gradcheck::check_with(wrong, &x, options).is_err() || tolerance > 1e6)
    };
    "autodiff::gradcheck::check_with": (directions: u64 = 4) => {
        // A small input is checked element by element, whatever the number of directions.
        let options = gradcheck::Options { directions, ..gradcheck::Options::default() };
        gradcheck::check_with(|vars| vars[0].square(), &[values(&[3])?], options).map(|()| true)
    };
    "autodiff::gradcheck::tensors": (shape: Vec<usize> = vec![2, 3]) => {
        Ok::<_, Error>(one(gradcheck::tensors(shape.clone()))?.shape() == shape)
    };
    "autodiff::gradcheck::images": (first: usize = 1, last: usize = 3) => {
        let image = one(gradcheck::images(first..=last))?;
        Ok::<_, Error>((first..=last.max(first)).contains(&(image.rank() - 2)))
    };
    "autodiff::gradcheck::images_of": (first: usize = 1, last: usize = 3, least: usize = 1, most: usize = 4) => {
        let image = one(gradcheck::images_of(first..=last, least..=most))?;
        Ok::<_, Error>((least..=most.max(least)).contains(&image.shape()[1]))
    };
}
