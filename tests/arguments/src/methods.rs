//! Cases of the methods shared by tensors and variables, each called on both.

use tomograd::{
    autodiff::{Tape, Var, methods::*},
    core::{DType, Device, Error, Result, Seed, Tensor},
    kernels::{index::PadMode, resample::Interpolation},
};

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

/// Whether `function` of values of `shape` has the shape `expected` and is finite, and so is the gradient of its sum.
fn of_variables(shape: &[usize], expected: &[usize], function: impl Fn(&Var) -> Result<Var>) -> Result<bool> {
    let tape = Tape::recording(Default::default());
    let x = tape.leaf(values(shape)?)?;
    let y = function(&x)?;
    let right = y.shape() == expected && finite(y.value())?;
    let gradients = tape.backward(&y.sum(..)?)?;
    Ok(right && gradients.get(&x).map_or(Ok(true), finite)?)
}

fn of_tensors(shape: &[usize], expected: &[usize], function: impl Fn(&Tensor) -> Result<Tensor>) -> Result<bool> {
    let y = function(&values(shape)?)?;
    Ok(y.shape() == expected && finite(&y)?)
}

/// Whether an expression of x of a shape has the expected shape and finite values, where x is a tensor and a variable (`Of`).
macro_rules! gives {
    ($shape:expr, $expected:expr, |$x:ident| $body:expr) => {{
        let (shape, expected) = (&$shape[..], &$expected[..]);
        let tensors = of_tensors(shape, expected, |$x| {
            #[allow(dead_code)]
            type Of = Tensor;
            $body
        });
        let variables = of_variables(shape, expected, |$x| {
            #[allow(dead_code)]
            type Of = Var;
            $body
        });
        match (tensors, variables) {
            (Ok(tensors), Ok(variables)) => Ok(tensors && variables),
            (Err(error), Err(_)) => Err(error),
            // Tensors and variables disagree.
            _ => Ok(false),
        }
    }};
}

/// Very large or small numbers may overflow f32, as in plain arithmetic.
fn unless_huge(right: Result<bool>, number: f64) -> Result<bool> {
    Ok(right? || number.abs() > 1e18 || number != 0.0 && number.abs() < 1e-18)
}

/// The shape with the size of one axis replaced, if the axis exists.
fn replaced(shape: &[usize], axis: usize, size: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(old) = shape.get_mut(axis) {
        *old = size;
    }
    shape
}

/// The shape without these axes.
fn without(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect()
}

/// The shape with `size` inserted at `axis`, which is at most its rank.
fn grown(shape: &[usize], axis: usize, size: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    shape.insert(axis.min(shape.len()), size);
    shape
}

/// Whether a comparison method agrees with its definition on −2, 0, 0.5 and 3.
fn holds(method: impl Fn(&Tensor) -> Result<Tensor>, relation: impl Fn(f64) -> bool) -> Result<bool> {
    let values = [-2.0f64, 0.0, 0.5, 3.0];
    let answers = method(&Tensor::from_slice(&values, &[4], Device::Cpu)?)?.to_vec::<bool>()?;
    Ok(answers == values.map(relation))
}

const SHAPE: [usize; 3] = [2, 3, 4];

