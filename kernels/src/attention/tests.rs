use tomograd_core::{DType, Device, Result, Seed, Tensor};

use super::Attention;
use crate::{Context, Meta, Op, Saved, run, run_backward};

fn normal(name: &str, shape: &[usize]) -> Tensor {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(5).named(name), DType::F32, Device::Cpu).unwrap()
}

fn forward_and_backward(inputs: &[Tensor], dy: &Tensor) -> (Tensor, Vec<Vec<f64>>) {
    let references: Vec<&Tensor> = inputs.iter().collect();
    let forward = run(&Attention::default(), &references, &Context::default()).unwrap();
    let saved = Saved::new(&Attention::default(), &references, &forward);
    let needed = vec![true; inputs.len()];
    let gradients =
        run_backward(&Attention::default(), saved, vec![Some(dy.clone())], &needed, &Context::default()).unwrap();
    (
        forward.outputs[0].clone(),
        gradients.into_iter().map(|gradient| gradient.unwrap().to_vec_f64().unwrap()).collect(),
    )
}

/// With this many scores, their gradients are summed for the biases in several slices of the batch.
#[test]
fn slices_of_the_batch_give_what_its_matrices_give() {
    let (batch, queries, keys) = (3, 2100, 2100);
    let inputs = [
        normal("q", &[batch, queries, 1]),
        normal("k", &[batch, keys, 1]),
        normal("v", &[batch, keys, 1]),
        normal("shared", &[queries, 1]),
        normal("own", &[batch, 1, keys]),
    ];
    let dy = normal("dy", &[batch, queries, 1]);
    let (_, gradients) = forward_and_backward(&inputs, &dy);
    let mut shared = vec![0.0; queries];
    for i in 0..batch {
        let part = |x: &Tensor| if x.rank() == 3 { x.narrow(0, i, 1).unwrap() } else { x.clone() };
        let (_, alone) = forward_and_backward(&inputs.each_ref().map(part), &part(&dy));
        for index in [0, 1, 2, 4] {
            let length = alone[index].len();
            let whole = &gradients[index][i * length..(i + 1) * length];
            // For a single matrix, the keys are divided into more parts.
            let close = whole.iter().zip(&alone[index]).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + a.abs()));
            assert!(close, "gradient {index} of matrix {i}");
        }
        shared.iter_mut().zip(&alone[3]).for_each(|(sum, share)| *sum += share);
    }
    assert!(shared.iter().zip(&gradients[3]).all(|(a, b)| (a - b).abs() <= 1e-4), "the shared bias");
}

#[test]
fn a_query_that_sees_no_key_gives_zeros() {
    let mask: Vec<f32> = (0..6).map(|i| if i < 3 { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_slice(&mask, &[2, 3], Device::Cpu).unwrap();
    let inputs = [normal("q", &[2, 4]), normal("k", &[3, 4]), normal("v", &[3, 5]), mask];
    let (y, gradients) = forward_and_backward(&inputs, &normal("dy", &[2, 5]));
    assert_eq!(y.to_vec_f64().unwrap()[..5], [0.0; 5]);
    assert_eq!(gradients[0][..4], [0.0; 4]);
    assert_eq!(gradients[3][..3], [0.0; 3]);
    assert!(gradients.iter().flatten().all(|value| value.is_finite()));
}

#[test]
fn what_does_not_fit_is_explained() {
    let infer = |shapes: &[&[usize]]| -> Result<Vec<Meta>> {
        let meta = |shape: &&[usize]| Meta { shape: shape.to_vec(), dtype: DType::F32, device: Device::Cpu };
        Attention::default().infer(&shapes.iter().map(meta).collect::<Vec<_>>())
    };
    let cases: [(&[&[usize]], &str); 6] = [
        (&[&[4], &[4], &[4]], "queries of 1 axes"),
        (&[&[2, 3, 4], &[1, 5, 4], &[2, 5, 4]], "the batch axes of the keys"),
        (&[&[2, 3, 4], &[2, 5, 3], &[2, 5, 4]], "the keys don't fit the queries"),
        (&[&[2, 3, 4], &[2, 5, 4], &[2, 6, 4]], "one value for each key"),
        (&[&[2, 3, 4], &[2, 5, 4], &[2, 5, 4], &[4, 5]], "the bias, input 3"),
        (&[&[2, 3, 4], &[2, 5, 4]], "2 inputs"),
    ];
    for (shapes, text) in cases {
        let error = infer(shapes).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(infer(&[&[2, 3, 4], &[2, 5, 4], &[2, 5, 6], &[3, 1]]).unwrap()[0].shape, [2, 3, 6]);
}
