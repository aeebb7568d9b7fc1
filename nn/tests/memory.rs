//! When memory runs out at whatever place, what failed has changed nothing.

use tomograd_core::{DType, Device, ErrorKind, Result, Seed, Tensor, memory};
use tomograd_kernels::methods::*;
use tomograd_nn::{
    AdamW, Linear, Module, Norm, NormKind, Optimizer, OptimizerState, Params, Pass, Sequential, Sgd, Update,
};

fn values<'a>(state: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Vec<(String, Vec<f64>)> {
    state.map(|(name, value)| (name.to_owned(), value.to_vec_f64().unwrap())).collect()
}

fn moments(state: &OptimizerState) -> Vec<(String, Vec<f64>)> {
    values(state.tensors.iter().map(|(name, value)| (&name[..], value)))
}

/// Runs `attempt` with a little more memory each time until it succeeds, `after` each failure; gives the number of failures.
fn with_more_and_more(
    mut attempt: impl FnMut(&dyn Fn(&mut dyn FnMut() -> Result<()>) -> Result<()>) -> Result<()>,
) -> usize {
    for failures in 0..10_000 {
        let limited = |run: &mut dyn FnMut() -> Result<()>| {
            memory::trim(Device::Cpu).unwrap();
            let live = memory::statistics(Device::Cpu).unwrap().live;
            memory::set_limit(Device::Cpu, Some(live + failures * 1024)).unwrap();
            let result = run();
            memory::set_limit(Device::Cpu, None).unwrap();
            result
        };
        match attempt(&limited) {
            Ok(()) => return failures,
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}"),
        }
    }
    panic!("it needs too much memory");
}

fn network(params: &mut Params) -> Result<Sequential> {
    let mut scope = params.root();
    Ok(Sequential::new()
        .then(Linear::new(scope.at("a"), 40, 50)?)
        .then(Norm::new(scope.at("n"), 50, NormKind::Batch)?)
        .then(Linear::new(scope.at("b"), 50, 60)?))
}

fn update(net: &dyn Module, params: &Params) -> Update {
    let x = Tensor::normal(&[8, 40], 0.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
    let pass = Pass::train(params, Seed::new(0)).unwrap();
    let loss = net.forward(&pass.input(&x), &pass).unwrap().square().unwrap().mean(..).unwrap();
    pass.backward(loss).unwrap()
}

#[test]
fn a_failure_for_want_of_memory_changes_nothing() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let net = network(&mut params).unwrap();
    let optimizers: [Box<dyn Optimizer>; 2] = [
        Box::new(AdamW::new(&params, 0.1).unwrap()),
        Box::new(Sgd::new(&params, 0.1).unwrap().momentum(0.9).unwrap().nesterov().unwrap()),
    ];
    for mut optimizer in optimizers {
        let before = values(params.state());
        let failures = with_more_and_more(|limited| {
            // Shared with these, every tensor must be copied before it is changed.
            let (shared, state) = (params.replica(), optimizer.state());
            let mut update = Some(update(&net, &params));
            let result = limited(&mut || optimizer.step(&mut params, update.take().unwrap()));
            let after = optimizer.state();
            if result.is_err() {
                assert_eq!(values(params.state()), values(shared.state()));
                assert_eq!((moments(&after), after.steps, after.others.len()), (moments(&state), 0, 0));
            } else {
                assert_eq!((after.steps, after.others.len()), (1, 0));
            }
            result
        });
        assert!(failures >= 5, "only {failures} attempts failed");
        // A bias before a batch norm has no gradient but for rounding.
        for (before, after) in before.iter().zip(values(params.state())).filter(|(before, _)| before.0 != "a.bias") {
            assert!(*before != after, "{} is as it was", after.0);
        }
    }

    let mut average = Params::new(Device::Cpu, Seed::new(2));
    network(&mut average).unwrap();
    let failures = with_more_and_more(|limited| {
        let shared = average.replica();
        let result = limited(&mut || average.ema_update(&params, 0.5));
        assert_eq!(result.is_err(), values(average.state()) == values(shared.state()));
        result
    });
    assert!(failures >= 5, "only {failures} attempts failed");

    let mut store = Params::new(Device::Cpu, Seed::new(3));
    let failures = with_more_and_more(|limited| {
        let result = limited(&mut || Linear::new(store.root(), 40, 50).map(drop));
        assert_eq!(store.state().count(), if result.is_err() { 0 } else { 2 });
        result
    });
    assert!(failures >= 1, "only {failures} attempts failed");
}
