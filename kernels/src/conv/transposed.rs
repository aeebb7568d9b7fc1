//! The transposed convolution operation.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{
    ConvShape, cpu, cuda,
    op::{check_attributes, check_rank, three},
};
use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Saved, SavedUntil, check};

/// The transposed convolution: the backward pass of a convolution with respect to its input, as a forward operation.
///
/// Inputs: x (N, C_in, spatial...), the weight (C_in, C_out / groups, kernel...), and a bias (C_out) when `bias`. Along an
/// axis the output has (size − 1) · stride − 2 · padding + dilation · (kernel − 1) + output padding + 1 voxels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTranspose {
    /// The distance of neighbouring inputs in the output in voxels, for each spatial axis.
    pub stride: Vec<usize>,
    /// The number of voxels cut off on both sides, for each spatial axis.
    pub padding: Vec<usize>,
    /// The number of voxels added at the end, for each spatial axis; less than the stride.
    pub output_padding: Vec<usize>,
    /// The distance of neighbouring taps in voxels, for each spatial axis.
    pub dilation: Vec<usize>,
    /// The number of groups into which the channels are divided.
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

    /// The convolution whose backward pass this operation is: the input of the convolution is the output of this operation.
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
        cpu::run::transposed(self, context, inputs, outputs)
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::transposed(self, context, inputs, outputs)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index < 2
    }

    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        cpu::run::transposed_gradients(self, context, saved, &gradients, needed)
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        match &gradients[0] {
            Some(dy) => cuda::transposed_gradients(self, context, &saved, dy, needed),
            None => Ok(vec![None; needed.len()]),
        }
    }

    /// x is freed before its gradient is computed.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    /// CUDA devices have tensor cores for both; kernels of f32 widen them themselves.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let multiply_adds = self.shape(inputs, Precision::Fast).map_or(0.0, |shape| shape.multiply_adds() as f64);
        Cost::of_products(multiply_adds, inputs, outputs)
    }
}
