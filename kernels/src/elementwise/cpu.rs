//! Chains on the CPU: a single pass over memory, in blocks that stay in the L1 cache.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{DType, Error, ErrorKind, Result, Scratch, Tensor, TensorBuilder};

use super::Step;
use crate::{
    Meta,
    parallel::{Partition, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch},
};

/// Elements of a parallel chunk: about 50 µs of work.
const GRAIN: usize = 1 << 16;
/// Elements of a block; a multiple of every vector's lanes.
pub(super) const BLOCK: usize = 1024;

/// x + number.
pub(super) fn increment(x: &Tensor, number: i64) -> Result<Tensor> {
    let counts = x.contiguous()?;
    let mut builder = TensorBuilder::<i64>::new("increment", x.shape(), x.device())?;
    for (to, count) in builder.uninit()?.iter_mut().zip(counts.as_slice::<i64>()?) {
        let sum = count.checked_add(number);
        to.write(sum.ok_or_else(|| Error::argument("increment", "a count leaves the range of i64"))?);
    }
    // SAFETY: the loop wrote every element.
    Ok(unsafe { builder.assume_init() })
}

pub(super) fn forward(steps: &[Step], inputs: &[&Tensor], output: &Meta) -> Result<Tensor> {
    match output.dtype {
        DType::F32 => forward_of::<f32>(steps, inputs, output),
        DType::F64 => forward_of::<f64>(steps, inputs, output),
        dtype => Err(wrong(dtype)),
    }
}

pub(super) fn backward(
    steps: &[Step],
    inputs: &[Tensor],
    gradient: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    match gradient.dtype() {
        DType::F32 => backward_of::<f32>(steps, inputs, gradient, needed),
        DType::F64 => backward_of::<f64>(steps, inputs, gradient, needed),
        dtype => Err(wrong(dtype)),
    }
}

#[cold]
fn wrong(dtype: DType) -> Error {
    Error::new(ErrorKind::DType, "chain", format!("no kernel for {dtype}"))
}

/// A broadcast input: a contiguous slice, or strides over the common shape.
struct Operand<'a, T> {
    elements: &'a [T],
    view: Tensor,
}

impl<'a, T: Real> Operand<'a, T> {
    fn new(tensor: &'a Tensor, shape: &[usize]) -> Result<Self> {
        let view = tensor.expand(shape)?;
        Ok(Self { elements: tensor.as_storage_slice::<T>()?, view })
    }

    /// The elements `range` of the common shape: a slice of the input if they are contiguous, otherwise gathered into
    /// `buffer`.
    fn block<'b>(&'b self, range: Range<usize>, buffer: &'b mut [T]) -> &'b [T] {
        let layout = self.view.layout();
        if layout.is_contiguous() {
            return &self.elements[layout.offset() + range.start..layout.offset() + range.end];
        }
        let (shape, strides) = (layout.shape(), layout.strides());
        let (size, stride) = (shape[shape.len() - 1], strides[shape.len() - 1]);
        let mut flat = range.start;
        while flat < range.end {
            let (mut row, column) = (flat / size, flat % size);
            let length = (size - column).min(range.end - flat);
            let mut start = layout.offset() + column * stride;
            for axis in (0..shape.len() - 1).rev() {
                start += row % shape[axis] * strides[axis];
                row /= shape[axis];
            }
            let target = &mut buffer[flat - range.start..][..length];
            match stride {
                0 => target.fill(self.elements[start]),
                1 => target.copy_from_slice(&self.elements[start..start + length]),
                _ => target.iter_mut().enumerate().for_each(|(i, to)| *to = self.elements[start + i * stride]),
            }
            flat += length;
        }
        &buffer[..range.len()]
    }
}

/// x ← step(x) over a block.
struct Apply<'a, T> {
    step: Step,
    x: &'a mut [T],
    /// The other input of a binary step.
    y: &'a [T],
}

impl<T: Real> Kernel for Apply<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let lanes = T::Vec::<S>::LANES;
        match self.step {
            Step::Unary(function) => {
                for x in self.x.chunks_mut(lanes) {
                    function.value(T::Vec::<S>::load_partial(x)).store_partial(x);
                }
            }
            Step::Binary(function, _) => {
                for (x, y) in self.x.chunks_mut(lanes).zip(self.y.chunks(lanes)) {
                    function.value(T::Vec::<S>::load_partial(x), T::Vec::<S>::load_partial(y)).store_partial(x);
                }
            }
        }
    }
}

/// dx ← dx · ∂step/∂x, and dy += dx · ∂step/∂y, over a block.
struct Adjoint<'a, T> {
    step: Step,
    x: &'a [T],
    y: &'a [T],
    dx: &'a mut [T],
    dy: Option<&'a mut [T]>,
}

