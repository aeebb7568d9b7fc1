//! Sizes beyond the registry's random cases, at which kernels take other ways: several tiles, chunks and parts, each width of attention,
//! depthwise kernels of every size. Outputs and gradients are compared with those of the CPU in f64, from the same rounded inputs.

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};
use tomograd_emulator::{Measured, device, measured};
use tomograd_kernels::{
    Context, HalfPolicy, Op, Precision,
    attention::Attention,
    cast::cast,
    conv::{Conv, ConvTranspose},
    cumulative::CumulativeSum,
    index::ScatterAdd,
    matmul::Matmul,
    run,
    scan::SelectiveScan,
    sort::Sort,
    testing,
};

use super::{bits, both_of, cotangents_of, moved, references, rounding};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn random(name: &str) -> Random {
    Seed::new(2026).named("cuda sizes").named(name).random()
}

/// That outputs and gradients of `op` in `dtype` on the device are those of the CPU in f64, within `bound` roundings of the largest element,
/// and have the same bits each time.
fn beside_the_cpu(
    op: &dyn Op,
    inputs: &[Tensor],
    dtype: DType,
    device: Device,
    bound: f64,
    random: &mut Random,
) -> Result<()> {
    let is_float = |x: &Tensor| x.dtype().is_float();
    let narrow: Vec<Tensor> =
        inputs.iter().map(|x| if is_float(x) { cast(x, dtype) } else { Ok(x.clone()) }).collect::<Result<_>>()?;
    let exact: Vec<Tensor> =
        narrow.iter().map(|x| if is_float(x) { cast(x, DType::F64) } else { Ok(x.clone()) }).collect::<Result<_>>()?;
    let context = Context::default().precision(Precision::Strict);
    let outputs = run(op, &references(&exact), &context)?.outputs;
    let cotangents: Vec<Option<Tensor>> = cotangents_of(&outputs, random)?
        .into_iter()
        .map(|dy| dy.map(|dy| cast(&cast(&dy, dtype)?, DType::F32)).transpose())
        .collect::<Result<_>>()?;
    let differentiable: Vec<bool> = inputs.iter().map(is_float).collect();
    let there = moved(&narrow, device)?;
    let results = both_of(op, &differentiable, &there, &cotangents, &context)?;
    let again = both_of(op, &differentiable, &there, &cotangents, &context)?;
    let expected = both_of(op, &differentiable, &exact, &cotangents, &context)?;
    let unit = if dtype == DType::F32 { 2f64.powi(-24) } else { rounding(dtype) };
    assert_eq!(results.len(), expected.len());
    for (k, (result, expected)) in results.iter().zip(&expected).enumerate() {
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        let place = format!("{op:?} of {shapes:?} in {dtype}: output or gradient {k}");
        assert_eq!((result.shape(), result.device()), (expected.shape(), device), "{place}");
        assert_eq!(bits(result)?, bits(&again[k])?, "{place} of a second run");
        let (result, expected) = (result.to_vec_f64()?, expected.to_vec_f64()?);
        let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        for (i, (value, expected)) in result.iter().zip(&expected).enumerate() {
            let close = (value - expected).abs() <= bound * unit * largest;
            assert!(close, "{place}: element {i} is {value}, not {expected}; the largest is {largest}");
        }
    }
    Ok(())
}

/// Heads of each width for which there are kernels, and of more elements; several tiles of queries and keys; biases with gradients.
#[test]
fn attention_of_every_width() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("attention");
    for (size, value) in [(20, 30), (50, 64), (100, 128), (130, 24), (24, 140)] {
        for (causal, batch) in [(false, vec![2]), (true, vec![1, 2])] {
            let (queries, keys) = (70, 90);
            let mut inputs = Vec::new();
            for matrix in [[queries, size], [keys, size], [keys, value]] {
                inputs.push(testing::values(&mut random, &[&batch[..], &matrix].concat())?);
            }
            inputs.push(testing::values(&mut random, &[queries, keys])?);
            inputs.push(testing::values(&mut random, &[2, 1, keys])?);
            for dtype in DTYPES {
                beside_the_cpu(&Attention { scale: None, causal }, &inputs, dtype, device, 200.0, &mut random)?;
            }
        }
    }
    Ok(())
}

/// The registry's random cases on tensor cores, with the gradients of all inputs.
#[test]
fn attention_of_random_sizes_in_half_precision() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let entry = testing::all().into_iter().find(|entry| entry.name == "Attention").expect("an operation");
    for number in 0..super::cases() {
        let mut random = Seed::new(2026).named("attention in half precision").at(number).random();
        let case = entry.case(&mut random)?;
        for dtype in &DTYPES[1..] {
            assert_eq!(case.op.half_policy(device), HalfPolicy::Keep);
            let (result, launches) =
                measured(|| beside_the_cpu(&*case.op, &case.inputs, *dtype, device, 200.0, &mut random));
            result?;
            let on_tensor_cores =
                |launch: &Measured| launch.kernel.starts_with("attention_backward_") && !launch.kernel.contains("f32");
            let empty = case.inputs.iter().any(|input| input.count() == 0);
            let wide = case.inputs[..3].iter().any(|input| input.shape()[input.rank() - 1] > 128);
            assert!(empty || wide || launches.iter().any(on_tensor_cores), "{:?}", case.op);
        }
    }
    Ok(())
}

