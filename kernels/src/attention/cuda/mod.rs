//! Attention on CUDA devices, forward and backward: f16 and bf16 on tensor cores, f32 in full f32. Elements too wide for a tile go by way
//! of the scores in memory.

mod wide;

use tomograd_core::{DType, Error, Result, Tensor};

use super::{Attention, BIASES};
use crate::{
    Forward,
    cuda::{Header, Launch, Source, Unwritten, aligned, by_float},
    reduce::sum_to,
};

const SHARED: Header = Header { name: "attention.cuh", text: include_str!("attention.cuh") };
// It includes the other one, so it stands first where a source has both: they replace the lines that include them in this order.
const OF_HALVES: Header = Header { name: "attention_half.cuh", text: include_str!("attention_half.cuh") };
static FORWARD: Source =
    Source { name: "attention.cu", text: include_str!("attention.cu"), headers: &[OF_HALVES, SHARED] };
static BACKWARD: Source = Source { name: "backward.cu", text: include_str!("backward.cu"), headers: &[SHARED] };
static BACKWARD_HALF: Source =
    Source { name: "backward_half.cu", text: include_str!("backward_half.cu"), headers: &[OF_HALVES, SHARED] };

/// A kernel's name, by its elements.
macro_rules! by_element {
    ($dtype:expr, $name:literal, $most:literal) => {
        by_float(
            $dtype,
            [concat!($name, "_f32_", $most), concat!($name, "_f16_", $most), concat!($name, "_bf16_", $most)],
        )
    };
}

/// A kernel's name, by the elements and the most of them in a row.
macro_rules! kernel {
    ($dtype:expr, $most:expr, $name:literal) => {
        match $most {
            32 => by_element!($dtype, $name, "32"),
            64 => by_element!($dtype, $name, "64"),
            _ => by_element!($dtype, $name, "128"),
        }
    };
}

/// The operands of a pass, contiguous, with their sizes.
struct Operands {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    biases: Vec<Tensor>,
    batch: usize,
    queries: usize,
    keys: usize,
    size: usize,
    value_size: usize,
    /// `Attention` of the kernels.
    numbers: [u64; 17],
}

/// The bias as a tensor of the scores' shape, whose batch axes are at most two, with its strides: outer, inner, row, key; and the
/// size of the inner axis.
fn strides(bias: &Tensor, scores: &[usize], inner: usize) -> Result<(Tensor, [usize; 4])> {
    let view = bias.expand(scores)?;
    let (lead, last) = view.strides().split_at(scores.len() - 2);
    // Batch axes that can't be the two axes are copied out.
    let merged = |lead: &[usize]| -> Option<[usize; 2]> {
        let (mut outer, mut within, mut size) = (None, None, 1);
        for (&stride, &axis) in lead.iter().zip(&scores[..lead.len()]).rev().filter(|&(_, &axis)| axis != 1) {
            let to: &mut Option<(usize, usize)> = if size < inner { &mut within } else { &mut outer };
            match to {
                None => *to = Some((stride, axis)),
                Some((first, length)) if stride == *first * *length => *length *= axis,
                Some(_) => return None,
            }
            size *= axis;
        }
        Some([outer, within].map(|axis| axis.map_or(0, |(stride, _)| stride)))
    };
    match merged(lead) {
        Some([outer, inner]) => Ok((bias.clone(), [outer, inner, last[0], last[1]])),
        None => {
            let (full, matrix) = (view.contiguous()?, scores[scores.len() - 2] * scores[scores.len() - 1]);
            Ok((full, [inner * matrix, matrix, scores[scores.len() - 1], 1]))
        }
    }
}

