//! Operations that keep less for the backward pass than the general ones do, or need less memory in inference.

use tomograd_autodiff::Var;
use tomograd_core::{Device, Error, Result, Tensor};
use tomograd_kernels::{
    Context, Cost, Forward, HalfPolicy, Meta, Op, Recompute, Saved, SavedUntil,
    elementwise::{BinaryFunction, Chain, Function, Step},
    index::Concat,
};
use tomograd_nn::Activation;

/// max(x + y, 0) of two inputs of one shape. The sign of the output, which the next layer keeps anyway, is all that the
/// backward pass needs; a sum and a ReLU would keep the sum as well.
#[derive(Debug)]
struct AddRelu;

impl AddRelu {
    fn chain() -> Chain {
        Chain::binary(BinaryFunction::Add).then(Step::Unary(Function::Relu))
    }
}

impl Op for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let outputs = Self::chain().infer(inputs)?;
        if inputs[0].shape != inputs[1].shape {
            return Err(Error::shape("add_relu", "two shapes")
                .expected("one shape")
                .shapes(inputs.iter().map(|input| &input.shape[..])));
        }
        Ok(outputs)
    }

    fn forward(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Self::chain().forward(context, inputs, outputs)
    }

    fn saves_output(&self, _: usize) -> bool {
        true
    }

    fn backward(
        &self,
        context: &Context,
        mut saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        // The ReLU of x has the gradient of x where ReLU(x) is positive, so that the output can stand for its input.
        saved.inputs = std::mem::take(&mut saved.outputs);
        saved.metas.truncate(1);
        let gradient = Chain::unary(Function::Relu).backward(context, saved, gradients, &[true])?.swap_remove(0);
        Ok(needed.iter().map(|&needed| gradient.clone().filter(|_| needed)).collect())
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Self::chain().cost(inputs, outputs)
    }
}

/// max(x + y, 0) of two inputs of one shape, in the place of x in inference: the end of a residual block.
pub(crate) fn add_relu(x: Var, y: &Var) -> Result<Var> {
    if x.tape().context().inference && x.shape() == y.shape() {
        return x.apply_chain(AddRelu::chain(), &[y]);
    }
    Var::apply(AddRelu, &[&x, y])
}

/// activation(x + y) of two inputs of one shape, without the sum as a tensor of its own; in the place of x in inference.
pub(crate) fn add_activation(x: Var, y: &Var, activation: Activation) -> Result<Var> {
    match activation {
        Activation::Relu => add_relu(x, y),
        function => x.apply_chain(Chain::binary(BinaryFunction::Add).then(Step::Unary(function)), &[y]),
    }
}

/// activation(x), in the place of x in inference.
pub(crate) fn activate(x: Var, activation: Activation) -> Result<Var> {
    x.apply_chain(Chain::unary(activation), &[])
}

/// x + y, in the place of x in inference.
pub(crate) fn add(x: Var, y: &Var) -> Result<Var> {
    x.apply_chain(Chain::binary(BinaryFunction::Add), &[y])
}

/// x · y, in the place of x in inference.
pub(crate) fn mul(x: Var, y: &Var) -> Result<Var> {
    x.apply_chain(Chain::binary(BinaryFunction::Mul), &[y])
}

/// A concatenation along channels that the backward pass makes again from the parts.
#[derive(Debug)]
struct ConcatAgain(Concat);

impl Op for ConcatAgain {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        self.0.infer(inputs)
    }

    fn forward(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        self.0.forward(context, inputs, outputs)
    }

    fn saves_input(&self, _: usize) -> bool {
        true
    }

    fn backward(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.0.backward(context, saved, gradients, needed)
    }

    fn saved_until(&self) -> SavedUntil {
        self.0.saved_until()
    }

    fn recompute(&self) -> Option<&dyn Recompute> {
        Some(self)
    }

    fn half_policy(&self, device: Device) -> HalfPolicy {
        self.0.half_policy(device)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        self.0.cost(inputs, outputs)
    }
}

impl Recompute for ConcatAgain {
    fn output(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        let parts = (0..saved.inputs.len()).map(|index| saved.input(index)).collect::<Result<Vec<_>>>()?;
        let made = self.0.forward(context, &parts, &saved.output_metas)?.outputs.pop();
        made.ok_or_else(|| Error::argument("concat", "no output"))
    }

    fn output_cpu(&self, context: &Context, saved: &Saved) -> Result<Tensor> {
        self.output(context, saved)
    }
}

/// The parts concatenated along channels. Layers that read the concatenation keep the parts for the backward pass, not the
/// copy: for the inputs of a densely connected block this takes memory linear in the number of layers, not quadratic.
pub(crate) fn concat_again(parts: &[&Var]) -> Result<Var> {
    Var::apply(ConcatAgain(Concat { axis: 1 }), parts)
}

#[cfg(test)]
mod tests {
    use tomograd_autodiff::{gradcheck, methods::*};
    use tomograd_core::{DType, Seed};

    use super::*;

    fn normal(shape: &[usize], seed: u64) -> Tensor {
        Tensor::normal(shape, 0.0, 1.0, Seed::new(seed), DType::F64, Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_equal_differences() {
        let inputs = [normal(&[2, 3, 4], 1), normal(&[2, 3, 4], 2)];
        gradcheck::check(|vars| add_relu(vars[0].clone(), &vars[1]), &inputs).unwrap();
        let inputs = [normal(&[2, 3, 4], 1), normal(&[2, 1, 4], 2), normal(&[2, 2, 4], 3)];
        // The square keeps its input, which is the copy to be made again.
        let square = |vars: &[Var]| concat_again(&vars.iter().collect::<Vec<_>>())?.square();
        gradcheck::check(square, &inputs).unwrap();
    }

    #[test]
    fn shapes_are_not_broadcast() {
        let tape = tomograd_autodiff::Tape::recording(Context::default());
        let [x, y] = [normal(&[2, 3, 4], 1), normal(&[1, 3, 4], 2)].map(|x| tape.leaf(x).unwrap());
        assert!(add_relu(x, &y).unwrap_err().to_string().contains("one shape"));
    }
}
