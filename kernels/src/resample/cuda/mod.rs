//! Interpolation on CUDA devices.

use tomograd_core::{Result, Tensor};

use super::{Interpolate, Interpolation};
use crate::cuda::{Launch, Source, THREADS, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "interpolate.cu", text: include_str!("interpolate.cu"), headers: &[] };

/// `Axis` of the kernels: input, output, and the bits of the ratio.
type Axis = [i64; 3];

fn code(mode: Interpolation) -> i32 {
    match mode {
        Interpolation::Nearest => 0,
        Interpolation::Linear => 1,
        Interpolation::LinearCorners => 2,
    }
}

/// An axis with the distance of neighbouring outputs as on the CPU.
fn axis(mode: Interpolation, input: usize, output: usize) -> Axis {
    let ratio = match mode {
        Interpolation::LinearCorners if output > 1 => input.saturating_sub(1) as f64 / (output - 1) as f64,
        Interpolation::LinearCorners => 0.0,
        Interpolation::Nearest | Interpolation::Linear => input as f64 / output.max(1) as f64,
    };
    [input as i64, output as i64, ratio.to_bits() as i64]
}

/// x at its new size.
pub(super) fn forward(op: &Interpolate, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    single("interpolate", x.dtype())?;
    let x = x.contiguous()?;
    // `Axes` of the kernel: three axes, then their outputs as divisors.
    let mut axes = [[axis(op.mode, 1, 1); 3], [divisor(1); 3]];
    let first = 3 - op.size.len();
    for (i, (&input, &output)) in x.shape()[2..].iter().zip(&op.size).enumerate() {
        axes[0][first + i] = axis(op.mode, input, output);
        axes[1][first + i] = divisor(output);
    }
    let mut y = output_like("interpolate", shape, &x)?;
    let count = y.count();
    let launch = Launch::new("interpolate", &SOURCE, "interpolate", x.device())?
        .read(&x)?
        .write(&mut y)?
        .value(axes)
        .value(code(op.mode))
        .size(count);
    // SAFETY: the axes are those of x and y; the kernel reads voxels of x and writes every element of y.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(y.assume_init())
    }
}

/// The gradient of x, of this shape, from that of y.
pub(super) fn backward(op: &Interpolate, dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
    single("interpolate", dy.dtype())?;
    let mut gradient = dy.contiguous()?;
    for (axis_of, &input) in shape.iter().enumerate().skip(2).rev() {
        let output = gradient.shape()[axis_of];
        let mut to = gradient.shape().to_vec();
        to[axis_of] = input;
        let mut dx = output_like("interpolate", &to, &gradient)?;
        let (count, inner) = (dx.count(), to[axis_of + 1..].iter().product());
        let launch = Launch::new("interpolate", &SOURCE, "interpolate_gradient", gradient.device())?
            .read(&gradient)?
            .write(&mut dx)?
            .value(axis(op.mode, input, output))
            .value(code(op.mode))
            .value(divisor(input))
            .value(divisor(inner))
            .size(count);
        // SAFETY: the gradient is (outer, output, inner) and dx (outer, input, inner), of which the kernel writes every element.
        gradient = unsafe {
            launch.run(blocks(count), THREADS)?;
            dx.assume_init()
        };
    }
    Ok(gradient)
}
