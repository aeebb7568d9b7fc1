//! The gradients of attention on tensor cores.

use std::collections::BTreeMap;

use tomograd_emulator::{Emulator, Library};

use crate::{
    Outcome,
    attention::{Case, Operands, tensor_core_roundings},
    support::{Buffer, Element, Figures, Random, measure, number},
};

pub fn run(emulator: &'static Emulator, library: &Library, cases: usize) -> Outcome {
    let mut outcome = BTreeMap::new();
    for most in [32, 64, 128] {
        all::<half::f16>(emulator, library, most, cases, &mut outcome)?;
        all::<half::bf16>(emulator, library, most, cases, &mut outcome)?;
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
    for (index, case) in Case::list(most, cases).into_iter().enumerate() {
        // In each second case the gradient is so small that its products with weights aren't normal numbers of f16.
        let loudness = if index % 2 == 1 { 2f64.powi(-13) } else { 1.0 };
        let run = Gradients::<T>::new(emulator, case, loudness);
        run.launch(library, most, index == 0, outcome).map_err(|why| format!("{case:?}, {loudness}: {why}"))?;
    }
    Ok(())
}

/// The operands of a case with the output, the sums and the gradient of the output, and what follows from them.
struct Gradients<T: Element> {
    emulator: &'static Emulator,
    operands: Operands<T>,
    y: Vec<T>,
    sums: Vec<f32>,
    dy: Vec<T>,
    /// Σ_c dy y and max_c |dy| of each query, with bounds of their errors.
    inner: Vec<(f64, f64)>,
    /// Of each query and key, p with the relative error that it has in f32, and its gradient with its error.
    weights: Vec<[f64; 2]>,
    scores: Vec<[f64; 2]>,
}

impl<T: Element> Gradients<T> {
    fn new(emulator: &'static Emulator, case: Case, loudness: f64) -> Self {
        let Case { queries, keys, value_size, .. } = case;
        let operands = Operands::<T>::new(emulator, case);
        let mut random = Random((queries * 77 + value_size) as u64);
        let dy: Vec<T> = random.elements::<T>(operands.batch() * queries * value_size);
        let dy: Vec<T> = dy.into_iter().map(|dy| T::of(dy.value() * loudness)).collect();
        let (mut y, mut sums, mut inner) = (Vec::new(), Vec::new(), Vec::new());
        let (mut weights, mut gradients) = (Vec::new(), Vec::new());
        for (b, row) in (0..operands.batch()).flat_map(|b| (0..queries).map(move |row| (b, row))) {
            let seen = operands.scores(b, row);
            let largest = seen.iter().fold(f64::NEG_INFINITY, |largest, score| largest.max(score.0));
            let base = if largest == f64::NEG_INFINITY { 0.0 } else { largest };
            let total: f64 = seen.iter().map(|score| (score.0 - base).exp()).sum();
            let sum = (base + total.ln()) as f32;
            let weight = |key: usize| {
                let Some(&(score, error)) = seen.get(key).filter(|score| score.0 > f64::NEG_INFINITY) else {
                    return [0.0; 2];
                };
                // Exponents of 2 are off by a rounding of what is subtracted, of the difference and of the score; 2^x by 2 ulp.
                let difference = score - f64::from(sum);
                let error = 2.0 * error + 4.0 * f64::from(sum).abs() + 4.0 * difference.abs() + 40.0;
                [difference.exp(), error * f32::ROUNDING]
            };
            let row_weights: Vec<[f64; 2]> = (0..keys).map(weight).collect();
            let value = |key: usize, column: usize| operands.v[(b * keys + key) * value_size + column].value();
            let start = y.len();
            y.extend((0..value_size).map(|column| {
                T::of(row_weights.iter().enumerate().map(|(key, weight)| weight[0] * value(key, column)).sum())
            }));
            let (y, dy) = (&y[start..], &dy[start..][..value_size]);
            let products = dy.iter().zip(y).map(|(dy, y)| dy.value() * y.value());
            let (product, size) =
                products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
            // A lane adds each 32nd product, then 32 sums are added.
            let inner_error = size * (value_size / 32 + 7) as f64 * f32::ROUNDING;
            inner.push((product, inner_error));
            inner.push((dy.iter().fold(0.0, |most, dy| dy.value().abs().max(most)), 0.0));
            gradients.extend(row_weights.iter().enumerate().map(|(key, &[weight, weight_error])| {
                let products = dy.iter().enumerate().map(|(column, dy)| dy.value() * value(key, column));
                let (sum, size) =
                    products.fold((0.0, 0.0), |(sum, size), product| (sum + product, size + product.abs()));
                let roundings = size * tensor_core_roundings(value_size) + 3.0 * (sum.abs() + product.abs());
                let gradient = weight * (sum - product);
                let error = weight * (roundings * f32::ROUNDING + inner_error)
                    + gradient.abs() * (weight_error + 2.0 * f32::ROUNDING);
                [gradient, error * 1.01]
            }));
            weights.extend(row_weights);
            sums.push(sum);
        }
        Self { emulator, operands, y, sums, dy, inner, weights, scores: gradients }
    }

    /// Runs the kernels and compares what they give.
    fn launch(
        &self,
        library: &Library,
        most: usize,
        costs: bool,
        outcome: &mut BTreeMap<String, Figures>,
    ) -> Result<(), String> {
        let Case { queries, keys, size, value_size, .. } = self.operands.case;
        let batch = self.operands.batch();
        let (y, dy) = (Buffer::of(self.emulator, &self.y), Buffer::of(self.emulator, &self.dy));
        let sums = Buffer::of(self.emulator, &self.sums);
        let inner = Buffer::<f32>::new(self.emulator, batch * queries * 2);
        let mut run = |name: &str, blocks: usize, threads: usize, shared: usize, arguments: &[_]| {
            let name = format!("{name}{}", T::NAME);
            let name = if shared > 0 { format!("{name}_{most}") } else { name };
            let report = measure(library, &name, [blocks, 1, 1], [threads, 1, 1], shared, arguments)
                .map_err(|fault| format!("{name}: {fault}"))?;
            let figures = outcome.entry(name.clone()).or_default();
            if costs {
                figures.costs(&report, blocks);
            }
            Ok::<_, String>(name)
        };
        let (columns, rows) = (value_size as i32, (batch * queries) as i64);
        let arguments = [dy.argument(), y.argument(), inner.argument(), number(&columns), number(&rows)];
        let of_inner = run("attention_inner_", (batch * queries).div_ceil(8), 256, 0, &arguments)?;

        let operands = &self.operands;
        let mut arguments = operands.buffers.each_ref().map(Buffer::argument).to_vec();
        arguments.extend([dy.argument(), number(&operands.table), sums.argument(), inner.argument()]);
        // As noted at the kernels.
        let tile = if most == 32 { 64 } else { 32 };
        let shared = (2 * 64 + 4 * tile) * most * 2;
        let dv = Buffer::<T>::new(self.emulator, batch * keys * value_size);
        let dk = Buffer::<T>::new(self.emulator, batch * keys * size);
        let mut of_keys = None;
        if keys > 0 {
            let outputs = [dv.argument(), dk.argument(), number(&operands.shape)];
            let shared = shared + 2 * tile * 12 + 16;
            let blocks = batch * keys.div_ceil(64);
            of_keys = Some(run("attention_backward_keys_", blocks, 128, shared, &[&arguments[..], &outputs].concat())?);
        }
        // First with the gradients of the scores, then without, which walks no keys behind the queries.
        let scores = Buffer::<f32>::new(self.emulator, batch * queries * keys);
        let nowhere: *mut f32 = std::ptr::null_mut();
        let dq = [(); 2].map(|()| Buffer::<T>::new(self.emulator, batch * queries * size));
        let mut of_queries = String::new();
        for (dq, scores) in dq.iter().zip([scores.argument(), number(&nowhere)]) {
            let outputs = [dq.argument(), scores, number(&operands.shape)];
            let blocks = batch * queries.div_ceil(64);
            of_queries = run("attention_backward_queries_", blocks, 128, shared, &[&arguments[..], &outputs].concat())?;
        }

        let mut compare = |name: &str, what: &str, found: &[T], expected: &[(f64, f64)]| {
            outcome.get_mut(name).expect("it ran").compare(&format!("{name}: {what}"), found, expected)
        };
        if let Some(name) = of_keys {
            compare(&name, "dv", &dv.read(), &self.values())?;
            compare(&name, "dk", &dk.read(), &self.keys())?;
        }
        for dq in dq {
            compare(&of_queries, "dq", &dq.read(), &self.queries())?;
        }
        let expected: Vec<_> = self.scores.iter().map(|&[gradient, error]| (gradient, error)).collect();
        let figures = outcome.get_mut(&of_queries).expect("it ran");
        figures.compare(&format!("{of_queries}: scores"), &scores.read(), &expected)?;
        let figures = outcome.get_mut(&of_inner).expect("it ran");
        figures.compare(&of_inner, &inner.read(), &self.inner)
    }

    /// dv: each weight is off by its error in f32 and by a rounding to T, for which it is multiplied by 2^15.
    fn values(&self) -> Vec<(f64, f64)> {
        let Case { queries, keys, value_size, .. } = self.operands.case;
        let over = tensor_core_roundings(queries) * f32::ROUNDING;
        let element = |b: usize, key: usize, column: usize| {
            let (mut sum, mut bound) = (0.0, 0.0);
            for query in b * queries..(b + 1) * queries {
                let [weight, error] = self.weights[query * keys + key];
                let dy = self.dy[query * value_size + column].value();
                sum += weight * dy;
                let cut = if weight > 0.0 { T::UNDERFLOW * 2f64.powi(-15) } else { 0.0 };
                bound += dy.abs() * (weight * (error + T::ROUNDING + over) * 1.01 + cut);
            }
            (sum, bound + sum.abs() * T::ROUNDING * 1.001)
        };
        let batch = self.operands.batch();
        each(batch, keys, value_size).map(|[b, key, column]| element(b, key, column)).collect()
    }

    /// Σ ds x of a matrix, over the queries or keys that `terms` lists with x and the largest |dy| by which ds was scaled: each ds is off by its
    /// error in f32 and by a rounding to T, for which it is divided by 16 times the power of two below that.
    fn sum(&self, terms: impl Iterator<Item = (usize, f64, f64)>, count: usize) -> (f64, f64) {
        let over = tensor_core_roundings(count) * f32::ROUNDING;
        let (mut sum, mut bound) = (0.0, 0.0);
        for (place, x, largest) in terms {
            let [gradient, error] = self.scores[place];
            let cut = if self.weights[place][0] > 0.0 { 16.0 * T::UNDERFLOW * largest } else { 0.0 };
            sum += gradient * x;
            bound += x.abs() * (error + gradient.abs() * (T::ROUNDING + over) * 1.01 + cut);
        }
        let scale = f64::from(self.operands.shape.scale);
        (sum * scale, bound * scale * 1.01 + (sum * scale).abs() * T::ROUNDING * 1.01)
    }

    fn keys(&self) -> Vec<(f64, f64)> {
        let Case { queries, keys, size, .. } = self.operands.case;
        let batch = self.operands.batch();
        each(batch, keys, size)
            .map(|[b, key, e]| {
                let all = b * queries..(b + 1) * queries;
                let largest = all.clone().fold(0.0, |largest: f64, query| largest.max(self.inner[query * 2 + 1].0));
                let terms = all.map(|query| (query * keys + key, self.operands.q[query * size + e].value(), largest));
                self.sum(terms, queries)
            })
            .collect()
    }

    fn queries(&self) -> Vec<(f64, f64)> {
        let Case { queries, keys, size, .. } = self.operands.case;
        each(self.operands.batch(), queries, size)
            .map(|[b, query, e]| {
                let query = b * queries + query;
                let largest = self.inner[query * 2 + 1].0;
                let of_key = |key: usize| self.operands.k[(b * keys + key) * size + e].value();
                self.sum((0..keys).map(|key| (query * keys + key, of_key(key), largest)), keys)
            })
            .collect()
    }
}

/// All places of three axes.
fn each(outer: usize, rows: usize, columns: usize) -> impl Iterator<Item = [usize; 3]> {
    (0..outer).flat_map(move |b| (0..rows).flat_map(move |row| (0..columns).map(move |column| [b, row, column])))
}
