//! Every operation of `testing::all`, proven: against its reference, in every instruction set, with several thread counts and
//! chunk orders, on views, in half precision, and its gradients against differences.

use std::{collections::BTreeSet, fs, path::Path};

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_kernels::{
    Context, Forward, HalfPolicy, Meta, Op, Precision, Saved,
    cast::cast,
    parallel::{Order, Settings, with_settings},
    run, run_backward, run_in_place, run_recompute,
    simd::Isa,
    testing::{self, Case, Entry, InPlaceCase},
};

/// Random cases of each operation and test; `TOMOGRAD_CASES` asks for more.
fn cases() -> u64 {
    std::env::var("TOMOGRAD_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(40)
}

/// Every operation, or those that `TOMOGRAD_OPERATIONS=A,B` names.
fn operations() -> impl Iterator<Item = Entry> {
    let chosen = std::env::var("TOMOGRAD_OPERATIONS").ok();
    let named =
        move |entry: &Entry| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == entry.name));
    testing::all().into_iter().filter(named)
}

/// Where case `number` of an operation comes from, in a test.
fn seed(test: &str, entry: &Entry, number: u64) -> Random {
    Seed::new(2026).named(test).named(entry.name).at(number).random()
}

/// Calls `check` with random cases of every operation; a failure names the operation and the case.
fn for_every_case(test: &str, check: impl Fn(&Case, &mut Random) -> Result<()>) {
    for entry in operations() {
        for number in 0..cases() {
            let mut random = seed(test, &entry, number);
            let case = entry.case(&mut random).unwrap_or_else(|error| panic!("{}: {error}", entry.name));
            let place = || {
                let shapes: Vec<&[usize]> = case.inputs.iter().map(Tensor::shape).collect();
                format!("{test}: case {number} of {}: {:?} on {shapes:?}", entry.name, case.op)
            };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&case, &mut random)));
            match outcome {
                Ok(result) => result.unwrap_or_else(|error| panic!("{}: {error}", place())),
                Err(_) => panic!("{}", place()),
            }
        }
    }
}

fn references(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// The floating-point inputs in `dtype`, the others as they are.
fn inputs_in(case: &Case, dtype: DType) -> Result<Vec<Tensor>> {
    case.inputs.iter().map(|x| if x.dtype().is_float() { cast(x, dtype) } else { Ok(x.clone()) }).collect()
}

/// The same tensor as a view into a larger, permuted one.
fn as_view(x: &Tensor, random: &mut Random) -> Result<Tensor> {
    let order = random.permutation(x.rank())?;
    let mut inverse = vec![0; x.rank()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from] = to;
    }
    let moved = x.permute(&order)?.contiguous()?;
    let Some(last) = moved.rank().checked_sub(1) else { return Ok(x.clone()) };
    let size = moved.shape()[last];
    let mut wide = moved.shape().to_vec();
    wide[last] = 2 * size + 1;
    // Every second element of a row holds the value; what lies between would show as a wrong result.
    let values = moved.to_vec_f64()?;
    let row = wide[last];
    let spread: Vec<f64> = (0..wide.iter().product::<usize>())
        .map(|i| if i % row % 2 == 1 { values[i / row * size + i % row / 2] } else { 77.0 })
        .collect();
    let wide = Tensor::from_slice(&spread, &wide, Device::Cpu)?.converted(x.dtype())?;
    wide.slice(last, 1.min(wide.shape()[last]), size, 2)?.permute(&inverse)
}

fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    Ok(tensor.to_vec_f64()?.into_iter().map(f64::to_bits).collect())
}

fn saved_of(op: &dyn Op, inputs: &[Tensor], forward: &Forward) -> Saved {
    Saved::new(op, &references(inputs), forward)
}

/// A random cotangent of each floating-point output.
fn cotangents_of(forward: &Forward, random: &mut Random) -> Result<Vec<Option<Tensor>>> {
    let mut cotangent = |y: &Tensor| cast(&testing::values(random, y.shape())?, y.dtype());
    forward.outputs.iter().map(|y| y.dtype().is_float().then(|| cotangent(y)).transpose()).collect()
}

