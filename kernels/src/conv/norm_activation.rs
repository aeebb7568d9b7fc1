//! Convolution, norm and activation as one operation.

use tomograd_core::{Device, Result, Tensor};

use super::{Conv, cpu, cuda};
use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Recompute, Saved, SavedUntil, check, norm::Norm};

/// y = activation(norm(conv(x))) as one operation. The epilogue of the convolution computes the moments for the norm. For the
/// backward pass, only the convolution's inputs, its output and the statistics are saved. If a later operation needs y in its
/// backward pass, y is recomputed from these ([`Op::recompute`]).
///
/// Inputs: those of the convolution, then those of the norm except its x. With given statistics
/// ([`Statistics::Running`](crate::norm::Statistics::Running)), inference folds the norm into the convolution's epilogue.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNormActivation {
    /// The convolution.
    pub conv: Conv,
    /// The norm and the activation.
    pub norm: Norm,
}

impl ConvNormActivation {
    pub(super) fn conv_inputs(&self) -> usize {
        self.conv.input_count()
    }

    /// The metadata of the norm's inputs: z, and the inputs after those of the convolution.
    fn norm_metas(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let conv_inputs = &inputs[..self.conv_inputs()];
        let z = self.conv.output(conv_inputs, &self.conv.shape(conv_inputs, Precision::Fast)?);
        Ok([&[z], &inputs[self.conv_inputs()..]].concat())
    }
}

impl Op for ConvNormActivation {
    fn name(&self) -> &'static str {
        "conv_norm_activation"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let count = self.conv_inputs() + self.norm.input_count() - 1;
        check::inputs(self.name(), inputs, count, count)?;
        self.conv.infer(&inputs[..self.conv_inputs()])?;
        self.norm.infer(&self.norm_metas(inputs)?)
    }

    /// z, the convolution's output, and the norm's statistics.
    fn state(&self, _: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
        [&outputs[..1], &self.norm.state(&outputs[..1], outputs)].concat()
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        cpu::run::fused(self, context, inputs, outputs)
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        cuda::fused(self, context, inputs, outputs)
    }

    fn saves_input(&self, index: usize) -> bool {
        // Everything is needed except the convolution's bias.
        index <= self.conv.weight() || index >= self.conv_inputs()
    }

    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        cpu::run::fused_gradients(self, context, saved, gradients, needed)
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        cuda::fused_gradients(self, context, saved, gradients, needed)
    }

    /// z is freed before the convolution's backward pass, and x before its gradient is computed.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    fn recompute(&self) -> Option<&dyn Recompute> {
        Some(self)
    }

    /// That of the convolution; the norm computes in f32.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        self.conv.half_policy(device)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let conv = self.conv.cost(&inputs[..self.conv_inputs()], outputs);
        Cost { flops: conv.flops + 8.0 * outputs[0].count() as f64, ..conv }
    }
}

impl Recompute for ConvNormActivation {
    fn reads_input(&self, index: usize) -> bool {
        index >= self.conv_inputs()
    }

    fn output_cpu(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        self.norm.output_cpu(context, &self.norm_saved(saved)?)
    }

    fn output_cuda(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        cuda::fused_again(self, context, saved)
    }
}

impl ConvNormActivation {
    /// The saved values of the norm, whose x is z in this operation's state.
    pub(super) fn norm_saved(&self, saved: &Saved) -> Result<Saved> {
        let count = self.conv_inputs();
        let inputs = std::iter::once(Some(saved.state(0)?.clone())).chain(saved.inputs[count..].iter().cloned());
        Ok(Saved {
            inputs: inputs.collect(),
            outputs: Vec::new(),
            state: vec![saved.state(1)?.clone()],
            metas: [&saved.output_metas[..1], &saved.metas[count..]].concat(),
            output_metas: saved.output_metas.clone(),
        })
    }
}
