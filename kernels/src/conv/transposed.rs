//! The transposed convolution operation.

use tomograd_core::{Error, Result, Tensor, TensorBuilder};

use super::{
    ConvShape,
    cpu::{self, Epilogue, Inputs, Outputs},
    op::{check_attributes, check_rank, three},
};
use crate::{Context, Cost, Forward, Meta, Op, Precision, Saved, SavedUntil, check, op::with_real, reduce};

/// The transposed convolution: the backward pass of a convolution with respect to its input, as a forward operation.
///
/// Inputs: x (N, C_in, spatial...), the weight (C_in, C_out / groups, kernel...), and a bias (C_out) when `bias`. Along an
/// axis the output has (size − 1) · stride − 2 · padding + dilation · (kernel − 1) + output padding + 1 voxels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTranspose {
    /// Voxels between the places of neighbouring inputs, for each spatial axis.
    pub stride: Vec<usize>,
    /// Voxels cut off on both sides, for each spatial axis.
    pub padding: Vec<usize>,
    /// Voxels added at the end, for each spatial axis; fewer than the stride.
    pub output_padding: Vec<usize>,
    /// Voxels between neighbouring taps, for each spatial axis.
    pub dilation: Vec<usize>,
    /// Into how many groups the channels are divided.
    pub groups: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

impl ConvTranspose {
    /// A transposed convolution over `rank` spatial axes with this stride along each, no padding, one group, no bias.
    ///
    /// # Errors
    /// When there aren't one to three axes, or the stride is 0.
    pub fn new(rank: usize, stride: usize) -> Result<Self> {
        check_rank("conv_transpose", rank)?;
        if stride == 0 {
            return Err(Error::argument("conv_transpose", "a stride of 0").expected("at least 1"));
        }
        let (ones, zeros) = (vec![1; rank], vec![0; rank]);
        Ok(Self {
            stride: vec![stride; rank],
            padding: zeros.clone(),
            output_padding: zeros,
            dilation: ones,
            groups: 1,
            bias: false,
        })
    }

    fn input_count(&self) -> usize {
        2 + usize::from(self.bias)
    }

    /// The convolution whose backward pass this is: its input is our output.
    pub(super) fn shape(&self, inputs: &[Meta], precision: Precision) -> Result<ConvShape> {
        let (x, weight) = (&inputs[0], &inputs[1]);
        let rank = check::spatial("conv_transpose", x)?;
        check_attributes("conv_transpose", rank, [&self.stride, &self.padding, &self.dilation])?;
        check_attributes("conv_transpose", rank, [&self.output_padding, &self.padding, &self.dilation])?;
        let fail = |what: &str| {
            Error::shape("conv_transpose", what)
                .expected("x (N, C_in, spatial...), weight (C_in, C_out / groups, kernel...), bias (C_out)")
                .shapes(inputs.iter().map(|meta| &meta.shape[..]))
        };
        if weight.rank() != rank + 2 || weight.shape[0] != x.shape[1] {
            return Err(fail("the weight doesn't fit the input"));
        }
        let out_channels =
            weight.shape[1].checked_mul(self.groups).ok_or_else(|| fail("the number of channels overflows"))?;
        if self.bias && inputs[2].shape != [out_channels] {
            return Err(fail("the bias doesn't fit the weight"));
        }
        let mut output = Vec::with_capacity(rank);
        for axis in 0..rank {
            if self.output_padding[axis] >= self.stride[axis] {
                return Err(Error::argument("conv_transpose", format!("output padding {:?}", self.output_padding))
                    .expected("less than the stride"));
            }
            let size = || {
                let places = x.shape[2 + axis].checked_sub(1)?.checked_mul(self.stride[axis])?;
                let reach = weight.shape[2 + axis].checked_sub(1)?.checked_mul(self.dilation[axis])?;
                let whole = places.checked_add(reach)?.checked_add(self.output_padding[axis])?.checked_add(1)?;
                whole.checked_sub(self.padding[axis].checked_mul(2)?).filter(|&size| size > 0)
            };
            output.push(size().ok_or_else(|| fail("the output would be empty, or its size overflows"))?);
        }
        let shape = ConvShape {
            batch: x.shape[0],
            groups: self.groups,
            in_channels: out_channels,
            out_channels: x.shape[1],
            input: three(&output, 1),
            kernel: three(&weight.shape[2..], 1),
            stride: three(&self.stride, 1),
            padding: three(&self.padding, 0),
            dilation: three(&self.dilation, 1),
            precision,
        };
        shape.check()?;
        Ok(shape)
    }
}

