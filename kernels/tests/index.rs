//! Values that are out of range, and what the operations' random cases don't reach: half storage, whole numbers, many chunks.

use tomograd_core::{DType, Device, Result, Tensor};
use tomograd_kernels::{
    Context, Op, Saved,
    index::{Concat, Gather, IndexSelect, OneHot, Pad, PadMode, ScatterAdd},
    reduce::{ArgMax, Combine, Reduce, sum_to},
    run, run_backward,
    softmax::Softmax,
};

fn tensor<T: tomograd_core::Element>(values: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, Device::Cpu).unwrap()
}

fn one(op: &dyn Op, inputs: &[&Tensor]) -> Result<Tensor> {
    Ok(run(op, inputs, &Context::default())?.outputs.remove(0))
}

#[test]
fn an_index_out_of_range_is_named_with_its_position() {
    let x = tensor(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    let index = tensor(&[0i64, 1, 2, 2, 3, 0], &[2, 3]);
    let source = tensor(&[1.0; 6], &[2, 3]);
    let row = tensor(&[2i64, -1], &[2]);
    let errors = [
        one(&Gather { axis: 1 }, &[&x, &index]),
        one(&ScatterAdd { axis: 1 }, &[&x, &index, &source]),
        one(&OneHot { classes: 3, axis: 1, dtype: DType::F32 }, &[&index]),
        one(&IndexSelect { axis: 1 }, &[&x, &row]),
    ]
    .map(|result| result.unwrap_err().to_string());
    for error in &errors[..3] {
        assert!(error.contains("index 3 at position [1, 1]"), "{error}");
    }
    assert!(errors[3].contains("index -1 at position [1]"), "{}", errors[3]);
}

#[test]
fn a_border_that_mirrors_is_narrower_than_its_axis() {
    let x = tensor(&[1.0, 2.0, 3.0], &[3]);
    let pad = |before, mode| Pad { before: vec![before], after: vec![1], mode };
    let padded = one(&pad(2, PadMode::Reflect), &[&x]).unwrap();
    assert_eq!(padded.to_vec::<f64>().unwrap(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    assert!(one(&pad(3, PadMode::Reflect), &[&x]).is_err());
    assert!(one(&pad(usize::MAX, PadMode::Constant(0.0)), &[&x]).is_err());
    let bytes = one(&pad(1, PadMode::Constant(7.0)), &[&tensor(&[1u8, 2], &[2])]).unwrap();
    assert_eq!(bytes.to_vec::<u8>().unwrap(), [7, 1, 2, 7]);
}

#[test]
fn half_gradients_are_added_in_f32() {
    let shape = [1usize];
    let x = Tensor::zeros(&shape, DType::F16, Device::Cpu).unwrap();
    let inputs = [&x, &tensor(&vec![0i64; 3000], &[3000])];
    let saved =
        Saved::new(&Gather { axis: 0 }, &inputs, &run(&Gather { axis: 0 }, &inputs, &Context::default()).unwrap());
    let ones = Tensor::ones(&[3000], DType::F16, Device::Cpu).unwrap();
    let gradients =
        run_backward(&Gather { axis: 0 }, saved, vec![Some(ones)], &[true, false], &Context::default()).unwrap();
    // In f16 a sum of ones sticks at 2048.
    assert_eq!(gradients[0].as_ref().unwrap().to_vec_f64().unwrap(), [3000.0]);
}

#[test]
fn large_reductions_go_over_many_segments() {
    let shape = [3usize, 5, 40_000];
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i * 7919) % 1009) as f64).collect();
    let x = tensor(&values, &shape);
    for axes in [vec![0, 1, 2], vec![0, 2], vec![2], vec![0], vec![1], vec![0, 1]] {
        let kept: Vec<usize> = (0..3).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
        let (mut sums, mut maxima) = (vec![0.0; kept.iter().product()], vec![0.0f64; kept.iter().product()]);
        for (i, value) in values.iter().enumerate() {
            let index = [i / 200_000, i / 40_000 % 5, i % 40_000];
            let place = (0..3).fold(0, |place, axis| place * kept[axis] + index[axis] % kept[axis]);
            sums[place] += value;
            maxima[place] = maxima[place].max(*value);
        }
        assert_eq!(sum_to(&x, &kept).unwrap().to_vec::<f64>().unwrap(), sums, "{axes:?}");
        let max = Reduce { combine: Combine::Max, axes, keep_axes: true };
        assert_eq!(one(&max, &[&x]).unwrap().to_vec::<f64>().unwrap(), maxima);
    }
    let narrow = x.reshape(&[count / 2, 2]).unwrap();
    let total: f64 = sum_to(&narrow, &[1, 2]).unwrap().to_vec::<f64>().unwrap().iter().sum();
    assert_eq!(total, values.iter().sum::<f64>());
    let first = values[..40_000].iter().position(|&x| x == 1008.0).unwrap() as i64;
    assert_eq!(one(&ArgMax { axis: 2 }, &[&x]).unwrap().to_vec::<i64>().unwrap()[0], first);
    assert!(one(&ArgMax { axis: 0 }, &[&tensor::<f64>(&[], &[0, 2])]).is_err());
}

#[test]
fn a_nan_is_the_maximum() {
    let x = tensor(&[1.0, f64::NAN, 3.0, f64::NAN], &[4]);
    let max = Reduce { combine: Combine::Max, axes: vec![0], keep_axes: false };
    assert!(one(&max, &[&x]).unwrap().to_scalar().unwrap().is_nan());
    assert_eq!(one(&ArgMax { axis: 0 }, &[&x]).unwrap().to_vec::<i64>().unwrap(), [1]);
}

#[test]
fn softmax_spans_chunks_and_large_values() {
    for (shape, axis) in [([2usize, 3, 70_000], 1), ([70_000, 2, 3], 2), ([2, 3, 70_000], 2)] {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count).map(|i| ((i * 31) % 17) as f64 * 100.0).collect();
        let y = one(&Softmax { axis }, &[&tensor(&values, &shape)]).unwrap();
        let mut totals = shape;
        totals[axis] = 1;
        let sums = sum_to(&y, &totals).unwrap().to_vec::<f64>().unwrap();
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-12));
    }
}

#[test]
fn a_concatenation_goes_over_many_chunks() {
    let part = |from: i32, width: usize| {
        let values: Vec<i32> = (0..2 * width).map(|i| from + i as i32).collect();
        tensor(&values, &[2, width])
    };
    let (a, b) = (part(0, 50_000), part(1_000_000, 70_001));
    let all = one(&Concat { axis: 1 }, &[&a, &b]).unwrap();
    assert_eq!(all.shape(), [2, 120_001]);
    for (x, from) in [(&a, 0), (&b, 50_000)] {
        let again = all.narrow(1, from, x.shape()[1]).unwrap();
        assert_eq!(again.to_vec::<i32>().unwrap(), x.to_vec::<i32>().unwrap());
    }
    assert!(one(&Concat { axis: 1 }, &[&a, &tensor(&[1.0], &[1, 1])]).is_err());
}