/// Three chunks of steps, several channels in a part of a group.
#[test]
fn scans_of_several_chunks() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("scan");
    for (batch, channels, groups, states, length) in [(1, 4, 2, 3, 1100), (1, 3, 1, 4, 1028), (2, 2, 1, 1, 513)] {
        let op = SelectiveScan { skip: true, gate: true, delta_bias: true, delta_softplus: true };
        let over_time = [batch, channels, length];
        let over_states = [batch, groups, states, length];
        let a = testing::map(&testing::values(&mut random, &[channels, states])?, |a| -0.05 - a.abs())?;
        let mut inputs = vec![testing::values(&mut random, &over_time)?, testing::values(&mut random, &over_time)?, a];
        for shape in [&over_states[..], &over_states, &[channels], &over_time, &[channels]] {
            inputs.push(testing::values(&mut random, shape)?);
        }
        for dtype in DTYPES {
            beside_the_cpu(&op, &inputs, dtype, device, 200.0, &mut random)?;
        }
    }
    Ok(())
}

/// Depthwise kernels of 3, 5 and 7 in 2D and 3D, tiles of both widths, paddings up to the kernel's size, and several parts of the sum
/// that is the weights' gradient.
#[test]
fn depthwise_convolutions_of_every_size() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("depthwise");
    for kernel in [3, 5, 7] {
        for (size, padding, bias) in [
            (&[20, 37][..], kernel / 2, true),
            (&[33, 30], kernel - 1, false),
            (&[18, 70], 0, true),
            (&[9, 10, 37], kernel / 2, true),
            (&[8, 12, 13], kernel - 1, false),
        ] {
            let rank = size.len();
            let op = Conv {
                stride: vec![1; rank],
                padding: vec![padding; rank],
                dilation: vec![1; rank],
                groups: 3,
                two_inputs: false,
                bias,
            };
            let mut inputs = vec![testing::values(&mut random, &[&[2, 3], size].concat())?];
            inputs.push(testing::values(&mut random, &[&[3, 1][..], &vec![kernel; rank]].concat())?);
            if bias {
                inputs.push(testing::values(&mut random, &[3])?);
            }
            for dtype in if rank == 2 || kernel == 3 { &DTYPES[..] } else { &DTYPES[..1] } {
                assert_eq!(op.half_policy(device), HalfPolicy::Keep);
                beside_the_cpu(&op, &inputs, *dtype, device, 400.0, &mut random)?;
            }
        }
    }
    Ok(())
}

/// Convolutions on tensor cores: odd sizes, channels that don't fill pieces, tiles of each size, strides, dilations, groups, two inputs,
/// several parts of the sum that is the weights' gradient, no image at all; each with its gradients.
#[test]
fn convolutions_on_tensor_cores() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("tensor cores");
    // x, weight; stride, padding, dilation, groups; channels of a second input; bias.
    let cases = [
        (&[2, 8, 5, 6, 7][..], &[12, 8, 3, 3, 3][..], [1, 1, 1, 1], 0, true),
        (&[1, 20, 13, 17], &[40, 20, 3, 3], [2, 1, 1, 1], 0, false),
        (&[2, 12, 11, 9], &[10, 6, 3, 2], [1, 2, 2, 2], 0, true),
        (&[3, 5, 31], &[70, 5, 4], [3, 0, 1, 1], 0, false),
        (&[1, 6, 9, 10], &[9, 13, 3, 3], [1, 1, 1, 1], 7, true),
        (&[1, 16, 8, 16], &[130, 16, 1, 1], [1, 0, 1, 1], 0, true),
        (&[2, 4, 40, 33], &[4, 4, 3, 3], [1, 1, 1, 1], 0, false),
        (&[1, 8, 3, 4, 4], &[8, 8, 5, 5, 5], [1, 4, 2, 1], 0, false),
        (&[0, 8, 5, 5], &[8, 8, 3, 3], [1, 1, 1, 1], 0, true),
    ];
    for (x, weight, [stride, padding, dilation, groups], second, bias) in cases {
        let rank = x.len() - 2;
        let op = Conv {
            stride: vec![stride; rank],
            padding: vec![padding; rank],
            dilation: vec![dilation; rank],
            groups,
            two_inputs: second > 0,
            bias,
        };
        let mut inputs = vec![testing::values(&mut random, x)?];
        if second > 0 {
            inputs.push(testing::values(&mut random, &[&[x[0], second], &x[2..]].concat())?);
        }
        inputs.push(testing::values(&mut random, weight)?);
        if bias {
            inputs.push(testing::values(&mut random, &weight[..1])?);
        }
        on_tensor_cores(&op, &inputs, device, &mut random)?;
    }
    for (x, weight, [stride, padding, output_padding, groups], bias) in [
        (&[1, 16, 3, 4, 5][..], &[16, 8, 2, 2, 2][..], [2, 0, 0, 1], true),
        (&[2, 6, 5, 7], &[6, 9, 3, 3], [2, 1, 1, 1], false),
        (&[1, 8, 9], &[8, 5, 4], [3, 2, 2, 2], true),
    ] {
        let rank = x.len() - 2;
        let op = ConvTranspose {
            stride: vec![stride; rank],
            padding: vec![padding; rank],
            output_padding: vec![output_padding; rank],
            dilation: vec![1; rank],
            groups,
            bias,
        };
        let mut inputs = vec![testing::values(&mut random, x)?, testing::values(&mut random, weight)?];
        if bias {
            inputs.push(testing::values(&mut random, &[weight[1] * groups])?);
        }
        on_tensor_cores(&op, &inputs, device, &mut random)?;
    }
    Ok(())
}

