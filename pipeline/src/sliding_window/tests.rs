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
        let window = SlidingWindow::new(patch).overlap(overlap).batch(batch).mirroring(mirroring);
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
            // Equal but for rounding: either is right.
            prop_assert!(label == u8::from(second[i] > first[i]) || (first[i] - second[i]).abs() < 1e-5);
        }
    }
}

#[test]
fn mirror_images_are_averaged() -> Result<()> {
    // A predictor that knows where in the window it is: the place along the last axis.
    let ramp = |patches: &Tensor| {
        let shape = [patches.shape()[0], 1, 4, 4];
        let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i % 4) as f32).collect();
        Tensor::from_slice(&values, &shape, Device::Cpu)
    };
    let logits = SlidingWindow::new([4, 4]).mirroring(true).logits(&image(&[4, 4]), ramp)?;
    assert!(logits.to_vec::<f32>()?.iter().all(|value| (value - 1.5).abs() < 1e-6));
    Ok(())
}

#[test]
fn errors_say_what_is_wrong() {
    let identity = |patches: &Tensor| Ok(patches.clone());
    assert!(SlidingWindow::new([4]).logits(&image(&[4, 4]), identity).is_err());
    assert!(SlidingWindow::new([4, 0]).logits(&image(&[4, 4]), identity).is_err());
    assert!(SlidingWindow::new([4, 4]).logits(&image(&[4, 0]), identity).is_err());
    assert!(SlidingWindow::new([4, 4]).overlap(1.0).logits(&image(&[4, 4]), identity).is_err());
    assert!(SlidingWindow::new([4, 4]).batch(0).logits(&image(&[4, 4]), identity).is_err());
    let halved = |patches: &Tensor| patches.narrow(2, 0, 2);
    let error = SlidingWindow::new([4, 4]).logits(&image(&[8, 8]), halved).unwrap_err().to_string();
    assert!(error.contains("(1, 2, 4, 4), (1, 2, 2, 4)"), "{error}");
}

#[test]
fn no_channels_is_an_error() {
    let empty = Tensor::zeros(&[0, 4, 4], DType::F32, Device::Cpu).unwrap();
    assert!(SlidingWindow::new([4, 4]).labels(&empty, |patches| Ok(patches.clone())).is_err());
    assert!(SlidingWindow::new([4, 4]).logits(&Tensor::scalar(1f32, Device::Cpu).unwrap(), |p| Ok(p.clone())).is_err());
}

#[test]
fn a_bound_that_overflows_is_an_error() {
    let window = SlidingWindow::new([16; 3]);
    assert_eq!(window.memory_bound(1, 3, &[16; 3]).unwrap(), (1 + 4 * 3 + 4 * (1 + 3)) * 4096);
    assert!(window.memory_bound(1, usize::MAX, &[16; 3]).unwrap_err().to_string().contains("classes"));
    assert!(window.memory_bound(1, 3, &[16; 2]).is_err());
}
