//! Cumulative sums.

use std::collections::BTreeMap;

use tomograd_core::cuda::divisor;
use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// What a line of a block is cut into.
const PIECE: usize = 256;

#[derive(Debug, Clone, Copy)]
struct Case {
    outer: usize,
    size: usize,
    inner: usize,
    reverse: bool,
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    for kernel in ["cumsum_columns", "cumsum_rows"] {
        let of_rows = kernel == "cumsum_rows";
        let (mut random, mut figures) = (Random(5), Figures::default());
        let aligned = Case {
            outer: 2,
            size: if of_rows { 4 * PIECE } else { 8 },
            inner: if of_rows { 1 } else { 256 },
            reverse: false,
        };
        let mut list = vec![
            aligned,
            // Several lines of a block, each of several pieces.
            Case { outer: 5, size: 2 * PIECE + 3, inner: 2, reverse: true },
            Case { outer: 1, size: 1, inner: 1, ..aligned },
            Case { size: 0, ..aligned },
        ];
        list.extend((0..cases).map(|_| Case {
            outer: random.within(1, 4),
            size: random.within(1, 3 * PIECE),
            inner: random.within(1, 5),
            reverse: random.next().is_multiple_of(2),
        }));
        for (index, case) in list.into_iter().enumerate() {
            one(emulator, library, kernel, case, index == 0, &mut figures)?;
        }
        outcome.insert(kernel.to_owned(), figures);
    }
    Ok(outcome)
}

fn one(
    emulator: &'static Emulator,
    library: &Library,
    kernel: &str,
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { outer, size, inner, reverse } = case;
    let values: Vec<f32> = Random((size * 10 + inner) as u64).elements(outer * size * inner);
    let (x, y) = (Buffer::of(emulator, &values), Buffer::<f32>::new(emulator, values.len()));
    let (lines, blocks) = (outer * inner, if kernel == "cumsum_rows" { 2 } else { 1 });
    let numbers = (i32::from(reverse), size as i64, divisor(inner), lines as i64);
    let arguments =
        [x.argument(), y.argument(), number(&numbers.0), number(&numbers.1), number(&numbers.2), number(&numbers.3)];
    let report = measure(library, kernel, [blocks, 1, 1], [PIECE, 1, 1], 0, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, blocks);
    }
    let mut expected = vec![(0.0, 0.0); values.len()];
    for line in 0..lines {
        let mut sum = 0.0;
        for i in 0..size {
            let i = if reverse { size - 1 - i } else { i };
            let at = (line / inner * size + i) * inner + line % inner;
            sum += f64::from(values[at]);
            // Added in f64 and rounded once.
            expected[at] = (sum, sum.abs() * f32::ROUNDING + size as f64 * 1e-15);
        }
    }
    figures.compare(&format!("{kernel}: {case:?}"), &y.read(), &expected)
}
