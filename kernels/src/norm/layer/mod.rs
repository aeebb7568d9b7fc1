//! Layer norm: normalises the last axes, with a γ and β for each of their elements.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;

use tomograd_core::{Error, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Recompute, Saved, check, op::with_real, view::contiguous};

/// y = γ (x − mean) / √(variance + ε) + β, with the mean and (biased) variance over the last `axes` axes of x. γ and β,
/// inputs 1 and 2 when `affine`, have the shape of these axes. Ba et al. 2016.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// The number of axes that are normalised together, counted from the last one.
    pub axes: usize,
    /// ε.
    pub epsilon: f64,
    /// Whether there are inputs γ and β.
    pub affine: bool,
}

impl LayerNorm {
    fn input_count(&self) -> usize {
        1 + 2 * usize::from(self.affine)
    }

    fn length(&self, shape: &[usize]) -> usize {
        shape[shape.len() - self.axes..].iter().product()
    }

    /// y and the statistics, from x and the parameters.
    fn apply(&self, inputs: &[&Tensor], statistics: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let inputs: Vec<Tensor> = inputs.iter().map(|&x| contiguous(x)).collect::<Result<_>>()?;
        let x = &inputs[0];
        with_real!("layer_norm", x.dtype(), T => {
            let affine = match &inputs[1..] {
                [gamma, beta] => Some([gamma.as_slice::<T>()?, beta.as_slice::<T>()?]),
                _ => None,
            };
            cpu::forward::<T>(x, self.length(x.shape()), affine, self.epsilon, statistics)
        })
    }

    /// [`apply`](Self::apply) on a CUDA device.
    fn apply_cuda(&self, inputs: &[&Tensor], statistics: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
        let affine = match &inputs[1..] {
            [gamma, beta] => Some([gamma, beta]),
            _ => None,
        };
        cuda::forward(&inputs[0], self.length(inputs[0].shape()), affine, self.epsilon, statistics)
    }
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("layer_norm", inputs, self.input_count(), self.input_count())?;
        check::same_float("layer_norm", inputs)?;
        check::epsilon("layer_norm", self.epsilon)?;
        let x = &inputs[0];
        if self.axes == 0 || self.axes > x.rank() {
            return Err(Error::argument("layer_norm", format!("the last {} of {} axes", self.axes, x.rank()))
                .expected("at least one axis, and no more than there are")
                .shapes([&x.shape[..]]));
        }
        let normalised = &x.shape[x.rank() - self.axes..];
        if let Some(other) = inputs[1..].iter().find(|meta| meta.shape != normalised) {
            return Err(Error::shape("layer_norm", "a parameter doesn't fit the normalised axes")
                .expected(format!("{normalised:?}"))
                .shapes([&x.shape[..], &other.shape]));
        }
        Ok(vec![x.clone()])
    }

    /// Four values for each row: the coefficients of the linear function that gives x̂.
    fn state(&self, inputs: &[Meta], _: &[Meta]) -> Vec<Meta> {
        let length = self.length(&inputs[0].shape);
        vec![inputs[0].with_shape([inputs[0].count().checked_div(length).unwrap_or(0), cpu::KEPT])]
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let (y, statistics) = self.apply(inputs, None)?;
        Ok(Forward { outputs: vec![y], state: vec![statistics] })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        let (y, statistics) = self.apply_cuda(inputs, None)?;
        Ok(Forward { outputs: vec![y], state: vec![statistics] })
    }

    /// β is only needed for the recomputation of y.
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
        let mut results = vec![None; needed.len()];
        let Some(dy) = &gradients[0] else { return Ok(results) };
        let (x, dy, statistics) = (contiguous(saved.input(0)?)?, contiguous(dy)?, saved.state(0)?);
        let gamma = if self.affine { Some(saved.input(1)?.contiguous()?) } else { None };
        with_real!("layer_norm", x.dtype(), T => {
            let gamma = gamma.as_ref().map(Tensor::as_slice::<T>).transpose()?;
            let (dx, parameters) = cpu::backward::<T>(&x, &dy, statistics, self.length(x.shape()), gamma)?;
            results[0] = needed[0].then_some(dx);
            if let Some(parameters) = parameters {
                for input in [1, 2] {
                    if needed[input] {
                        let gradient = parameters.select(0, input - 1)?.copy()?;
                        results[input] = Some(gradient.reshape(&saved.metas[input].shape)?);
                    }
                }
            }
            Ok(results)
        })
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut results = vec![None; needed.len()];
        let Some(dy) = &gradients[0] else { return Ok(results) };
        let (x, dy, statistics) = (saved.input(0)?.contiguous()?, dy.contiguous()?, saved.state(0)?);
        let gamma = if self.affine { Some(saved.input(1)?.contiguous()?) } else { None };
        let length = self.length(x.shape());
        if needed[0] {
            results[0] = Some(cuda::backward_data(&x, &dy, statistics, length, gamma.as_ref())?);
        }
        if self.affine && needed[1..].contains(&true) {
            let parameters = cuda::backward_parameters(&x, &dy, statistics, length)?;
            for input in [1, 2] {
                if needed[input] {
                    let gradient = parameters.select(0, input - 1)?.copy()?;
                    results[input] = Some(gradient.reshape(&saved.metas[input].shape)?);
                }
            }
        }
        Ok(results)
    }

    fn recompute(&self) -> Option<&dyn Recompute> {
        Some(self)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(8.0 * inputs[0].count() as f64, inputs, outputs)
    }
}

impl Recompute for LayerNorm {
    fn output_cpu(&self, _: &Context, saved: &Saved) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = (0..self.input_count()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        Ok(self.apply(&inputs, Some(saved.state(0)?))?.0)
    }

    fn output_cuda(&self, _: &Context, saved: &Saved) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = (0..self.input_count()).map(|i| saved.input(i)).collect::<Result<_>>()?;
        Ok(self.apply_cuda(&inputs, Some(saved.state(0)?))?.0)
    }
}
