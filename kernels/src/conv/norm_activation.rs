//! Convolution, norm and activation as one operation.

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::{
    Conv,
    cpu::{self, Activation, Epilogue, Moments, Outputs},
    op::inputs_of,
};
use crate::{
    Context, Cost, Forward, Meta, Op, Precision, Recompute, Saved, SavedUntil, check,
    elementwise::Function,
    norm::{Norm, Statistics},
    op::with_real,
};

/// y = activation(norm(conv(x))) in one operation: the convolution's store takes the moments for the norm, and for the
/// backward run only the convolution's inputs, its output and the statistics are kept. y is made again from these when an
/// operation that follows needs it ([`Op::recompute`]).
///
/// Inputs: those of the convolution, then those of the norm after its x. With statistics that are given
/// ([`Statistics::Running`]) the norm is folded into the convolution's store.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvNormActivation {
    /// The convolution.
    pub conv: Conv,
    /// The norm and the activation.
    pub norm: Norm,
}

impl ConvNormActivation {
    fn conv_inputs(&self) -> usize {
        self.conv.input_count()
    }

    /// The norm's inputs: z and what follows the convolution's.
    fn norm_metas(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let conv_inputs = &inputs[..self.conv_inputs()];
        let z = self.conv.output(conv_inputs, &self.conv.shape(conv_inputs, Precision::Fast)?);
        Ok([&[z], &inputs[self.conv_inputs()..]].concat())
    }

    /// The activation, if the convolution's store knows it.
    fn store_activation(&self) -> Option<Activation> {
        match self.norm.activation {
            None => Some(Activation::Identity),
            Some(Function::Relu) => Some(Activation::Relu),
            Some(Function::LeakyRelu(slope)) => Some(Activation::LeakyRelu(slope)),
            Some(_) => None,
        }
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
        let (conv_inputs, norm_inputs) = inputs.split_at(self.conv_inputs());
        let metas: Vec<Meta> = conv_inputs.iter().map(|&x| Meta::from(x)).collect();
        let shape = self.conv.shape(&metas, context.precision)?;
        let parts: Vec<Tensor> = conv_inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
        with_real!(self.name(), outputs[0].dtype, T => {
            let weight = self.conv.weight();
            let x = inputs_of::<T>(&parts[..weight])?;
            let bias = if self.conv.bias { Some(parts[weight + 1].as_slice::<T>()?) } else { None };
            let mut builder = TensorBuilder::<T>::new(self.name(), &outputs[0].shape, outputs[0].device)?;
            let y = Outputs::one(builder.uninit()?, shape.out_channels);
            let weights = parts[weight].as_slice::<T>()?;
            if let (Statistics::Running, true, Some(activation)) =
                (self.norm.statistics, context.inference, self.store_activation())
                && let Some(norm) = self.norm.folded::<T>(norm_inputs, shape.out_channels)?
            {
                let norm = Some(norm.each_ref().map(|numbers| &numbers[..]));
                cpu::forward(&shape, x, weights, Epilogue { bias, norm, activation, moments: None }, y)?;
                // SAFETY: the kernel writes every element of its output.
                return Ok(Forward::one(unsafe { builder.assume_init() }));
            }
            let mut moments = vec![Moments::default(); shape.batch * shape.out_channels];
            let wanted = (self.norm.statistics != Statistics::Running).then_some(&mut moments[..]);
            let epilogue = Epilogue { bias, moments: wanted, ..Epilogue::default() };
            cpu::forward(&shape, x, weights, epilogue, y)?;
            // SAFETY: the kernel writes every element of its output.
            let z = unsafe { builder.assume_init() };
            let mut all = vec![z.clone()];
            all.extend(norm_inputs.iter().map(|&x| x.clone()));
            drop(z);
            let mut forward = self.norm.forward_with(context, all, Some(&moments), outputs)?;
            forward.state.truncate(2);
            Ok(forward)
        })
    }

    fn saves_input(&self, index: usize) -> bool {
        // The bias of the convolution isn't needed, everything else is.
        index <= self.conv.weight() || index >= self.conv_inputs()
    }

    fn backward_cpu(
        &self,
        context: &Context,
        mut saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let count = self.conv_inputs();
        let wants_conv = needed[..count].contains(&true);
        let norm_saved = self.norm_saved(&saved)?;
        // The norm alone reads z: it is freed before the convolution's turn.
        saved.state.clear();
        let norm_needed = [&[wants_conv], &needed[count..]].concat();
        let mut norm_gradients = self.norm.backward_cpu(context, norm_saved, gradients, &norm_needed)?;
        let dz = norm_gradients.remove(0);
        let mut results = match dz {
            Some(dz) => self.conv.gradients(context, saved, &dz, &needed[..count])?,
            None => vec![None; count],
        };
        results.extend(norm_gradients);
        Ok(results)
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
    fn norm_saved(&self, saved: &Saved) -> Result<Saved> {
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