impl Operands {
    fn new(op: &Attention, inputs: &[&Tensor]) -> Result<Self> {
        let rank = inputs[0].rank() - 2;
        let (lead, matrix) = inputs[0].shape().split_at(rank);
        let [queries, size] = [matrix[0], matrix[1]];
        let [keys, value_size] = [inputs[2].shape()[rank], inputs[2].shape()[rank + 1]];
        let batch: usize = lead.iter().product();
        let [q, k, v] = [0, 1, 2].map(|i| inputs[i].contiguous());
        let (q, k, v) = (q?, k?, v?);
        let sizes = [queries, keys, size, value_size, batch];
        if sizes.iter().any(|&size| size > i32::MAX as usize / 2) {
            return Err(Error::shape("attention", "sizes that CUDA kernels can't count")
                .expected("each below 2³⁰")
                .shapes(inputs.iter().map(|input| input.shape())));
        }
        // The last axis of the batch, mostly the heads, is the inner one.
        let inner = lead.last().copied().unwrap_or(1).max(1);
        let scores = [lead, &[queries, keys]].concat();
        let mut distances = [0i64; 4 * BIASES];
        let mut biases = Vec::new();
        for (bias, to) in inputs[3..].iter().zip(distances.chunks_exact_mut(4)) {
            // What nobody reads needs no strides.
            let (bias, strides) = match scores.contains(&0) {
                true => ((*bias).clone(), [0; 4]),
                false => strides(bias, &scores, inner)?,
            };
            to.copy_from_slice(&strides.map(|stride| stride as i64));
            biases.push(bias);
        }
        let flag = |value: bool| u32::from(value);
        let words = [
            queries as u32,
            keys as u32,
            size as u32,
            value_size as u32,
            inner as u32,
            biases.len() as u32,
            flag(op.causal),
            flag(aligned(&q, size) && aligned(&k, size)),
            flag(aligned(&v, value_size)),
            (op.factor(size) as f32).to_bits(),
        ];
        let mut numbers = [0; 17];
        for (to, pair) in numbers.iter_mut().zip(words.chunks_exact(2)) {
            *to = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        }
        for (to, distance) in numbers[5..].iter_mut().zip(distances) {
            *to = distance as u64;
        }
        Ok(Self { q, k, v, biases, batch, queries, keys, size, value_size, numbers })
    }

    /// The biases as the kernels' table.
    fn biases(&self) -> Vec<&Tensor> {
        self.biases.iter().collect()
    }

    /// The elements of a row that the kernels have room for; `None` if they are too many.
    fn most(&self) -> Option<usize> {
        [32, 64, 128].into_iter().find(|&most| self.size.max(self.value_size) <= most)
    }

    fn blocks(&self, rows: usize, of_block: usize) -> [usize; 3] {
        [self.batch * rows.div_ceil(of_block), 1, 1]
    }
}

/// The output, and the logarithm of each query's sum as state.
pub(super) fn forward(op: &Attention, inputs: &[&Tensor], shape: &[usize]) -> Result<Forward> {
    let dtype = inputs[0].dtype();
    check(dtype)?;
    let operands = Operands::new(op, inputs)?;
    let Some(most) = operands.most() else { return wide::forward(op, inputs, shape) };
    let device = inputs[0].device();
    let mut y = Unwritten::new("attention", shape, dtype, device)?;
    let mut sums = Unwritten::new("attention", &[operands.batch, operands.queries], DType::F32, device)?;
    // As noted at the kernels.
    let full = dtype == DType::F32;
    let rows = if full && most == 128 { 32 } else { 64 };
    let (threads, bytes) =
        if full { (256, (rows + 128) * (most + 4) * 4 + rows * 80 * 4) } else { (128, 3 * 64 * most * 2) };
    let launch = Launch::new("attention", &FORWARD, kernel!(dtype, most, "attention"), device)?
        .read(&operands.q)?
        .read(&operands.k)?
        .read(&operands.v)?
        .read_table::<BIASES>(&operands.biases())?
        .write(&mut y)?
        .write(&mut sums)?
        .value(operands.numbers);
    // SAFETY: the numbers are the operands' sizes and the biases' strides; the kernel writes every row of y and every sum.
    unsafe {
        launch.run_shaped(operands.blocks(operands.queries, rows), threads, bytes as u32)?;
        Ok(Forward { outputs: vec![y.assume_init()], state: vec![sums.assume_init()] })
    }
}

fn check(dtype: DType) -> Result<()> {
    match dtype {
        DType::F16 | DType::BF16 => Ok(()),
        _ => crate::cuda::single("attention", dtype),
    }
}

/// Σ_c dy y of each row; of f16 and bf16 also the largest |dy|.
fn inner_products(operands: &Operands, dy: &Tensor, y: &Tensor) -> Result<Tensor> {
    let rows = operands.batch * operands.queries;
    let full = y.dtype() == DType::F32;
    let shape = [operands.batch, operands.queries, if full { 1 } else { 2 }];
    let mut inner = Unwritten::new("attention", &shape, DType::F32, y.device())?;
    let kernel = by_float(y.dtype(), ["attention_inner_f32", "attention_inner_f16", "attention_inner_bf16"]);
    let launch = Launch::new("attention", if full { &BACKWARD } else { &BACKWARD_HALF }, kernel, y.device())?
        .read(dy)?
        .read(y)?
        .write(&mut inner)?
        .value(operands.value_size as i32)
        .size(rows);
    // SAFETY: dy and y have `rows` rows; a warp writes what is asked of each.
    unsafe {
        launch.run(rows.div_ceil(8), 256)?;
        Ok(inner.assume_init())
    }
}

