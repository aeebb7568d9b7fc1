//! Errors, and cases that the random cases don't cover.

use tomograd_core::{DType, Device, Result, Tensor};

use super::SelectiveScan;
use crate::{Context, run};

fn ones(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::ones(shape, dtype, Device::Cpu).unwrap()
}

fn scan(op: SelectiveScan, inputs: &[Tensor]) -> Result<Tensor> {
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    Ok(run(&op, &inputs, &Context::default())?.outputs.remove(0))
}

#[test]
fn what_does_not_fit_is_an_error() {
    let refused = |op: SelectiveScan, shapes: &[&[usize]], expected: &str| {
        let inputs: Vec<Tensor> = shapes.iter().map(|shape| ones(shape, DType::F32)).collect();
        let error = scan(op, &inputs).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} doesn't say {expected:?}");
    };
    let plain = SelectiveScan::default();
    let (u, a, b): (&[usize], &[usize], &[usize]) = (&[2, 6, 9], &[6, 4], &[2, 3, 4, 9]);
    refused(plain, &[u, u, a, b], "5");
    refused(plain, &[&[6, 9], u, a, b, b], "(B, D, L)");
    refused(plain, &[u, u, &[6], b, b], "(D, N)");
    refused(plain, &[u, u, a, &[4, 9], b], "(B, G, N, L)");
    refused(plain, &[u, &[2, 6, 8], a, b, b], "delta");
    refused(plain, &[u, u, a, &[2, 4, 4, 9], &[2, 4, 4, 9]], "6 channels in 4 groups");
    refused(plain, &[u, u, a, &[2, 0, 4, 9], &[2, 0, 4, 9]], "0 groups");
    refused(plain, &[u, u, a, b, &[2, 4, 9]], "c of shape [2, 3, 4, 9]");
    refused(SelectiveScan { skip: true, ..plain }, &[u, u, a, b, b, &[5]], "skip of shape [6]");
    refused(SelectiveScan { gate: true, ..plain }, &[u, u, a, b, b, &[6]], "z of shape [2, 6, 9]");
    refused(SelectiveScan { delta_bias: true, ..plain }, &[u, u, a, b, b, u], "delta_bias of shape [6]");
    let mixed = [u, u, a, b].map(|shape| ones(shape, DType::F32)).into_iter().chain([ones(b, DType::F64)]);
    assert!(scan(plain, &mixed.collect::<Vec<_>>()).unwrap_err().to_string().contains("one floating-point dtype"));
}

/// A growing state overflows to infinity. A NaN affects only its own channel, from its own step on.
#[test]
fn what_is_not_finite_stays_in_its_channel() {
    let (channels, length) = (18, 200);
    let mut u = vec![1.0f32; channels * length];
    u[3 * length + 70] = f32::NAN;
    let mut a = vec![-1.0f32; channels];
    a[17] = 2.0;
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, Device::Cpu).unwrap();
    let (over_time, over_states) = ([1, channels, length], [1, 1, length]);
    let inputs = [
        tensor(&u, &over_time),
        ones(&over_time, DType::F32),
        tensor(&a, &[channels, 1]),
        ones(&over_states, DType::F32),
        ones(&over_states, DType::F32),
    ];
    let y = scan(SelectiveScan::default(), &inputs).unwrap().to_vec::<f32>().unwrap();
    for (channel, y) in y.chunks(length).enumerate() {
        match channel {
            3 => assert!(y[..70].iter().all(|y| y.is_finite()) && y[70..].iter().all(|y| y.is_nan())),
            17 => assert!(y[..40].iter().all(|y| y.is_finite()) && y[50..].iter().all(|&y| y == f32::INFINITY)),
            _ => assert!(y.iter().all(|y| y.is_finite())),
        }
    }
}

/// A NaN in a must not hide that the exponentials of other channels are far out of range.
#[test]
fn a_nan_stays_in_its_channel() {
    // One step with input, then one step in which the state decays by exp(−300).
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape, Device::Cpu).unwrap();
    let inputs = [
        tensor(&[1.0, 0.0, 1.0, 0.0], &[1, 2, 2]),
        ones(&[1, 2, 2], DType::F32),
        tensor(&[-300.0, f32::NAN], &[2, 1]),
        ones(&[1, 1, 1, 2], DType::F32),
        ones(&[1, 1, 1, 2], DType::F32),
    ];
    let y = scan(SelectiveScan::default(), &inputs).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(y[..2], [1.0, 0.0]);
    assert!(y[3].is_nan());
}
