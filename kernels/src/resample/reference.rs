//! Reference of separable maps: every output is a sum over all inputs.

use tomograd_core::{Random, Result, Tensor};

use crate::testing;

/// A shape (N, C, spatial...) of at most some hundred elements, with rows of up to 70. In one of three cases, one spatial
/// axis is around the length of some vectors and another is 1.
pub(crate) fn image(random: &mut Random) -> Vec<usize> {
    let rank = 1 + random.below(3) as usize;
    let images = [0, 1, 1, 2, 2][random.below(5) as usize];
    let mut shape = vec![images, 1 + random.below(3) as usize];
    if testing::at_corner(random) {
        shape[0] = shape[0].max(1);
        shape.extend(testing::corner(random, rank, rank, &testing::VECTORS));
        return shape;
    }
    shape.extend((0..rank).map(|_| 1 + random.below(if rank == 3 { 5 } else { 6 }) as usize));
    if rank < 3 && random.bernoulli(0.4) {
        shape[1 + rank] = [16, 33, 40, 70][random.below(4) as usize];
    }
    shape
}

/// `y[n, c, o...] = Σ_i x[n, c, i...] Π_axis weight(axis, o, i)`.
pub(crate) fn separable(x: &Tensor, size: &[usize], weight: impl Fn(usize, usize, usize) -> f64) -> Result<Tensor> {
    let spatial = &x.shape()[2..];
    let (inputs, outputs) = (spatial.iter().product::<usize>(), size.iter().product::<usize>());
    let values = x.to_vec::<f64>()?;
    let place = |mut flat: usize, shape: &[usize]| -> Vec<usize> {
        let mut place = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            place[axis] = flat % shape[axis];
            flat /= shape[axis];
        }
        place
    };
    let shape = [&x.shape()[..2], size].concat();
    let mut y = vec![0.0; shape.iter().product()];
    for o in 0..outputs {
        let to = place(o, size);
        for i in 0..inputs {
            let from = place(i, spatial);
            let product: f64 = (0..size.len()).map(|axis| weight(axis, to[axis], from[axis])).product();
            for image in 0..if product == 0.0 { 0 } else { shape[0] * shape[1] } {
                y[image * outputs + o] += product * values[image * inputs + i];
            }
        }
    }
    Tensor::from_slice(&y, &shape, x.device())
}
