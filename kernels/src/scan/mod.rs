//! The selective scan of Mamba.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;
#[cfg(test)]
mod tests;

use tomograd_core::{DType, Device, Error, Result, Tensor};

use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_real};

/// The recurrence S6 of Mamba (Gu and Dao 2023, arXiv 2312.00752, algorithm 2). For each batch element and channel d, with N
/// states that start at 0:
///
/// x_t = exp(Δ_t a) x_{t−1} + Δ_t b_t u_t, y_t = Σ_n c_t x_t + skip · u_t, output y_t · silu(z_t)
///
/// Inputs: u (B, D, L), delta (B, D, L), a (D, N), b (B, G, N, L) and c (B, G, N, L), both also as (B, N, L) if G is 1; then,
/// each if its attribute is set, skip (D), z (B, D, L) and delta_bias (D). D is a multiple of G; channel d uses b and c of
/// group ⌊d / (D / G)⌋. Δ is delta + delta_bias, or softplus of that. The output is (B, D, L).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SelectiveScan {
    /// Whether there is an input skip, the factor of the connection that bypasses the states.
    pub skip: bool,
    /// Whether there is an input z, whose silu multiplies the output.
    pub gate: bool,
    /// Whether there is an input delta_bias.
    pub delta_bias: bool,
    /// Whether Δ = softplus(delta + delta_bias), which keeps it positive.
    pub delta_softplus: bool,
}

/// The sizes of a scan.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    channels: usize,
    groups: usize,
    states: usize,
    length: usize,
}

impl SelectiveScan {
    fn input_count(self) -> usize {
        5 + [self.skip, self.gate, self.delta_bias].into_iter().filter(|&present| present).count()
    }

    /// The indices of skip, z and delta_bias among the inputs.
    fn optional(self) -> [Option<usize>; 3] {
        let mut next = 5;
        [self.skip, self.gate, self.delta_bias].map(|present| {
            present.then(|| {
                next += 1;
                next - 1
            })
        })
    }

    /// The sizes of inputs whose ranks have been checked.
    fn sizes(u: &[usize], a: &[usize], b: &[usize]) -> Sizes {
        let groups = if b.len() == 4 { b[1] } else { 1 };
        Sizes { batch: u[0], channels: u[1], groups, states: a[1], length: u[2] }
    }
}

impl Op for SelectiveScan {
    fn name(&self) -> &'static str {
        "selective_scan"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("selective_scan", inputs, self.input_count(), self.input_count())?;
        check::same_float("selective_scan", inputs)?;
        let refuse = |what: String, expected: String| {
            let shapes = inputs.iter().map(|meta| &meta.shape[..]);
            Err(Error::shape("selective_scan", what).expected(expected).shapes(shapes))
        };
        let [u, a, b] = [0, 2, 3].map(|i| &inputs[i].shape[..]);
        for (name, shape, ranks, expected) in
            [("u", u, 3..=3, "(B, D, L)"), ("a", a, 2..=2, "(D, N)"), ("b", b, 3..=4, "(B, G, N, L) or (B, N, L)")]
        {
            if !ranks.contains(&shape.len()) {
                return refuse(format!("{name} of rank {}", shape.len()), expected.to_owned());
            }
        }
        let Sizes { batch, channels, groups, states, length } = Self::sizes(u, a, b);
        if groups == 0 || channels % groups != 0 {
            return refuse(format!("{channels} channels in {groups} groups"), "groups of equal size".to_owned());
        }
        let over_time = [batch, channels, length];
        let over_states = if b.len() == 4 { vec![batch, groups, states, length] } else { vec![batch, states, length] };
        let [skip, gate, delta_bias] = self.optional();
        let mut expected: Vec<(&str, usize, &[usize])> =
            vec![("delta", 1, &over_time), ("b", 3, &over_states), ("c", 4, &over_states)];
        let for_a = [channels, states];
        expected.push(("a", 2, &for_a));
        let for_channels = [channels];
        expected.extend(skip.map(|place| ("skip", place, &for_channels[..])));
        expected.extend(gate.map(|place| ("z", place, &over_time[..])));
        expected.extend(delta_bias.map(|place| ("delta_bias", place, &for_channels[..])));
        for (name, place, shape) in expected {
            if inputs[place].shape != shape {
                return refuse(format!("{name} doesn't fit u, a and b"), format!("{name} of shape {shape:?}"));
            }
        }
        Ok(vec![inputs[0].clone()])
    }

    /// The states at the start of each chunk: (blocks of channels, chunks, N, 16); on CUDA devices (B, D, chunks, N) in f32.
    fn state(&self, inputs: &[Meta], _: &[Meta]) -> Vec<Meta> {
        let sizes = Self::sizes(&inputs[0].shape, &inputs[2].shape, &inputs[3].shape);
        match inputs[0].device {
            Device::Cuda(_) => vec![inputs[0].with_shape(cuda::borders(sizes)).with_dtype(DType::F32)],
            _ => vec![inputs[0].with_shape(cpu::borders(sizes, true))],
        }
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
        with_real!("selective_scan", inputs[0].dtype(), T => {
            cpu::forward::<T>(&cpu::Inputs::new(*self, &inputs)?, !context.inference)
        })
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
        let sizes = Self::sizes(inputs[0].shape(), inputs[2].shape(), inputs[3].shape());
        cuda::forward(*self, &inputs, sizes, !context.inference)
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs: Vec<Tensor> =
            (0..self.input_count()).map(|i| saved.input(i)?.contiguous()).collect::<Result<_>>()?;
        let dy = dy.contiguous()?;
        let results = with_real!("selective_scan", dy.dtype(), T => {
            cpu::backward::<T>(&cpu::Inputs::new(*self, &inputs)?, dy.as_slice::<T>()?, saved.state(0)?)
        })?;
        let results = results.into_iter().zip(&saved.metas).zip(needed);
        results.map(|((gradient, meta), &needed)| needed.then(|| gradient.reshape(&meta.shape)).transpose()).collect()
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs: Vec<Tensor> =
            (0..self.input_count()).map(|i| saved.input(i)?.contiguous()).collect::<Result<_>>()?;
        let sizes = Self::sizes(inputs[0].shape(), inputs[2].shape(), inputs[3].shape());
        let results = cuda::backward(*self, &inputs, sizes, saved.state(0)?, &dy.contiguous()?)?;
        let results = results.into_iter().zip(&saved.metas).zip(needed);
        results.map(|((gradient, meta), &needed)| needed.then(|| gradient.reshape(&meta.shape)).transpose()).collect()
    }

    /// The kernels of CUDA devices take both, and compute in f32.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        // An exponential counts as 20 operations.
        Cost::of(26.0 * inputs[0].count() as f64 * inputs[2].shape[1] as f64, inputs, outputs)
    }
}
