//! Reference of views: for each output index, the element that it refers to.

use tomograd_core::{Result, Tensor, contiguous_strides};

use super::View;

pub(super) fn view(view: &View, x: &Tensor) -> Result<Vec<Tensor>> {
    let values = x.to_vec::<f64>()?;
    let strides = contiguous_strides(x.shape());
    let shape = match view {
        View::Permute(axes) => axes.iter().map(|&axis| x.shape()[axis]).collect(),
        View::Slice { axis, length, .. } => {
            let mut shape = x.shape().to_vec();
            shape[*axis] = *length;
            shape
        }
        View::Expand(shape) | View::Reshape(shape) => shape.clone(),
    };
    let count: usize = shape.iter().product();
    let mut output = Vec::with_capacity(count);
    for flat in 0..count {
        let index: Vec<usize> =
            contiguous_strides(&shape).iter().zip(&shape).map(|(stride, size)| flat / stride % size).collect();
        let place = match view {
            View::Permute(axes) => axes.iter().zip(&index).map(|(&axis, i)| i * strides[axis]).sum(),
            View::Slice { axis, start, step, .. } => {
                index.iter().enumerate().map(|(a, i)| strides[a] * if a == *axis { start + i * step } else { *i }).sum()
            }
            View::Expand(_) => index[shape.len() - x.rank()..]
                .iter()
                .zip(&strides)
                .zip(x.shape())
                .map(|((i, stride), &size)| if size == 1 { 0 } else { i * stride })
                .sum(),
            View::Reshape(_) => flat,
        };
        output.push(values[place]);
    }
    Ok(vec![Tensor::from_slice(&output, &shape, x.device())?])
}
