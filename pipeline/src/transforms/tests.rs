use proptest::prelude::*;
use tomograd_core::{DType, Device, Result, Seed, Tensor};

use super::*;

fn sample(spatial: &[usize], seed: u64) -> Sample {
    let shape = [&[2], spatial].concat();
    let image = Tensor::normal(&shape, 3.0, 2.0, Seed::new(seed), DType::F32, Device::Cpu).unwrap();
    let label = Tensor::uniform(spatial, 0.0, 3.0, Seed::new(seed), DType::U8, Device::Cpu).unwrap();
    Sample::new("case", &image, Some(&label)).unwrap()
}

fn image(sample: &Sample) -> Vec<f32> {
    sample.image().unwrap().to_vec().unwrap()
}

fn label(sample: &Sample) -> Vec<u8> {
    sample.label().unwrap().to_vec().unwrap()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..9, 2..=3)
}

proptest! {
    #[test]
    fn two_flips_are_none(shape in shapes(), seed: u64) {
        let before = sample(&shape, seed);
        let flip = Compose::new().then(Flip::default()).unwrap();
        let after = flip.apply(flip.apply(before.clone(), Seed::new(seed)).unwrap(), Seed::new(seed)).unwrap();
        prop_assert_eq!(image(&before), image(&after));
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn a_padded_sample_cropped_is_itself(shape in shapes(), more in proptest::collection::vec(0usize..5, 3)) {
        let before = sample(&shape, 1);
        let larger: Vec<usize> = shape.iter().zip(more).map(|(a, b)| a + 2 * b).collect();
        let there_and_back = Compose::new().then(CropOrPad::centred(larger)).unwrap().then(CropOrPad::centred(shape)).unwrap();
        let after = there_and_back.apply(before.clone(), Seed::new(0)).unwrap();
        prop_assert_eq!(image(&before), image(&after));
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn the_affine_map_of_nothing_is_the_identity(shape in shapes()) {
        let before = sample(&shape, 1);
        let still = RandomAffine { probability: 1.0, degrees: (0.0, 0.0), scale: (1.0, 1.0), ..RandomAffine::default() };
        let after = Compose::new().then(still).unwrap().apply(before.clone(), Seed::new(0)).unwrap();
        for (a, b) in image(&before).into_iter().zip(image(&after)) {
            prop_assert!((a - b).abs() < 1e-4);
        }
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn every_transform_takes_every_shape(shape in shapes(), seed: u64) {
        let all = Compose::new()
            .then(ZScore::default())
            .unwrap()
            .then(RandomAffine { probability: 1.0, translation: (-2.0, 2.0), ..RandomAffine::default() })
            .unwrap()
            .then(RandomNoise { probability: 1.0, ..RandomNoise::default() })
            .unwrap()
            .then(RandomBrightness { probability: 1.0, ..RandomBrightness::default() })
            .unwrap()
            .then(RandomContrast { probability: 1.0, ..RandomContrast::default() })
            .unwrap()
            .then(RandomGamma { probability: 1.0, ..RandomGamma::default() })
            .unwrap();
        let once = all.apply(sample(&shape, seed), Seed::new(seed)).unwrap();
        let again = all.apply(sample(&shape, seed), Seed::new(seed)).unwrap();
        prop_assert!(image(&once).iter().all(|value| value.is_finite()));
        prop_assert_eq!(image(&once), image(&again));
    }
}

#[test]
fn a_quarter_turn_moves_voxels_to_their_places() -> Result<()> {
    let flat = |values: &[u8]| Tensor::from_slice(values, &[2, 2], Device::Cpu);
    let image = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[1, 2, 2], Device::Cpu)?;
    let turn = RandomAffine { probability: 1.0, degrees: (90.0, 90.0), scale: (1.0, 1.0), ..RandomAffine::default() };
    let turned =
        Compose::new().then(turn)?.apply(Sample::new("square", &image, Some(&flat(&[1, 2, 3, 4])?))?, Seed::new(0))?;
    assert_eq!(label(&turned), [3, 1, 4, 2]);
    assert!(self::image(&turned).iter().zip([3.0, 1.0, 4.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-5));
    Ok(())
}

#[test]
fn z_score_gives_mean_0_and_deviation_1() -> Result<()> {
    let compose = Compose::new().then(ZScore::default())?;
    for channel in image(&compose.apply(sample(&[8, 9, 7], 3), Seed::new(0))?).chunks(8 * 9 * 7) {
        let mean = channel.iter().sum::<f32>() / channel.len() as f32;
        let variance = channel.iter().map(|v| v * v).sum::<f32>() / channel.len() as f32;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
    }
    let masked = Tensor::from_slice(&[0f32, 1.0, 3.0, 0.0], &[1, 2, 2], Device::Cpu)?;
    let compose = Compose::new().then(ZScore { nonzero: true })?;
    let after = compose.apply(Sample::new("masked", &masked, None)?, Seed::new(0))?;
    assert_eq!(image(&after), [0.0, -1.0, 1.0, 0.0]);
    Ok(())
}

#[test]
fn foreground_is_found() -> Result<()> {
    let mut labels = vec![0u8; 20 * 20 * 20];
    labels[(17 * 20 + 3) * 20 + 10] = 2;
    let spatial = [20, 20, 20];
    let label = Tensor::from_slice(&labels, &spatial, Device::Cpu)?;
    let image = Tensor::zeros(&[1, 20, 20, 20], DType::F32, Device::Cpu)?;
    let crop = Compose::new().then(CropOrPad::random([4, 4, 4]).foreground(1.0))?;
    for seed in 0..20 {
        let cropped = crop.apply(Sample::new("case", &image, Some(&label))?, Seed::new(seed))?;
        assert!(self::label(&cropped).contains(&2));
    }
    Ok(())
}

#[test]
fn errors_name_case_and_transform() {
    let bad = Compose::new().then(CropOrPad::centred([4])).unwrap();
    let error = bad.apply(sample(&[3, 4], 0), Seed::new(0)).unwrap_err().to_string();
    assert!(error.starts_with("case case: crop_or_pad: "), "{error}");
}

#[test]
fn attributes_are_checked_before_anything_runs() {
    fn refused(transform: impl Transform + Clone + 'static, part: &str) {
        let error = Compose::new().then(transform.clone()).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(part)), "{part}: {error:?}");
        // The check also applies without a list.
        assert!(transform.apply(sample(&[3, 4], 0), &mut Seed::new(0).random()).is_err(), "{part}");
    }
    const NAN: f64 = f64::NAN;
    for probability in [1.5, -0.1, NAN, f64::INFINITY] {
        refused(RandomNoise { probability, ..RandomNoise::default() }, "noise: transform: probability");
        refused(RandomAffine { probability, ..RandomAffine::default() }, "probability");
        refused(RandomBrightness { probability, ..RandomBrightness::default() }, "probability");
        refused(RandomContrast { probability, ..RandomContrast::default() }, "probability");
        refused(RandomGamma { probability, ..RandomGamma::default() }, "probability");
        refused(Flip::new([probability, 0.5]), "probability");
        refused(CropOrPad::random([2, 2]).foreground(probability), "probability");
    }
    for range in [(1.0, 0.0), (NAN, 1.0), (0.0, NAN), (f64::NEG_INFINITY, 0.0), (0.0, f64::INFINITY), (0.0, f64::MAX)] {
        refused(RandomNoise { deviation: range, ..RandomNoise::default() }, "deviation");
        refused(RandomAffine { degrees: range, ..RandomAffine::default() }, "degrees");
        refused(RandomAffine { scale: range, ..RandomAffine::default() }, "scale");
        refused(RandomAffine { translation: range, ..RandomAffine::default() }, "translation");
        refused(RandomBrightness { factor: range, ..RandomBrightness::default() }, "factor");
        refused(RandomContrast { factor: range, ..RandomContrast::default() }, "factor");
        refused(RandomGamma { exponent: range, ..RandomGamma::default() }, "exponent");
    }
    refused(RandomNoise { deviation: (-1.0, 1.0), ..RandomNoise::default() }, "deviation");
    refused(RandomAffine { scale: (0.0, 1.0), ..RandomAffine::default() }, "scale");
    refused(RandomGamma { exponent: (0.0, 1.0), ..RandomGamma::default() }, "exponent");
    for size in [vec![], vec![3, 0], vec![1, 1, 1, 1]] {
        refused(CropOrPad::centred(size), "size");
    }
    refused(Flip::new([]), "0 probabilities");
    refused(Flip::new([0.5; 4]), "4 probabilities");
    // A size too large for any memory is an error on application.
    let large = Compose::new().then(CropOrPad::centred([usize::MAX, 3])).unwrap();
    assert!(large.apply(sample(&[3, 4], 0), Seed::new(0)).is_err());
}

/// A single-channel sample whose voxel [0, 1] is `value`.
fn odd(value: f32) -> Sample {
    let image = Tensor::from_slice(&[1.0, value, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], &[1, 3, 3], Device::Cpu).unwrap();
    Sample::new("odd", &image, None).unwrap()
}

#[test]
fn what_is_no_number_has_no_statistic() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let refused = |transform: Compose| {
            let error = transform.apply(odd(value), Seed::new(0)).unwrap_err().to_string();
            assert!(error.starts_with("case odd: ") && error.contains("at voxel [0, 1] of channel 0"), "{error}");
        };
        refused(Compose::new().then(ZScore::default()).unwrap());
        refused(Compose::new().then(ZScore { nonzero: true }).unwrap());
        refused(Compose::new().then(RandomContrast { probability: 1.0, ..RandomContrast::default() }).unwrap());
        refused(Compose::new().then(RandomGamma { probability: 1.0, ..RandomGamma::default() }).unwrap());
    }
    // If the range overflows f32, every voxel would become NaN.
    let gamma = Compose::new().then(RandomGamma { probability: 1.0, ..RandomGamma::default() }).unwrap();
    let image = Tensor::from_slice(&[-3e38f32, 0.0, 3e38], &[1, 3], Device::Cpu).unwrap();
    assert!(gamma.apply(Sample::new("wide", &image, None).unwrap(), Seed::new(0)).is_err());
}

