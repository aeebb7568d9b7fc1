//! CUDA kernels, proven without a GPU: the emulator runs the same `.cu` files through the same launch code, and finds races, reads
//! of what nobody wrote and accesses out of bounds. Every operation of `testing::all` that has kernels is compared with its
//! reference, on views and in half precision, and its gradients with those of the CPU in f64, which differences prove.

mod checks;
mod costs;
mod device;
mod sizes;

use checks::{bits, both, both_of, cotangents_of, inputs_in, moved, outputs_of, references, rounding};
use tomograd_core::{DType, Device, Error, ErrorKind, Random, Result, Seed, Tensor};
use tomograd_emulator::device;
use tomograd_kernels::{
    Context, Forward, Meta, Op,
    cast::cast,
    matmul::Matmul,
    run,
    testing::{self, Case, Entry},
};

/// The operations without CUDA kernels, each with the reason; there may be three. They give an error that says so.
const WITHOUT: &[(&str, &str)] = &[];

/// Random cases of each operation in each of the checks, of which there are six: 24 of an operation. `TOMOGRAD_CASES` asks for more.
fn cases() -> u64 {
    std::env::var("TOMOGRAD_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(4)
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
            let mut random = checks::random(test, entry.name, number);
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

/// Every operation passes this one of the checks.
fn every_case_passes(name: &str) {
    let (_, check) = checks::CHECKS.into_iter().find(|(known, _)| *known == name).unwrap();
    for_every_case(name, has_kernels, check);
}

#[test]
fn forward_equals_the_reference() {
    every_case_passes("reference");
}

#[test]
fn gradients_are_those_of_the_cpu_in_f64() {
    every_case_passes("gradients");
}

#[test]
fn views_and_repeated_runs_give_the_same_bits() {
    every_case_passes("views");
}

#[test]
fn half_storage_is_computed_in_f32() {
    every_case_passes("half");
}

#[test]
fn inference_gives_the_same_outputs() {
    every_case_passes("inference");
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

#[test]
fn half_precision_of_tensor_cores_is_within_its_rounding() {
    every_case_passes("kept half");
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
            let case = entry.case(&mut checks::random("in place", entry.name, number)).unwrap();
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| checks::in_place(&case, device))) {
                Ok(result) => result.unwrap_or_else(|error| panic!("case {number} of {}: {error}", entry.name)),
                Err(_) => panic!("case {number} of {}: {:?}", entry.name, case.op),
            }
        }
    }
}
