use proptest::prelude::*;
use tomograd_core::Seed;

use super::*;

fn image(spatial: &[usize]) -> Tensor {
    Tensor::normal(&[&[2], spatial].concat(), 0.0, 1.0, Seed::new(5), DType::F32, Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_the_predictor_leaves_alone_comes_back(
        sizes in proptest::collection::vec((1usize..20, 1usize..12), 2..=3),
        overlap in 0.0f64..0.8,
        batch in 1usize..5,
        mirroring: bool,
    ) {
        let (spatial, patch): (Vec<usize>, Vec<usize>) = sizes.into_iter().unzip();
        let window = SlidingWindow::new(patch).unwrap().overlap(overlap).unwrap().batch(batch).unwrap().mirroring(mirroring);
        let (image, mut seen) = (image(&spatial), 0);
        let logits = window.logits(&image, |patches| {
            seen += patches.shape()[0];
            Ok(patches.clone())
        }).unwrap();
        prop_assert_eq!(logits.shape(), image.shape());
        for (a, b) in logits.to_vec::<f32>().unwrap().into_iter().zip(image.to_vec::<f32>().unwrap()) {
            prop_assert!((a - b).abs() < 1e-5);
        }
        let mirrors = if mirroring { 1 << spatial.len() } else { 1 };
        prop_assert_eq!(seen, window.windows(&spatial).unwrap() * mirrors);

        let labels = window.labels(&image, |patches| Ok(patches.clone())).unwrap();
        let values = image.to_vec::<f32>().unwrap();
        let (first, second) = values.split_at(labels.count());
        for (i, label) in labels.to_vec::<u8>().unwrap().into_iter().enumerate() {
            // If they are equal up to rounding, either label is correct.
            prop_assert!(label == u8::from(second[i] > first[i]) || (first[i] - second[i]).abs() < 1e-5);
        }
    }
}

#[test]
fn mirror_images_are_averaged() -> Result<()> {
    // A predictor whose result depends on the position in the window: the index along the last axis.
    let ramp = |patches: &Tensor| {
        let shape = [patches.shape()[0], 1, 4, 4];
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i % 4) as f32).collect();
        Tensor::from_slice(&values, &shape, Device::Cpu)
    };
    let logits = SlidingWindow::new([4, 4])?.mirroring(true).logits(&image(&[4, 4]), ramp)?;
    assert!(logits.to_vec::<f32>()?.iter().all(|value| (value - 1.5).abs() < 1e-6));
    Ok(())
}

#[test]
fn errors_say_what_is_wrong() {
    let identity = |patches: &Tensor| Ok(patches.clone());
    let window = |patch: &[usize]| SlidingWindow::new(patch);
    assert!(window(&[4]).unwrap().logits(&image(&[4, 4]), identity).is_err());
    assert!(window(&[4, 4]).unwrap().logits(&image(&[4, 0]), identity).is_err());
    for patch in [&[][..], &[4, 0], &[1, 1, 1, 1]] {
        assert!(window(patch).is_err());
    }
    for overlap in [1.0, -0.1, f64::NAN, f64::INFINITY] {
        assert!(window(&[4, 4]).unwrap().overlap(overlap).is_err());
    }
    assert!(window(&[4, 4]).unwrap().batch(0).is_err());
    let halved = |patches: &Tensor| patches.narrow(2, 0, 2);
    let error = window(&[4, 4]).unwrap().logits(&image(&[8, 8]), halved).unwrap_err().to_string();
    assert!(error.contains("(1, 2, 4, 4), (1, 2, 2, 4)"), "{error}");
}

#[test]
fn no_channels_is_an_error() {
    let empty = Tensor::zeros(&[0, 4, 4], DType::F32, Device::Cpu).unwrap();
    assert!(SlidingWindow::new([4, 4]).unwrap().labels(&empty, |patches| Ok(patches.clone())).is_err());
    let scalar = Tensor::scalar(1f32, Device::Cpu).unwrap();
    assert!(SlidingWindow::new([4, 4]).unwrap().logits(&scalar, |patches| Ok(patches.clone())).is_err());
}

#[test]
fn a_bound_that_overflows_is_an_error() {
    let window = SlidingWindow::new([16; 3]).unwrap();
    assert_eq!(window.memory_bound(1, 3, &[16; 3]).unwrap(), (1 + 4 * 3 + 4 * (1 + 3)) * 4096);
    assert!(window.memory_bound(1, usize::MAX, &[16; 3]).unwrap_err().to_string().contains("classes"));
    assert!(window.memory_bound(1, 3, &[16; 2]).is_err());
}

#[test]
fn counts_are_the_least_and_never_overflow() {
    let window = SlidingWindow::new([10; 3]).unwrap().overlap(0.8).unwrap();
    assert_eq!(window.windows(&[20; 3]).unwrap(), 216);
    assert_eq!(window.windows(&[3, 10, 11]).unwrap(), 2);
    assert!(window.windows(&[usize::MAX; 3]).unwrap_err().to_string().contains("windows along the axes"));
    assert!(window.memory_bound(1, 1, &[usize::MAX; 3]).is_err());
    let large = SlidingWindow::new([usize::MAX; 3]).unwrap();
    assert_eq!(large.windows(&[20; 3]).unwrap(), 1);
    assert!(large.labels(&image(&[2, 2, 2]), |patches| Ok(patches.clone())).is_err(), "no memory holds the patch");
    // A window of a million voxels on an axis of two voxels stores only two weights.
    let long = SlidingWindow::new([1_000_000]).unwrap();
    let whole = long.logits(&image(&[2]), |patches| Ok(patches.clone())).unwrap();
    assert_eq!(whole.to_vec::<f32>().unwrap(), image(&[2]).to_vec::<f32>().unwrap());
}

/// The first logit is `first` at voxel [1, 2] and 0 elsewhere; the second is 5.
fn logits_with(first: f32) -> impl Fn(&Tensor) -> Result<Tensor> {
    move |_| {
        let mut values = [[0f32; 16], [5.0; 16]];
        values[0][6] = first;
        Tensor::from_slice(values.as_flattened(), &[1, 2, 4, 4], Device::Cpu)
    }
}

#[test]
fn a_logit_that_is_no_number_is_no_label() {
    let window = SlidingWindow::new([4, 4]).unwrap();
    let error = window.labels(&image(&[4, 4]), logits_with(f32::NAN)).unwrap_err().to_string();
    assert!(error.contains("the logit of class 0 at voxel [1, 2] is NaN"), "{error}");
    let blended = window.logits(&image(&[4, 4]), logits_with(f32::NAN)).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(
        blended.iter().map(|logit| logit.is_nan()).collect::<Vec<_>>(),
        (0..32).map(|i| i == 6).collect::<Vec<_>>()
    );
    // An infinity can be compared.
    let labels = window.labels(&image(&[4, 4]), logits_with(f32::INFINITY)).unwrap().to_vec::<u8>().unwrap();
    assert_eq!(labels, (0..16).map(|i| u8::from(i != 6)).collect::<Vec<_>>());
    // With a single logit, the sign decides.
    let single = |patches: &Tensor| Tensor::full(&[1, 1, 4, 4], f64::NAN, patches.dtype(), Device::Cpu);
    assert!(window.labels(&image(&[4, 4]), single).unwrap_err().to_string().contains("voxel [0, 0] is NaN"));
}
