//! Tensors with a history.

use std::{fmt, sync::Arc};

use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_kernels::{
    Op,
    elementwise::{Chain, ChainInPlace},
    methods::Operand,
    run,
};

use crate::{Tape, tape::Place};

/// A tensor and its place on a [`Tape`]. A clone is cheap and shares both. Its [`methods`](crate::methods) are those of
/// tensors.
///
/// ```
/// use tomograd_autodiff::{Tape, Var, methods::*};
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::Context;
/// fn cube(x: &Var) -> tomograd_core::Result<Var> {
///     x.square()?.mul(x)
/// }
/// let tape = Tape::recording(Context::default());
/// let y = cube(&tape.leaf(Tensor::scalar(2.0f64, Device::Cpu)?)?)?;
/// assert_eq!((y.value().to_scalar()?, y.has_gradient()), (8.0, true));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Var {
    pub(crate) value: Tensor,
    pub(crate) tape: Tape,
    pub(crate) place: Option<Place>,
}

impl Var {
    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without its history.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.value.rank()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.value.dtype()
    }

    /// The tape of this variable.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Whether gradients flow through this variable.
    pub fn has_gradient(&self) -> bool {
        self.place.is_some()
    }

    /// The same tensor without history: no gradient flows through it.
    #[must_use]
    pub fn detach(&self) -> Var {
        self.tape.constant(self.value.clone())
    }

    /// Applies an operation with one output to variables; for built-in and user-defined operations alike.
    ///
    /// # Errors
    /// When the operation fails, the variables are of different passes, or a backward pass has consumed their graph.
    pub fn apply(op: impl Op, inputs: &[&Var]) -> Result<Var> {
        <Self as Operand>::apply(op, inputs)
    }

    /// Applies a chain that starts from this variable and reads `others`. Where nothing is recorded and nothing else shares
    /// this variable's memory, the result takes its place, and needs no memory of its own.
    ///
    /// ```
    /// use tomograd_autodiff::{Tape, Var};
    /// use tomograd_core::{Device, Tensor};
    /// use tomograd_kernels::{Context, elementwise::{BinaryFunction, Chain}};
    /// let tape = Tape::off(Context::default());
    /// let [x, y] = [3.0f32, 4.0].map(|number| Tensor::scalar(number, Device::Cpu));
    /// let sum = tape.constant(x?).apply_chain(Chain::binary(BinaryFunction::Add), &[&tape.constant(y?)])?;
    /// assert_eq!(sum.value().to_scalar()?, 7.0);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the chain fails, the variables are of different passes, or a backward pass has consumed their graph.
    pub fn apply_chain(mut self, chain: Chain, others: &[&Var]) -> Result<Var> {
        let op = ChainInPlace(chain);
        let unrecorded = self.tape.context().inference && others.iter().all(|other| other.tape.is(&self.tape));
        if unrecorded {
            let values: Vec<&Tensor> = others.iter().map(|other| &other.value).collect();
            if op.run_if_alone(&mut self.value, &values)? {
                return Ok(self);
            }
        }
        let inputs: Vec<&Var> = std::iter::once(&self).chain(others.iter().copied()).collect();
        Self::apply(op.0, &inputs)
    }

    /// Applies an operation to variables and returns all its outputs.
    ///
    /// # Errors
    /// When the operation fails, the variables are of different passes, or a backward pass has consumed their graph.
    pub fn apply_all(op: impl Op, inputs: &[&Var]) -> Result<Vec<Var>> {
        let Some(tape) = Tape::innermost(inputs) else {
            return Err(Error::argument(op.name(), "an operation needs an input"));
        };
        let inputs: Vec<Var> =
            inputs.iter().map(|var| tape.adopt(var)).collect::<Result<_>>().map_err(|error| error.within(op.name()))?;
        let values: Vec<&Tensor> = inputs.iter().map(|var| &var.value).collect();
        let forward = run(&op, &values, tape.context())?;
        tape.record(Arc::new(op), &inputs, forward)
    }
}

impl Operand for Var {
    fn value(&self) -> &Tensor {
        &self.value
    }

    fn constant(&self, tensor: Tensor) -> Self {
        self.tape.constant(tensor)
    }

    fn apply_all(op: impl Op, inputs: &[&Self]) -> Result<Vec<Self>> {
        Var::apply_all(op, inputs)
    }
}

/// Prints the value, as `Tensor` does.
impl fmt::Display for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}

impl fmt::Debug for Var {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Var({:?}, {:?})", self.value, self.tape)
    }
}
