//! Attention, and what the proof of its gradients shares.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    support::{Buffer, Element, Figures, Random, measure, number},
};

/// `Bias` of attention.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Bias {
    outer: i64,
    inner: i64,
    row: i64,
    key: i64,
}

/// `Attention` of attention.cu.
#[repr(C)]
pub struct Shape {
    queries: i32,
    keys: i32,
    size: i32,
    value_size: i32,
    inner: i32,
    biases: i32,
    causal: i32,
    aligned: i32,
    aligned_values: i32,
    pub scale: f32,
    bias: [Bias; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Elements of the batch's two axes.
    pub batch: [usize; 2],
    pub queries: usize,
    pub keys: usize,
    pub size: usize,
    pub value_size: usize,
    pub causal: bool,
    /// Of what a bias depends: the outer and inner axis of the batch, queries, keys.
    pub biases: [Option<[bool; 4]>; 2],
    /// Whether the first bias hides all keys of the first query.
    pub hidden: bool,
}

impl Case {
    /// A case whose sizes are multiples of the tiles', of rows that fill those of `most` elements.
    fn aligned(most: usize) -> Self {
        Case {
            batch: [1, 1],
            queries: 64,
            keys: 128,
            size: most,
            value_size: most,
            causal: false,
            biases: [None; 2],
            hidden: false,
        }
    }

    /// The aligned case, corners, and `count` random ones, for kernels with rows of up to `most` elements.
    pub fn list(most: usize, count: usize) -> Vec<Self> {
        let (mut random, aligned) = (Random(most as u64), Self::aligned(most));
        let mut list = vec![
            aligned,
            Case {
                batch: [2, 2],
                queries: 70,
                keys: 90,
                size: most - 3,
                value_size: most - 7,
                causal: true,
                biases: [Some([true, false, true, true]), Some([false, true, false, true])],
                ..aligned
            },
            Case { batch: [1, 2], queries: 3, keys: 65, hidden: true, biases: [Some([true; 4]), None], ..aligned },
            Case { queries: 2, keys: 0, ..aligned },
        ];
        list.extend((0..count).map(|_| {
            let mut flags = || [0; 4].map(|_| random.next().is_multiple_of(2));
            let biases = [Some(flags()), flags()[0].then(&mut flags)];
            let mut size = || match random.next().is_multiple_of(2) {
                true => random.within(1, most),
                false => random.within(1, most / 8) * 8,
            };
            let (size, value_size) = (size(), size());
            Case {
                batch: [random.within(1, 2), random.within(1, 2)],
                queries: random.within(1, 80),
                keys: random.within(1, 150),
                size,
                value_size,
                causal: random.next().is_multiple_of(2),
                biases,
                hidden: false,
            }
        }));
        list
    }
}

/// Random operands of a case, also on the emulator.
pub struct Operands<T> {
    pub case: Case,
    pub q: Vec<T>,
    pub k: Vec<T>,
    pub v: Vec<T>,
    /// The distances of each bias along outer, inner, queries and keys, and its values.
    biases: Vec<([usize; 4], Vec<T>)>,
    pub buffers: [Buffer<T>; 3],
    /// What the table holds the addresses of.
    _of_biases: Vec<Buffer<T>>,
    pub table: [*mut T; 3],
    pub shape: Shape,
}

impl<T: Element> Operands<T> {
    pub fn new(emulator: &'static Emulator, case: Case) -> Self {
        let Case { batch: axes, queries, keys, size, value_size, causal, biases, hidden } = case;
        let batch = axes[0] * axes[1];
        let mut random = Random((queries * 1000 + keys + size) as u64);
        let q: Vec<T> = random.elements(batch * queries * size);
        let k: Vec<T> = random.elements(batch * keys * size);
        let v: Vec<T> = random.elements(batch * keys * value_size);
        let biases: Vec<([usize; 4], Vec<T>)> = biases
            .into_iter()
            .flatten()
            .map(|depends| {
                let full = [axes[0], axes[1], queries, keys];
                let mut distance = 1;
                let mut distances = [0; 4];
                for axis in (0..4).rev() {
                    if depends[axis] {
                        distances[axis] = distance;
                        distance *= full[axis];
                    }
                }
                let mut values: Vec<T> = random.elements(distance);
                if hidden {
                    values[..keys].fill(T::of(f64::NEG_INFINITY));
                }
                (distances, values)
            })
            .collect();
        let of_biases: Vec<Buffer<T>> = biases.iter().map(|(_, values)| Buffer::of(emulator, values)).collect();
        let mut bias = [Bias { outer: 0, inner: 0, row: 0, key: 0 }; 3];
        let mut table = [std::ptr::null_mut(); 3];
        for (((bias, table), (distances, _)), buffer) in bias.iter_mut().zip(&mut table).zip(&biases).zip(&of_biases) {
            let [outer, inner, row, key] = distances.map(|distance| distance as i64);
            *bias = Bias { outer, inner, row, key };
            *table = buffer.address();
        }
        let aligned = |row: usize| i32::from((row * size_of::<T>()).is_multiple_of(16));
        let shape = Shape {
            queries: queries as i32,
            keys: keys as i32,
            size: size as i32,
            value_size: value_size as i32,
            inner: axes[1] as i32,
            biases: biases.len() as i32,
            causal: i32::from(causal),
            aligned: aligned(size),
            aligned_values: aligned(value_size),
            scale: 1.0 / (size as f32).sqrt(),
            bias,
        };
        let buffers = [&q, &k, &v].map(|values| Buffer::of(emulator, values));
        Self { case, q, k, v, biases, buffers, _of_biases: of_biases, table, shape }
    }

    pub fn batch(&self) -> usize {
        self.case.batch[0] * self.case.batch[1]
    }

