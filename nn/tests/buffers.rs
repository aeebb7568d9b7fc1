//! Buffers that are changed more than once: by one pass, by its forks, by segments that are computed again, and by passes whose
//! updates are added. Right values are PyTorch's for the forward runs one after the other.

use std::sync::Arc;

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{
    BufferChange, Module, Norm, NormKind, Optimizer, Params, Pass, Scope, Sgd, Slot, Update, init::Init,
};

fn params() -> Params {
    Params::new(Device::Cpu, Seed::new(1))
}

fn column(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, &[values.len(), 1], Device::Cpu).unwrap()
}

fn norm(params: &mut Params) -> Norm {
    Norm::new(params.root().at("n"), 1, NormKind::Batch).unwrap()
}

fn sgd(params: &Params) -> Sgd {
    Sgd::new(params, 0.0).unwrap()
}

/// Mean, variance and count.
fn statistics(params: &Params) -> [f64; 3] {
    ["n.running_mean", "n.running_var", "n.num_batches_tracked"]
        .map(|name| params.get(name).unwrap().to_vec_f64().unwrap()[0])
}

fn assert_statistics(params: &Params, expected: [f64; 3]) {
    for (value, expected) in statistics(params).into_iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{:?} but {expected:?}", statistics(params));
    }
}

fn update(params: &Params, run: impl FnOnce(&Pass) -> Result<Var>) -> Update {
    let pass = Pass::train(params, Seed::new(0)).unwrap();
    let loss = run(&pass).unwrap();
    pass.backward(loss).unwrap()
}

const FIRST: [f32; 2] = [1.0, 3.0];
const SECOND: [f32; 2] = [10.0, 14.0];
/// After both batches, in their order.
const BOTH: [f64; 3] = [1.38, 1.79, 2.0];

#[test]
fn a_norm_used_twice_in_a_pass_takes_up_both_batches() {
    let mut params = params();
    let norm = norm(&mut params);
    let update = update(&params, |pass| {
        let first = norm.forward(&pass.input(&column(&FIRST)), pass)?;
        first.add(&norm.forward(&pass.input(&column(&SECOND)), pass)?)?.sum(..)
    });
    let expected = update.buffer(&params, "n.running_mean").unwrap().unwrap().to_vec_f64().unwrap();
    assert!((expected[0] - 1.38).abs() < 1e-6);
    assert!(update.buffer(&params, "n.weight").unwrap().is_none());
    sgd(&params).step(&mut params, update).unwrap();
    assert_statistics(&params, BOTH);
}

#[test]
fn updates_from_one_start_are_carried_out_one_after_the_other() {
    let mut params = params();
    let norm = norm(&mut params);
    let replica = params.replica();
    let of = |params: &Params, x: &[f32]| update(params, |pass| norm.forward(&pass.input(&column(x)), pass)?.sum(..));
    let sum = of(&params, &FIRST).add(of(&replica, &SECOND)).unwrap();
    sgd(&params).step(&mut params, sum).unwrap();
    assert_statistics(&params, BOTH);
    // One by one: the very same numbers.
    let mut singly = replica;
    let mut optimizer = sgd(&singly);
    for x in [FIRST, SECOND] {
        let update = of(&singly, &x);
        optimizer.step(&mut singly, update).unwrap();
    }
    assert_eq!(statistics(&params), statistics(&singly));
}

#[test]
fn a_segment_that_is_computed_again_changes_nothing_again() {
    let mut params = params();
    let norm: Arc<dyn Module> = Arc::new(norm(&mut params));
    for checkpointed in [[true, false], [false, true], [true, true]] {
        let mut params = params.replica();
        let update = update(&params, |pass| {
            let run = |x: &[f32], checkpointed: bool| {
                let x = pass.input(&column(x));
                if checkpointed { pass.checkpoint(&norm, &x) } else { norm.forward(&x, pass) }
            };
            run(&FIRST, checkpointed[0])?.square()?.sum(..)?.add(&run(&SECOND, checkpointed[1])?.square()?.sum(..)?)
        });
        sgd(&params).step(&mut params, update).unwrap();
        assert_statistics(&params, BOTH);
    }
}

#[test]
fn forks_come_where_they_were_forked_off() {
    let mut params = params();
    let norm = norm(&mut params);
    let batches = [[1.0, 3.0], [10.0, 14.0], [-5.0, 2.0], [0.5, 7.0], [3.0, 4.0]];
    let mut expected = params.replica();
    let mut optimizer = sgd(&expected);
    for batch in &batches {
        let update = update(&expected, |pass| norm.forward(&pass.input(&column(batch)), pass)?.sum(..));
        optimizer.step(&mut expected, update).unwrap();
    }
    // The pass runs batches 0 and 4, forks 7 and 8 batches 1 and 2, and a fork of fork 8 batch 3; forks are made in the
    // other order, and run in another one, on threads of their own.
    let result = update(&params, |pass| {
        let mut sum = norm.forward(&pass.input(&column(&batches[0])), pass)?.sum(..)?;
        let (second, first) = (pass.fork(8), pass.fork(7));
        sum = sum.add(&norm.forward(&pass.input(&column(&batches[4])), pass)?.sum(..)?)?;
        let parts = std::thread::scope(|scope| {
            let (norm, batches) = (&norm, &batches);
            let inner = scope.spawn(move || {
                let y = norm.forward(&second.input(&column(&batches[2])), &second)?.sum(..)?;
                let third = second.fork(0);
                y.add(&norm.forward(&third.input(&column(&batches[3])), &third)?.sum(..)?)
            });
            let inner = inner.join().unwrap();
            let outer = scope.spawn(move || norm.forward(&first.input(&column(&batches[1])), &first)?.sum(..));
            [inner, outer.join().unwrap()]
        });
        for part in parts {
            sum = sum.add(&part?)?;
        }
        Ok(sum)
    });
    sgd(&params).step(&mut params, result).unwrap();
    assert_eq!(statistics(&params), statistics(&expected));
}

