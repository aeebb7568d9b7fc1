//! The cases of `cases.json`, timed on the device in f32, in TF32 and in half precision.

use std::time::Instant;

use serde::Deserialize;
use serde_json::json;
use tomograd::{
    kernels::{
        Context, Op, Precision,
        attention::Attention,
        conv::{Conv, ConvTranspose},
        cuda::allow_tf32,
        elementwise::Function,
        matmul::Matmul,
        norm::{LayerNorm, Norm, Statistics},
        pool::MaxPool,
        resample::{Interpolate, Interpolation},
        run as run_op,
        scan::SelectiveScan,
    },
    models::Model,
    prelude::*,
};

use crate::{Effort, Row, Setup, networks};

/// A case of `cases.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Case {
    kind: String,
    x: Vec<usize>,
    #[serde(default)]
    w: Vec<usize>,
    #[serde(default)]
    pad: usize,
    #[serde(default = "one")]
    stride: usize,
    #[serde(default = "one")]
    groups: usize,
    #[serde(default)]
    n: usize,
    #[serde(default)]
    net: String,
    #[serde(default)]
    classes: usize,
    mode: String,
}

fn one() -> usize {
    1
}

/// The cases of the archive, in the order of the file; none if it has no file.
///
/// # Errors
/// When the file isn't a JSON object of cases.
pub fn all(setup: &Setup) -> Result<Vec<(String, Case)>> {
    let Some(bytes) = setup.archive.get("cases.json") else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(bytes);
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| crate::json_error("cases.json", error))?;
    // A map has its own order.
    let mut cases: Vec<_> = map.into_iter().filter(|(name, _)| name != "_").collect();
    cases.sort_by_key(|(name, _)| text.find(&format!("\"{name}\"")));
    let parse = |(name, value): (String, serde_json::Value)| match serde_json::from_value(value) {
        Ok(case) => Ok((name, case)),
        Err(error) => Err(crate::json_error(&format!("cases.json: {name}"), error)),
    };
    cases.into_iter().map(parse).collect()
}

/// The precisions of a column.
const COLUMNS: [(&str, DType, bool); 4] =
    [("f32", DType::F32, false), ("tf32", DType::F32, true), ("bf16", DType::BF16, false), ("f16", DType::F16, false)];

/// Times a case: milliseconds by precision, and reasons where there is none. A network that the registry hasn't is `unknown`.
///
/// # Errors
/// When there is no case of this name.
pub fn run(setup: &Setup, item: &str) -> Result<Row> {
    let case = all(setup)?.into_iter().find(|(name, _)| name == item).map(|(_, case)| case);
    let case = case.ok_or_else(|| Error::argument("cases", format!("no case {item}")))?;
    if case.kind == "net" && networks::config(&case.net, 1, None)?.is_none() {
        return Ok(json!({ "unknown": true, "missing": [format!("{} isn't in the registry", case.net)] }));
    }
    let case = if setup.effort == Effort::Small { case.small() } else { case };
    let (mut row, mut missing) = (serde_json::Map::new(), Vec::new());
    for (column, dtype, tf32) in COLUMNS {
        if !case.has(column) {
            continue;
        }
        allow_tf32(tf32);
        let result = crate::caught(|| time(setup, build(setup, &case, dtype)?));
        allow_tf32(false);
        match result {
            Ok(milliseconds) => drop(row.insert(column.to_owned(), json!(milliseconds))),
            Err(error) => missing.push(format!("{column}: {error}")),
        }
    }
    row.insert("missing".to_owned(), json!(missing));
    Ok(row.into())
}

