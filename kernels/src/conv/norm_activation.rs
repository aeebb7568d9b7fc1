//! Convolution, norm and activation as one operation.

use tomograd_core::{Result, Tensor};

use super::{Conv, cpu};
use crate::{Context, Cost, Forward, Meta, Op, Precision, Recompute, Saved, SavedUntil, check, norm::Norm};

/// y = activation(norm(conv(x))) in one operation: the convolution's store takes the moments for the norm, and for the
/// backward run only the convolution's inputs, its output and the statistics are kept. y is made again from these when an
/// operation that follows needs it ([`Op::recompute`]).
///
/// Inputs: those of the convolution, then those of the norm after its x. With statistics that are given
/// ([`Statistics::Running`](crate::norm::Statistics::Running)) the norm is folded into the convolution's store.
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

    /// The norm's inputs: z and what follows the convolution's.
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

    fn saves_input(&self, index: usize) -> bool {
        // The bias of the convolution isn't needed, everything else is.
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

    /// The convolution's x is freed before its gradient is made, z before that.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    fn recompute(&self) -> Option<&dyn Recompute> {
        Some(self)
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
}

impl ConvNormActivation {
    /// What the norm saved, its x being z of our state.
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