#[test]
fn a_batch_of_nothing_changes_nothing() {
    let mut params = params();
    let norm = norm(&mut params);
    for shape in [[0, 1, 3], [2, 1, 0]] {
        let empty = Tensor::zeros(&shape, DType::F32, Device::Cpu).unwrap();
        let update = update(&params, |pass| norm.forward(&pass.input(&empty), pass)?.sum(..));
        sgd(&params).step(&mut params, update.allow_unused()).unwrap();
        assert_eq!(statistics(&params), [0.0, 1.0, 0.0]);
    }
}

/// Adds how often it was used to x, and counts.
struct Counter(Slot, Slot);

impl Counter {
    fn new(mut scope: Scope<'_>) -> Self {
        let weight = scope.parameter("weight", &[1], Init::Constant(1.0)).unwrap();
        Self(scope.constant_buffer("uses", &[1], 0.0).unwrap(), weight)
    }
}

impl Module for Counter {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        let uses = pass.parameter(self.0)?;
        let more = uses.add_scalar(1.0)?;
        pass.update_buffer(self.0, BufferChange::Set(more.into_value()))?;
        x.add(&uses.mul(&pass.parameter(self.1)?)?)
    }
}

#[test]
fn a_layer_reads_what_the_pass_wrote() {
    let mut params = params();
    let counter: Arc<dyn Module> = Arc::new(Counter::new(params.root().at("c")));
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    let x = pass.input(&column(&[0.0]));
    let run = |pass: &Pass, checkpointed: bool| {
        let y = if checkpointed { pass.checkpoint(&counter, &x) } else { counter.forward(&x, pass) };
        y.unwrap()
    };
    let outputs = [run(&pass, false), run(&pass, true), run(&pass, true), run(&pass, false)];
    let fork = run(&pass.fork(0), false);
    let last = run(&pass, false);
    let values: Vec<f64> = outputs.iter().chain([&fork, &last]).map(|y| y.value().to_scalar().unwrap()).collect();
    // The fork sees what its pass had written; the pass doesn't see what its fork writes.
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
    let loss = outputs.iter().skip(1).try_fold(outputs[0].clone(), |sum, y| sum.add(y)).unwrap().sum(..).unwrap();
    let update = pass.backward(loss).unwrap();
    // What is computed again sees what was there the first time: the weight's gradient is 0 + 1 + 2 + 3.
    assert_eq!(update.gradient("c.weight").unwrap().to_vec::<f32>().unwrap(), [6.0]);
    sgd(&params).step(&mut params, update).unwrap();
    assert_eq!(params.get("c.uses").unwrap().to_vec::<f32>().unwrap(), [5.0]);
}

#[test]
fn a_change_that_doesnt_fit_is_refused_at_once() {
    let mut params = params();
    let mut scope = params.root();
    let weight = scope.parameter("weight", &[2], Init::Constant(1.0)).unwrap();
    let buffer = scope.constant_buffer("buffer", &[2], 1.0).unwrap();
    let count = scope.buffer("count", Tensor::scalar(i64::MAX, Device::Cpu).unwrap()).unwrap();
    let value = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, Device::Cpu).unwrap();
    let blend = |value, weight| BufferChange::Blend { value, weight };
    let pass = Pass::train(&params, Seed::new(0)).unwrap();
    for (slot, change, kind) in [
        (weight, BufferChange::Set(value(&[2], DType::F32)), ErrorKind::Name),
        (buffer, BufferChange::Set(value(&[3], DType::F32)), ErrorKind::Shape),
        (buffer, BufferChange::Set(value(&[2], DType::F64)), ErrorKind::Shape),
        (buffer, blend(value(&[1], DType::F32), 0.1), ErrorKind::Shape),
        (buffer, blend(value(&[2], DType::F32), f64::NAN), ErrorKind::Argument),
        (buffer, blend(value(&[2], DType::F32), 1.5), ErrorKind::Argument),
        (buffer, BufferChange::Count(1), ErrorKind::DType),
        (count, blend(value(&[], DType::F32), 0.1), ErrorKind::DType),
    ] {
        let error = pass.update_buffer(slot, change).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // A count that overflows is found when the update is carried out, before anything changes.
    pass.update_buffer(buffer, BufferChange::Set(value(&[2], DType::F32))).unwrap();
    pass.update_buffer(count, BufferChange::Count(1)).unwrap();
    let loss = pass.parameter(weight).unwrap().sum(..).unwrap();
    let update = pass.backward(loss).unwrap();
    let mut optimizer = Sgd::new(&params, 1.0).unwrap();
    assert!(optimizer.step(&mut params, update).unwrap_err().to_string().contains("i64"));
    assert_eq!(params.get("buffer").unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
    assert_eq!(params.get("weight").unwrap().to_vec::<f32>().unwrap(), [1.0; 2]);
    assert_eq!(optimizer.state().steps, 0);
}