impl Case {
    /// The same at sizes that the emulator can do.
    fn small(mut self) -> Self {
        let channels = if self.groups > 1 { self.groups.min(4) } else { 0 };
        if self.groups > 1 {
            // The channels of a group stay as many, below four.
            let of_group = (self.x[1] / self.groups).min(2);
            self.x[1] = channels * of_group;
            self.w[0] = channels * (self.w[0] / self.groups).min(2);
            self.w[1] = of_group;
            self.groups = channels;
        } else if !self.w.is_empty() && self.kind.starts_with("conv") {
            self.x[1] = self.x[1].min(4);
            let (input, output) = if self.kind == "convt" { (0, 1) } else { (1, 0) };
            self.w[input] = self.x[1];
            self.w[output] = self.w[output].min(5);
        } else if self.kind == "matmul" {
            (self.x, self.w) = (vec![20, 24], vec![24, 17]);
        } else if self.kind != "net" {
            for size in self.x.iter_mut().take(2) {
                *size = (*size).min(3);
            }
        }
        let (from, side) = match &self.kind[..] {
            "net" if self.x.len() == 5 => (2, 8),
            "net" => (2, 32),
            "matmul" => (2, 0),
            "attention" => (2, 32),
            "scan" => (2, 40),
            "layernorm" => (1, 48),
            _ => (2, 6),
        };
        if self.kind == "net" {
            self.x[0] = 1;
        }
        self.n = self.n.min(4);
        self.x.iter_mut().skip(from).for_each(|size| *size = (*size).min(side));
        self
    }

    /// Whether this case is timed in this precision: half precision where kernels take it as it is, TF32 where there are products.
    fn has(&self, column: &str) -> bool {
        let train = self.mode == "train";
        match (&self.kind[..], column) {
            (_, "f32") => true,
            ("conv" | "convt" | "matmul", _) => self.groups == 1 || column != "tf32",
            ("net", "tf32") => true,
            // A network's training keeps its weights in f32.
            ("net", "bf16") => !train,
            ("attention" | "scan", "bf16" | "f16") => true,
            _ => false,
        }
    }
}

/// Queues the case once; a tensor that is there when it is done.
pub type Step = Box<dyn FnMut() -> Result<Tensor>>;

/// Uniform random numbers on a device.
fn random(shape: &[usize], name: &str, [low, high]: [f64; 2], dtype: DType, device: Device) -> Result<Tensor> {
    let x = Tensor::uniform(shape, low, high, Seed::new(0).named(name), DType::F32, Device::Cpu)?;
    x.converted(dtype)?.to(device)
}

/// The work of a case.
///
/// # Errors
/// When the case isn't one that this program knows, or memory runs out.
pub fn build(setup: &Setup, case: &Case, dtype: DType) -> Result<Step> {
    let device = setup.device;
    let train = case.mode == "train";
    let signed = |shape: &[usize], name: &str| random(shape, name, [-1.0, 1.0], dtype, device);
    let rank = case.x.len().saturating_sub(2);
    let channels = case.x.get(1).copied().unwrap_or(0);
    match &case.kind[..] {
        "conv" => {
            let (padding, stride) = (vec![case.pad; rank], vec![case.stride; rank]);
            let op = Conv { padding, stride, groups: case.groups, ..Conv::new(rank)? };
            of_op(op, vec![signed(&case.x, "x")?, signed(&case.w, "w")?], train)
        }
        "convt" => {
            of_op(ConvTranspose::new(rank, case.stride)?, vec![signed(&case.x, "x")?, signed(&case.w, "w")?], train)
        }
        "inorm_lrelu" => {
            let activation = Some(Function::LeakyRelu(0.01));
            let op = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: true, activation };
            of_op(op, vec![signed(&case.x, "x")?, signed(&[channels], "g")?, signed(&[channels], "b")?], train)
        }
        "maxpool" => {
            let op = MaxPool { stride: vec![2; rank], ..MaxPool::new(&vec![2; rank])? };
            of_op(op, vec![signed(&case.x, "x")?], train)
        }
        "upsample" => {
            let size = case.x.iter().skip(2).map(|size| 2 * size).collect();
            of_op(Interpolate { size, mode: Interpolation::Linear }, vec![signed(&case.x, "x")?], train)
        }
        "matmul" => of_op(Matmul, vec![signed(&case.x, "x")?, signed(&case.w, "w")?], train),
        "layernorm" => {
            let op = LayerNorm { axes: 1, epsilon: 1e-5, affine: true };
            of_op(op, vec![signed(&case.x, "x")?, signed(&[channels], "g")?, signed(&[channels], "b")?], train)
        }
        "attention" => {
            let inputs = ["q", "k", "v"].iter().map(|name| signed(&case.x, name)).collect::<Result<Vec<_>>>()?;
            of_op(Attention::default(), inputs, train)
        }
        "scan" => {
            let [batch, channels, length] = case.x[..] else {
                return Err(Error::argument("cases", format!("a scan of shape {:?}", case.x)).expected("three axes"));
            };
            let (over_time, over_states) = ([batch, channels, length], [batch, case.n, length]);
            let of = |name: &str, shape: &[usize], range| random(shape, name, range, dtype, device);
            let inputs = vec![
                signed(&over_time, "u")?,
                of("delta", &over_time, [0.0, 0.1])?,
                of("a", &[channels, case.n], [-1.5, -0.5])?,
                signed(&over_states, "b")?,
                signed(&over_states, "c")?,
                signed(&[channels], "skip")?,
            ];
            of_op(SelectiveScan { skip: true, ..SelectiveScan::default() }, inputs, train)
        }
        "net" => of_network(setup, case, dtype),
        other => Err(Error::argument("cases", format!("the kind {other}")).expected("a kind of cases.json")),
    }
}

