//! The convolution operation.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{ConvShape, cpu, cuda};
use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Precision, Saved, SavedUntil, check};

/// A convolution of (N, C, spatial...) with one to three spatial axes.
///
/// Inputs: x, a second x when `two_inputs` (its channels follow those of the first, as if concatenated), the weight
/// (C_out, C_in / groups, kernel...), and a bias (C_out) when `bias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv {
    /// The distance of neighbouring outputs in voxels, for each spatial axis.
    pub stride: Vec<usize>,
    /// The number of zeros on both sides, for each spatial axis.
    pub padding: Vec<usize>,
    /// The distance of neighbouring taps in voxels, for each spatial axis.
    pub dilation: Vec<usize>,
    /// The number of groups into which the channels are divided.
    pub groups: usize,
    /// Whether there is a second x.
    pub two_inputs: bool,
    /// Whether there is a bias.
    pub bias: bool,
}

/// The values of the spatial axes extended to three axes; missing leading axes get `fill`.
pub(super) fn three(values: &[usize], fill: usize) -> [usize; 3] {
    let mut all = [fill; 3];
    for (to, from) in all.iter_mut().rev().zip(values.iter().rev()) {
        *to = *from;
    }
    all
}

/// Checks that the number of spatial axes is one to three.
pub(super) fn check_rank(operation: &str, rank: usize) -> Result<()> {
    if (1..=3).contains(&rank) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("{rank} spatial axes")).expected("one to three"))
}

pub(super) fn check_attributes(operation: &str, rank: usize, attributes: [&[usize]; 3]) -> Result<()> {
    if attributes.iter().all(|values| values.len() == rank) {
        return Ok(());
    }
    Err(Error::argument(operation, format!("stride, padding and dilation {attributes:?} for {rank} spatial axes"))
        .expected("one number for each spatial axis"))
}

impl Conv {
    /// A plain convolution over `rank` spatial axes: stride 1, no padding, one group, no bias.
    ///
    /// # Errors
    /// When there aren't one to three axes.
    pub fn new(rank: usize) -> Result<Self> {
        check_rank("conv", rank)?;
        let ones = vec![1; rank];
        let padding = vec![0; rank];
        Ok(Self { stride: ones.clone(), padding, dilation: ones, groups: 1, two_inputs: false, bias: false })
    }

    /// The number of inputs.
    pub fn input_count(&self) -> usize {
        2 + usize::from(self.two_inputs) + usize::from(self.bias)
    }

    pub(super) fn weight(&self) -> usize {
        1 + usize::from(self.two_inputs)
    }

    /// Checks the inputs and returns the sizes of the convolution.
    pub(super) fn shape(&self, inputs: &[Meta], precision: Precision) -> Result<ConvShape> {
        let x = &inputs[0];
        let weight = &inputs[self.weight()];
        let rank = check::spatial("conv", x)?;
        check_attributes("conv", rank, [&self.stride, &self.padding, &self.dilation])?;
        let fail = |what: String, expected: String| {
            Error::shape("conv", what).expected(expected).shapes(inputs.iter().map(|meta| &meta.shape[..]))
        };
        let mut channels = x.shape[1];
        if self.two_inputs {
            let second = &inputs[1];
            if second.rank() != x.rank() || second.shape[0] != x.shape[0] || second.shape[2..] != x.shape[2..] {
                return Err(fail(
                    "the two inputs differ in more than channels".into(),
                    "equal batch and voxels".into(),
                ));
            }
            channels = channels
                .checked_add(second.shape[1])
                .ok_or_else(|| fail("the number of channels overflows".into(), "fewer channels".into()))?;
        }
        if weight.rank() != rank + 2 {
            return Err(fail(format!("a weight of rank {}", weight.rank()), format!("rank {}", rank + 2)));
        }
        let groups = self.groups.max(1);
        if weight.shape[1].checked_mul(groups) != Some(channels) {
            return Err(fail(
                format!("the weight takes {} channels in {groups} groups, the input has {channels}", weight.shape[1]),
                format!("a weight (C_out, {}, kernel...)", channels / groups),
            ));
        }
        if self.bias && inputs[self.weight() + 1].shape != [weight.shape[0]] {
            return Err(fail("the bias doesn't fit the weight".into(), format!("({},)", weight.shape[0])));
        }
        let shape = ConvShape {
            batch: x.shape[0],
            groups: self.groups,
            in_channels: channels,
            out_channels: weight.shape[0],
            input: three(&x.shape[2..], 1),
            kernel: three(&weight.shape[2..], 1),
            stride: three(&self.stride, 1),
            padding: three(&self.padding, 0),
            dilation: three(&self.dilation, 1),
            precision,
        };
        shape.check()?;
        Ok(shape)
    }

    pub(super) fn output(&self, inputs: &[Meta], shape: &ConvShape) -> Meta {
        let rank = inputs[0].rank() - 2;
        inputs[0].with_shape([&[shape.batch, shape.out_channels], &shape.output()[3 - rank..]].concat())
    }
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("conv", inputs, self.input_count(), self.input_count())?;
        check::same_float("conv", inputs)?;
        let shape = self.shape(inputs, Precision::Fast)?;
        Ok(vec![self.output(inputs, &shape)])
    }

    fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        cpu::run::conv(self, context, inputs, outputs)
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::conv(self, context, inputs, outputs)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index <= self.weight()
    }

    fn backward_cpu(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        match &gradients[0] {
            Some(dy) => cpu::run::conv_gradients(self, context, saved, dy, needed),
            None => Ok(vec![None; needed.len()]),
        }
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        match &gradients[0] {
            Some(dy) => cuda::conv_gradients(self, context, &saved, dy, needed),
            None => Ok(vec![None; needed.len()]),
        }
    }

    /// x is freed before its gradient is computed.
    fn saved_until(&self) -> SavedUntil {
        SavedUntil::TheGradients
    }

    /// CUDA devices have tensor cores and depthwise kernels for both; kernels of f32 widen them themselves.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let multiply_adds = self.shape(inputs, Precision::Fast).map_or(0.0, |shape| shape.multiply_adds() as f64);
        Cost::of_products(multiply_adds, inputs, outputs)
    }
}
