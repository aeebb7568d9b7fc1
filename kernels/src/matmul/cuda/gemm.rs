//! Matrix products on tensor cores (f16, bf16, and f32 as TF32 where that is allowed) and in full f32 (gemm.cu).

use tomograd_core::{DType, Result, Tensor};

use crate::{
    Precision,
    cuda::{Launch, Source, Unwritten, by_float, takes_tf32},
    reduce::{Combine, cuda::reduce},
};

static SOURCE: Source = Source { name: "gemm.cu", text: include_str!("gemm.cu"), headers: &[] };

/// Rows and columns of a block's tile.
const TILE: usize = 128;
const THREADS: u32 = 256;
const MOST_BLOCKS: usize = 65535;
/// With as many tiles, the device is busy without parts of k.
const MANY_TILES: usize = 128;
/// The least terms of a part of k.
const LEAST_TERMS: usize = 512;

/// A batch of matrices as the kernels take it.
struct Operand {
    tensor: Tensor,
    transposed: bool,
    /// From row to row as stored, and from one matrix to the next.
    row: usize,
    matrix: usize,
}

impl Operand {
    /// The operand with the strides of a tensor, or of a copy of it.
    fn new(tensor: &Tensor) -> Result<Self> {
        match Self::of(tensor) {
            Some(operand) => Ok(operand),
            None => {
                let copy = tensor.contiguous()?;
                // A view that is contiguous in another sense than rows that follow one another was refused above.
                let copy = if copy.strides() == tensor.strides() { copy.copy()? } else { copy };
                let (columns, rows) = (copy.shape()[copy.rank() - 1], copy.shape()[copy.rank() - 2]);
                Ok(Self { tensor: copy, transposed: false, row: columns, matrix: rows * columns })
            }
        }
    }

    fn of(tensor: &Tensor) -> Option<Self> {
        let rank = tensor.rank();
        let (lead, [rows, columns]) =
            (&tensor.shape()[..rank - 2], [tensor.shape()[rank - 2], tensor.shape()[rank - 1]]);
        let (strides, [down, right]) =
            (&tensor.strides()[..rank - 2], [tensor.strides()[rank - 2], tensor.strides()[rank - 1]]);
        let (transposed, row) = match () {
            () if right == 1 || columns == 1 => (false, if rows == 1 { columns } else { down }),
            () if down == 1 || rows == 1 => (true, if columns == 1 { rows } else { right }),
            () => return None,
        };
        // One distance from matrix to matrix.
        let mut first: Option<(usize, usize)> = None;
        for (&stride, &size) in strides.iter().zip(lead).rev().filter(|&(_, &size)| size != 1) {
            match &mut first {
                None => first = Some((stride, size)),
                Some((first, length)) if stride == *first * *length => *length *= size,
                Some(_) => return None,
            }
        }
        let matrix = first.map_or(0, |(stride, _)| stride);
        Some(Self { tensor: tensor.clone(), transposed, row, matrix })
    }

    /// Whether every row begins at a multiple of 16 bytes.
    fn aligned(&self) -> bool {
        let size = self.tensor.dtype().size();
        [self.tensor.layout().offset(), self.row, self.matrix].iter().all(|place| (place * size).is_multiple_of(16))
    }
}

/// The product of (batch..., m, k) and (batch..., k, n), none of which is empty, plus a bias (n), in the operands' dtype; `None`
/// where the sizes don't suit the kernels.
pub(super) fn gemm(
    operation: &str,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    precision: Precision,
) -> Result<Option<Tensor>> {
    let rank = a.rank();
    let (batch, [m, k, n]) = (&a.shape()[..rank - 2], [a.shape()[rank - 2], a.shape()[rank - 1], b.shape()[rank - 1]]);
    let shape = [batch, &[m, n]].concat();
    let batches: usize = batch.iter().product();
    let (rows, columns) = (m.div_ceil(TILE), n.div_ceil(TILE));
    let (a, b) = (Operand::new(a)?, Operand::new(b)?);
    // The kernels count in 32 bits.
    let small = |size: usize| size < 1 << 30;
    if rows > MOST_BLOCKS || batches > MOST_BLOCKS || ![m, n, k, a.row, b.row].into_iter().all(small) {
        return Ok(None);
    }
    // Parts of k, by the shape alone, as a batch of products that are added later; of halves, whose products are rounded, none.
    let dtype = a.tensor.dtype();
    let wanted = match dtype {
        DType::F32 if batches == 1 => MANY_TILES.div_ceil(rows * columns).min(k / LEAST_TERMS).max(1),
        _ => 1,
    };
    let parts = (1..=wanted).rev().find(|&parts| k.is_multiple_of(parts)).unwrap_or(1);
    let k = k / parts;
    let step = |operand: &Operand, along_rows: bool| match parts {
        1 => operand.matrix,
        _ => k * if along_rows { operand.row } else { 1 },
    };
    let (step_a, step_b) = (step(&a, a.transposed), step(&b, !b.transposed));
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let mut output = Unwritten::new(operation, &[&[parts][..], &shape].concat(), dtype, a.tensor.device())?;
    let aligned = |operand: &Operand, step: usize| operand.aligned() && (step * dtype.size()).is_multiple_of(16);
    let flags = [
        aligned(&a, step_a),
        aligned(&b, step_b),
        (n * dtype.size()).is_multiple_of(16) && (m * n * dtype.size()).is_multiple_of(16),
    ];
    let pair = |low: usize, high: usize| low as u64 | (high as u64) << 32;
    // `Gemm` of the kernels.
    let numbers = [
        pair(m, n),
        pair(k, a.row),
        pair(b.row, n),
        step_a as u64,
        step_b as u64,
        (m * n) as u64,
        pair(usize::from(flags[0]), usize::from(flags[1])),
        u64::from(flags[2]),
    ];
    let tf32 = takes_tf32(dtype, precision);
    /// The kernel for elements of a name, by whether the operands are stored transposed.
    macro_rules! kernel {
        ($name:literal) => {
            match (a.transposed, b.transposed) {
                (false, false) => concat!("gemm_", $name, "_nn"),
                (false, true) => concat!("gemm_", $name, "_nt"),
                (true, false) => concat!("gemm_", $name, "_tn"),
                (true, true) => concat!("gemm_", $name, "_tt"),
            }
        };
    }
    let kernel =
        if tf32 { kernel!("tf32") } else { by_float(dtype, [kernel!("f32"), kernel!("f16"), kernel!("bf16")]) };
    let launch = Launch::new(operation, &SOURCE, kernel, a.tensor.device())?
        .read(&a.tensor)?
        .read(&b.tensor)?
        .read_if(bias.as_ref().filter(|_| parts == 1))?
        .write(&mut output)?
        .value(numbers);
    // As noted at the kernels.
    let shared = if dtype == DType::F32 && !tf32 { 50688 } else { 49152 };
    // SAFETY: the numbers are the operands' sizes and strides; the kernel writes every element of each part's products.
    let y = unsafe {
        launch.run_shaped([columns, rows, batches * parts], THREADS, shared)?;
        output.assume_init()
    };
    if parts == 1 {
        return Ok(Some(y.reshape(&shape)?));
    }
    let sum = reduce(&y, &[0], Combine::Sum, 1.0)?;
    Ok(Some(match &bias {
        Some(bias) => crate::elementwise::cuda::add(&sum, &bias.expand(&shape)?)?,
        None => sum,
    }))
}
