//! User-defined operations from two functions of tensors.

use std::{fmt, sync::Arc};

use tomograd_core::{Device, Error, ErrorKind, Result, Tensor};
use tomograd_kernels::{Context, Forward, HalfPolicy, Meta, Op, Saved};

use crate::{Tape, Var};

type Backward = dyn Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync;

/// What the tape keeps of [`Var::custom`]. The forward function has run already, so only its result's metadata is needed.
struct Custom {
    output: Meta,
    backward: Box<Backward>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("output", &self.output).finish_non_exhaustive()
    }
}

impl Op for Custom {
    fn name(&self) -> &'static str {
        "custom"
    }

    fn infer(&self, _: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![self.output.clone()])
    }

    fn forward(&self, _: &Context, _: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Err(Error::new(ErrorKind::Graph, "custom", "the function has run already"))
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn saves_output(&self, _: usize) -> bool {
        true
    }

    fn backward(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs: Vec<Tensor> = (0..needed.len()).map(|i| saved.input(i).cloned()).collect::<Result<_>>()?;
        let differentiable = saved.metas.iter().filter(|meta| meta.dtype.is_float()).count();
        let results = (self.backward)(&inputs, saved.output(0)?, gradient)?;
        if results.len() != differentiable {
            return Err(Error::argument("custom", format!("backward gave {} gradients", results.len()))
                .expected(format!("one for each of {differentiable} floating-point inputs"))
                .shapes(results.iter().map(Tensor::shape)));
        }
        let mut results = results.into_iter();
        let mut all = Vec::new();
        for (index, (meta, &needed)) in saved.metas.iter().zip(needed).enumerate() {
            let gradient = if meta.dtype.is_float() { results.next() } else { None };
            if let Some(gradient) = &gradient
                && Meta::from(gradient) != *meta
            {
                return Err(Error::shape(
                    "custom",
                    format!("backward gave {} for input {index}, which is {}", gradient.dtype(), meta.dtype),
                )
                .expected("a gradient of the input's shape and dtype")
                .shapes([gradient.shape(), &meta.shape]));
            }
            all.push(gradient.filter(|_| needed));
        }
        Ok(all)
    }

    fn half_policy(&self, _: Device) -> HalfPolicy {
        HalfPolicy::Keep
    }
}

impl Var {
    /// A user-defined operation from two functions of tensors. `forward` computes the output from the inputs. `backward`
    /// receives the inputs, the output and the output's gradient, and returns the gradient of each floating-point input, in
    /// the inputs' order and with their shapes and dtypes. Tensor methods that the functions call run on the device of the
    /// tensors.
    ///
    /// The tape keeps the inputs and the output until the backward pass. An operation that saves less, or has its own kernels,
    /// implements [`Op`] instead and is applied with [`Var::apply`].
    ///
    /// ```
    /// use tomograd_autodiff::{Tape, Var, gradcheck, methods::*};
    /// use tomograd_core::{Device, Tensor};
    ///
    /// /// eˣ whose gradient is at most 1, so that a step can't explode.
    /// fn gentle_exp(x: &Var) -> tomograd_core::Result<Var> {
    ///     Var::custom(&[x], |x| x[0].exp(), |_, y, dy| Ok(vec![y.minimum(1.0)?.mul(dy)?]))
    /// }
    ///
    /// let tape = Tape::recording(Default::default());
    /// let x = tape.leaf(Tensor::from_slice(&[0.0f64, 9.0], &[2], Device::Cpu)?)?;
    /// let gradients = tape.backward(&gentle_exp(&x)?.sum(..)?)?;
    /// assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>()?, [1.0, 1.0]);
    ///
    /// // Where the custom gradient equals the true one, the check against finite differences passes.
    /// let x = Tensor::from_slice(&[-0.5f64, -2.0], &[2], Device::Cpu)?;
    /// gradcheck::check(|vars| gentle_exp(&vars[0]), &[x])?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a function fails, there is no input, or the variables are of different passes. The backward pass fails when
    /// `backward` doesn't return one gradient for each floating-point input, of the input's shape and dtype.
    pub fn custom(
        inputs: &[&Var],
        forward: impl FnOnce(&[Tensor]) -> Result<Tensor>,
        backward: impl Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Result<Var> {
        let name = |error: Error| error.within("custom");
        let Some(tape) = Tape::innermost(inputs) else {
            return Err(Error::argument("custom", "an operation needs an input"));
        };
        let inputs: Vec<Var> = inputs.iter().map(|var| tape.adopt(var)).collect::<Result<_>>().map_err(name)?;
        let values: Vec<Tensor> = inputs.iter().map(|var| var.value.clone()).collect();
        let output = forward(&values).map_err(name)?;
        let op = Custom { output: Meta::from(&output), backward: Box::new(backward) };
        let mut outputs = tape.record(Arc::new(op), &inputs, Forward::one(output))?.into_iter();
        outputs.next().ok_or_else(|| Error::argument("custom", "the operation has no output"))
    }
}
