//! CUDA kernels, proven without a GPU: the emulator runs the same `.cu` files through the same launch code, and finds races, reads
//! of what nobody wrote and accesses out of bounds. Every operation of `testing::all` that has kernels is compared with its
//! reference, on views and in half precision, and its gradients with those of the CPU in f64, which differences prove.

mod costs;
mod device;
mod sizes;

use tomograd_core::{DType, Device, Error, ErrorKind, Random, Result, Seed, Tensor};
use tomograd_emulator::device;
use tomograd_kernels::{
    Context, Forward, HalfPolicy, Meta, Op, Precision, Saved,
    cast::cast,
    matmul::Matmul,
    run, run_backward, run_in_place, run_recompute,
    testing::{self, Case, Entry},
};

/// The operations without CUDA kernels, each with the reason; there may be three. They give an error that says so.
const WITHOUT: &[(&str, &str)] = &[];

/// Random cases of each operation and test; `TOMOGRAD_CASES` asks for more.
fn cases() -> u64 {
    std::env::var("TOMOGRAD_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}

/// Calls `check` with the emulated device and random cases of every operation that `chosen` takes, or that
/// `TOMOGRAD_OPERATIONS=A,B` names among them; a failure names the operation and the case.
fn for_every_case(
    test: &str,
    chosen: impl Fn(&Entry) -> bool,
    check: impl Fn(&Case, Device, &mut Random) -> Result<()>,
) {
    let Some(device) = device() else { return };
    let named = std::env::var("TOMOGRAD_OPERATIONS").ok();
    let named = |entry: &Entry| named.as_ref().is_none_or(|names| names.split(',').any(|name| name == entry.name));
    for entry in testing::all().into_iter().filter(|entry| chosen(entry) && named(entry)) {
        for number in 0..cases() {
            let mut random = Seed::new(2026).named("cuda").named(test).named(entry.name).at(number).random();
            let case = entry.case(&mut random).unwrap();
            let place = || {
                let shapes: Vec<&[usize]> = case.inputs.iter().map(Tensor::shape).collect();
                format!("{test}: case {number} of {}: {:?} on {shapes:?}", entry.name, case.op)
            };
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&case, device, &mut random))) {
                Ok(result) => result.unwrap_or_else(|error| panic!("{}: {error}", place())),
                Err(_) => panic!("{}", place()),
            }
        }
    }
}

fn has_kernels(entry: &Entry) -> bool {
    WITHOUT.iter().all(|(name, _)| *name != entry.name)
}

fn references(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

fn moved(tensors: &[Tensor], device: Device) -> Result<Vec<Tensor>> {
    tensors.iter().map(|x| x.to(device)).collect()
}

/// The floating-point inputs in `dtype`, the others as they are.
fn inputs_in(case: &Case, dtype: DType) -> Result<Vec<Tensor>> {
    case.inputs.iter().map(|x| if x.dtype().is_float() { cast(x, dtype) } else { Ok(x.clone()) }).collect()
}

fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    Ok(tensor.to_vec_f64()?.into_iter().map(f64::to_bits).collect())
}

#[test]
fn forward_equals_the_reference() {
    for_every_case("reference", has_kernels, |case, device, _| {
        let inputs = inputs_in(case, DType::F32)?;
        // The reference gets what the kernel gets: the rounded inputs.
        let exact: Vec<Tensor> = inputs
            .iter()
            .map(|x| if x.dtype().is_float() { cast(x, DType::F64) } else { Ok(x.clone()) })
            .collect::<Result<_>>()?;
        let reference = case.reference(&exact)?;
        let scale = case.scale(&exact, &reference)?;
        let unit = f64::from(f32::EPSILON) / 2.0;
        for precision in [Precision::Fast, Precision::Strict] {
            let context = Context::default().precision(precision);
            let forward = run(&*case.op, &references(&moved(&inputs, device)?), &context)?;
            assert_eq!(forward.outputs.len(), reference.len());
            for ((y, expected), scale) in forward.outputs.iter().zip(&reference).zip(&scale) {
                assert_eq!((y.shape(), y.device()), (expected.shape(), device), "an output");
                let (y, expected, scale) = (y.to_vec_f64()?, expected.to_vec_f64()?, scale.to_vec_f64()?);
                for (i, ((y, expected), scale)) in y.iter().zip(&expected).zip(&scale).enumerate() {
                    let bound = case.tolerance * unit * scale;
                    let close = (y - expected).abs() <= bound || y.to_bits() == expected.to_bits();
                    assert!(close, "element {i} is {y}, expected {expected} within {bound:e}");
                }
            }
        }
        Ok(())
    });
}