#[test]
fn arithmetic_passes_on_what_is_no_number() -> Result<()> {
    let still = RandomAffine { probability: 1.0, degrees: (0.0, 0.0), scale: (1.0, 1.0), ..RandomAffine::default() };
    let all = Compose::new()
        .then(RandomNoise { probability: 1.0, ..RandomNoise::default() })?
        .then(RandomBrightness { probability: 1.0, ..RandomBrightness::default() })?
        .then(still)?
        .then(CropOrPad::centred([3, 3]))?;
    for value in [f32::NAN, f32::INFINITY] {
        let found = image(&all.apply(odd(value), Seed::new(0))?);
        // Only the voxel itself is affected, with interpolation too.
        assert_eq!(found.iter().map(|v| v.is_finite()).collect::<Vec<_>>(), (0..9).map(|i| i != 1).collect::<Vec<_>>());
        assert_eq!(found[1].is_nan(), value.is_nan());
    }
    Ok(())
}

#[test]
fn two_of_one_kind_draw_differently() -> Result<()> {
    let noise = || RandomNoise { probability: 1.0, deviation: (1.0, 1.0) };
    let black = || Sample::new("case", &Tensor::zeros(&[1, 4, 4], DType::F32, Device::Cpu)?, None);
    let once = image(&Compose::new().then(noise())?.apply(black()?, Seed::new(3))?);
    let twice = image(&Compose::new().then(noise())?.then(noise())?.apply(black()?, Seed::new(3))?);
    assert!(once.iter().zip(&twice).all(|(a, b)| *b != 2.0 * a));
    // A transform between them doesn't change their random numbers.
    let flat = Flip::new([0.0, 0.0]);
    assert_eq!(twice, image(&Compose::new().then(noise())?.then(flat)?.then(noise())?.apply(black()?, Seed::new(3))?));
    Ok(())
}
