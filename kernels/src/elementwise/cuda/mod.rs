//! Chains on CUDA devices.

use tomograd_core::{DType, Error, ErrorKind, Result, Tensor};

use super::{BinaryFunction, Function, Step};
use crate::{
    Meta,
    cuda::{Header, Launch, Source, THREADS, Unwritten, blocks, output_like, single, views, views_of},
};

/// The functions of one and two numbers, which other kernels apply too.
pub(crate) const FUNCTIONS: &str = include_str!("function.cuh");

static SOURCE: Source = Source {
    name: "chain.cu",
    text: include_str!("chain.cu"),
    headers: &[Header { name: "function.cuh", text: FUNCTIONS }],
};

/// Steps of a kernel. A longer chain is computed in parts.
const MOST_STEPS: usize = 8;
/// Inputs of a kernel, with one more place for the gradient of the output.
const MOST_INPUTS: usize = 10;
/// The numbers of a kernel's `Views`.
const VIEWS: usize = views_of(MOST_INPUTS);

/// A function and its numbers, as kernels take it.
pub(crate) type Coded = [u32; 3];

/// The code and the numbers of a function of one number; `None` is the identity.
pub(crate) fn coded(function: Option<Function>) -> Coded {
    let (code, a, b) = match function {
        Some(Function::Neg) => (0, 0.0, 0.0),
        Some(Function::Abs) => (1, 0.0, 0.0),
        Some(Function::Exp) => (2, 0.0, 0.0),
        Some(Function::Log) => (3, 0.0, 0.0),
        Some(Function::Sqrt) => (4, 0.0, 0.0),
        Some(Function::Square) => (5, 0.0, 0.0),
        Some(Function::Reciprocal) => (6, 0.0, 0.0),
        Some(Function::Relu) => (7, 0.0, 0.0),
        Some(Function::LeakyRelu(slope)) => (8, slope, 0.0),
        Some(Function::Elu(alpha)) => (9, alpha, 0.0),
        Some(Function::Gelu) => (10, 0.0, 0.0),
        Some(Function::GeluTanh) => (11, 0.0, 0.0),
        Some(Function::Silu) => (12, 0.0, 0.0),
        Some(Function::Sigmoid) => (13, 0.0, 0.0),
        Some(Function::Tanh) => (14, 0.0, 0.0),
        Some(Function::Softplus) => (15, 0.0, 0.0),
        Some(Function::Mish) => (16, 0.0, 0.0),
        Some(Function::Hardswish) => (17, 0.0, 0.0),
        Some(Function::Add(number)) => (18, number, 0.0),
        Some(Function::Multiply(number)) => (19, number, 0.0),
        Some(Function::Clamp(low, high)) => (20, low, high),
        Some(Function::Power(number)) if number.fract() != 0.0 || number.abs() > 64.0 => (21, number, 0.0),
        Some(Function::Power(number)) => (22, number, 0.0),
        None => (23, 0.0, 0.0),
    };
    [code, (a as f32).to_bits(), (b as f32).to_bits()]
}

fn binary_code(function: BinaryFunction) -> u32 {
    match function {
        BinaryFunction::Add => 0,
        BinaryFunction::Sub => 1,
        BinaryFunction::Mul => 2,
        BinaryFunction::Div => 3,
        BinaryFunction::ReverseSub => 4,
        BinaryFunction::ReverseDiv => 5,
        BinaryFunction::Max => 6,
        BinaryFunction::Min => 7,
    }
}

/// A part of a chain: its steps with inputs numbered anew, and the chain's inputs that these numbers mean (from 1 on).
struct Part {
    steps: [u32; 2 + 4 * MOST_STEPS],
    inputs: Vec<usize>,
}

/// The parts of a chain, each short enough for a kernel.
fn parts(steps: &[Step]) -> Vec<Part> {
    let part = |steps: &[Step]| {
        let mut part = Part { steps: [0; 2 + 4 * MOST_STEPS], inputs: Vec::new() };
        part.steps[0] = steps.len() as u32;
        for (k, step) in steps.iter().enumerate() {
            let coded = match *step {
                Step::Unary(function) => {
                    let [code, a, b] = coded(Some(function));
                    [code, a, b, 0]
                }
                Step::Binary(function, input) => {
                    let known = part.inputs.iter().position(|&other| other == input);
                    let place = known.unwrap_or_else(|| {
                        part.inputs.push(input);
                        part.inputs.len() - 1
                    });
                    [binary_code(function), 0, 0, 1 + place as u32]
                }
            };
            part.steps[2 + 4 * k..][..4].copy_from_slice(&coded);
        }
        part
    };
    steps.chunks(MOST_STEPS).map(part).collect()
}

