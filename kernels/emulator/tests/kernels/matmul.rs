//! Products of operands with any strides.

use std::collections::BTreeMap;

use tomograd_core::cuda::divisor;
use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// Rows and columns of a block's tile, and terms of a slice.
const TILE: usize = 64;
const SLICE: usize = 16;

/// `Views<2>` of indices.cuh with one axis: that of the matrices.
#[repr(C)]
struct Views {
    rank: i64,
    size: [[i64; 3]; 8],
    stride: [[i64; 8]; 2],
}

/// `Sizes` of matmul.cu.
#[repr(C)]
struct Sizes {
    numbers: [i64; 8],
    tiles: [i64; 3],
}

#[derive(Debug, Clone, Copy)]
struct Case {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Terms of a part of k.
    length: usize,
    /// Whether a and b are stored transposed.
    transposed: [bool; 2],
    bias: bool,
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let (mut random, mut figures) = (Random(9), Figures::default());
    let aligned = Case { batch: 1, m: TILE, n: TILE, k: 64, length: 64, transposed: [false; 2], bias: true };
    let mut list = vec![
        aligned,
        // Several matrices of a block, parts and slices.
        Case { batch: 3, m: TILE + 5, n: 3, k: 70, length: 48, transposed: [true, false], bias: false },
        Case { m: 1, n: 1, k: 1, length: SLICE, ..aligned },
    ];
    list.extend((0..cases).map(|_| {
        let length = random.within(1, 4) * SLICE;
        let k = random.within(1, 100);
        Case {
            batch: random.within(1, 3),
            m: random.within(1, 2 * TILE),
            n: random.within(1, 2 * TILE),
            k,
            length,
            transposed: [0; 2].map(|_| random.next().is_multiple_of(2)),
            bias: k <= length,
        }
    }));
    for (index, case) in list.into_iter().enumerate() {
        one(emulator, library, case, index == 0, &mut figures)?;
    }
    Ok(BTreeMap::from([("matmul".to_owned(), figures)]))
}

fn one(
    emulator: &'static Emulator,
    library: &Library,
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { batch, m, n, k, length, transposed, bias } = case;
    let mut random = Random((m * 100 + n) as u64);
    let [a, b, added] = [batch * m * k, batch * k * n, n].map(|count| random.elements::<f32>(count));
    let strides = |rows: usize, columns: usize, transposed: bool| if transposed { [1, rows] } else { [columns, 1] };
    let (sa, sb) = (strides(m, k, transposed[0]), strides(k, n, transposed[1]));
    let mut views = Views { rank: 1, size: [[0; 3]; 8], stride: [[0; 8]; 2] };
    views.size[0] = divisor(batch);
    views.stride[0][0] = (m * k) as i64;
    views.stride[1][0] = (k * n) as i64;
    let numbers = [m, n, k, length, sa[0], sa[1], sb[0], sb[1]].map(|size| size as i64);
    let sizes = Sizes { numbers, tiles: divisor(n.div_ceil(TILE)) };
    let parts = k.div_ceil(length);
    let (da, db, dadded) = (Buffer::of(emulator, &a), Buffer::of(emulator, &b), Buffer::of(emulator, &added));
    let y = Buffer::<f32>::new(emulator, parts * batch * m * n);
    let (nowhere, batches): (*mut f32, _) = (std::ptr::null_mut(), batch as i64);
    let of_bias = if bias { dadded.argument() } else { number(&nowhere) };
    let arguments =
        [da.argument(), db.argument(), of_bias, y.argument(), number(&views), number(&sizes), number(&batches)];
    // The matrices take turns in as few as two layers of blocks.
    let grid = [m.div_ceil(TILE) * n.div_ceil(TILE), parts, batch.min(2)];
    let report =
        measure(library, "matmul", grid, [256, 1, 1], 0, &arguments).map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid.iter().product());
    }
    let mut expected = Vec::new();
    for (part, matrix) in (0..parts).flat_map(|part| (0..batch).map(move |matrix| (part, matrix))) {
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let products = (part * length..k.min((part + 1) * length)).map(|t| {
                let (left, right) = (row * sa[0] + t * sa[1], t * sb[0] + column * sb[1]);
                f64::from(a[matrix * m * k + left]) * f64::from(b[matrix * k * n + right])
            });
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            let value = sum + if bias { f64::from(added[column]) } else { 0.0 };
            expected.push((value, (size * (length + 1) as f64 + value.abs()) * f32::ROUNDING * 1.01 + 1e-30));
        }
    }
    figures.compare(&format!("matmul: {case:?}"), &y.read(), &expected)
}
