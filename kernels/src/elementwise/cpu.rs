//! Chains on the CPU: a single pass over memory, in blocks that stay in the L1 cache.

use std::{marker::PhantomData, mem::MaybeUninit, ops::Range};

use tomograd_core::{DType, Error, ErrorKind, Result, Scratch, Tensor, TensorBuilder};

use super::{Function, Step};
use crate::{
    Meta,
    parallel::{Partition, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch},
    view::transposed,
};

/// Elements of a parallel chunk.
const GRAIN: usize = 1 << 14;
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

/// Computes the chain of `x` and `inputs` in the place of `x`, whose shape is the common one.
pub(super) fn in_place(steps: &[Step], x: &mut Tensor, inputs: &[&Tensor]) -> Result<()> {
    match x.dtype() {
        DType::F32 => in_place_of::<f32>(steps, x, inputs),
        DType::F64 => in_place_of::<f64>(steps, x, inputs),
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
struct Operand<T> {
    tensor: Tensor,
    /// Sizes and strides of the axes of the common shape, innermost first. Axes that can be walked as one are merged, so that
    /// runs along the first are long. A contiguous input has none.
    axes: Vec<[usize; 2]>,
    elements: PhantomData<T>,
}

impl<T: Real> Operand<T> {
    fn new(tensor: &Tensor, shape: &[usize]) -> Result<Self> {
        // Transposing once is faster than gathering elements one by one.
        let tensor = transposed(tensor)?.unwrap_or_else(|| tensor.clone()).expand(shape)?;
        let axes = if tensor.is_contiguous() { Vec::new() } else { tensor.layout().merged_axes() };
        Ok(Self { tensor, axes, elements: PhantomData })
    }

    /// The elements `range` of the common shape: a slice of the input if they are contiguous, otherwise gathered into
    /// `buffer`.
    fn block<'b>(&'b self, range: Range<usize>, buffer: &'b mut [T]) -> Result<&'b [T]> {
        let (elements, offset) = (self.tensor.as_storage_slice::<T>()?, self.tensor.layout().offset());
        let Some((&[size, stride], outer)) = self.axes.split_first() else {
            return Ok(&elements[offset + range.start..offset + range.end]);
        };
        // The position of the current row along the outer axes, and its first element.
        let (mut column, mut row) = (range.start % size, range.start / size);
        let mut start = offset;
        let mut places = vec![0; outer.len()];
        for (place, &[size, stride]) in places.iter_mut().zip(outer) {
            (*place, row) = (row % size, row / size);
            start += *place * stride;
        }
        let mut rest = &mut buffer[..range.len()];
        while !rest.is_empty() {
            let (target, later) = rest.split_at_mut((size - column).min(rest.len()));
            let from = start + column * stride;
            match stride {
                0 => target.fill(elements[from]),
                1 => target.copy_from_slice(&elements[from..from + target.len()]),
                _ => target.iter_mut().enumerate().for_each(|(i, to)| *to = elements[from + i * stride]),
            }
            (rest, column) = (later, 0);
            for (place, &[size, stride]) in places.iter_mut().zip(outer) {
                (*place, start) = (*place + 1, start + stride);
                if *place < size {
                    break;
                }
                (*place, start) = (0, start - size * stride);
            }
        }
        Ok(&buffer[..range.len()])
    }
}

/// Applies a function to each number of a row, within a kernel.
#[inline(always)]
pub(crate) fn apply<V: Vector>(function: Function, row: &mut [V::Elem]) {
    let mut vectors = row.chunks_exact_mut(V::LANES);
    for vector in &mut vectors {
        function.value(V::load(vector)).store(vector);
    }
    let rest = vectors.into_remainder();
    if !rest.is_empty() {
        function.value(V::load_partial(rest)).store_partial(rest);
    }
}

/// Applies a function to each number, in parallel chunks of `grain` numbers.
pub(crate) fn apply_all<T: Real>(function: Function, numbers: &mut [T], grain: usize) -> Result<()> {
    let (count, parts) = (numbers.len(), Partition::new(numbers, grain));
    parallel_for(count, grain, |range| dispatch(Apply { step: Step::Unary(function), x: parts.take(range), y: &[] }))
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
            Step::Unary(function) => apply::<T::Vec<S>>(function, self.x),
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

/// x ← chain(x) over the block `range` of the common shape. `others` are the inputs from number 1 on.
fn run_steps<T: Real>(
    steps: &[Step],
    others: &[Operand<T>],
    range: Range<usize>,
    x: &mut [T],
    buffer: &mut [T; BLOCK],
) {
    for &step in steps {
        let y = match step {
            Step::Unary(_) => &[],
            Step::Binary(_, input) => or_give_up(others[input - 1].block(range.clone(), buffer)),
        };
        dispatch(Apply { step, x, y });
    }
}

/// The blocks of a chunk.
fn blocks(chunk: &Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = chunk.end;
    chunk.clone().step_by(BLOCK).map(move |start| start..end.min(start + BLOCK))
}

fn operands<T: Real>(inputs: &[&Tensor], shape: &[usize]) -> Result<Vec<Operand<T>>> {
    inputs.iter().map(|&input| Operand::new(input, shape)).collect()
}

fn forward_of<T: Real>(steps: &[Step], inputs: &[&Tensor], output: &Meta) -> Result<Tensor> {
    let operands = operands::<T>(inputs, &output.shape)?;
    let mut builder = TensorBuilder::<T>::new("chain", &output.shape, output.device)?;
    let elements = builder.uninit()?;
    let count = elements.len();
    let target = Partition::new(elements, GRAIN);
    parallel_for(count, GRAIN, |chunk| {
        let out = target.take(chunk.clone());
        let (mut first, mut other) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        for range in blocks(&chunk) {
            let x = write(
                &mut out[range.start - chunk.start..][..range.len()],
                or_give_up(operands[0].block(range.clone(), &mut first)),
            );
            run_steps(steps, &operands[1..], range, x, &mut other);
        }
    })?;
    // SAFETY: the chunks cover all elements, and each block is written completely before the steps change it.
    Ok(unsafe { builder.assume_init() })
}

fn in_place_of<T: Real>(steps: &[Step], x: &mut Tensor, inputs: &[&Tensor]) -> Result<()> {
    let others = operands::<T>(inputs, x.shape())?;
    let count = x.count();
    let target = Partition::new(x.as_mut_slice::<T>()?, GRAIN);
    parallel_for(count, GRAIN, |chunk| {
        let x = target.take(chunk.clone());
        let mut other = [T::ZERO; BLOCK];
        for range in blocks(&chunk) {
            let block = &mut x[range.start - chunk.start..][..range.len()];
            run_steps(steps, &others, range, block, &mut other);
        }
    })
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
    let operands: Vec<Operand<T>> = inputs.iter().map(|input| Operand::new(input, shape)).collect::<Result<_>>()?;
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
            before[..length].copy_from_slice(or_give_up(operands[0].block(range.clone(), &mut first)));
            for (k, &step) in steps.iter().enumerate().take(steps.len() - 1) {
                let (done, next) = before[k * BLOCK..].split_at_mut(BLOCK);
                next[..length].copy_from_slice(&done[..length]);
                let y = match step {
                    Step::Unary(_) => &[],
                    Step::Binary(_, input) => or_give_up(operands[input].block(range.clone(), &mut other)),
                };
                dispatch(Apply { step, x: &mut next[..length], y });
            }
            dx[..length].copy_from_slice(or_give_up(cotangent.block(range.clone(), &mut first)));
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
                        (or_give_up(operands[input].block(range.clone(), &mut other)), dy)
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