    /// Of query `row` of element `b` of the batch the score of each key that it sees, and a bound of its error in roundings of f32.
    pub fn scores(&self, b: usize, row: usize) -> Vec<(f64, f64)> {
        let Case { batch: axes, queries, keys, size, causal, .. } = self.case;
        let scale = f64::from(self.shape.scale);
        let score = |key: usize| {
            let products = (0..size)
                .map(|e| self.q[(b * queries + row) * size + e].value() * self.k[(b * keys + key) * size + e].value());
            let (sum, total) =
                products.fold((0.0, 0.0), |(sum, total), product| (sum + product, total + product.abs()));
            let steps = if T::NAME == "f32" { size as f64 + 2.0 } else { tensor_core_roundings(size) };
            let (mut score, mut error) = (sum * scale, total * scale * steps);
            for (distances, values) in &self.biases {
                let places = [b / axes[1], b % axes[1], row, key];
                let place: usize = places.iter().zip(distances).map(|(place, distance)| place * distance).sum();
                let value = values[place].value();
                score += value;
                error += if value.is_finite() { 2.0 * value.abs() } else { 0.0 };
            }
            (score, error + if score.is_finite() { 4.0 * score.abs() } else { 0.0 })
        };
        (0..if causal { keys.min(row + 1) } else { keys }).map(score).collect()
    }
}

/// The most roundings of f32, of the sum of the terms' sizes, that a sum of so many products is off by on tensor cores, which add 16 at a time
/// and cut.
pub fn tensor_core_roundings(terms: usize) -> f64 {
    (terms / 16 + 3) as f64 * 4.0
}

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    for size in [32, 64, 128] {
        all::<f32>(emulator, library, size, cases, &mut outcome)?;
        all::<half::f16>(emulator, library, size, cases, &mut outcome)?;
        all::<half::bf16>(emulator, library, size, cases, &mut outcome)?;
    }
    Ok(outcome)
}

fn all<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    most: usize,
    cases: usize,
    outcome: &mut BTreeMap<String, Figures>,
) -> Result<(), String> {
    let name = format!("attention_{}_{most}", T::NAME);
    let mut figures = Figures::default();
    for (index, case) in Case::list(most, cases).into_iter().enumerate() {
        one::<T>(emulator, library, &name, most, case, index == 0, &mut figures)?;
    }
    outcome.insert(name, figures);
    Ok(())
}

fn one<T: Element>(
    emulator: &'static Emulator,
    library: &Library,
    name: &str,
    most: usize,
    case: Case,
    costs: bool,
    figures: &mut Figures,
) -> Result<(), String> {
    let Case { queries, keys, value_size, .. } = case;
    let operands = Operands::<T>::new(emulator, case);
    let batch = operands.batch();
    let y = Buffer::<T>::new(emulator, batch * queries * value_size);
    let sums = Buffer::<f32>::new(emulator, batch * queries);
    let mut arguments = operands.buffers.each_ref().map(Buffer::argument).to_vec();
    arguments.extend([number(&operands.table), y.argument(), sums.argument(), number(&operands.shape)]);
    let full = T::NAME == "f32";
    let rows = if full && most == 128 { 32 } else { 64 };
    let shared = match (full, most) {
        (false, _) => 3 * 64 * most * 2,
        (true, _) => (rows + 128) * (most + 4) * 4 + rows * 80 * 4,
    };
    let grid = [batch * queries.div_ceil(rows), 1, 1];
    let threads = if full { 256 } else { 128 };
    let report = measure(library, name, grid, [threads, 1, 1], shared, &arguments)
        .map_err(|fault| format!("{case:?}: {fault}"))?;
    if costs {
        figures.costs(&report, grid[0]);
    }
    let (mut expected, mut logarithms) = (Vec::new(), Vec::new());
    for (b, row) in (0..batch).flat_map(|b| (0..queries).map(move |row| (b, row))) {
        let scores = operands.scores(b, row);
        let largest = scores.iter().fold(f64::NEG_INFINITY, |largest, score| largest.max(score.0));
        if largest == f64::NEG_INFINITY {
            expected.extend((0..value_size).map(|_| (0.0, 0.0)));
            logarithms.push(None);
            continue;
        }
        let weights: Vec<f64> = scores.iter().map(|score| (score.0 - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let off = scores.iter().fold(0.0f64, |off, score| off.max(score.1));
        logarithms.push(Some((largest + sum.ln(), (off + 16.0 + keys as f64 + 4.0 * largest.abs()) * f32::ROUNDING)));
        // Each weight is off by its score's error, by that of 2^x, and where tensor cores take it by a rounding; sums add one a key.
        let weight_error =
            (2.0 * off + 24.0 + 2.0 * keys as f64) * f32::ROUNDING + if full { 0.0 } else { T::ROUNDING };
        for column in 0..value_size {
            let values = weights
                .iter()
                .enumerate()
                .map(|(key, weight)| weight * operands.v[(b * keys + key) * value_size + column].value());
            let (value, total) =
                values.fold((0.0, 0.0), |(sum, total), product| (sum + product, total + product.abs()));
            let result: f64 = value / sum;
            expected.push((result, total / sum * weight_error * 1.01 + result.abs() * T::ROUNDING * 1.001));
        }
    }
    figures.compare(&format!("{name}: {case:?}"), &y.read(), &expected)?;
    for (found, expected) in sums.read().into_iter().zip(logarithms) {
        let right = match expected {
            None => found == f32::NEG_INFINITY,
            Some((value, bound)) => (f64::from(found) - value).abs() <= bound,
        };
        if !right {
            return Err(format!("{name}: {case:?}: the logarithm of a sum is {found}, expected {expected:?}"));
        }
    }
    Ok(())
}