/// An operation run forward, and when `train` backward too, for the gradients of all inputs.
fn of_op(op: impl Op + Clone, inputs: Vec<Tensor>, train: bool) -> Result<Step> {
    let context = Context::default().precision(Precision::Fast).inference(!train);
    if !train {
        return Ok(Box::new(move || {
            let inputs: Vec<&Tensor> = inputs.iter().collect();
            Ok(run_op(&op, &inputs, &context)?.outputs.swap_remove(0))
        }));
    }
    let mut cotangent: Option<Tensor> = None;
    Ok(Box::new(move || {
        let tape = Tape::recording(context);
        let leaves = inputs.iter().map(|input| tape.leaf(input.clone())).collect::<Result<Vec<_>>>()?;
        let output = Var::apply(op.clone(), &leaves.iter().collect::<Vec<_>>())?;
        let ones = match &cotangent {
            Some(ones) => ones.clone(),
            None => Tensor::ones(output.shape(), output.dtype(), output.value().device())?,
        };
        cotangent = Some(ones.clone());
        let gradients = tape.backward_with(&[(&output, ones)])?;
        let first = gradients.get(&leaves[0]).cloned();
        first.ok_or_else(|| Error::argument("cases", "no gradient of the first input"))
    }))
}

/// A network's inference or training step.
fn of_network(setup: &Setup, case: &Case, dtype: DType) -> Result<Step> {
    let (device, classes) = (setup.device, if case.classes == 0 { 1000 } else { case.classes });
    let widths: Option<&[usize]> = setup.choose(Some(&[2, 3][..]), None);
    let config = networks::config(&case.net, classes, widths)?
        .ok_or_else(|| Error::argument("cases", format!("{} isn't in the registry", case.net)))?;
    let mut model = Model::with_dtype(config, device, Seed::new(0), dtype)?;
    if case.mode == "train" {
        let sgd = |params: &Params| Sgd::new(params, 1e-3)?.momentum(0.99)?.nesterov()?.decay(3e-5);
        let mut training = networks::Training::new(model, &case.x, sgd)?;
        return Ok(Box::new(move || training.step(Seed::new(0), None)));
    }
    model.fold_batch_norm()?;
    let image = random(&case.x, "x", [-1.0, 1.0], dtype, device)?;
    Ok(Box::new(move || model.predict(&image)))
}

/// Waits until a tensor is there.
fn wait(tensor: &Tensor) -> Result<()> {
    let mut first = tensor.clone();
    for axis in 0..first.rank() {
        first = first.narrow(axis, 0, first.shape()[axis].min(1))?;
    }
    first.to_vec_f64().map(drop)
}

/// Milliseconds of a step: the least mean of a few series, each queued without a wait between its steps.
fn time(setup: &Setup, mut step: Step) -> Result<f64> {
    wait(&step()?)?;
    let mut series = |count: usize| -> Result<f64> {
        let start = Instant::now();
        let mut last = step()?;
        for _ in 1..count {
            last = step()?;
        }
        wait(&last)?;
        Ok(start.elapsed().as_secs_f64() / count as f64)
    };
    let first = series(1)?;
    let (seconds, most, repeats) = setup.choose((0.0, 1, 1), (0.06, 400, 3));
    let count = ((seconds / first) as usize).clamp(1, most);
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        best = best.min(series(count)?);
    }
    Ok(best * 1e3)
}
