//! Interpolation of images and volumes to another size.

pub(crate) mod axis;
pub(crate) mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
pub(crate) mod reference;

use tomograd_core::{Error, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::with_real};
use axis::AxisMap;

/// The interpolation mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The voxel ⌊o · in / out⌋ of each axis.
    Nearest,
    /// Linear along each axis (bi- or trilinear), between voxel centres at i + ½: output o is at (o + ½) · in / out − ½,
    /// clamped to the outermost centres.
    Linear,
    /// Linear along each axis with aligned corners: output o is at o · (in − 1) / (out − 1).
    LinearCorners,
}

/// x (N, C, spatial...) interpolated to (N, C, size...), for one to three spatial axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolate {
    /// The spatial size of the output.
    pub size: Vec<usize>,
    /// The interpolation mode.
    pub mode: Interpolation,
}

impl Interpolation {
    /// The position of output `o`, in voxels of the input.
    fn position(self, o: usize, input: usize, output: usize) -> f64 {
        match self {
            Interpolation::Nearest => (o * input / output) as f64,
            Interpolation::Linear => {
                let centre = (o as f64 + 0.5) * (input as f64 / output as f64) - 0.5;
                centre.clamp(0.0, (input - 1) as f64)
            }
            Interpolation::LinearCorners if output == 1 => 0.0,
            Interpolation::LinearCorners => {
                (o as f64 * ((input - 1) as f64 / (output - 1) as f64)).min((input - 1) as f64)
            }
        }
    }

    fn axis(self, input: usize, output: usize) -> AxisMap {
        AxisMap::new(input, output, |o| {
            let position = self.position(o, input, output);
            let (below, part) = (position.floor(), position - position.floor());
            // A voxel with weight zero isn't read, so that a NaN in it doesn't spread.
            (below as usize, if part == 0.0 { vec![1.0] } else { vec![1.0 - part, part] })
        })
    }
}

/// The maps of three axes, from those of the spatial axes; missing leading axes get the identity.
pub(crate) fn three_axes(maps: Vec<AxisMap>) -> [AxisMap; 3] {
    let mut all = [AxisMap::identity(1), AxisMap::identity(1), AxisMap::identity(1)];
    for (to, map) in all.iter_mut().rev().zip(maps.into_iter().rev()) {
        *to = map;
    }
    all
}

/// The gradient of a separable map.
pub(crate) fn separable_gradient(
    operation: &str,
    axes: &[AxisMap; 3],
    gradients: &[Option<Tensor>],
    input: &Meta,
) -> Result<Vec<Option<Tensor>>> {
    let Some(dy) = &gradients[0] else { return Ok(vec![None]) };
    let adjoint = axes.each_ref().map(AxisMap::adjoint);
    with_real!(operation, dy.dtype(), T => Ok(vec![Some(cpu::separable::<T>(operation, dy, &adjoint, &input.shape)?)]))
}

impl Interpolate {
    fn axes(&self, input: &[usize]) -> [AxisMap; 3] {
        let maps = input[2..].iter().zip(&self.size).map(|(&input, &output)| self.mode.axis(input, output));
        three_axes(maps.collect())
    }
}

impl Op for Interpolate {
    fn name(&self) -> &'static str {
        "interpolate"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("interpolate", inputs, 1, 1)?;
        check::same_float("interpolate", inputs)?;
        let x = &inputs[0];
        let rank = check::spatial("interpolate", x)?;
        if self.size.len() != rank {
            return Err(Error::argument("interpolate", format!("a size of {} axes", self.size.len()))
                .expected(format!("{rank} spatial axes"))
                .shapes([&x.shape[..]]));
        }
        if x.shape[2..].iter().zip(&self.size).any(|(&input, &output)| input == 0 && output != 0) {
            return Err(Error::shape("interpolate", "no voxel to interpolate from").shapes([&x.shape[..], &self.size]));
        }
        check::lengths("interpolate", &x.shape[2..], &self.size)?;
        Ok(vec![x.with_shape([&x.shape[..2], &self.size].concat())])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let axes = self.axes(inputs[0].shape());
        with_real!("interpolate", outputs[0].dtype, T => {
            Ok(Forward::one(cpu::separable::<T>("interpolate", inputs[0], &axes, &outputs[0].shape)?))
        })
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::forward(self, inputs[0], &outputs[0].shape)?))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        separable_gradient("interpolate", &self.axes(&saved.metas[0].shape), &gradients, &saved.metas[0])
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &gradients[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cuda::backward(self, dy, &saved.metas[0].shape)?)])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let taps = if self.mode == Interpolation::Nearest { 1 } else { 2usize.pow(self.size.len() as u32) };
        Cost::of(2.0 * taps as f64 * outputs[0].count() as f64, inputs, outputs)
    }
}