/// The gradients of the biases from those of the scores, (batch..., L, S).
fn bias_gradients(scores: &Tensor, inputs: &[&Tensor], needed: &[bool], results: &mut [Option<Tensor>]) -> Result<()> {
    for index in (3..inputs.len()).filter(|&index| needed[index]) {
        results[index] = Some(sum_to(scores, inputs[index].shape())?);
    }
    Ok(())
}

/// How the kernels of the backward pass are launched.
struct Blocks {
    source: &'static Source,
    /// Rows that a block owns.
    owned: usize,
    threads: u32,
    /// Bytes of shared memory of the kernel whose blocks own keys, and of the one whose blocks own queries.
    of_keys: u32,
    of_queries: u32,
}

impl Blocks {
    /// As noted at the kernels.
    fn new(dtype: DType, most: usize) -> Self {
        if dtype == DType::F32 {
            let owned = if most == 128 { 32 } else { 64 };
            let bytes = (4 * (4 * owned * (most + 4) + owned * (owned + 2))) as u32;
            Self { source: &BACKWARD, owned, threads: 256, of_keys: bytes, of_queries: bytes }
        } else {
            // Two matrices of 64 rows, twice two of `tile` rows, and of the keys' kernel three numbers of each of these and four more.
            let tile = if most == 32 { 64 } else { 32 };
            let of_queries = (2 * 64 * most * 2 + 4 * tile * most * 2) as u32;
            let of_keys = of_queries + (2 * tile * 12 + 16) as u32;
            Self { source: &BACKWARD_HALF, owned: 64, threads: 128, of_keys, of_queries }
        }
    }
}

/// The gradients of all inputs, from the output, the state and the output's gradient.
pub(super) fn backward(
    op: &Attention,
    inputs: &[&Tensor],
    [y, sums, dy]: [&Tensor; 3],
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let dtype = inputs[0].dtype();
    check(dtype)?;
    let operands = Operands::new(op, inputs)?;
    let Some(most) = operands.most() else { return wide::backward(op, inputs, [y, sums, dy], needed) };
    let (y, mut dy, device) = (y.contiguous()?, dy.contiguous()?, dy.device());
    if !aligned(&dy, operands.value_size) && aligned(&operands.v, operands.value_size) {
        // A view that begins between two pieces of 16 bytes; the kernels take rows of dy to lie as those of v.
        dy = dy.copy()?;
    }
    let mut results = vec![None; needed.len()];
    let inner = inner_products(&operands, &dy, &y)?;
    let blocks = Blocks::new(dtype, most);
    let launch = |kernel: &'static str| -> Result<Launch<'_>> {
        Launch::new("attention", blocks.source, kernel, device)?
            .read(&operands.q)?
            .read(&operands.k)?
            .read(&operands.v)?
            .read(&dy)?
            .read_table::<BIASES>(&operands.biases())?
            .read(sums)?
            .read(&inner)
    };
    let output = |like: &Tensor| Unwritten::new("attention", like.shape(), dtype, device);
    if needed[1] || needed[2] {
        let (mut dv, mut dk) = (output(&operands.v)?, output(&operands.k)?);
        let launch = launch(kernel!(dtype, most, "attention_backward_keys"))?
            .write(&mut dv)?
            .write(&mut dk)?
            .value(operands.numbers);
        // SAFETY: the numbers are the operands' sizes and the biases' strides; the kernel writes every row of both gradients.
        unsafe {
            launch.run_shaped(operands.blocks(operands.keys, blocks.owned), blocks.threads, blocks.of_keys)?;
            results[1] = needed[1].then(|| dk.assume_init());
            results[2] = needed[2].then(|| dv.assume_init());
        }
    }
    let of_biases = needed[3..].contains(&true);
    if needed[0] || of_biases {
        let mut dq = output(&operands.q)?;
        let shape = [&inputs[0].shape()[..inputs[0].rank() - 2], &[operands.queries, operands.keys]].concat();
        let mut scores = of_biases.then(|| Unwritten::new("attention", &shape, DType::F32, device)).transpose()?;
        let launch = launch(kernel!(dtype, most, "attention_backward_queries"))?
            .write(&mut dq)?
            .write_if(scores.as_mut())?
            .value(operands.numbers);
        // SAFETY: as above, of the queries' gradients and of the scores'.
        let scores = unsafe {
            launch.run_shaped(operands.blocks(operands.queries, blocks.owned), blocks.threads, blocks.of_queries)?;
            results[0] = needed[0].then(|| dq.assume_init());
            scores.map(|scores| scores.assume_init())
        };
        if let Some(scores) = scores {
            bias_gradients(&scores, inputs, needed, &mut results)?;
        }
    }
    Ok(results)
}
