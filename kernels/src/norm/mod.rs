//! Batch, instance and group norm with a fused activation, and layer norm.

mod cpu;
mod cuda;
mod layer;
mod moments;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(test)]
mod tests;

pub use layer::LayerNorm;
#[cfg(not(feature = "testing"))]
pub(crate) use moments::Moments;
#[cfg(feature = "testing")]
pub use moments::Moments;
#[cfg(feature = "testing")]
pub(crate) use proofs::largest;

use tomograd_core::{DType, Error, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Recompute, Saved, SavedUntil, check, elementwise::Function};

/// The sets of elements over which mean and variance are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// The voxels of one channel of one image.
    Instance,
    /// The voxels and channels of one of this many groups of one image.
    Group(usize),
    /// The voxels of one channel of all images.
    Batch,
    /// None: mean and variance are inputs, such as running statistics.
    Running,
}

/// y = activation(γ (x − mean) / √(variance + ε) + β) on (N, C, spatial...), with the biased variance.
///
/// Inputs: x; γ and β, each (C), when `affine`; mean and variance, each (C), for [`Statistics::Running`]. Outputs: y; for
/// [`Statistics::Batch`] also the mean and the unbiased variance, each (C), with which running statistics are updated.
///
/// Ioffe and Szegedy 2015 (batch), Ulyanov et al. 2016 (instance), Wu and He 2018 (group).
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// The sets of elements over which mean and variance are computed.
    pub statistics: Statistics,
    /// ε.
    pub epsilon: f64,
    /// Whether there are inputs γ and β.
    pub affine: bool,
    /// The activation that is applied to the result.
    pub activation: Option<Function>,
}

impl Norm {
    /// The number of inputs.
    pub fn input_count(&self) -> usize {
        1 + 2 * usize::from(self.affine) + 2 * usize::from(self.statistics == Statistics::Running)
    }

    /// The index of the set to which an (image, channel) pair belongs; the moments of a set are combined.
    fn set_of(&self, n: usize, channel: usize, channels: usize) -> usize {
        match self.statistics {
            Statistics::Instance => n * channels + channel,
            Statistics::Group(groups) => n * groups + channel * groups / channels,
            Statistics::Batch | Statistics::Running => channel,
        }
    }

    fn set_count(&self, batch: usize, channels: usize) -> usize {
        match self.statistics {
            Statistics::Instance => batch * channels,
            Statistics::Group(groups) => batch.saturating_mul(groups),
            Statistics::Batch | Statistics::Running => channels,
        }
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("norm", inputs, self.input_count(), self.input_count())?;
        check::same_float("norm", inputs)?;
        check::epsilon("norm", self.epsilon)?;
        if let Some(activation) = self.activation {
            activation.check("norm")?;
        }
        check::spatial("norm", &inputs[0]).or_else(|error| if inputs[0].rank() == 2 { Ok(0) } else { Err(error) })?;
        let channels = inputs[0].shape[1];
        if let Some(other) = inputs[1..].iter().find(|meta| meta.shape != [channels]) {
            return Err(Error::shape("norm", "a parameter or statistic doesn't fit the channels")
                .expected(format!("({channels},)"))
                .shapes([&inputs[0].shape[..], &other.shape]));
        }
        if let Statistics::Group(groups) = self.statistics
            && (groups == 0 || !channels.is_multiple_of(groups))
        {
            return Err(Error::argument("norm", format!("{groups} groups of {channels} channels"))
                .expected("a number of groups that divides the channels"));
        }
        let values = inputs[0].count() / channels.max(1);
        if self.statistics == Statistics::Batch && values == 1 {
            return Err(Error::shape("norm", "batch statistics of one value a channel")
                .expected("more than one value")
                .shapes([&inputs[0].shape[..]]));
        }
        let mut outputs = vec![inputs[0].clone()];
        if self.statistics == Statistics::Batch {
            outputs.extend([inputs[0].with_shape([channels]), inputs[0].with_shape([channels])]);
        }
        Ok(outputs)
    }

    /// For each set, as f64: the mean, its rounding error, and √(variance + ε).
    fn state(&self, inputs: &[Meta], _: &[Meta]) -> Vec<Meta> {
        let sets = self.set_count(inputs[0].shape[0], inputs[0].shape[1]);
        vec![inputs[0].with_shape([3, sets]).with_dtype(DType::F64)]
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let _ = outputs;
        let inputs: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
        let mut forward = self.forward_with(context, inputs, None)?;
        // x is already saved as an input.
        forward.state = forward.state.split_off(forward.state.len() - 1);
        Ok(forward)
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        cuda::forward(self, context, inputs)
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
        self.gradients(saved, gradients, needed)
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        cuda::gradients(self, &saved, &gradients, needed)
    }

    /// dx reuses the memory of the output's gradient.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    fn recompute(&self) -> Option<&dyn Recompute> {
        Some(self)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(8.0 * inputs[0].count() as f64, inputs, outputs)
    }
}

impl Recompute for Norm {
    fn output_cpu(&self, _: &Context, saved: &Saved) -> Result<Tensor> {
        self.again(saved)
    }

    fn output_cuda(&self, _: &Context, saved: &Saved) -> Result<Tensor> {
        cuda::again(self, saved)
    }
}