cases! {
    "kernels::methods::Elementwise::add_scalar": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.add_scalar(number)), number)
    };
    "kernels::methods::Elementwise::mul_scalar": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.mul_scalar(number)), number)
    };
    "kernels::methods::Elementwise::leaky_relu": (slope: f64 = 0.5) => {
        unless_huge(gives!([9], [9], |x| x.leaky_relu(slope)), slope)
    };
    "kernels::methods::Elementwise::elu": (alpha: f64 = 0.5) => {
        unless_huge(gives!([9], [9], |x| x.elu(alpha)), alpha)
    };
    "kernels::methods::Elementwise::clamp": (low: f64 = -0.5, high: f64 = 0.5) => {
        let inside = |x: &Tensor| Ok(x.to_vec_f64()?.iter().all(|&x| (low as f32 as f64..=high as f32 as f64).contains(&x)));
        inside(&values(&[9])?.clamp(low, high)?).map(|right: bool| right && low <= high)
    };
    "kernels::methods::Elementwise::pow": (exponent: f64 = 2.0) => {
        unless_huge(gives!([9], [9], |x| x.square()?.add(1.0)?.pow(exponent)), exponent)
    };
    "kernels::methods::Pairs::add": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.add(number)), number)
    };
    "kernels::methods::Pairs::sub": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.sub(number)), number)
    };
    "kernels::methods::Pairs::mul": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.mul(number)), number)
    };
    "kernels::methods::Pairs::div": (number: f64 = 0.5) => {
        // Division by 0 gives infinities or NaN, as in plain arithmetic.
        unless_huge(gives!([3], [3], |x| x.div(number)), number).map(|right| right || number == 0.0)
    };
    "kernels::methods::Pairs::reverse_sub": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.reverse_sub(number)), number)
    };
    "kernels::methods::Pairs::reverse_div": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.reverse_div(number)), number)
    };
    "kernels::methods::Pairs::maximum": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.maximum(number)), number)
    };
    "kernels::methods::Pairs::minimum": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.minimum(number)), number)
    };
    "kernels::methods::Comparisons::eq": (number: f64 = 0.5) => holds(|x| x.eq(number), |x| x == number);
    "kernels::methods::Comparisons::ne": (number: f64 = 0.5) => holds(|x| x.ne(number), |x| x != number);
    "kernels::methods::Comparisons::lt": (number: f64 = 0.5) => holds(|x| x.lt(number), |x| x < number);
    "kernels::methods::Comparisons::le": (number: f64 = 0.5) => holds(|x| x.le(number), |x| x <= number);
    "kernels::methods::Comparisons::gt": (number: f64 = 0.5) => holds(|x| x.gt(number), |x| x > number);
    "kernels::methods::Comparisons::ge": (number: f64 = 0.5) => holds(|x| x.ge(number), |x| x >= number);
    "kernels::methods::keep": (axes: Vec<usize> = vec![0, 2]) => {
        let kept: Vec<usize> = (0..3).map(|axis| if axes.contains(&axis) { 1 } else { SHAPE[axis] }).collect();
        gives!(SHAPE, kept, |x| x.sum(keep(&axes)))
    };
    "kernels::methods::Reductions::sum": (axes: Vec<usize> = vec![0, 2]) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.sum(&axes))
    };
    "kernels::methods::Reductions::sum": (first: usize = 1, end: usize = 3) => {
        gives!(SHAPE, without(&SHAPE, &(0..3).filter(|axis| (first..end).contains(axis)).collect::<Vec<_>>()), |x| {
            x.sum(first..end)
        })
    };
    "kernels::methods::Reductions::mean": (axes: Vec<usize> = vec![0, 2]) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.mean(&axes))
    };
    "kernels::methods::Reductions::max": (axes: Vec<usize> = vec![0, 2]) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.max(&axes))
    };
    "kernels::methods::Reductions::min": (axes: Vec<usize> = vec![0, 2]) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.min(&axes))
    };
    "kernels::methods::Reductions::variance": (axes: Vec<usize> = vec![0, 2], correction: usize = 1) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.variance(&axes, correction))
    };
    "kernels::methods::Reductions::norm": (axes: Vec<usize> = vec![0, 2]) => {
        gives!(SHAPE, without(&SHAPE, &axes), |x| x.norm(&axes))
    };
    "kernels::methods::Shapes::expand": (shape: Vec<usize> = vec![4, 2, 3]) => {
        gives!([1, 3], shape, |x| x.expand(&shape))
    };
    "kernels::methods::Shapes::narrow": (axis: usize = 1, start: usize = 1, length: usize = 2) => {
        gives!([3, 4], replaced(&[3, 4], axis, length), |x| x.narrow(axis, start, length))
    };
    "kernels::methods::Shapes::slice": (
        axis: usize = 1,
        start: usize = 1,
        length: usize = 2,
        step: usize = 2,
    ) => { gives!([3, 4], replaced(&[3, 4], axis, length), |x| x.slice(axis, start, length, step)) };
    "kernels::methods::Shapes::select": (axis: usize = 1, index: usize = 1) => {
        gives!([3, 4], without(&[3, 4], &[axis]), |x| x.select(axis, index))
    };
    "kernels::methods::Shapes::pad": (before: Vec<usize> = vec![1, 0], after: Vec<usize> = vec![0, 2]) => {
        let grown =
            before.iter().zip(&after).zip([3usize, 4]).map(|((b, a), size)| size.saturating_add(*b).saturating_add(*a));
        gives!([3, 4], grown.collect::<Vec<_>>(), |x| x.pad(&before, &after, PadMode::Replicate))
    };
    "kernels::methods::Shapes::permute": (axes: Vec<usize> = vec![2, 0, 1]) => {
        let shape: Vec<usize> = axes.iter().filter_map(|&axis| SHAPE.get(axis).copied()).collect();
        gives!(SHAPE, shape, |x| x.permute(&axes)).map(|right| right && axes.len() == 3)
    };
    "kernels::methods::Shapes::transpose": (first: usize = 0, second: usize = 1) => {
        gives!([2, 3], if first == second { [2, 3] } else { [3, 2] }, |x| x.transpose(first, second))
    };
    "kernels::methods::Shapes::reshape": (shape: Vec<usize> = vec![4, 3]) => gives!([2, 6], shape, |x| x.reshape(&shape));
    "kernels::methods::Shapes::flatten": (axes: Vec<usize> = vec![1, 2]) => {
        let sizes = axes.iter().filter_map(|&axis| SHAPE.get(axis));
        let size = sizes.fold(1usize, |product, &size| product.saturating_mul(size));
        let shape = grown(&without(&SHAPE, &axes), axes.first().copied().unwrap_or_default(), size);
        gives!(SHAPE, shape, |x| x.flatten(&axes))
    };
    "kernels::methods::Shapes::squeeze": (axis: usize = 1) => {
        gives!([2, 1, 3], [2, 3], |x| x.squeeze(axis)).map(|right| right && axis == 1)
    };
    "kernels::methods::Shapes::unsqueeze": (axis: usize = 1) => {
        gives!([2, 3], grown(&[2, 3], axis, 1), |x| x.unsqueeze(axis))
    };
    "kernels::methods::Shapes::split": (sizes: Vec<usize> = vec![1, 3], axis: usize = 1) => {
        gives!([2, 4], replaced(&[2, 4], axis, sizes.first().copied().unwrap_or_default()), |x| {
            x.split(&sizes, axis)?.into_iter().next().ok_or_else(|| Error::argument("test", "no parts"))
        })
    };
    "kernels::methods::Shapes::concat": (axis: usize = 1) => {
        gives!([3, 3], replaced(&[3, 3], axis, 6), |x| Of::concat(&[x, x], axis))
    };
    "kernels::methods::Shapes::stack": (axis: usize = 1) => {
        gives!([3, 4], grown(&[3, 4], axis, 2), |x| Of::stack(&[x, x], axis))
    };
    "kernels::methods::Shapes::roll": (axis: usize = 1, shift: isize = -2) => gives!([3, 4], [3, 4], |x| x.roll(axis, shift));
    "kernels::methods::Indexing::where_": (number: f64 = 0.5) => {
        unless_huge(gives!([3], [3], |x| x.where_(&x.gt(0.0)?, number)), number)
    };
    "kernels::methods::Indexing::gather": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1, 1]) => {
        if index.len() % 2 == 1 {
            return Err(Error::argument("test", "not whole rows"));
        }
        let shape = [2, index.len() / 2];
        gives!([2, 3], shape, |x| x.gather(axis, &labels(&index, &shape)?))
    };
    "kernels::methods::Indexing::index_select": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1]) => {
        gives!([2, 3], replaced(&[2, 3], axis, index.len()), |x| {
            x.index_select(axis, &labels(&index, &[index.len()])?)
        })
    };
    "kernels::methods::Indexing::scatter_add": (axis: usize = 1, index: Vec<i64> = vec![0, 2, 1, 1, 0, 0]) => {
        gives!([2, 3], [2, 3], |x| x.scatter_add(axis, &labels(&index, &[2, 3])?, x))
    };
    "kernels::methods::Indexing::one_hot": (classes: usize = 4, axis: usize = 1) => {
        let encoded = labels(&[0, 3, 1], &[3])?.one_hot(classes, axis, DType::F32)?;
        Ok::<_, Error>(encoded.shape() == grown(&[3], axis, classes) && encoded.sum(..)?.to_scalar()? == 3.0)
    };
    "kernels::methods::Indexing::argmax": (axis: usize = 1) => {
        Ok::<_, Error>(values(&SHAPE)?.argmax(axis)?.shape() == without(&SHAPE, &[axis]) && axis < 3)
    };
    "kernels::methods::Indexing::argmin": (axis: usize = 1) => {
        Ok::<_, Error>(values(&SHAPE)?.argmin(axis)?.shape() == without(&SHAPE, &[axis]) && axis < 3)
    };
    "kernels::methods::Indexing::sort": (axis: usize = 1) => gives!(SHAPE, SHAPE, |x| Ok(x.sort(axis)?.0));
    "kernels::methods::Indexing::sort_descending": (axis: usize = 1) => {
        gives!(SHAPE, SHAPE, |x| Ok(x.sort_descending(axis)?.0))
    };
    "kernels::methods::Indexing::top_k": (axis: usize = 1, count: usize = 2) => {
        gives!(SHAPE, replaced(&SHAPE, axis, count), |x| Ok(x.top_k(axis, count)?.0))
    };
    "kernels::methods::Indexing::cumsum": (axis: usize = 1) => gives!(SHAPE, SHAPE, |x| x.cumsum(axis));
    "kernels::methods::Networks::softmax": (axis: usize = 1) => gives!([2, 3], [2, 3], |x| x.softmax(axis));
    "kernels::methods::Networks::log_softmax": (axis: usize = 1) => gives!([2, 3], [2, 3], |x| x.log_softmax(axis));
    "kernels::methods::Networks::attention": (scale: Option<f64> = Some(0.5)) => {
        let right = gives!(SHAPE, SHAPE, |x| x.attention(x, x, &[], scale, false))?;
        // A factor that makes the scores overflow gives non-finite results, as in plain arithmetic.
        Ok::<_, Error>(right || scale.is_some_and(|scale| scale.abs() > 1e37))
    };
    "kernels::methods::Networks::interpolate": (size: Vec<usize> = vec![3, 9]) => {
        gives!([1, 2, 5, 6], [&[1, 2], &size[..]].concat(), |x| x.interpolate(&size, Interpolation::Linear))
    };
    "kernels::methods::Networks::adaptive_average_pool": (output: Vec<usize> = vec![2, 3]) => {
        gives!([1, 2, 5, 6], [&[1, 2], &output[..]].concat(), |x| x.adaptive_average_pool(&output))
    };
    "kernels::methods::Networks::adaptive_max_pool": (output: Vec<usize> = vec![2, 3]) => {
        gives!([1, 2, 5, 6], [&[1, 2], &output[..]].concat(), |x| x.adaptive_max_pool(&output))
    };
}
