//! Attention.

use std::{collections::BTreeMap, ffi::c_void};

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
struct Shape {
    queries: i32,
    keys: i32,
    size: i32,
    value_size: i32,
    inner: i32,
    biases: i32,
    causal: i32,
    aligned: i32,
    aligned_values: i32,
    scale: f32,
    bias: [Bias; 3],
}

#[derive(Debug, Clone, Copy)]
struct Case {
    /// Elements of the batch's two axes.
    batch: [usize; 2],
    queries: usize,
    keys: usize,
    size: usize,
    value_size: usize,
    causal: bool,
    /// Of what a bias depends: the outer and inner axis of the batch, queries, keys.
    biases: [Option<[bool; 4]>; 2],
    /// Whether the first bias hides all keys of the first query.
    hidden: bool,
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
    let mut random = Random(most as u64);
    let mut figures = Figures::default();
    let aligned = Case {
        batch: [1, 1],
        queries: 64,
        keys: 128,
        size: most,
        value_size: most,
        causal: false,
        biases: [None; 2],
        hidden: false,
    };
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
    list.extend((0..cases).map(|_| {
        let mut flags = || [0; 4].map(|_| random.next().is_multiple_of(2));
        let biases = [Some(flags()), flags()[0].then(&mut flags)];
        let mut size =
            || if random.next().is_multiple_of(2) { random.within(1, most) } else { random.within(1, most / 8) * 8 };
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
    for (index, case) in list.into_iter().enumerate() {
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
    let Case { batch: axes, queries, keys, size, value_size, causal, biases, hidden } = case;
    let batch = axes[0] * axes[1];
    let mut random = Random((queries * 1000 + keys + size) as u64);
    let q: Vec<T> = random.elements(batch * queries * size);
    let k: Vec<T> = random.elements(batch * keys * size);
    let v: Vec<T> = random.elements(batch * keys * value_size);
    // The distances of each bias along outer, inner, queries and keys, and its values.
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
    let buffers: Vec<Buffer<T>> = biases.iter().map(|(_, values)| Buffer::of(emulator, values)).collect();
    let mut bias = [Bias { outer: 0, inner: 0, row: 0, key: 0 }; 3];
    let mut values: [*const c_void; 3] = [std::ptr::null(); 3];
    for (((bias, values), (distances, _)), buffer) in bias.iter_mut().zip(&mut values).zip(&biases).zip(&buffers) {
        let [outer, inner, row, key] = distances.map(|distance| distance as i64);
        *bias = Bias { outer, inner, row, key };
        // SAFETY: the argument is the address of the buffer's address.
        *values = unsafe { *buffer.argument().cast() };
    }
    let scale = 1.0 / (size as f32).sqrt();
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
        scale,
        bias,
    };
    let (dq, dk, dv) = (Buffer::of(emulator, &q), Buffer::of(emulator, &k), Buffer::of(emulator, &v));
    let y = Buffer::<T>::new(emulator, batch * queries * value_size);
    let sums = Buffer::<f32>::new(emulator, batch * queries);
    let mut arguments = [&dq, &dk, &dv].map(Buffer::argument).to_vec();
    arguments.extend([number(&values), y.argument(), sums.argument(), number(&shape)]);
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
        // Scores and bounds of their errors.
        let mut scores = Vec::new();
        for key in 0..if causal { keys.min(row + 1) } else { keys } {
            let products =
                (0..size).map(|e| q[(b * queries + row) * size + e].value() * k[(b * keys + key) * size + e].value());
            let (sum, total) =
                products.fold((0.0, 0.0), |(sum, total), product| (sum + product, total + product.abs()));
            let steps = if full { size as f64 + 2.0 } else { (size / 16 + 3) as f64 * 4.0 };
            let (mut score, mut error) = (sum * f64::from(scale), total * f64::from(scale) * steps);
            for (distances, values) in &biases {
                let places = [b / axes[1], b % axes[1], row, key];
                let value = values
                    [places.iter().zip(distances).map(|(place, distance)| place * distance).sum::<usize>()]
                .value();
                score += value;
                error += if value.is_finite() { 2.0 * value.abs() } else { 0.0 };
            }
            scores.push((score, error + if score.is_finite() { 4.0 * score.abs() } else { 0.0 }));
        }
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
                .map(|(key, weight)| weight * v[(b * keys + key) * value_size + column].value());
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