/// That f16 and bf16 go to tensor cores, and that results are rounded once.
fn on_tensor_cores(op: &dyn Op, inputs: &[Tensor], device: Device, random: &mut Random) -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        assert_eq!(op.half_policy(device), HalfPolicy::Keep);
        let (result, launches) = measured(|| beside_the_cpu(op, inputs, dtype, device, 2.0, random));
        result?;
        let kernels: Vec<&str> = launches.iter().map(|launch| launch.kernel.as_str()).collect();
        for kernel in if inputs[0].count() == 0 { &[][..] } else { &["conv_tensor_weights_", "conv_tensor_"] } {
            assert!(kernels.iter().any(|name| name.starts_with(kernel)), "{op:?}: {kernel} isn't in {kernels:?}");
        }
        assert!(!kernels.contains(&"conv_forward") && !kernels.contains(&"conv_backward_weights"), "{kernels:?}");
    }
    Ok(())
}

/// Products of few rows and columns whose sums are cut into parts.
#[test]
fn products_with_long_sums() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("products");
    for (m, n, k) in [(20, 30, 600), (3, 65, 1100), (64, 1, 40)] {
        let inputs = [testing::values(&mut random, &[2, m, k])?, testing::values(&mut random, &[k, n])?];
        for dtype in DTYPES {
            beside_the_cpu(&Matmul, &inputs, dtype, device, 1000.0, &mut random)?;
        }
    }
    Ok(())
}

/// Lines of several chunks: sorted, and with sums at indices, to the bits of the CPU.
#[test]
fn long_lines_are_sorted_and_scattered_as_on_the_cpu() -> Result<()> {
    let Some(device) = device() else { return Ok(()) };
    let mut random = random("lines");
    // Many equal elements, zeros of both signs, and NaNs.
    let x = testing::map(&testing::values(&mut random, &[2, 5000, 2])?, |x| (x * 40.0).round() / 16.0)?;
    let x = testing::map(&x, |x| {
        if x > 5.0 {
            f64::NAN
        } else if x == 0.25 {
            -0.0
        } else {
            x
        }
    })?;
    let x = cast(&x, DType::F32)?;
    for (descending, count) in [(false, None), (true, None), (true, Some(7)), (false, Some(1500))] {
        let op = Sort { axis: 1, descending, count };
        let expected = run(&op, &[&x], &Context::default())?.outputs;
        let outputs = run(&op, &[&x.to(device)?], &Context::default())?.outputs;
        for (k, (output, expected)) in outputs.iter().zip(&expected).enumerate() {
            assert!(bits(output)? == bits(expected)?, "{op:?}: output {k}");
        }
    }
    let index: Vec<i64> = (0..2 * 3000 * 3).map(|_| random.below(50) as i64).collect();
    let index = Tensor::from_slice(&index, &[2, 3000, 3], Device::Cpu)?;
    let values = |random: &mut Random, shape: &[usize]| cast(&testing::values(random, shape)?, DType::F32);
    let (target, source) = (values(&mut random, &[2, 50, 3])?, values(&mut random, &[2, 3000, 3])?);
    let op = ScatterAdd { axis: 1 };
    let expected = run(&op, &[&target, &index, &source], &Context::default())?.outputs.remove(0);
    let there = moved(&[target, index, source], device)?;
    let sum = run(&op, &references(&there), &Context::default())?.outputs.remove(0);
    assert!(bits(&sum)? == bits(&expected)?, "sums at indices");
    for reverse in [false, true] {
        let (op, x) = (CumulativeSum { axis: 1, reverse }, testing::values(&mut random, &[3, 700])?);
        beside_the_cpu(&op, &[x], DType::F32, device, 8.0, &mut random)?;
    }
    Ok(())
}