/// A random cotangent of each floating-point output, rounded to f32.
fn cotangents_of(outputs: &[Tensor], random: &mut Random) -> Result<Vec<Option<Tensor>>> {
    let mut cotangent = |y: &Tensor| cast(&testing::values(random, y.shape())?, DType::F32);
    outputs.iter().map(|y| y.dtype().is_float().then(|| cotangent(y)).transpose()).collect()
}

/// Outputs and gradients on the device of the inputs, from cotangents that are moved there in the outputs' dtypes.
fn both_of(
    op: &dyn Op,
    differentiable: &[bool],
    inputs: &[Tensor],
    cotangents: &[Option<Tensor>],
    context: &Context,
) -> Result<Vec<Tensor>> {
    let forward: Forward = run(op, &references(inputs), context)?;
    let cotangents = forward
        .outputs
        .iter()
        .zip(cotangents)
        .map(|(y, dy)| dy.as_ref().map(|dy| cast(dy, y.dtype())?.to(y.device())).transpose());
    let cotangents = cotangents.collect::<Result<Vec<_>>>()?;
    let saved = Saved::new(op, &references(inputs), &forward);
    if let Some(again) = op.recompute() {
        assert_eq!(bits(&run_recompute(again, &saved, context)?)?, bits(&forward.outputs[0])?, "the recomputed output");
    }
    let gradients = run_backward(op, saved, cotangents, differentiable, context)?;
    Ok(forward.outputs.into_iter().chain(gradients.into_iter().flatten()).collect())
}

/// The same of a random case.
fn both(case: &Case, inputs: &[Tensor], cotangents: &[Option<Tensor>], context: &Context) -> Result<Vec<Tensor>> {
    both_of(&*case.op, &case.differentiable, inputs, cotangents, context)
}

/// The outputs' metadata of a case, as random cotangents need them.
fn outputs_of(case: &Case, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(run(&*case.op, &references(inputs), &Context::default())?.outputs)
}

#[test]
fn gradients_are_those_of_the_cpu_in_f64() {
    for_every_case("gradients", has_kernels, |case, device, random| {
        let narrow = inputs_in(case, DType::F32)?;
        let wide = narrow
            .iter()
            .map(|x| if x.dtype() == DType::F32 { cast(x, DType::F64) } else { Ok(x.clone()) })
            .collect::<Result<Vec<_>>>()?;
        let context = Context::default().precision(Precision::Strict);
        let cotangents = cotangents_of(&outputs_of(case, &wide)?, random)?;
        let exact = both(case, &wide, &cotangents, &context)?;
        let results = both(case, &moved(&narrow, device)?, &cotangents, &context)?;
        assert_eq!(results.len(), exact.len());
        for (k, (result, exact)) in results.iter().zip(&exact).enumerate() {
            assert_eq!((result.shape(), result.device()), (exact.shape(), device), "output or gradient {k}");
            let (result, exact) = (result.to_vec_f64()?, exact.to_vec_f64()?);
            let largest = exact.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
            for (i, (value, exact)) in result.iter().zip(&exact).enumerate() {
                let close = (value - exact).abs() <= 1e-4 * largest || value.to_bits() == exact.to_bits();
                assert!(close, "element {i} of output or gradient {k} is {value}, not {exact}");
            }
        }
        Ok(())
    });
}

/// The same tensor as a view into a larger, permuted one on the device.
fn as_view(x: &Tensor, device: Device, random: &mut Random) -> Result<Tensor> {
    let order = random.permutation(x.rank())?;
    let mut inverse = vec![0; x.rank()];
    for (to, &from) in order.iter().enumerate() {
        inverse[from] = to;
    }
    let turned = x.permute(&order)?.contiguous()?;
    let Some(last) = turned.rank().checked_sub(1) else { return x.to(device) };
    let size = turned.shape()[last];
    let mut wide = turned.shape().to_vec();
    wide[last] = 2 * size + 1;
    // Every second element of a row holds the value; what lies between would show as a wrong result.
    let (values, row) = (turned.to_vec_f64()?, wide[last]);
    let spread: Vec<f64> = (0..wide.iter().product::<usize>())
        .map(|i| if i % row % 2 == 1 { values[i / row * size + i % row / 2] } else { 77.0 })
        .collect();
    let wide = Tensor::from_slice(&spread, &wide, Device::Cpu)?.converted(x.dtype())?.to(device)?;
    wide.slice(last, 1.min(wide.shape()[last]), size, 2)?.permute(&inverse)
}

