//! Scaled dot-product attention, with biases and a causal mask.

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

/// The largest number of biases.
const BIASES: usize = 3;

/// `y[..., i, :] = Σ_j p[..., i, j] v[..., j, :]`, where row i of p is the softmax over j of `scale Σ_e q[..., i, e]
/// k[..., j, e] + Σ_b bias_b[..., i, j]`: Vaswani et al. 2017.
///
/// Inputs are the queries q (batch..., L, E), the keys k (batch..., S, E), the values v (batch..., S, V), and up to three
/// biases, each of which broadcasts to (batch..., L, S): a relative position bias (heads, L, S), a mask of −∞ for keys that a
/// query must not see, and so on. The output is (batch..., L, V). A query that sees no key (all its scores are −∞, or S = 0)
/// gives zeros and has no gradient. The output of a query is NaN if one of its scores is NaN or +∞, or if a key that it sees
/// has a NaN in its value. A NaN in the value of a key with a score of −∞ may make the output NaN too.
///
/// Neither pass stores an L × S matrix. The forward pass processes blocks of keys with a running maximum and sum, and saves
/// the logarithm of the sum for each query; from that, the backward pass recomputes each block of p (Dao et al. 2022,
/// "FlashAttention", arXiv 2205.14135). With D_i = Σ_c dy[i, c] y[i, c] and s = scale q kᵀ + biases,
///
/// - dv = pᵀ dy, dp = dy vᵀ, ds[i, j] = p[i, j] (dp[i, j] − D_i),
/// - dq = scale ds k, dk = scale dsᵀ q, and the gradient of a bias is the sum of ds over the axes along which it was
///   broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Attention {
    /// The factor of the products; `None` means 1/√E.
    pub scale: Option<f64>,
    /// Whether query i sees only the keys j ≤ i.
    pub causal: bool,
}

impl Attention {
    /// The factor of the scores for queries of `size` elements.
    fn factor(&self, size: usize) -> f64 {
        // Avoids a division by zero; without elements there is no product to scale.
        self.scale.unwrap_or(1.0 / (size.max(1) as f64).sqrt())
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("attention", inputs, 3, 3 + BIASES)?;
        check::same_float("attention", inputs)?;
        let fail = |what: String, expected: String| {
            let shapes = inputs.iter().map(|meta| &meta.shape[..]);
            Err(Error::shape("attention", what).expected(expected).shapes(shapes))
        };
        // Half-precision types are computed in f32.
        let finite =
            |scale: f64| if inputs[0].dtype == DType::F64 { scale.is_finite() } else { (scale as f32).is_finite() };
        if let Some(scale) = self.scale.filter(|&scale| !finite(scale)) {
            return Err(Error::argument("attention", format!("a scale of {scale}"))
                .expected("a finite number of the inputs' dtype"));
        }
        let rank = inputs[0].rank();
        if rank < 2 {
            return fail(format!("queries of {rank} axes"), "(batch..., L, E)".into());
        }
        let (batch, queries) = inputs[0].shape.split_at(rank - 2);
        for (meta, name, axes) in [(&inputs[1], "keys", "S, E"), (&inputs[2], "values", "S, V")] {
            if meta.rank() != rank || !meta.shape.starts_with(batch) {
                return fail(format!("the batch axes of the {name} aren't the queries'"), format!("{batch:?}, {axes}"));
            }
        }
        let (keys, values) = (&inputs[1].shape[rank - 2..], &inputs[2].shape[rank - 2..]);
        if keys[1] != queries[1] {
            return fail("the keys don't fit the queries".into(), format!("(batch..., S, {})", queries[1]));
        }
        if values[0] != keys[0] {
            return fail("there isn't one value for each key".into(), format!("(batch..., {}, V)", keys[0]));
        }
        let scores = [batch, &[queries[0], keys[0]]].concat();
        for (index, bias) in inputs.iter().enumerate().skip(3) {
            let fits = |(size, full): (&usize, &usize)| size == full || *size == 1;
            if bias.rank() > scores.len() || !bias.shape.iter().rev().zip(scores.iter().rev()).all(fits) {
                return fail(format!("the bias, input {index}, doesn't broadcast"), format!("{scores:?}"));
            }
        }
        Ok(vec![inputs[0].with_shape([batch, &[queries[0], values[1]]].concat())])
    }

    /// The logarithm of the sum of each query, in f32 or f64.
    fn state(&self, _: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
        let [batch @ .., queries, _] = &outputs[0].shape[..] else { return Vec::new() };
        let dtype = if outputs[0].dtype == DType::F64 { DType::F64 } else { DType::F32 };
        vec![outputs[0].with_shape([batch.iter().product(), *queries]).with_dtype(dtype)]
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_real!("attention", outputs[0].dtype, T => {
            let (y, sums) = cpu::forward::<T>(self, inputs)?;
            Ok(Forward { outputs: vec![y], state: vec![sums] })
        })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        cuda::forward(self, inputs, &outputs[0].shape)
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn saves_output(&self, _: usize) -> bool {
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
        let inputs: Vec<&Tensor> = (0..saved.inputs.len()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        with_real!("attention", dy.dtype(), T => {
            cpu::backward::<T>(self, &inputs, [saved.output(0)?, saved.state(0)?, dy], needed)
        })
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs: Vec<&Tensor> = (0..saved.inputs.len()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        cuda::backward(self, &inputs, [saved.output(0)?, saved.state(0)?, dy], needed)
    }

    /// CUDA devices have tensor cores for both.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let [.., keys, size] = inputs[1].shape[..] else { return Cost::of(0.0, inputs, outputs) };
        let [batch @ .., queries, value] = &outputs[0].shape[..] else { return Cost::of(0.0, inputs, outputs) };
        let scores = batch.iter().product::<usize>() as f64 * *queries as f64 * keys as f64;
        let products = scores * (size + value) as f64;
        Cost { multiply_adds: products, ..Cost::of(2.0 * products + 20.0 * scores, inputs, outputs) }
    }
}