/// Forward and all gradients with a fixed random cotangent.
fn both(case: &Case, inputs: &[Tensor], random: &mut Random, context: &Context) -> Result<Vec<Tensor>> {
    let forward = run(&*case.op, &references(inputs), context)?;
    let cotangents = cotangents_of(&forward, random)?;
    let saved = saved_of(&*case.op, inputs, &forward);
    let gradients = run_backward(&*case.op, saved, cotangents, &case.differentiable, context)?;
    Ok(forward.outputs.into_iter().chain(gradients.into_iter().flatten()).collect())
}

/// The types that implement a trait of the contract, as `impl TRAIT for NAME` in the sources.
fn written(contract: &str) -> BTreeSet<String> {
    fn sources(folder: &Path, start: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, start, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                for line in fs::read_to_string(&path).unwrap().lines() {
                    if let Some(rest) = line.trim_start().strip_prefix(start) {
                        found.insert(rest.split([' ', '{', '<']).next().unwrap_or_default().to_owned());
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &format!("impl {contract} for "), &mut found);
    found
}

#[test]
fn every_operation_in_the_sources_is_listed() {
    let listed: BTreeSet<String> = testing::all().iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(written("Op"), listed, "left: operations in kernels/src, right: operations of testing::all");
    let in_place: BTreeSet<String> = testing::in_place().iter().map(|entry| entry.name.to_owned()).collect();
    assert_eq!(written("InPlace"), in_place, "left: in kernels/src, right: in testing::in_place");
    assert!(!listed.is_empty() && !in_place.is_empty());
}

/// That corners are drawn, often enough: inputs with an axis of 1 beside one past 32, and past 64, in the cases of the tests that
/// look at values. Of images, (N, C, spatial...), the spatial axes count where there are two at least: a batch of one is no corner.
#[test]
fn the_cases_of_every_operation_hold_corners() {
    let mut rare = Vec::new();
    for entry in operations() {
        let mut found = [0; 2];
        for test in ["reference", "gradients", "f32", "bits"] {
            for number in 0..40 {
                let case = entry.case(&mut seed(test, &entry, number)).unwrap();
                for (found, length) in found.iter_mut().zip([32, 64]) {
                    let corner = |x: &Tensor| {
                        let axes = if x.rank() >= 4 { &x.shape()[2..] } else { x.shape() };
                        axes.contains(&1) && axes.iter().any(|&size| size > length)
                    };
                    *found += usize::from(case.inputs.iter().any(corner));
                }
            }
        }
        if found[0] < 10 || found[1] < 4 {
            rare.push(format!("{}: {found:?}", entry.name));
        }
    }
    assert!(rare.is_empty(), "of 160 cases, those with 1 beside over 32, and over 64: {rare:#?}");
}

#[test]
fn forward_equals_the_reference_in_every_instruction_set() {
    for_every_case("reference", |case, _| {
        for dtype in [DType::F64, DType::F32] {
            let inputs = inputs_in(case, dtype)?;
            // The reference gets what the kernel gets: the rounded inputs.
            let exact: Vec<Tensor> = inputs
                .iter()
                .map(|x| if x.dtype().is_float() { cast(x, DType::F64) } else { Ok(x.clone()) })
                .collect::<Result<_>>()?;
            let reference = case.reference(&exact)?;
            let scale = case.scale(&exact, &reference)?;
            let unit = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) } / 2.0;
            for isa in Isa::available() {
                for precision in [Precision::Fast, Precision::Strict] {
                    let settings = Settings::default().isa(isa).unwrap();
                    let forward = with_settings(settings, || {
                        run(&*case.op, &references(&inputs), &Context::default().precision(precision))
                    })?;
                    assert_eq!(forward.outputs.len(), reference.len());
                    for ((y, expected), scale) in forward.outputs.iter().zip(&reference).zip(&scale) {
                        assert_eq!(y.shape(), expected.shape(), "shape of an output");
                        let (y, expected, scale) = (y.to_vec_f64()?, expected.to_vec_f64()?, scale.to_vec_f64()?);
                        for (i, ((y, expected), scale)) in y.iter().zip(&expected).zip(&scale).enumerate() {
                            let bound = case.tolerance * unit * scale;
                            let close = (y - expected).abs() <= bound || y.to_bits() == expected.to_bits();
                            assert!(
                                close,
                                "{dtype} {isa:?} {precision:?}: element {i} is {y}, expected {expected} within {bound:e}"
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn every_way_to_run_gives_the_same_bits() {
    for_every_case("bits", |case, random| {
        let inputs = inputs_in(case, DType::F32)?;
        let start = random.clone();
        let expected: Vec<Vec<u64>> =
            both(case, &inputs, &mut start.clone(), &Context::default())?.iter().map(bits).collect::<Result<_>>()?;
        let mut ways: Vec<(String, Settings)> =
            Isa::available().map(|isa| (format!("{isa:?}"), Settings::default().isa(isa).unwrap())).collect();
        ways.extend([1, 2, 5].map(|threads| (format!("{threads} threads"), Settings::default().threads(threads))));
        ways.push(("shuffled chunks".to_owned(), Settings::default().order(Order::Shuffled(random.next_u64()))));
        for (way, settings) in ways {
            let results = with_settings(settings, || both(case, &inputs, &mut start.clone(), &Context::default()))?;
            for (k, (result, expected)) in results.iter().zip(&expected).enumerate() {
                assert_eq!(&bits(result)?, expected, "{way}: output or gradient {k}");
            }
        }
        Ok(())
    });
}

#[test]
fn views_give_what_contiguous_tensors_give() {
    for_every_case("views", |case, random| {
        let inputs = inputs_in(case, DType::F32)?;
        let start = random.clone();
        let expected = both(case, &inputs, &mut start.clone(), &Context::default())?;
        let views: Vec<Tensor> = inputs.iter().map(|x| as_view(x, random)).collect::<Result<_>>()?;
        let results = both(case, &views, &mut start.clone(), &Context::default())?;
        for (k, (result, expected)) in results.iter().zip(&expected).enumerate() {
            assert_eq!(bits(result)?, bits(expected)?, "output or gradient {k}");
        }
        Ok(())
    });
}

/// Gradients against central differences along random directions, in f64.
#[test]
fn gradients_equal_differences() {
    for_every_case("gradients", |case, random| {
        if !case.differentiable.contains(&true) {
            return Ok(());
        }
        let context = Context::default().precision(Precision::Strict);
        let forward = run(&*case.op, &references(&case.inputs), &context)?;
        let cotangents = cotangents_of(&forward, random)?;
        let saved = saved_of(&*case.op, &case.inputs, &forward);
        let gradients = run_backward(&*case.op, saved, cotangents.clone(), &case.differentiable, &context)?;
        let loss = |inputs: &[Tensor]| -> Result<f64> {
            let outputs = run(&*case.op, &references(inputs), &context)?.outputs;
            let mut sum = 0.0;
            for (output, cotangent) in outputs.iter().zip(&cotangents) {
                if let Some(cotangent) = cotangent {
                    sum += dot(output, cotangent)?;
                }
            }
            Ok(sum)
        };
        for (i, gradient) in gradients.iter().enumerate() {
            assert_eq!(gradient.is_some(), case.differentiable[i], "whether input {i} has a gradient");
            let Some(gradient) = gradient else { continue };
            let x = &case.inputs[i];
            let direction = testing::values(random, x.shape())?;
            let step = 1e-5;
            let moved = |sign: f64| -> Result<f64> {
                let values: Vec<f64> = x
                    .to_vec_f64()?
                    .iter()
                    .zip(direction.to_vec_f64()?)
                    .map(|(value, slope)| value + sign * step * slope)
                    .collect();
                let mut inputs = case.inputs.clone();
                inputs[i] = Tensor::from_slice(&values, x.shape(), Device::Cpu)?;
                loss(&inputs)
            };
            let (above, below) = (moved(1.0)?, moved(-1.0)?);
            let difference = (above - below) / (2.0 * step);
            let product = dot(gradient, &direction)?;
            // Truncation is about step² times a third derivative; cancellation about ε · |loss| / step.
            let size: f64 = norm(gradient)? * norm(&direction)?;
            let bound = 1e-6 * (1.0 + size) + 1e-10 * (above.abs() + below.abs());
            assert!(
                (difference - product).abs() <= bound,
                "input {i}: differences give {difference}, the gradient {product}"
            );
        }
        Ok(())
    });
}

/// Gradients in f32, in every instruction set and by the fast ways that f64 doesn't take, against those in f64, which differences
/// prove. A wrong edge is off by about a term of a sum; rounding by far less than the bound.
#[test]
fn gradients_in_f32_are_those_in_f64() {
    for_every_case("f32", |case, random| {
        if !case.differentiable.contains(&true) {
            return Ok(());
        }
        let narrow = inputs_in(case, DType::F32)?;
        let wide = narrow
            .iter()
            .map(|x| if x.dtype() == DType::F32 { cast(x, DType::F64) } else { Ok(x.clone()) })
            .collect::<Result<Vec<_>>>()?;
        let run_of = |inputs: &[Tensor], precision: Precision, random: &mut Random| -> Result<Vec<Option<Tensor>>> {
            let context = Context::default().precision(precision);
            let forward = run(&*case.op, &references(inputs), &context)?;
            let cotangents = cotangents_of(&forward, random)?;
            // The same numbers for both.
            let rounded = |dy: Tensor| cast(&cast(&dy, DType::F32)?, dy.dtype());
            let cotangents = cotangents.into_iter().map(|dy| dy.map(rounded).transpose()).collect::<Result<_>>()?;
            run_backward(&*case.op, saved_of(&*case.op, inputs, &forward), cotangents, &case.differentiable, &context)
        };
        let start = random.clone();
        let exact = run_of(&wide, Precision::Strict, &mut start.clone())?;
        for isa in Isa::available() {
            for precision in [Precision::Fast, Precision::Strict] {
                let settings = Settings::default().isa(isa).unwrap();
                let gradients = with_settings(settings, || run_of(&narrow, precision, &mut start.clone()))?;
                for (i, (gradient, exact)) in gradients.iter().zip(&exact).enumerate() {
                    let (Some(gradient), Some(exact)) = (gradient, exact) else {
                        assert_eq!(gradient.is_some(), exact.is_some(), "whether input {i} has a gradient");
                        continue;
                    };
                    let (gradient, exact) = (gradient.to_vec_f64()?, exact.to_vec_f64()?);
                    let largest = exact.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
                    for (place, (value, exact)) in gradient.iter().zip(&exact).enumerate() {
                        assert!(
                            (value - exact).abs() <= 1e-3 * largest,
                            "{isa:?} {precision:?}: element {place} of the gradient of input {i} is {value}, not {exact}"
                        );
                    }
                }
            }
        }
        Ok(())
    });
}

/// A backward run may write over tensors that nobody else holds, but must leave others alone.
#[test]
fn cotangents_given_away_or_kept_give_the_same_gradients() {
    for_every_case("given away", |case, random| {
        let context = Context::default();
        let forward = run(&*case.op, &references(&case.inputs), &context)?;
        let cotangents = cotangents_of(&forward, random)?;
        let backward = |cotangents| {
            let saved = saved_of(&*case.op, &case.inputs, &forward);
            run_backward(&*case.op, saved, cotangents, &case.differentiable, &context)
        };
        let numbers = |tensors: &[Option<Tensor>]| tensors.iter().flatten().map(bits).collect::<Result<Vec<_>>>();
        let before = numbers(&cotangents)?;
        let kept = numbers(&backward(cotangents.clone())?)?;
        assert_eq!(numbers(&cotangents)?, before, "a cotangent that is kept");
        assert_eq!(numbers(&backward(cotangents)?)?, kept, "the gradients");
        Ok(())
    });
}

fn dot(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.to_vec_f64()?.iter().zip(b.to_vec_f64()?).map(|(a, b)| a * b).sum())
}

fn norm(a: &Tensor) -> Result<f64> {
    Ok(dot(a, a)?.sqrt())
}

#[test]
fn half_storage_is_computed_in_f32() {
    for_every_case("half", |case, _| {
        if case.op.half_policy(Device::Cpu) == HalfPolicy::Keep {
            return Ok(());
        }
        for half in [DType::F16, DType::BF16] {
            let inputs = inputs_in(case, half)?;
            let wide: Vec<Tensor> = inputs
                .iter()
                .map(|x| if x.dtype() == half { cast(x, DType::F32) } else { Ok(x.clone()) })
                .collect::<Result<_>>()?;
            let narrow = run(&*case.op, &references(&inputs), &Context::default())?.outputs;
            let expected = run(&*case.op, &references(&wide), &Context::default())?.outputs;
            for (y, expected) in narrow.iter().zip(&expected) {
                let expected = if y.dtype() == half { cast(expected, half)? } else { expected.clone() };
                assert_eq!(bits(y)?, bits(&expected)?);
            }
        }
        Ok(())
    });
}

#[test]
fn a_recomputed_output_has_the_same_bits() {
    for_every_case("recompute", |case, _| {
        let Some(op) = case.op.recompute() else { return Ok(()) };
        let inputs = inputs_in(case, DType::F32)?;
        let forward = run(&*case.op, &references(&inputs), &Context::default())?;
        let saved = saved_of(&*case.op, &inputs, &forward);
        let again = run_recompute(op, &saved, &Context::default())?;
        assert_eq!(bits(&again)?, bits(&forward.outputs[0])?);
        Ok(())
    });
}

fn metas(tensors: &[Tensor]) -> Vec<Meta> {
    tensors.iter().map(|tensor| Meta { device: Device::Cpu, ..Meta::from(tensor) }).collect()
}

/// What runs on the meta device has the shapes and dtypes that the CPU gives: outputs, states and gradients, in training and
/// inference, in half precision too. `run` checks on both devices that they are those announced.
#[test]
fn meta_runs_give_the_shapes_of_cpu_runs() {
    for_every_case("meta", |case, random| {
        for (dtype, context) in [
            (DType::F64, Context::default()),
            (DType::F32, Context::default()),
            (DType::F32, Context::default().inference(true)),
            (DType::BF16, Context::default()),
        ] {
            let inputs = inputs_in(case, dtype)?;
            let meta_inputs: Vec<Tensor> = inputs.iter().map(|x| x.to(Device::Meta)).collect::<Result<_>>()?;
            let on_cpu = run(&*case.op, &references(&inputs), &context)?;
            let on_meta = run(&*case.op, &references(&meta_inputs), &context)?;
            assert_eq!(metas(&on_meta.outputs), metas(&on_cpu.outputs), "outputs");
            assert_eq!(metas(&on_meta.state), metas(&on_cpu.state), "state");
            assert!(on_meta.outputs.iter().chain(&on_meta.state).all(|y| y.device() == Device::Meta));
            if context.inference {
                assert!(on_cpu.state.is_empty(), "inference leaves a state");
                continue;
            }
            let cotangents = cotangents_of(&on_cpu, random)?;
            let meta_cotangents = cotangents
                .iter()
                .map(|dy| dy.as_ref().map(|dy| dy.to(Device::Meta)).transpose())
                .collect::<Result<Vec<_>>>()?;
            let needed = &case.differentiable;
            let backward = |inputs: &[Tensor], forward: &Forward, cotangents| -> Result<Vec<Option<Meta>>> {
                let saved = saved_of(&*case.op, inputs, forward);
                let gradients = run_backward(&*case.op, saved, cotangents, needed, &context)?;
                Ok(gradients.iter().map(|dx| dx.as_ref().map(|dx| metas(std::slice::from_ref(dx)).remove(0))).collect())
            };
            let expected = backward(&inputs, &on_cpu, cotangents)?;
            assert_eq!(backward(&meta_inputs, &on_meta, meta_cotangents)?, expected, "gradients");
            if let Some(op) = case.op.recompute() {
                let again = run_recompute(op, &saved_of(&*case.op, &meta_inputs, &on_meta), &context)?;
                assert_eq!(metas(&[again]), metas(&on_cpu.outputs)[..1], "the recomputed output");
            }
        }
        Ok(())
    });
}

/// Targets in `dtype` after a run in place, and that nobody else's tensors changed.
fn in_place(case: &InPlaceCase, dtype: DType, device: Device) -> Result<(Vec<Tensor>, Vec<Tensor>, Vec<Tensor>)> {
    let moved = |x: &Tensor| cast(x, dtype)?.to(device);
    let mut targets: Vec<Tensor> = case.targets.iter().map(moved).collect::<Result<_>>()?;
    let inputs: Vec<Tensor> = case.inputs.iter().map(moved).collect::<Result<_>>()?;
    let before = targets.clone();
    run_in_place(&*case.op, &mut targets.iter_mut().collect::<Vec<_>>(), &references(&inputs))?;
    Ok((before, inputs, targets))
}

fn for_every_case_in_place(test: &str, check: impl Fn(&InPlaceCase) -> Result<()>) {
    for entry in testing::in_place() {
        for number in 0..cases() {
            let mut random = Seed::new(2026).named(test).named(entry.name).at(number).random();
            let case = entry.case(&mut random).unwrap();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&case)));
            match outcome {
                Ok(result) => result.unwrap_or_else(|error| panic!("{test}: case {number} of {}: {error}", entry.name)),
                Err(_) => panic!("{test}: case {number} of {}: {:?}", entry.name, case.op),
            }
        }
    }
}

#[test]
fn writing_in_place_equals_the_reference_and_leaves_shared_memory_alone() {
    for_every_case_in_place("in place", |case| {
        for dtype in [DType::F64, DType::F32] {
            let unit = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) } / 2.0;
            let exact = |tensors: &[Tensor]| tensors.iter().map(|x| cast(x, DType::F64)).collect::<Result<Vec<_>>>();
            let (before, inputs, after) = in_place(case, dtype, Device::Cpu)?;
            let rounded = case.targets.iter().map(|x| cast(x, dtype)).collect::<Result<Vec<_>>>()?;
            for (x, start) in before.iter().zip(&rounded) {
                assert_eq!(bits(x)?, bits(start)?, "a tensor that shared memory with a target");
            }
            let reference = case.reference(&exact(&before)?, &exact(&inputs)?)?;
            for (k, (x, expected)) in after.iter().zip(&reference).enumerate() {
                for (x, expected) in x.to_vec_f64()?.iter().zip(expected.to_vec_f64()?) {
                    let bound = case.tolerance * unit * (1.0 + expected.abs());
                    assert!(
                        (x - expected).abs() <= bound,
                        "{dtype}: target {k} has {x}, expected {expected} ± {bound:e}"
                    );
                }
            }
        }
        Ok(())
    });
}

#[test]
fn every_way_to_write_in_place_gives_the_same_bits() {
    for_every_case_in_place("bits in place", |case| {
        let run = || -> Result<Vec<Vec<u64>>> { in_place(case, DType::F32, Device::Cpu)?.2.iter().map(bits).collect() };
        let expected = run()?;
        let mut ways: Vec<Settings> = Isa::available().map(|isa| Settings::default().isa(isa).unwrap()).collect();
        ways.extend([1, 2, 5].map(|threads| Settings::default().threads(threads)));
        ways.push(Settings::default().order(Order::Shuffled(3)));
        for settings in ways {
            assert_eq!(with_settings(settings, run)?, expected, "{settings:?}");
        }
        let (before, _, after) = in_place(case, DType::F32, Device::Meta)?;
        assert_eq!(metas(&before), metas(&after), "on the meta device");
        Ok(())
    });
}

#[test]
fn what_doesnt_fit_is_refused_in_place_on_every_device() {
    for_every_case_in_place("refused", |case| {
        for device in [Device::Cpu, Device::Meta] {
            let half = in_place(case, DType::BF16, device);
            assert!(case.targets.is_empty() || half.is_err(), "targets in bf16 on {device}");
            let mut targets: Vec<Tensor> = case.targets.iter().map(|x| x.to(device)).collect::<Result<_>>()?;
            let wrong = Tensor::zeros(&[2, 71], DType::F64, device)?;
            let inputs =
                [&case.inputs.iter().map(|x| x.to(device)).collect::<Result<Vec<_>>>()?[..], &[wrong]].concat();
            let result = run_in_place(&*case.op, &mut targets.iter_mut().collect::<Vec<_>>(), &references(&inputs));
            assert!(result.is_err(), "one input more on {device}");
        }
        Ok(())
    });
}