#[test]
fn views_and_repeated_runs_give_the_same_bits() {
    for_every_case("views", has_kernels, |case, device, random| {
        let inputs = inputs_in(case, DType::F32)?;
        let cotangents = cotangents_of(&outputs_of(case, &inputs)?, random)?;
        let there = moved(&inputs, device)?;
        let expected = both(case, &there, &cotangents, &Context::default())?;
        let again = both(case, &there, &cotangents, &Context::default())?;
        let views = inputs.iter().map(|x| as_view(x, device, random)).collect::<Result<Vec<_>>>()?;
        let of_views = both(case, &views, &cotangents, &Context::default())?;
        for (k, expected) in expected.iter().enumerate() {
            assert_eq!(bits(&again[k])?, bits(expected)?, "output or gradient {k} of a second run");
            assert_eq!(bits(&of_views[k])?, bits(expected)?, "output or gradient {k} of views");
        }
        Ok(())
    });
}

#[test]
fn half_storage_is_computed_in_f32() {
    for_every_case("half", has_kernels, |case, device, random| {
        if case.op.half_policy(device) == HalfPolicy::Keep {
            return Ok(());
        }
        for half in [DType::F16, DType::BF16] {
            let narrow = moved(&inputs_in(case, half)?, device)?;
            let wide: Vec<Tensor> = narrow
                .iter()
                .map(|x| if x.dtype() == half { cast(x, DType::F32) } else { Ok(x.clone()) })
                .collect::<Result<_>>()?;
            let cotangents = cotangents_of(&outputs_of(case, &narrow)?, random)?;
            let cotangents: Vec<Option<Tensor>> = cotangents
                .into_iter()
                .map(|dy| dy.map(|dy| cast(&cast(&dy, half)?, DType::F32)).transpose())
                .collect::<Result<_>>()?;
            let results = both(case, &narrow, &cotangents, &Context::default())?;
            let expected = both(case, &wide, &cotangents, &Context::default())?;
            let outputs = outputs_of(case, &narrow)?.len();
            for (k, (y, expected)) in results.iter().zip(&expected).enumerate() {
                let expected = if y.dtype() == half { cast(expected, half)? } else { expected.clone() };
                if k < outputs {
                    assert_eq!(bits(y)?, bits(&expected)?, "output {k} in {half}");
                    continue;
                }
                // A gradient may be that of an output that was saved in half precision.
                let (y, expected) = (y.to_vec_f64()?, expected.to_vec_f64()?);
                let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
                for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    let close = (y - expected).abs() <= 0.03 * largest || y.to_bits() == expected.to_bits();
                    assert!(close, "element {i} of gradient {} in {half} is {y}, not {expected}", k - outputs);
                }
            }
        }
        Ok(())
    });
}

/// In inference there is no state, and the outputs are the same.
#[test]
fn inference_gives_the_same_outputs() {
    for_every_case("inference", has_kernels, |case, device, _| {
        let inputs = moved(&inputs_in(case, DType::F32)?, device)?;
        let expected = run(&*case.op, &references(&inputs), &Context::default())?;
        let inference = run(&*case.op, &references(&inputs), &Context::default().inference(true))?;
        assert!(inference.state.is_empty(), "a state");
        for (y, expected) in inference.outputs.iter().zip(&expected.outputs) {
            assert_eq!(bits(y)?, bits(expected)?);
        }
        Ok(())
    });
}

/// Whoever adds an operation adds its kernels, or its name and the reason to the short list above.
#[test]
fn every_operation_has_kernels() {
    assert!(WITHOUT.len() <= 3, "{WITHOUT:?}");
    for (name, reason) in WITHOUT {
        assert!(testing::all().iter().any(|entry| entry.name == *name), "{name} isn't an operation");
        assert!(!reason.is_empty(), "{name}");
    }
    for_every_case(
        "kernels",
        |_| true,
        |case, device, random| {
            let inputs = moved(&inputs_in(case, DType::F32)?, device)?;
            let named = |error: Error| error.to_string().contains("no kernel for cuda:0");
            let result = outputs_of(case, &inputs).and_then(|outputs| {
                let cotangents = cotangents_of(&outputs, random)?;
                both(case, &inputs, &cotangents, &Context::default()).map(drop)
            });
            let without = WITHOUT.iter().any(|(name, _)| format!("{:?}", case.op).starts_with(name));
            assert_eq!(result.err().is_some_and(named), without, "whether {:?} has no kernel", case.op);
            Ok(())
        },
    );
}

