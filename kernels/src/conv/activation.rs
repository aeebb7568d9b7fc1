//! Convolution and activation as one operation.

use tomograd_core::{Device, Result, Tensor};

use super::{Conv, cpu};
use crate::{
    Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, SavedUntil,
    cast::cast,
    dispatch::{widen, widen_all, widen_meta},
    elementwise::{Chain, Function},
};

/// y = activation(conv(x)) as one operation. In inference the convolution applies the activation to its outputs before it
/// stores them, where its kernel can: there is no second pass over memory, and no tensor between the two. For the backward
/// pass, the convolution's inputs and its output are saved.
///
/// Inputs: those of the convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvActivation {
    /// The convolution.
    pub conv: Conv,
    /// The activation.
    pub activation: Function,
}

impl ConvActivation {
    fn chain(&self) -> Chain {
        Chain::unary(self.activation)
    }

    /// The gradient of z, the convolution's output, from that of the operation's, in z's dtype.
    fn gradient_of_z(
        &self,
        context: &Context,
        saved: &mut Saved,
        gradients: Vec<Option<Tensor>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let z = saved.state(0)?.clone();
        // Only the chain reads z, so z is freed before the backward pass of the convolution.
        saved.state.clear();
        let dtype = z.dtype();
        let mut chain_saved = Saved::new(&self.chain(), &[&widen(&z)?], &Forward::new(Vec::new(), Vec::new()));
        chain_saved.output_metas = saved.output_metas.iter().map(widen_meta).collect();
        drop(z);
        let wide = widen_all(&gradients)?;
        drop(gradients);
        let gradients = self.chain().backward(context, chain_saved, wide, &[true])?;
        gradients.into_iter().map(|dz| dz.map(|dz| cast(&dz, dtype)).transpose()).collect()
    }

    fn parts(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let z = self.conv.forward(context, inputs, outputs)?.outputs.swap_remove(0);
        let wide: Vec<Meta> = outputs.iter().map(widen_meta).collect();
        let mut result = self.chain().forward(context, &[&widen(&z)?], &wide)?;
        result.outputs[0] = cast(&result.outputs[0], z.dtype())?;
        if !context.inference {
            result.state = vec![z];
        }
        Ok(result)
    }
}

impl Op for ConvActivation {
    fn name(&self) -> &'static str {
        "conv_activation"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        self.chain().infer(&self.conv.infer(inputs)?)
    }

    /// z, the convolution's output.
    fn state(&self, _: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
        outputs.to_vec()
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        if context.inference
            && let Some(result) = cpu::run::activated(self, context, inputs, outputs)?
        {
            return Ok(result);
        }
        self.parts(context, inputs, outputs)
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        self.parts(context, inputs, outputs)
    }

    fn saves_input(&self, index: usize) -> bool {
        self.conv.saves_input(index)
    }

    fn backward(
        &self,
        context: &Context,
        mut saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let gradients = self.gradient_of_z(context, &mut saved, gradients)?;
        self.conv.backward(context, saved, gradients, needed)
    }

    /// z is freed before the convolution's backward pass, and x before its gradient is computed.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    /// That of the convolution; the activation computes in f32.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        self.conv.half_policy(device)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let conv = self.conv.cost(inputs, outputs);
        Cost { flops: conv.flops + outputs[0].count() as f64, ..conv }
    }
}