/// The result of a part, from the value before it.
fn forward_part(part: &Part, x: &Tensor, inputs: &[&Tensor], shape: &[usize]) -> Result<Tensor> {
    let tensors: Vec<&Tensor> = std::iter::once(x).chain(part.inputs.iter().map(|&input| inputs[input])).collect();
    let views = views::<VIEWS>("chain", shape, &tensors)?;
    let mut output = output_like("chain", shape, x)?;
    let count = output.count();
    let launch = Launch::new("chain", &SOURCE, "chain_forward", x.device())?
        .read_table::<MOST_INPUTS>(&tensors)?
        .value(views)
        .value(part.steps)
        .write(&mut output)?
        .size(count);
    // SAFETY: the kernel reads each input where its view says, and writes `count` elements, which is all of the output.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}

/// The result of the chain.
pub(super) fn forward(steps: &[Step], inputs: &[&Tensor], output: &Meta) -> Result<Tensor> {
    single("chain", output.dtype)?;
    let mut x = inputs[0].clone();
    for part in parts(steps) {
        x = forward_part(&part, &x, inputs, &output.shape)?;
    }
    Ok(x)
}

/// The gradients of the inputs in the common shape, where they are needed.
pub(super) fn backward(
    steps: &[Step],
    inputs: &[Tensor],
    gradient: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    single("chain", gradient.dtype())?;
    let (shape, parts) = (gradient.shape(), parts(steps));
    let references: Vec<&Tensor> = inputs.iter().collect();
    // The value before each part.
    let mut before = vec![inputs[0].clone()];
    for part in parts.iter().take(parts.len().saturating_sub(1)) {
        before.push(forward_part(part, &before[before.len() - 1], &references, shape)?);
    }
    let mut gradients = vec![None; inputs.len()];
    let mut dy = gradient.clone();
    for (k, part) in parts.iter().enumerate().rev() {
        let x = before.pop().unwrap_or_else(|| inputs[0].clone());
        let mut tensors: Vec<&Tensor> = std::iter::once(&x).chain(part.inputs.iter().map(|&i| &inputs[i])).collect();
        let read = tensors.len();
        tensors.resize(MOST_INPUTS - 1, &x);
        tensors.push(&dy);
        let views = views::<VIEWS>("chain", shape, &tensors)?;
        let first = (k > 0 || needed[0]).then(|| output_like("chain", shape, &dy)).transpose()?;
        let others = part.inputs.iter().map(|&i| needed[i].then(|| output_like("chain", shape, &dy)).transpose());
        let mut outputs: Vec<Option<Unwritten>> = std::iter::once(Ok(first)).chain(others).collect::<Result<_>>()?;
        let count = dy.count();
        let launch = Launch::new("chain", &SOURCE, "chain_backward", dy.device())?
            .read_table::<MOST_INPUTS>(&tensors[..read])?
            .value(views)
            .value(part.steps)
            .read(&dy)?
            .write_table::<MOST_INPUTS>(outputs.iter_mut().map(Option::as_mut))?
            .size(count);
        // SAFETY: the kernel reads the inputs and the gradient where their views say, and writes `count` elements of each
        // output, which is all of them.
        let mut results = unsafe {
            launch.run(blocks(count), THREADS)?;
            outputs.into_iter().map(|output| output.map(|output| output.assume_init())).collect::<Vec<_>>()
        };
        let first = results.remove(0);
        for (&input, result) in part.inputs.iter().zip(results) {
            gradients[input] = match (gradients[input].take(), result) {
                (Some(sum), Some(more)) => Some(add(&sum, &more)?),
                (sum, more) => sum.or(more),
            };
        }
        match first {
            Some(gradient) if k > 0 => dy = gradient,
            first => gradients[0] = first,
        }
    }
    // An input that no step takes has the gradient 0.
    for (gradient, &needed) in gradients.iter_mut().zip(needed) {
        if gradient.is_none() && needed {
            *gradient = Some(Tensor::zeros(shape, DType::F32, dy.device())?);
        }
    }
    Ok(gradients)
}

/// a + b, of one shape.
pub(crate) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    forward(&[Step::Binary(BinaryFunction::Add, 1)], &[a, b], &Meta::from(a))
}

/// x + number.
pub(super) fn increment(x: &Tensor, number: i64) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut output = Unwritten::new("increment", x.shape(), DType::I64, x.device())?;
    let mut overflow = Tensor::zeros(&[1], DType::I32, x.device())?;
    let count = output.count();
    let launch = Launch::new("increment", &SOURCE, "increment", x.device())?
        .read(&x)?
        .write(&mut output)?
        .value(number)
        .update(&mut overflow)?
        .size(count);
    // SAFETY: the kernel reads and writes `count` elements, which is all of them, and the flag.
    let sum = unsafe {
        launch.run(blocks(count), THREADS)?;
        output.assume_init()
    };
    if overflow.to_scalar()? != 0.0 {
        return Err(Error::new(ErrorKind::Argument, "increment", "a count leaves the range of i64"));
    }
    Ok(sum)
}
