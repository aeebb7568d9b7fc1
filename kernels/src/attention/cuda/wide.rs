//! Attention with elements that don't fit the tiles of the fused kernels: the scores are in memory.

use tomograd_core::{DType, Result, Tensor};

use super::{Attention, BIASES, Operands, SHARED, bias_gradients, inner_products};
use crate::{
    Forward, Precision,
    cast::cast,
    cuda::{Launch, Source, Unwritten},
    matmul::cuda::product,
    optim::Scale,
    run_in_place,
};

static SOURCE: Source = Source { name: "wide.cu", text: include_str!("wide.cu"), headers: &[SHARED] };

const THREADS: u32 = 256;
/// The most blocks that do rows in turn.
const MOST_BLOCKS: usize = 1 << 16;

fn widened(inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    inputs.iter().map(|input| cast(input, DType::F32)).collect()
}

fn transposed(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)
}

impl Operands {
    /// q, k and v as (batch, rows, columns).
    fn matrices(&self) -> Result<[Tensor; 3]> {
        Ok([
            self.q.reshape(&[self.batch, self.queries, self.size])?,
            self.k.reshape(&[self.batch, self.keys, self.size])?,
            self.v.reshape(&[self.batch, self.keys, self.value_size])?,
        ])
    }

    fn rows(&self) -> usize {
        self.batch * self.queries
    }
}

pub(super) fn forward(op: &Attention, inputs: &[&Tensor], shape: &[usize]) -> Result<Forward> {
    let dtype = inputs[0].dtype();
    let wide = widened(inputs)?;
    let operands = Operands::new(op, &wide.iter().collect::<Vec<_>>())?;
    let [q, k, v] = operands.matrices()?;
    let mut weights = product("attention", &q, &transposed(&k)?, None, Precision::Strict)?;
    let mut sums = Unwritten::new("attention", &[operands.batch, operands.queries], DType::F32, q.device())?;
    let launch = Launch::new("attention", &SOURCE, "attention_weights", q.device())?
        .update(&mut weights)?
        .read_table::<BIASES>(&operands.biases())?
        .write(&mut sums)?
        .value(operands.numbers)
        .size(operands.rows());
    // SAFETY: the weights are (batch, L, S); the kernel rewrites every row and writes its sum.
    let sums = unsafe {
        launch.run(operands.rows().min(MOST_BLOCKS), THREADS)?;
        sums.assume_init()
    };
    let y = product("attention", &weights, &v, None, Precision::Strict)?.reshape(shape)?;
    Ok(Forward { outputs: vec![cast(&y, dtype)?], state: vec![sums] })
}

pub(super) fn backward(
    op: &Attention,
    inputs: &[&Tensor],
    [y, sums, dy]: [&Tensor; 3],
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let wide = widened(inputs)?;
    let operands = Operands::new(op, &wide.iter().collect::<Vec<_>>())?;
    let [q, k, v] = operands.matrices()?;
    let (y, dy) = (cast(y, DType::F32)?.contiguous()?, cast(dy, DType::F32)?.contiguous()?);
    let inner = inner_products(&operands, &dy, &y)?;
    let dy = dy.reshape(&[operands.batch, operands.queries, operands.value_size])?;
    let mut weights = product("attention", &q, &transposed(&k)?, None, Precision::Strict)?;
    let launch = Launch::new("attention", &SOURCE, "attention_weights_again", q.device())?
        .update(&mut weights)?
        .read_table::<BIASES>(&operands.biases())?
        .read(sums)?
        .value(operands.numbers)
        .size(operands.rows());
    // SAFETY: the weights are (batch, L, S), with a sum for each row; the kernel rewrites every row.
    unsafe { launch.run(operands.rows().min(MOST_BLOCKS), THREADS)? };
    let mut scores = product("attention", &dy, &transposed(&v)?, None, Precision::Strict)?;
    let launch = Launch::new("attention", &SOURCE, "attention_scores_gradient", q.device())?
        .read(&weights)?
        .update(&mut scores)?
        .read(&inner)?
        .value(operands.keys as i32)
        .size(operands.rows());
    // SAFETY: weights and gradients are (batch, L, S), with a number for each row; the kernel rewrites every row.
    unsafe { launch.run(operands.rows().min(MOST_BLOCKS), THREADS)? };
    let scaled = |mut x: Tensor| -> Result<Tensor> {
        let factor = f64::from(op.factor(operands.size) as f32);
        run_in_place(&Scale { factor }, &mut [&mut x], &[])?;
        Ok(x)
    };
    let mut results = vec![None; needed.len()];
    if needed[0] {
        results[0] =
            Some(scaled(product("attention", &scores, &k, None, Precision::Strict)?)?.reshape(inputs[0].shape())?);
    }
    if needed[1] {
        results[1] = Some(
            scaled(product("attention", &transposed(&scores)?, &q, None, Precision::Strict)?)?
                .reshape(inputs[1].shape())?,
        );
    }
    if needed[2] {
        results[2] = Some(
            product("attention", &transposed(&weights)?, &dy, None, Precision::Strict)?.reshape(inputs[2].shape())?,
        );
    }
    if needed[3..].contains(&true) {
        let shape = [&inputs[0].shape()[..inputs[0].rank() - 2], &[operands.queries, operands.keys]].concat();
        bias_gradients(&scores.reshape(&shape)?, inputs, needed, &mut results)?;
    }
    Ok(results)
}
