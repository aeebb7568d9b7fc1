//! What every operation is held to on a CUDA device, as functions of a random case. A check panics, with the element or the tensor that is
//! wrong, or returns the error of what failed. The tests of this folder run them on the emulator; `benches/gpu`, which has this file too,
//! on a GPU.

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_kernels::{
    Context, Forward, HalfPolicy, Meta, Op, Precision, Saved,
    cast::cast,
    run, run_backward, run_in_place, run_recompute,
    testing::{self, Case, InPlaceCase},
};

/// A check of a case on a device, with random numbers for whatever else it needs.
pub type Check = fn(&Case, Device, &mut Random) -> Result<()>;

/// The checks that every operation passes, with the names that its cases are drawn under.
pub const CHECKS: [(&str, Check); 6] = [
    ("reference", reference),
    ("gradients", gradients),
    ("views", views),
    ("half", half),
    ("inference", inference),
    ("kept half", kept_half),
];

/// The random numbers of case `number` of an operation in a test.
pub fn random(test: &str, operation: &str, number: u64) -> Random {
    Seed::new(2026).named("cuda").named(test).named(operation).at(number).random()
}

/// References to tensors.
pub fn references(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// The tensors on a device.
pub fn moved(tensors: &[Tensor], device: Device) -> Result<Vec<Tensor>> {
    tensors.iter().map(|x| x.to(device)).collect()
}

/// The floating-point inputs in `dtype`, the others as they are.
pub fn inputs_in(case: &Case, dtype: DType) -> Result<Vec<Tensor>> {
    floats_in(&case.inputs, dtype)
}

/// The floating-point tensors in `dtype`, the others as they are.
fn floats_in(tensors: &[Tensor], dtype: DType) -> Result<Vec<Tensor>> {
    tensors.iter().map(|x| if x.dtype().is_float() { cast(x, dtype) } else { Ok(x.clone()) }).collect()
}

/// The elements' bits, as f64.
pub fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    Ok(tensor.to_vec_f64()?.into_iter().map(f64::to_bits).collect())
}

/// The rounding error of half precision, relative.
pub fn rounding(half: DType) -> f64 {
    if half == DType::F16 { 2f64.powi(-11) } else { 2f64.powi(-8) }
}

/// A random cotangent of each floating-point output, rounded to f32.
pub fn cotangents_of(outputs: &[Tensor], random: &mut Random) -> Result<Vec<Option<Tensor>>> {
    let mut cotangent = |y: &Tensor| cast(&testing::values(random, y.shape())?, DType::F32);
    outputs.iter().map(|y| y.dtype().is_float().then(|| cotangent(y)).transpose()).collect()
}

/// Outputs and gradients on the device of the inputs, from cotangents that are moved there in the outputs' dtypes.
pub fn both_of(
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
pub fn both(case: &Case, inputs: &[Tensor], cotangents: &[Option<Tensor>], context: &Context) -> Result<Vec<Tensor>> {
    both_of(&*case.op, &case.differentiable, inputs, cotangents, context)
}

/// The outputs' metadata of a case, as random cotangents need them.
pub fn outputs_of(case: &Case, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    Ok(run(&*case.op, &references(inputs), &Context::default())?.outputs)
}

/// Outputs in f32 are those of the reference, within the operation's bound, in both precisions.
pub fn reference(case: &Case, device: Device, _random: &mut Random) -> Result<()> {
    let inputs = inputs_in(case, DType::F32)?;
    // The reference gets what the kernel gets: the rounded inputs.
    let exact = floats_in(&inputs, DType::F64)?;
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
}

/// Outputs and gradients in f32 are those of the CPU in f64, within 1e-4 of the largest.
pub fn gradients(case: &Case, device: Device, random: &mut Random) -> Result<()> {
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

/// A second run, and inputs that are views into larger tensors, give the same bits.
pub fn views(case: &Case, device: Device, random: &mut Random) -> Result<()> {
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
}

/// Operations that have half precision widened give the rounded results of f32.
pub fn half(case: &Case, device: Device, random: &mut Random) -> Result<()> {
    if case.op.half_policy(device) == HalfPolicy::Keep {
        return Ok(());
    }
    for half in [DType::F16, DType::BF16] {
        let narrow = moved(&inputs_in(case, half)?, device)?;
        let wide = floats_in(&narrow, DType::F32)?;
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
}

/// In inference there is no state, and the outputs are the same.
pub fn inference(case: &Case, device: Device, _random: &mut Random) -> Result<()> {
    let inputs = moved(&inputs_in(case, DType::F32)?, device)?;
    let expected = run(&*case.op, &references(&inputs), &Context::default())?;
    let inference = run(&*case.op, &references(&inputs), &Context::default().inference(true))?;
    assert!(inference.state.is_empty(), "a state");
    for (y, expected) in inference.outputs.iter().zip(&expected.outputs) {
        assert_eq!(bits(y)?, bits(expected)?);
    }
    Ok(())
}

/// Operations that take half precision as it is on CUDA devices alone: the reference of the rounded inputs within the bound of
/// the operation with the rounding of that type, since tensor cores round weights and outputs to it; gradients as elsewhere.
pub fn kept_half(case: &Case, device: Device, random: &mut Random) -> Result<()> {
    let policies = [device, Device::Cpu].map(|device| case.op.half_policy(device));
    if policies != [HalfPolicy::Keep, HalfPolicy::Widen] {
        return Ok(());
    }
    for half in [DType::F16, DType::BF16] {
        let narrow = inputs_in(case, half)?;
        let exact = floats_in(&narrow, DType::F64)?;
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
}

/// Targets that are written in place are those of the reference, and what shared memory with them is left alone.
pub fn in_place(case: &InPlaceCase, device: Device) -> Result<()> {
    let single = |x: &Tensor| cast(x, DType::F32)?.to(device);
    let before: Vec<Tensor> = case.targets.iter().map(single).collect::<Result<_>>()?;
    let inputs: Vec<Tensor> = case.inputs.iter().map(single).collect::<Result<_>>()?;
    let written = || -> Result<Vec<Tensor>> {
        let mut targets = before.clone();
        run_in_place(&*case.op, &mut targets.iter_mut().collect::<Vec<_>>(), &references(&inputs))?;
        Ok(targets)
    };
    let (targets, again) = (written()?, written()?);
    let exact =
        |tensors: &[Tensor]| tensors.iter().map(|x| cast(&x.to(Device::Cpu)?, DType::F64)).collect::<Result<Vec<_>>>();
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
}