/// An operation of one's own that has kernels for the CPU alone.
#[derive(Debug)]
struct OfTheCpu;

impl Op for OfTheCpu {
    fn name(&self) -> &'static str {
        "of_the_cpu"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(inputs.to_vec())
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(inputs[0].clone()))
    }
}

#[test]
fn an_operation_without_kernels_says_so() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let error = run(&OfTheCpu, &[&Tensor::zeros(&[2], DType::F32, device)?], &Context::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device, "{error}");
    let expected = "of_the_cpu: no kernel for cuda:0; expected tensors on another device";
    assert!(error.to_string().contains(expected), "{error}");
    Ok(())
}

/// The rounding error of half precision, relative.
fn rounding(half: DType) -> f64 {
    if half == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) }
}

/// Operations that take half precision as it is on CUDA devices alone: the reference of the rounded inputs within the bound of
/// the operation with the rounding of that type, since tensor cores round weights and outputs to it; gradients as elsewhere.
#[test]
fn half_precision_of_tensor_cores_is_within_its_rounding() {
    for_every_case("kept half", has_kernels, |case, device, random| {
        let policies = [device, Device::Cpu].map(|device| case.op.half_policy(device));
        if policies != [HalfPolicy::Keep, HalfPolicy::Widen] {
            return Ok(());
        }
        for half in [DType::F16, DType::BF16] {
            let narrow = inputs_in(case, half)?;
            let exact: Vec<Tensor> = narrow
                .iter()
                .map(|x| if x.dtype() == half { cast(x, DType::F64) } else { Ok(x.clone()) })
                .collect::<Result<_>>()?;
            let reference = case.reference(&exact)?;
            let scale = case.scale(&exact, &reference)?;
            let there = moved(&narrow, device)?;
            let cotangents = cotangents_of(&reference, random)?
                .into_iter()
                .map(|dy| dy.map(|dy| cast(&cast(&dy, half)?, DType::F32)).transpose())
                .collect::<Result<Vec<_>>>()?;
            let context = Context::default().precision(Precision::Strict);
            let results = both(case, &there, &cotangents, &context)?;
            let again = both(case, &there, &cotangents, &context)?;
            let expected = both(case, &exact, &cotangents, &context)?;
            for (k, (y, expected)) in results.iter().zip(&expected).enumerate() {
                assert_eq!(bits(y)?, bits(&again[k])?, "output or gradient {k} in {half} of a second run");
                let (y, expected) = (y.to_vec_f64()?, expected.to_vec_f64()?);
                let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
                let scale = scale.get(k).map(Tensor::to_vec_f64).transpose()?;
                for (i, (y, expected)) in y.iter().zip(&expected).enumerate() {
                    let bound = match &scale {
                        Some(scale) => case.tolerance * rounding(half) * scale[i],
                        None => 0.03 * largest,
                    };
                    let close = (y - expected).abs() <= bound || y.to_bits() == expected.to_bits();
                    assert!(close, "element {i} of output or gradient {k} in {half} is {y}, not {expected}");
                }
            }
        }
        Ok(())
    });
}

