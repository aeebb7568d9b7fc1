//! Compares transposing copies with element-by-element ones.

use super::{View, contiguous, transposed};
use crate::cast::cast;
use crate::parallel::{Order, Settings, with_settings};
use proptest::prelude::*;
use tomograd_core::{DType, Device, Seed, Tensor};

fn check(shape: &[usize], axes: &[usize], dtype: DType) {
    let x = Tensor::uniform(shape, -9.0, 9.0, Seed::new(1), DType::F64, Device::Cpu).unwrap();
    let x = cast(&x, dtype).unwrap();
    let y = x.permute(axes).unwrap();
    let expected = y.to_vec_f64().unwrap();
    for settings in [Settings::default().threads(1), Settings::default().threads(3).order(Order::Shuffled(5))] {
        let copy = with_settings(settings, || contiguous(&y)).unwrap();
        assert!(copy.is_contiguous() && copy.shape() == y.shape());
        assert_eq!(copy.to_vec_f64().unwrap(), expected, "{shape:?} {axes:?} {dtype}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn copies_are_right(
        shape in prop::collection::vec(prop_oneof![0usize..4, 7usize..20], 2..5), seed in 0u64..1000, dtype in 0..3,
    ) {
        let axes = Seed::new(seed).random().permutation(shape.len()).unwrap();
        check(&shape, &axes, [DType::F32, DType::F64, DType::I64][dtype as usize]);
    }
}

#[test]
fn channels_last_and_back_are_transposed() {
    for (shape, axes) in [
        (vec![2, 96, 57, 33], vec![0, 2, 3, 1]),
        (vec![2, 57, 33, 96], vec![0, 3, 1, 2]),
        (vec![1, 3, 40, 1, 9], vec![0, 2, 3, 4, 1]),
        (vec![300, 200], vec![1, 0]),
    ] {
        check(&shape, &axes, DType::F32);
        let x = Tensor::zeros(&shape, DType::F32, Device::Cpu).unwrap();
        assert!(transposed(&x.permute(&axes).unwrap()).unwrap().is_some(), "{shape:?} {axes:?}");
        assert!(transposed(&x).unwrap().is_none());
    }
    // A part of a matrix, of which the rows aren't contiguous.
    let x = Tensor::uniform(&[40, 30], -1.0, 1.0, Seed::new(2), DType::F32, Device::Cpu).unwrap();
    let slice = View::Slice { axis: 1, start: 3, length: 20, step: 1 };
    let part =
        crate::run(&slice, &[&x], &crate::Context::default()).unwrap().outputs.remove(0).transpose(0, 1).unwrap();
    assert_eq!(contiguous(&part).unwrap().to_vec::<f32>().unwrap(), part.to_vec::<f32>().unwrap());
}
