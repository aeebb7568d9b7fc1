//! Reference: from the definition, step by step.

use tomograd_core::{Result, Tensor};

use super::SelectiveScan;
use crate::elementwise::reference::larger;

fn silu(z: f64) -> f64 {
    z / (1.0 + (-z).exp())
}

/// The output, and for each element a bound of its rounding error in units of the unit roundoff. The bound follows the
/// recurrence: the error E of a state decays as the state does, and each step adds the rounding errors of its own operations.
pub(super) fn scan(op: &SelectiveScan, inputs: &[Tensor]) -> Result<[Tensor; 2]> {
    let sizes = SelectiveScan::sizes(inputs[0].shape(), inputs[2].shape(), inputs[3].shape());
    let (states, length) = (sizes.states, sizes.length);
    let values: Vec<Vec<f64>> = inputs.iter().map(Tensor::to_vec::<f64>).collect::<Result<_>>()?;
    let [u, delta, a, b, c] = [0, 1, 2, 3, 4].map(|i| &values[i]);
    let [skip, gate, bias] = op.optional().map(|place| place.map(|place| &values[place]));
    let (mut output, mut bound) = (vec![0.0; u.len()], vec![0.0; u.len()]);
    for batch in 0..sizes.batch {
        for d in 0..sizes.channels {
            let group = d / (sizes.channels / sizes.groups);
            let mut x = vec![0.0; states];
            // For each state: the size of x without cancellation, and the error.
            let mut size = vec![[0.0; 2]; states];
            for t in 0..length {
                let place = (batch * sizes.channels + d) * length + t;
                let mut step = delta[place] + bias.map_or(0.0, |bias| bias[d]);
                // The relative error of Δ: softplus(v) has an error of about v units where it is close to e^v.
                let mut off = 1.0;
                if op.delta_softplus {
                    off = 8.0 + step.abs();
                    step = larger(step, 0.0) + (-step.abs()).exp().ln_1p();
                }
                let mut y = skip.map_or(0.0, |skip| skip[d] * u[place]);
                let mut error = (1.0 + states as f64) * y.abs();
                for n in 0..states {
                    let at = ((batch * sizes.groups + group) * states + n) * length + t;
                    let exponent = step * a[d * states + n];
                    let (decay, drive) = (exponent.exp(), step * b[at] * u[place]);
                    x[n] = decay * x[n] + drive;
                    let [before, wrong] = size[n];
                    size[n][0] = decay * before + drive.abs();
                    size[n][1] = decay * (wrong + before * (8.0 + (2.0 + off) * exponent.abs()));
                    size[n][1] += (4.0 + off) * drive.abs() + size[n][0];
                    y += c[at] * x[n];
                    error += c[at].abs() * (size[n][1] + (2.0 + states as f64) * size[n][0]);
                }
                let factor = gate.map_or(1.0, |gate| silu(gate[place]));
                output[place] = y * factor;
                bound[place] = factor.abs() * (error + 8.0 * y.abs());
            }
        }
    }
    let tensor = |values: &[f64]| Tensor::from_slice(values, inputs[0].shape(), inputs[0].device());
    Ok([tensor(&output)?, tensor(&bound)?])
}