impl<T: Real> Kernel for Adjoint<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let lanes = T::Vec::<S>::LANES;
        match self.step {
            Step::Unary(function) => {
                for (dx, x) in self.dx.chunks_mut(lanes).zip(self.x.chunks(lanes)) {
                    let slope = function.derivative(T::Vec::<S>::load_partial(x));
                    T::Vec::<S>::load_partial(dx).mul(slope).store_partial(dx);
                }
            }
            Step::Binary(function, _) => {
                let mut dy = self.dy.map(|dy| dy.chunks_mut(lanes));
                for ((dx, x), y) in self.dx.chunks_mut(lanes).zip(self.x.chunks(lanes)).zip(self.y.chunks(lanes)) {
                    let (x, y) = (T::Vec::<S>::load_partial(x), T::Vec::<S>::load_partial(y));
                    let (slope_x, slope_y) = function.derivatives(x, y);
                    let gradient = T::Vec::<S>::load_partial(dx);
                    if let Some(dy) = dy.as_mut().and_then(Iterator::next) {
                        gradient.mul_add(slope_y, T::Vec::<S>::load_partial(dy)).store_partial(dy);
                    }
                    gradient.mul(slope_x).store_partial(dx);
                }
            }
        }
    }
}

fn forward_of<T: Real>(steps: &[Step], inputs: &[&Tensor], output: &Meta) -> Result<Tensor> {
    let operands: Vec<Operand<'_, T>> =
        inputs.iter().map(|&input| Operand::new(input, &output.shape)).collect::<Result<_>>()?;
    let mut builder = TensorBuilder::<T>::new("chain", &output.shape, output.device)?;
    let elements = builder.uninit()?;
    let count = elements.len();
    let target = Partition::new(elements, GRAIN);
    parallel_for(count, GRAIN, |chunk| {
        let out = target.take(chunk.clone());
        let (mut first, mut other) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        for start in chunk.clone().step_by(BLOCK) {
            let range = start..chunk.end.min(start + BLOCK);
            let x = write(&mut out[start - chunk.start..][..range.len()], operands[0].block(range.clone(), &mut first));
            for &step in steps {
                let y = match step {
                    Step::Unary(_) => &[],
                    Step::Binary(_, input) => operands[input].block(range.clone(), &mut other),
                };
                dispatch(Apply { step, x, y });
            }
        }
    })?;
    // SAFETY: the chunks cover all elements, and each block is written completely before the steps change it.
    Ok(unsafe { builder.assume_init() })
}

fn write<'a, T: Real>(target: &'a mut [MaybeUninit<T>], values: &[T]) -> &'a mut [T] {
    target.write_copy_of_slice(values)
}

fn backward_of<T: Real>(
    steps: &[Step],
    inputs: &[Tensor],
    gradient: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let shape = gradient.shape();
    let operands: Vec<Operand<'_, T>> = inputs.iter().map(|input| Operand::new(input, shape)).collect::<Result<_>>()?;
    let cotangent = Operand::<T>::new(gradient, shape)?;
    let mut builders = needed
        .iter()
        .map(|&needed| needed.then(|| TensorBuilder::<T>::new("chain", shape, gradient.device())).transpose())
        .collect::<Result<Vec<_>>>()?;
    let mut targets = Vec::with_capacity(builders.len());
    for builder in &mut builders {
        targets.push(match builder {
            Some(builder) => Some(Partition::new(builder.uninit()?, GRAIN)),
            None => None,
        });
    }
    parallel_for(gradient.count(), GRAIN, |chunk| {
        let mut outs: Vec<Option<&mut [MaybeUninit<T>]>> =
            targets.iter().map(|target| target.as_ref().map(|target| target.take(chunk.clone()))).collect();
        // Block k of the scratch holds the value of x before step k.
        let mut scratch = or_give_up(Scratch::<T>::new("chain", steps.len() * BLOCK));
        let before = scratch.zeroed();
        let (mut first, mut other, mut dx) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        for start in chunk.clone().step_by(BLOCK) {
            let range = start..chunk.end.min(start + BLOCK);
            let length = range.len();
            before[..length].copy_from_slice(operands[0].block(range.clone(), &mut first));
            for (k, &step) in steps.iter().enumerate().take(steps.len() - 1) {
                let (done, next) = before[k * BLOCK..].split_at_mut(BLOCK);
                next[..length].copy_from_slice(&done[..length]);
                let y = match step {
                    Step::Unary(_) => &[],
                    Step::Binary(_, input) => operands[input].block(range.clone(), &mut other),
                };
                dispatch(Apply { step, x: &mut next[..length], y });
            }
            dx[..length].copy_from_slice(cotangent.block(range.clone(), &mut first));
            let offset = start - chunk.start;
            for out in outs.iter_mut().flatten() {
                out[offset..offset + length].fill(MaybeUninit::new(T::ZERO));
            }
            for (k, &step) in steps.iter().enumerate().rev() {
                let (y, dy): (&[T], _) = match step {
                    Step::Unary(_) => (&[], None),
                    Step::Binary(_, input) => {
                        let dy = outs[input].as_mut().map(|out| {
                            let part = &mut out[offset..offset + length];
                            // SAFETY: the loop above wrote zeros to this part.
                            unsafe { part.assume_init_mut() }
                        });
                        (operands[input].block(range.clone(), &mut other), dy)
                    }
                };
                dispatch(Adjoint { step, x: &before[k * BLOCK..][..length], y, dx: &mut dx[..length], dy });
            }
            if let Some(out) = &mut outs[0] {
                write(&mut out[offset..offset + length], &dx[..length]);
            }
        }
    })?;
    drop(targets);
    // SAFETY: the chunks cover all elements of every target, and each chunk writes all of its blocks.
    Ok(builders.into_iter().map(|builder| builder.map(|builder| unsafe { builder.assume_init() })).collect())
}
