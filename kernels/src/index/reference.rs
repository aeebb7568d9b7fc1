//! References: element by element, each looked up by its index.

use tomograd_core::{DType, Result, Tensor, broadcast_shapes, contiguous_strides};

use super::{Pad, PadMode, split};

fn tensor(values: &[f64], shape: &[usize]) -> Result<Vec<Tensor>> {
    Ok(vec![Tensor::from_slice(values, shape, tomograd_core::Device::Cpu)?])
}

pub(super) fn concat(inputs: &[Tensor], axis: usize) -> Result<Vec<Tensor>> {
    let mut shape = inputs[0].shape().to_vec();
    shape[axis] = inputs.iter().map(|x| x.shape()[axis]).sum();
    let (outer, _, _) = split(&shape, axis);
    let mut output = Vec::new();
    for o in 0..outer {
        for x in inputs {
            let values = x.to_vec::<f64>()?;
            output.extend_from_slice(&values[o * values.len() / outer..(o + 1) * values.len() / outer]);
        }
    }
    tensor(&output, &shape)
}

pub(super) fn pad(pad: &Pad, x: &Tensor) -> Result<Vec<Tensor>> {
    let values = x.to_vec::<f64>()?;
    let strides = contiguous_strides(x.shape());
    let shape: Vec<usize> = (0..x.rank()).map(|a| pad.before[a] + x.shape()[a] + pad.after[a]).collect();
    let element = |flat: usize| {
        let mut place = 0;
        for (axis, stride) in contiguous_strides(&shape).into_iter().enumerate() {
            let (i, last) =
                ((flat / stride % shape[axis]) as i64 - pad.before[axis] as i64, x.shape()[axis] as i64 - 1);
            let source = match pad.mode {
                PadMode::Constant(value) if i < 0 || i > last => return value,
                PadMode::Reflect if i < 0 => -i,
                PadMode::Reflect if i > last => 2 * last - i,
                PadMode::Replicate => i.clamp(0, last),
                _ => i,
            };
            place += source as usize * strides[axis];
        }
        values[place]
    };
    tensor(&(0..shape.iter().product()).map(element).collect::<Vec<_>>(), &shape)
}

pub(super) fn gather(x: &Tensor, index: &Tensor, axis: usize) -> Result<Vec<Tensor>> {
    let (values, indices) = (x.to_vec::<f64>()?, index.to_vec::<i64>()?);
    let ((_, size, inner), (_, length, _)) = (split(x.shape(), axis), split(index.shape(), axis));
    let element = |(p, &i): (usize, &i64)| values[(p / (length * inner) * size + i as usize) * inner + p % inner];
    tensor(&indices.iter().enumerate().map(element).collect::<Vec<_>>(), index.shape())
}

pub(super) fn scatter_add(x: &Tensor, index: &Tensor, source: &Tensor, sizes: [usize; 3]) -> Result<Vec<Tensor>> {
    let [outer, size, inner] = sizes;
    let mut output = x.to_vec::<f64>()?;
    let (indices, values) = (index.to_vec::<i64>()?, source.to_vec::<f64>()?);
    for (p, (&i, value)) in indices.iter().zip(values).enumerate() {
        output[(p / (indices.len() / outer) * size + i as usize) * inner + p % inner] += value;
    }
    tensor(&output, x.shape())
}

pub(super) fn one_hot(labels: &Tensor, classes: usize, axis: usize) -> Result<Vec<Tensor>> {
    let values = labels.to_vec::<i64>()?;
    let mut shape = labels.shape().to_vec();
    let inner: usize = shape[axis..].iter().product();
    shape.insert(axis, classes);
    let element = |p: usize| {
        let class = p / inner % classes;
        f64::from(values[p / (classes * inner) * inner + p % inner] == class as i64)
    };
    tensor(&(0..shape.iter().product()).map(element).collect::<Vec<_>>(), &shape)
}

pub(super) fn choose(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Vec<Tensor>> {
    let shape = broadcast_shapes("where", &[condition.shape(), a.shape(), b.shape()])?;
    let values = |x: &Tensor| x.converted(DType::F64)?.expand(&shape)?.to_vec::<f64>();
    let (condition, a, b) = (values(condition)?, values(a)?, values(b)?);
    let chosen: Vec<f64> = (0..a.len()).map(|i| if condition[i] != 0.0 { a[i] } else { b[i] }).collect();
    tensor(&chosen, &shape)
}
