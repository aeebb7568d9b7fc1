//! Reductions over axes.

mod cpu;
mod reference;
mod sum_to;

pub use sum_to::sum_to;

use tomograd_core::{DType, Error, Random, Result, Tensor, contiguous_strides};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::backward_by_device, registry, registry::Proven};

/// How a reduction combines elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Σ x.
    Sum,
    /// Σ x / n; NaN for no elements.
    Mean,
    /// The largest element, or NaN if there is one; the gradient goes to the first that equals it.
    Max,
    /// The smallest element, or NaN if there is one; the gradient goes to the first that equals it.
    Min,
}

/// The sum, mean, maximum or minimum over `axes`, which are left out of the shape or kept with size 1. A maximum or minimum
/// of no elements is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reduce {
    /// How elements are combined.
    pub combine: Combine,
    /// The axes that are reduced.
    pub axes: Vec<usize>,
    /// Whether they stay with size 1.
    pub keep_axes: bool,
}

impl Reduce {
    fn kept(&self, shape: &[usize]) -> Vec<usize> {
        shape.iter().enumerate().map(|(axis, &size)| if self.axes.contains(&axis) { 1 } else { size }).collect()
    }

    fn is_extreme(&self) -> bool {
        matches!(self.combine, Combine::Max | Combine::Min)
    }

    fn factor(&self, shape: &[usize]) -> f64 {
        match self.combine {
            Combine::Sum | Combine::Max | Combine::Min => 1.0,
            Combine::Mean => 1.0 / self.axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64,
        }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.combine {
            Combine::Sum => "sum",
            Combine::Mean => "mean",
            Combine::Max => "max",
            Combine::Min => "min",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, 1, 1)?;
        check::same_float(self.name(), inputs)?;
        for (i, &axis) in self.axes.iter().enumerate() {
            check::axis(self.name(), &inputs[0], axis)?;
            if self.axes[..i].contains(&axis) {
                return Err(Error::argument(self.name(), format!("axis {axis} is named twice")));
            }
        }
        if self.is_extreme() && self.axes.iter().any(|&axis| inputs[0].shape[axis] == 0) {
            return Err(Error::shape(self.name(), "no elements to choose from").shapes([&inputs[0].shape[..]]));
        }
        let shape = if self.keep_axes {
            self.kept(&inputs[0].shape)
        } else {
            let kept = (0..inputs[0].rank()).filter(|axis| !self.axes.contains(axis));
            kept.map(|axis| inputs[0].shape[axis]).collect()
        };
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let result = cpu::reduce(inputs[0], &self.axes, self.combine, self.factor(inputs[0].shape()))?;
        Ok(Forward::one(result.reshape(&outputs[0].shape)?))
    }

    fn saves_input(&self, _: usize) -> bool {
        self.is_extreme()
    }

    fn saves_output(&self, _: usize) -> bool {
        self.is_extreme()
    }

    fn backward(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        if self.is_extreme() {
            return backward_by_device(self, context, saved, gradients, needed);
        }
        // Of a sum the gradient is a view, on every device.
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        let shape = &saved.metas[0].shape;
        let scale = crate::elementwise::Chain::unary(crate::elementwise::Function::Multiply(self.factor(shape)));
        let scaled = crate::run(&scale, &[gradient], context)?.outputs;
        Ok(vec![Some(scaled[0].reshape(&self.kept(shape))?.expand(shape)?)])
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
        Ok(vec![Some(cpu::first_equal(saved.input(0)?, saved.output(0)?, gradient, &self.axes)?)])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}

/// A random shape of `least` to four axes: now and then around a block of columns, or several segments of rows.
fn blocks(random: &mut Random, least: usize) -> Vec<usize> {
    let segment = cpu::GRAIN / cpu::BLOCK;
    match random.below(16) {
        0 | 1 => registry::corner(random, least, 3, &[cpu::BLOCK]),
        2 => vec![registry::around(random, &[segment]), registry::around(random, &[cpu::BLOCK])],
        _ => registry::shape(random, least, 4),
    }
}

impl Proven for Reduce {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::reduce(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = blocks(random, 0);
        let axes: Vec<usize> = (0..shape.len()).filter(|_| random.bernoulli(0.5)).collect();
        let empty = axes.iter().any(|&axis| shape[axis] == 0);
        let all = [Combine::Sum, Combine::Mean, Combine::Max, Combine::Min];
        let combine = if empty { Combine::Sum } else { all[random.below(4) as usize] };
        let keep_axes = random.bernoulli(0.5);
        Ok((Self { combine, axes, keep_axes }, vec![registry::values(random, &shape)?]))
    }

    /// The sum of n terms is made in f64 for f32 (one rounding) and in f64 for f64 (n roundings at most).
    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        if self.is_extreme() {
            return Ok(vec![registry::map(&self.reference(inputs)?[0], f64::abs)?]);
        }
        let magnitude = self.reference(&[registry::map(&inputs[0], f64::abs)?])?;
        let terms = self.axes.iter().map(|&axis| inputs[0].shape()[axis]).product::<usize>() as f64;
        Ok(vec![registry::map(&magnitude[0], |sum| sum * terms.max(1.0))?])
    }
}

/// The position of the first maximum along `axis`, i64; a NaN counts as the largest. The axis is left out of the shape, and may
/// not be empty. It has no gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgMax {
    /// The axis that is searched.
    pub axis: usize,
}

impl Op for ArgMax {
    fn name(&self) -> &'static str {
        "arg_max"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("arg_max", inputs, 1, 1)?;
        check::same_float("arg_max", inputs)?;
        check::axis("arg_max", &inputs[0], self.axis)?;
        let mut shape = inputs[0].shape.clone();
        if shape.remove(self.axis) == 0 {
            return Err(Error::shape("arg_max", "no elements to choose from").shapes([&inputs[0].shape[..]]));
        }
        Ok(vec![inputs[0].with_shape(shape).with_dtype(DType::I64)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cpu::arg_max(inputs[0], self.axis, &outputs[0].shape)?))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        _: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None; needed.len()])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}

impl Proven for ArgMax {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::arg_max(&inputs[0], self.axis)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = blocks(random, 1);
        let axis = random.below(shape.len() as u64) as usize;
        shape[axis] = shape[axis].max(1);
        // Ties, of which the first counts.
        Ok((Self { axis }, vec![registry::map(&registry::values(random, &shape)?, |x| (2.0 * x).round() / 2.0)?]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}

/// Row-major position of each kept index, and the strides of the output over the input's axes (0 where reduced).
pub(crate) fn output_strides(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let kept: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    let strides = contiguous_strides(&kept);
    (0..shape.len()).map(|axis| if axes.contains(&axis) { 0 } else { strides[axis] }).collect()
}
