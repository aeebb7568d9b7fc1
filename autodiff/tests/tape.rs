//! The tape: what it computes, frees, refuses and survives.

use std::sync::{Arc, Mutex};

use tomograd_autodiff::{Tape, Var, gradcheck, methods::*};
use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor};
use tomograd_kernels::{Context, Forward, Meta, Op, Saved, check, index::PadMode, resample::Interpolation};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, &[values.len()], Device::Cpu).unwrap()
}

fn tape() -> Tape {
    Tape::recording(Context::default())
}

#[test]
fn gradients_of_views_and_fan_out_are_added() {
    let tape = tape();
    let x = tape.leaf(tensor(&[1.0, 2.0, 3.0, 4.0])).unwrap();
    let square = x.reshape(&[2, 2]).unwrap();
    let y = square.transpose(0, 1).unwrap().narrow(0, 1, 1).unwrap();
    let loss = y.mul(&y).unwrap().sum(..).unwrap().add(&x.sum(..).unwrap()).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>().unwrap(), [1.0, 5.0, 1.0, 9.0]);
}

#[test]
fn a_graph_used_twice_is_an_error() {
    let tape = tape();
    let x = tape.leaf(tensor(&[2.0])).unwrap();
    let loss = x.square().unwrap();
    tape.backward(&loss).unwrap();
    for error in [tape.backward(&loss).unwrap_err(), x.square().unwrap_err(), tape.leaf(tensor(&[1.0])).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Graph);
        assert!(error.to_string().contains("already used"), "{error}");
    }
}

#[test]
fn variables_of_two_passes_dont_mix() {
    let (first, second) = (tape(), tape());
    let x = first.leaf(tensor(&[1.0])).unwrap();
    let y = second.leaf(tensor(&[1.0])).unwrap();
    let error = x.add(&y).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Graph);
    assert!(error.to_string().contains("two passes"), "{error}");
    assert!(second.backward(&x.square().unwrap()).is_err());
}

#[test]
fn what_has_no_history_has_no_gradient() {
    let tape = tape();
    let x = tape.leaf(tensor(&[3.0])).unwrap();
    let unused = tape.leaf(tensor(&[5.0])).unwrap();
    let loss = x.mul(&x.detach()).unwrap();
    let gradients = tape.backward(&loss).unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>().unwrap(), [3.0]);
    assert!(gradients.get(&unused).is_none());
    assert!(self::tape().leaf(Tensor::zeros(&[1], DType::I64, Device::Cpu).unwrap()).is_err());
    let off = Tape::off(Context::default());
    let y = off.leaf(tensor(&[3.0])).unwrap().square().unwrap();
    assert!(!y.has_gradient() && off.node_count() == 0);
}

#[test]
fn hooks_fire_in_a_fixed_order_as_soon_as_a_gradient_is_complete() {
    let fired = Arc::new(Mutex::new(Vec::new()));
    let tape = tape();
    let leaves: Vec<Var> = (0..3).map(|i| tape.leaf(tensor(&[f64::from(i) + 1.0])).unwrap()).collect();
    for (i, leaf) in leaves.iter().enumerate() {
        let fired = fired.clone();
        tape.on_gradient(leaf, move |gradient| {
            fired.lock().unwrap().push((i, gradient.to_vec::<f64>()?[0]));
            Ok(())
        })
        .unwrap();
    }
    // ((x0 · x1) · x2) · x1: x2 is complete before x1, x1 and x0 with the first product.
    let product = leaves[0].mul(&leaves[1]).unwrap().mul(&leaves[2]).unwrap().mul(&leaves[1]).unwrap();
    tape.backward(&product).unwrap();
    assert_eq!(*fired.lock().unwrap(), [(2, 4.0), (0, 12.0), (1, 12.0)]);
}

#[test]
fn a_hundred_thousand_nodes_are_built_walked_and_dropped() {
    let build = |tape: &Tape| {
        let x = tape.leaf(tensor(&[1.0])).unwrap();
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = y.add_scalar(1e-5).unwrap();
        }
        (x, y)
    };
    let first = tape();
    let (x, y) = build(&first);
    assert_eq!(first.node_count(), 100_001);
    assert_eq!(first.backward(&y).unwrap().get(&x).unwrap().to_vec::<f64>().unwrap(), [1.0]);
    // Dropped without a backward run, on a thread with a small stack.
    std::thread::Builder::new().stack_size(128 << 10).spawn(move || drop(build(&tape()))).unwrap().join().unwrap();
}

