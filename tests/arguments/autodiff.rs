//! Cases of `tomograd-autodiff`.

use tomograd::{
    autodiff::{Tape, Var, gradcheck},
    core::{DType, Device, Error, Result, Seed, Tensor},
    kernels::{index::PadMode, resample::Interpolation},
};

use proptest::{prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};

use crate::walk::cases;

fn values(shape: &[usize]) -> Result<Tensor> {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F32, Device::Cpu)
}

fn labels(values: &[i64], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, Device::Cpu)
}

fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec_f64()?.iter().all(|x| x.is_finite()))
}

/// Whether what `function` makes of numbers of `shape` is of `expected`, and finite, as is the gradient of its sum.
fn gives(shape: &[usize], expected: &[usize], function: impl Fn(&Var) -> Result<Var>) -> Result<bool> {
    let tape = Tape::recording(Default::default());
    let x = tape.leaf(values(shape)?)?;
    let y = function(&x)?;
    let right = y.shape() == expected && finite(y.value())?;
    let gradients = tape.backward(&y.sum()?)?;
    Ok(right && gradients.get(&x).map_or(Ok(true), finite)?)
}

/// One value of a strategy.
fn one(strategy: impl Strategy<Value = Tensor>) -> Result<Tensor> {
    let tree = strategy.new_tree(&mut TestRunner::deterministic());
    tree.map(|tree| tree.current()).map_err(|reason| Error::argument("test", reason.to_string()))
}

/// A shape with the size of one axis replaced, if there is such an axis.
fn replaced(shape: &[usize], axis: usize, size: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(old) = shape.get_mut(axis) {
        *old = size;
    }
    shape
}