impl Op for ConvTranspose {
    fn name(&self) -> &'static str {
        "conv_transpose"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("conv_transpose", inputs, self.input_count(), self.input_count())?;
        check::same_float("conv_transpose", inputs)?;
        let shape = self.shape(inputs, Precision::Fast)?;
        let rank = inputs[0].rank() - 2;
        Ok(vec![inputs[0].with_shape([&[shape.batch, shape.in_channels], &shape.input[3 - rank..]].concat())])
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let inputs: Vec<Tensor> = inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
        let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
        let shape = self.shape(&metas, context.precision)?;
        with_real!("conv_transpose", outputs[0].dtype, T => {
            let mut builder = TensorBuilder::<T>::new("conv_transpose", &outputs[0].shape, outputs[0].device)?;
            let bias = if self.bias { Some(inputs[2].as_slice::<T>()?) } else { None };
            let x = Inputs::one(inputs[0].as_slice::<T>()?, shape.out_channels);
            let y = Outputs::one(builder.uninit()?, shape.in_channels);
            cpu::transposed_forward(&shape, x, inputs[1].as_slice::<T>()?, Epilogue::bias(bias), y)?;
            // SAFETY: the kernel writes every element of its output.
            Ok(Forward::one(unsafe { builder.assume_init() }))
        })
    }

    fn saves_input(&self, index: usize) -> bool {
        index < 2
    }

    fn backward_cpu(
        &self,
        context: &Context,
        mut saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut results = vec![None; needed.len()];
        let Some(gradient) = &gradients[0] else { return Ok(results) };
        let shape = self.shape(&saved.metas, context.precision)?;
        let gradient = gradient.contiguous()?;
        with_real!("conv_transpose", gradient.dtype(), T => {
            let dy = gradient.as_slice::<T>()?;
            let build = |index: usize| {
                TensorBuilder::<T>::new("conv_transpose", &saved.metas[index].shape, saved.metas[index].device)
            };
            if needed[1] {
                let x = saved.input(0)?.contiguous()?;
                let mut builder = build(1)?;
                let dy = Inputs::one(dy, shape.in_channels);
                cpu::backward_weights(&shape, dy, x.as_slice::<T>()?, builder.uninit()?)?;
                // SAFETY: the backward pass writes every weight's gradient.
                results[1] = Some(unsafe { builder.assume_init() });
            }
            if self.bias && needed[2] {
                let mut channels = vec![1; gradient.rank()];
                channels[1] = shape.in_channels;
                results[2] = Some(reduce::sum_to(&gradient, &channels)?.reshape(&[shape.in_channels])?);
            }
            // Nothing reads x any more: its memory can be that of its gradient.
            saved.inputs[0] = None;
            if needed[0] {
                let weight = saved.input(1)?.contiguous()?;
                let mut builder = build(0)?;
                let dx = Outputs::one(builder.uninit()?, shape.out_channels);
                let dy = Inputs::one(dy, shape.in_channels);
                cpu::forward(&shape, dy, weight.as_slice::<T>()?, Epilogue::default(), dx)?;
                // SAFETY: the kernel writes every element of its output.
                results[0] = Some(unsafe { builder.assume_init() });
            }
            Ok(results)
        })
    }

    /// x is freed before its gradient is made.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let flops = self.shape(inputs, Precision::Fast).map_or(0.0, |shape| 2.0 * shape.multiply_adds() as f64);
        Cost::of(flops, inputs, outputs)
    }
}