#[test]
fn a_checkpointed_segment_gives_the_same_gradients_and_keeps_less() {
    let values = Tensor::normal(&[64], 0.0, 1.0, Seed::new(1), DType::F64, Device::Cpu).unwrap();
    let gradients = |checkpointed: bool| -> (Vec<Vec<f64>>, usize) {
        let tape = tape();
        let x = tape.leaf(values.clone()).unwrap();
        let weight = tape.leaf(tensor(&[0.5])).unwrap();
        let brought = weight.clone();
        let segment = move |tape: &Tape, inputs: &[Var]| -> Result<Vec<Var>> {
            let weight = tape.adopt(&brought)?;
            let mut y = inputs[0].clone();
            for _ in 0..10 {
                y = y.mul(&weight)?.tanh()?;
            }
            Ok(vec![y])
        };
        let y = if checkpointed {
            tape.checkpoint(&[&x], segment).unwrap()
        } else {
            segment(&tape, std::slice::from_ref(&x)).unwrap()
        };
        let loss = y[0].mul(&x).unwrap().sum(..).unwrap();
        let nodes = tape.node_count();
        let all = tape.backward(&loss).unwrap();
        ([&x, &weight].map(|leaf| all.get(leaf).unwrap().to_vec::<f64>().unwrap()).to_vec(), nodes)
    };
    let (plain, plain_nodes) = gradients(false);
    let (again, few_nodes) = gradients(true);
    assert!(few_nodes + 15 < plain_nodes);
    for (a, b) in plain.iter().flatten().zip(again.iter().flatten()) {
        // The order in which fan-in is added differs, so the last bits may.
        assert!((a - b).abs() <= 1e-13 * (1.0 + a.abs()), "{a} {b}");
    }
}

/// x³, an operation of a user's own.
#[derive(Debug, Clone)]
struct Cube {
    factor: f64,
}

impl Op for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("cube", inputs, 1, 1)?;
        Ok(vec![inputs[0].clone()])
    }
    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let y: Vec<f64> = inputs[0].to_vec::<f64>()?.iter().map(|x| x * x * x).collect();
        Ok(Forward::one(Tensor::from_slice(&y, &outputs[0].shape, Device::Cpu)?))
    }
    fn saves_input(&self, _: usize) -> bool {
        true
    }
    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        dy: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &dy[0] else { return Ok(vec![None]) };
        let x = saved.input(0)?;
        let dx: Vec<f64> =
            x.to_vec::<f64>()?.iter().zip(dy.to_vec::<f64>()?).map(|(x, dy)| self.factor * x * x * dy).collect();
        Ok(vec![Some(Tensor::from_slice(&dx, x.shape(), Device::Cpu)?)])
    }
}

#[test]
fn gradcheck_accepts_right_gradients_and_refuses_wrong_ones() {
    let x = Tensor::normal(&[2, 3], 0.0, 1.0, Seed::new(5), DType::F64, Device::Cpu).unwrap();
    gradcheck::operation(Cube { factor: 3.0 }, std::slice::from_ref(&x)).unwrap();
    let error = gradcheck::operation(Cube { factor: 3.001 }, std::slice::from_ref(&x)).unwrap_err();
    assert!(error.to_string().contains("differences give"), "{error}");
    let large = Tensor::normal(&[100], 0.0, 1.0, Seed::new(6), DType::F64, Device::Cpu).unwrap();
    gradcheck::operation(Cube { factor: 3.0 }, std::slice::from_ref(&large)).unwrap();
    assert!(gradcheck::operation(Cube { factor: f64::NAN }, &[large]).is_err());
}