cases! {
    "autodiff::Var::adaptive_average_pool": (output: Vec<usize> = vec![2, 3]) => {
        gives(&[1, 2, 5, 6], &[&[1, 2], &output[..]].concat(), |x| x.adaptive_average_pool(&output))
    };
    "autodiff::Var::adaptive_max_pool": (output: Vec<usize> = vec![2, 3]) => {
        gives(&[1, 2, 5, 6], &[&[1, 2], &output[..]].concat(), |x| x.adaptive_max_pool(&output))
    };
    "autodiff::Var::add_scalar": (number: f64 = 0.5) => {
        // What isn't finite in f32 stays so in a sum.
        Ok::<_, Error>(gives(&[3], &[3], |x| x.add_scalar(number))? || number.abs() > 1e37)
    };
    "autodiff::Var::mul_scalar": (number: f64 = 0.5) => {
        Ok::<_, Error>(gives(&[3], &[3], |x| x.mul_scalar(number))? || number.abs() > 1e37)
    };
    "autodiff::Var::leaky_relu": (slope: f64 = 0.5) => {
        Ok::<_, Error>(gives(&[9], &[9], |x| x.leaky_relu(slope))? || slope.abs() > 1e37)
    };
    "autodiff::Var::attention": (scale: Option<f64> = Some(0.5)) => {
        let right = gives(&[2, 3, 4], &[2, 3, 4], |x| x.attention(x, x, &[], scale, false))?;
        // A factor that carries the scores beyond the largest number makes what it makes in arithmetic.
        Ok::<_, Error>(right || scale.is_some_and(|scale| scale.abs() > 1e37))
    };
    "autodiff::Var::concat": (axis: usize = 1) => {
        gives(&[2, 3], &[2, 6], |x| Var::concat(&[x, x], axis)).map(|right| right || axis == 0)
    };
    "autodiff::Var::expand": (shape: Vec<usize> = vec![4, 2, 3]) => gives(&[1, 3], &shape, |x| x.expand(&shape));
    "autodiff::Var::gather": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1, 1]) => {
        if index.len() % 2 == 1 {
            return Err(Error::argument("test", "not whole rows"));
        }
        let shape = [2, index.len() / 2];
        gives(&[2, 3], &shape, |x| x.gather(axis, &labels(&index, &shape)?))
    };
    "autodiff::Var::index_select": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1]) => {
        gives(&[2, 3], &replaced(&[2, 3], axis, index.len()), |x| {
            x.index_select(axis, &labels(&index, &[index.len()])?)
        })
    };
    "autodiff::Var::interpolate": (size: Vec<usize> = vec![3, 9]) => {
        gives(&[1, 2, 5, 6], &[&[1, 2], &size[..]].concat(), |x| x.interpolate(&size, Interpolation::Linear))
    };
    "autodiff::Var::softmax": (axis: usize = 1) => gives(&[2, 3], &[2, 3], |x| x.softmax(axis));
    "autodiff::Var::log_softmax": (axis: usize = 1) => gives(&[2, 3], &[2, 3], |x| x.log_softmax(axis));
    "autodiff::Var::narrow": (axis: usize = 1, start: usize = 1, length: usize = 2) => {
        gives(&[3, 4], &replaced(&[3, 4], axis, length), |x| x.narrow(axis, start, length))
    };
    "autodiff::Var::slice": (
        axis: usize = 1,
        start: usize = 1,
        length: usize = 2,
        step: usize = 2,
    ) => { gives(&[3, 4], &replaced(&[3, 4], axis, length), |x| x.slice(axis, start, length, step)) };
    "autodiff::Var::pad": (before: Vec<usize> = vec![1, 0], after: Vec<usize> = vec![0, 2]) => {
        let grown =
            before.iter().zip(&after).zip([3usize, 4]).map(|((b, a), size)| size.saturating_add(*b).saturating_add(*a));
        gives(&[3, 4], &grown.collect::<Vec<_>>(), |x| x.pad(&before, &after, PadMode::Replicate))
    };
    "autodiff::Var::permute": (axes: Vec<usize> = vec![2, 0, 1]) => {
        let shape: Vec<usize> = axes.iter().filter_map(|&axis| [2, 3, 4].get(axis).copied()).collect();
        gives(&[2, 3, 4], &shape, |x| x.permute(&axes)).map(|right| right && axes.len() == 3)
    };
    "autodiff::Var::transpose": (first: usize = 0, second: usize = 1) => {
        gives(&[2, 3], if first == second { &[2, 3] } else { &[3, 2] }, |x| x.transpose(first, second))
    };
    "autodiff::Var::reshape": (shape: Vec<usize> = vec![4, 3]) => gives(&[2, 6], &shape, |x| x.reshape(&shape));
    "autodiff::Var::split": (sizes: Vec<usize> = vec![1, 3], axis: usize = 1) => {
        gives(&[2, 4], &replaced(&[2, 4], axis, sizes.first().copied().unwrap_or_default()), |x| {
            x.split(&sizes, axis)?.into_iter().next().ok_or_else(|| Error::argument("test", "no parts"))
        })
    };
    "autodiff::Var::sum_axes": (axes: Vec<usize> = vec![0, 2]) => {
        let kept: Vec<usize> = (0..3).map(|axis| if axes.contains(&axis) { 1 } else { [2, 3, 4][axis] }).collect();
        gives(&[2, 3, 4], &kept, |x| x.sum_axes(&axes))
    };
    "autodiff::gradcheck::check_with": (
        step: f64 = 1e-5,
        tolerance: f64 = 1e-6,
        elementwise: usize = 32,
        directions: u64 = 4,
    ) => {
        let options = gradcheck::Options { step, tolerance, elementwise, directions, seed: Seed::new(1) };
        let wrong = |vars: &[Var]| vars[0].detach().mul(&vars[0]);
        let x = [values(&[3])?];
        // A check that passes what is right and doesn't see what is wrong would be none; a huge tolerance asks for that.
        gradcheck::check_with(|vars| vars[0].square(), &x, options)?;
        Ok::<_, Error>(gradcheck::check_with(wrong, &x, options).is_err() || tolerance > 1e6)
    };
    "autodiff::gradcheck::check_with": (directions: u64 = 4) => {
        // Few enough elements are checked one by one, whatever the number of directions.
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
