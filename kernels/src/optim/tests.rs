use tomograd_core::{DType, Device, Tensor, copies_on_write};

use super::{cpu::GRAIN, *};

fn tensor(values: &[f64]) -> Tensor {
    Tensor::from_slice(values, &[values.len()], Device::Cpu).unwrap()
}

#[test]
fn sgd_follows_its_formula() {
    for nesterov in [false, true] {
        let sgd = Sgd { momentum: 0.9, dampening: 0.0, nesterov };
        let (mut value, mut buffer) = (tensor(&[1.0, -2.0]), tensor(&[0.0, 0.0]));
        let (mut v, mut b) = ([1.0, -2.0], [0.0; 2]);
        let copies = copies_on_write();
        for step in 0..3 {
            let gradient = tensor(&[0.5, 0.25 * step as f64]);
            let mut parameters = [SgdParameter {
                value: &mut value,
                gradient: &gradient,
                momentum: Some(&mut buffer),
                rate: 0.1,
                weight_decay: 0.01,
                first_step: step == 0,
            }];
            sgd_step(&mut parameters, &sgd).unwrap();
            for i in 0..2 {
                let d = gradient.to_vec::<f64>().unwrap()[i] + 0.01 * v[i];
                b[i] = 0.9 * b[i] + d;
                v[i] -= 0.1 * if nesterov { d + 0.9 * b[i] } else { b[i] };
            }
        }
        assert_eq!(value.to_vec::<f64>().unwrap(), v);
        assert_eq!(copies_on_write(), copies);
    }
}

#[test]
fn adam_decouples_its_decay_when_asked() {
    for decoupled in [false, true] {
        let adam = Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled };
        let (mut value, mut first, mut second) = (tensor(&[1.0]), tensor(&[0.0]), tensor(&[0.0]));
        let (mut v, mut m, mut s) = (1.0f64, 0.0, 0.0);
        for step in 1..=3 {
            let gradient = tensor(&[0.3 * step as f64]);
            let mut parameters = [AdamParameter {
                value: &mut value,
                gradient: &gradient,
                first: &mut first,
                second: &mut second,
                rate: 0.01,
                weight_decay: 0.1,
                step,
            }];
            adam_step(&mut parameters, &adam).unwrap();
            let mut g = 0.3 * step as f64;
            if decoupled {
                v *= 1.0 - 0.01 * 0.1;
            } else {
                g += 0.1 * v;
            }
            m = 0.9 * m + 0.1 * g;
            s = 0.999 * s + 0.001 * g * g;
            let corrected = (s / (1.0 - 0.999f64.powi(step as i32))).sqrt() + 1e-8;
            v -= 0.01 * m / (1.0 - 0.9f64.powi(step as i32)) / corrected;
        }
        assert!((value.to_scalar().unwrap() - v).abs() < 1e-14);
    }
}

#[test]
fn a_gradient_that_doesnt_fit_is_an_error() {
    let (mut value, gradient) = (tensor(&[1.0]), tensor(&[1.0, 2.0]));
    let mut parameters = [SgdParameter {
        value: &mut value,
        gradient: &gradient,
        momentum: None,
        rate: 0.1,
        weight_decay: 0.0,
        first_step: true,
    }];
    assert!(sgd_step(&mut parameters, &Sgd { momentum: 0.0, dampening: 0.0, nesterov: false }).is_err());
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let gradient = |dtype| Tensor::ones(&[2], dtype, Device::Cpu).unwrap();
    let adam = Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: true };
    // The first parameter could be updated; the second has an unsupported dtype.
    let dtypes = [DType::F32, DType::F16];
    let gradients = dtypes.map(gradient);
    let [mut values, mut firsts, mut seconds] = [gradients.clone(), gradients.clone(), gradients.clone()];
    let tensors = values.iter_mut().zip(&gradients).zip(firsts.iter_mut().zip(&mut seconds));
    let mut parameters: Vec<AdamParameter<'_>> = tensors
        .map(|((value, gradient), (first, second))| AdamParameter {
            value,
            gradient,
            first,
            second,
            rate: 0.1,
            weight_decay: 0.0,
            step: 1,
        })
        .collect();
    assert!(adam_step(&mut parameters, &adam).is_err());
    parameters.truncate(1);
    parameters[0].step = 0;
    assert!(adam_step(&mut parameters, &adam).unwrap_err().to_string().contains("counted from 1"));
    for tensor in [&values[0], &firsts[0], &seconds[0]] {
        assert_eq!(tensor.to_vec::<f32>().unwrap(), [1.0; 2]);
    }
    let mut parameters: Vec<SgdParameter<'_>> = values
        .iter_mut()
        .zip(&gradients)
        .map(|(value, gradient)| SgdParameter {
            value,
            gradient,
            momentum: None,
            rate: 0.1,
            weight_decay: 0.0,
            first_step: true,
        })
        .collect();
    assert!(sgd_step(&mut parameters, &Sgd { momentum: 0.0, dampening: 0.0, nesterov: false }).is_err());
    assert_eq!(values[0].to_vec::<f32>().unwrap(), [1.0; 2]);
}

#[test]
fn the_norm_is_over_all_tensors() {
    assert_eq!(global_norm(&[&tensor(&[3.0]), &tensor(&[0.0, 4.0])]).unwrap(), 5.0);
}

#[test]
fn norms_scales_and_averages_go_over_many_chunks() {
    let values: Vec<f64> = (0..3 * GRAIN + 7).map(|i| (i % 13) as f64 - 6.0).collect();
    let (mut x, small) = (tensor(&values), tensor(&[3.0, 4.0]));
    let squares: f64 = values.iter().map(|x| x * x).sum::<f64>() + 25.0;
    assert!((global_norm(&[&x, &small]).unwrap() - squares.sqrt()).abs() < 1e-9);
    assert_eq!(global_norm(&[]).unwrap(), 0.0);
    let copies = copies_on_write();
    scale(&mut x, 0.5).unwrap();
    let mut average = tensor(&vec![1.0; values.len()]);
    let other = x.copy().unwrap();
    ema_step(&mut [(&mut average, &other)], 0.75).unwrap();
    assert_eq!(copies_on_write(), copies);
    let expected: Vec<f64> = values.iter().map(|x| 0.75 + 0.25 * (0.5 * x)).collect();
    assert_eq!(average.to_vec::<f64>().unwrap(), expected);
    assert!(ema_step(&mut [(&mut average, &small)], 0.75).is_err());
}