#[test]
fn the_methods_that_move_and_mix_elements_have_their_gradients() {
    let random =
        |shape: &[usize], seed| Tensor::normal(shape, 0.0, 1.0, Seed::new(seed), DType::F64, Device::Cpu).unwrap();
    let attention = |vars: &[Var]| {
        let [query, key, value] = &vars[0].split(&[2, 2, 2], 2)?[..] else { unreachable!("three parts") };
        let weights = query.matmul(&key.transpose(1, 2)?)?.mul_scalar(0.5)?.softmax(2)?;
        Var::concat(&[&weights.matmul(value)?, &weights.log_softmax(1)?], 2)
    };
    gradcheck::check(attention, &[random(&[2, 3, 6], 1)]).unwrap();
    let index = Tensor::from_slice(&[1i64, 0, 1], &[3], Device::Cpu).unwrap();
    let spatial = |vars: &[Var]| {
        let padded = vars[0].pad(&[0, 0, 1, 2], &[0, 0, 2, 0], PadMode::Reflect)?;
        let pooled = padded.adaptive_max_pool(&[3, 3])?.add(&padded.adaptive_average_pool(&[3, 3])?)?;
        let larger = pooled.interpolate(&[4, 5], Interpolation::Linear)?.index_select(1, &index)?;
        larger.gather(3, &Tensor::full(&[1, 3, 4, 2], 4.0, DType::I64, Device::Cpu)?)
    };
    gradcheck::check(spatial, &[random(&[1, 2, 3, 4], 2)]).unwrap();
    let error = tape().constant(random(&[2, 3], 3)).split(&[1, 1], 1).unwrap_err();
    assert!(error.to_string().contains("add up"), "{error}");
}

#[test]
fn axes_and_sizes_beyond_the_tensor_are_errors() {
    let tape = Tape::recording(Context::default());
    let x = tape.leaf(Tensor::ones(&[2, 3], DType::F64, Device::Cpu).unwrap()).unwrap();
    for huge in [2, 1 << 40, usize::MAX] {
        let results = [
            x.transpose(0, huge),
            x.transpose(huge, 1),
            x.permute(&[0, huge]),
            x.narrow(huge, 0, 1),
            x.narrow(0, huge, 1),
            x.narrow(0, 1, huge),
            x.slice(0, 1, 2, huge),
            x.softmax(huge),
            x.log_softmax(huge),
            x.sum([huge]),
            x.reshape(&[huge, huge]),
            x.expand(&[huge, 2, 2]),
            x.split(&[huge, huge], 0).map(|mut parts| parts.remove(0)),
            Var::concat(&[&x, &x], huge),
            x.adaptive_average_pool(&[huge]),
            x.interpolate(&[huge], Interpolation::Linear),
        ];
        for (number, result) in results.into_iter().enumerate() {
            assert!(result.is_err(), "case {number} with {huge}");
        }
    }
    assert!(x.slice(0, 0, 1, 0).is_err());
}

#[test]
fn the_graph_has_every_operation_in_order() {
    let tape = tape();
    let x = tape.leaf(tensor(&[1.0, 2.0])).unwrap();
    let constant = tape.constant(tensor(&[3.0, 4.0]));
    assert_eq!((x.node(), constant.node()), (Some((0, 0)), None));
    let sum = x.add(&constant).unwrap();
    let inner = sum.clone();
    let segment = tape
        .checkpoint(&[&sum], move |tape, inputs| Ok(vec![inputs[0].mul(&tape.adopt(&inner)?)?.relu()?]))
        .unwrap()
        .remove(0);
    let loss = segment.sum(..).unwrap();

    let graph = tape.graph().unwrap();
    let names: Vec<Option<&str>> = graph.iter().map(|node| node.op.as_ref().map(|op| op.name())).collect();
    assert_eq!(names, [None, Some("add"), None, Some("sum")]);
    assert_eq!(graph[1].inputs, [Some((0, 0)), None]);
    assert_eq!(graph[1].input_metas[1].shape, [2]);
    assert_eq!(graph[2].inputs, [Some((1, 0))], "what the segment uses");
    assert_eq!((graph[3].inputs[0], loss.node()), (segment.node(), Some((3, 0))));
    assert!(graph[3].output_metas[0].shape.is_empty() && graph[0].inputs.is_empty());

    tape.backward(&loss).unwrap();
    assert_eq!(tape.graph().unwrap_err().kind(), ErrorKind::Graph);
    assert!(Tape::off(Context::default()).graph().unwrap().is_empty());
}