/// Products larger than a tile, of views that kernels read as they lie or transposed, in batches and with a broadcast operand, and long
/// sums that are cut into parts.
#[test]
fn large_products_are_those_of_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = Seed::new(2026).named("products").random();
    for (batch, m, n, k) in [(&[][..], 130, 100, 83), (&[], 70, 66, 1040), (&[], 65, 129, 1031), (&[2, 3], 72, 136, 40)]
    {
        for views in 0..4 {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let mut operand = |rows: usize, columns: usize, transposed: bool, lead: &[usize]| -> Result<Tensor> {
                    let last = if transposed { [columns, rows] } else { [rows, columns] };
                    let shape = [lead, &last].concat();
                    let x = cast(&cast(&testing::values(&mut random, &shape)?, DType::F32)?, dtype)?;
                    if transposed { x.transpose(shape.len() - 2, shape.len() - 1) } else { Ok(x) }
                };
                // The second operand is one for all of the first axis.
                let a = operand(m, k, views % 2 == 1, batch)?;
                let b = operand(k, n, views / 2 == 1, &batch[batch.len().min(1)..])?;
                let there = |x: &Tensor| -> Result<Tensor> {
                    // What a transposed view shows, as a view there.
                    let last = x.rank() - 1;
                    if x.is_contiguous() {
                        x.to(device)
                    } else {
                        x.transpose(last - 1, last)?.to(device)?.transpose(last - 1, last)
                    }
                };
                let y = run(&Matmul, &[&there(&a)?, &there(&b)?], &Context::default())?.outputs.remove(0);
                assert_eq!((y.dtype(), y.device()), (dtype, device));
                let wide = [cast(&a, DType::F64)?, cast(&b, DType::F64)?];
                let exact = run(&Matmul, &[&wide[0], &wide[1]], &Context::default())?.outputs.remove(0);
                let sizes = [testing::map(&wide[0], f64::abs)?, testing::map(&wide[1], f64::abs)?];
                let sizes = run(&Matmul, &[&sizes[0], &sizes[1]], &Context::default())?.outputs.remove(0);
                let of_output = if dtype == DType::F32 { 0.0 } else { 1.01 * rounding(dtype) };
                let elements = y.to_vec_f64()?.into_iter().zip(exact.to_vec_f64()?).zip(sizes.to_vec_f64()?);
                for (i, ((y, exact), size)) in elements.enumerate() {
                    let bound = size * k as f64 * 2f64.powi(-23) + exact.abs() * of_output + 1e-30;
                    let place = || format!("{batch:?} {m} × {k} × {n} in {dtype}, views {views}: element {i}");
                    assert!((y - exact).abs() <= bound, "{} is {y}, not {exact} ± {bound:e}", place());
                }
            }
        }
    }
    Ok(())
}

/// f64 has no kernels.
#[test]
fn f64_is_refused() {
    for_every_case(
        "f64",
        |entry| ["Chain", "Matmul", "Softmax"].contains(&entry.name),
        |case, device, _| {
            let inputs = moved(&case.inputs, device)?;
            let error = run(&*case.op, &references(&inputs), &Context::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DType, "{error}");
            assert!(error.to_string().contains("no CUDA kernel computes in f64"), "{error}");
            Ok(())
        },
    );
}

#[test]
fn writing_in_place_equals_the_reference_and_leaves_shared_memory_alone() {
    let Some(device) = device() else { return };
    for entry in testing::in_place() {
        for number in 0..cases() {
            let mut random = Seed::new(2026).named("cuda in place").named(entry.name).at(number).random();
            let case = entry.case(&mut random).unwrap();
            let check = || -> Result<()> {
                let single = |x: &Tensor| cast(x, DType::F32)?.to(device);
                let before: Vec<Tensor> = case.targets.iter().map(single).collect::<Result<_>>()?;
                let inputs: Vec<Tensor> = case.inputs.iter().map(single).collect::<Result<_>>()?;
                let written = || -> Result<Vec<Tensor>> {
                    let mut targets = before.clone();
                    run_in_place(&*case.op, &mut targets.iter_mut().collect::<Vec<_>>(), &references(&inputs))?;
                    Ok(targets)
                };
                let (targets, again) = (written()?, written()?);
                let exact = |tensors: &[Tensor]| {
                    tensors.iter().map(|x| cast(&x.to(Device::Cpu)?, DType::F64)).collect::<Result<Vec<_>>>()
                };
                for (x, start) in before.iter().zip(&case.targets) {
                    assert_eq!(bits(x)?, bits(&cast(start, DType::F32)?)?, "a tensor that shared memory with a target");
                }
                let reference = case.reference(&exact(&before)?, &exact(&inputs)?)?;
                for (k, (x, expected)) in targets.iter().zip(&reference).enumerate() {
                    assert_eq!(Meta::from(x), Meta::from(&before[k]));
                    assert_eq!(bits(x)?, bits(&again[k])?, "a second run");
                    for (x, expected) in x.to_vec_f64()?.iter().zip(expected.to_vec_f64()?) {
                        let bound = case.tolerance * f64::from(f32::EPSILON) / 2.0 * (1.0 + expected.abs());
                        assert!((x - expected).abs() <= bound, "target {k} has {x}, expected {expected} ± {bound:e}");
                    }
                }
                Ok(())
            };
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) {
                Ok(result) => result.unwrap_or_else(|error| panic!("case {number} of {}: {error}", entry.name)),
                Err(_) => panic!("case {number} of {}: {:?}", entry.name, case.op),
            }
        }
    }
}
