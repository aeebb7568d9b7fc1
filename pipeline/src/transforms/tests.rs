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
    sample.image.to_vec().unwrap()
}

fn label(sample: &Sample) -> Vec<u8> {
    sample.label.as_ref().unwrap().to_vec().unwrap()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..9, 2..=3)
}

proptest! {
    #[test]
    fn two_flips_are_none(shape in shapes(), seed: u64) {
        let before = sample(&shape, seed);
        let flip = Compose::new().then(Flip::default());
        let after = flip.apply(flip.apply(before.clone(), Seed::new(seed)).unwrap(), Seed::new(seed)).unwrap();
        prop_assert_eq!(image(&before), image(&after));
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn a_padded_sample_cropped_is_itself(shape in shapes(), more in proptest::collection::vec(0usize..5, 3)) {
        let before = sample(&shape, 1);
        let larger: Vec<usize> = shape.iter().zip(more).map(|(a, b)| a + 2 * b).collect();
        let there_and_back = Compose::new().then(CropOrPad::centred(larger)).then(CropOrPad::centred(shape));
        let after = there_and_back.apply(before.clone(), Seed::new(0)).unwrap();
        prop_assert_eq!(image(&before), image(&after));
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn the_affine_map_of_nothing_is_the_identity(shape in shapes()) {
        let before = sample(&shape, 1);
        let still = RandomAffine { probability: 1.0, degrees: (0.0, 0.0), scale: (1.0, 1.0), ..RandomAffine::default() };
        let after = Compose::new().then(still).apply(before.clone(), Seed::new(0)).unwrap();
        for (a, b) in image(&before).into_iter().zip(image(&after)) {
            prop_assert!((a - b).abs() < 1e-4);
        }
        prop_assert_eq!(label(&before), label(&after));
    }

    #[test]
    fn every_transform_takes_every_shape(shape in shapes(), seed: u64) {
        let all = Compose::new()
            .then(ZScore::default())
            .then(RandomAffine { probability: 1.0, translation: (-2.0, 2.0), ..RandomAffine::default() })
            .then(RandomNoise { probability: 1.0, ..RandomNoise::default() })
            .then(RandomBrightness { probability: 1.0, ..RandomBrightness::default() })
            .then(RandomContrast { probability: 1.0, ..RandomContrast::default() })
            .then(RandomGamma { probability: 1.0, ..RandomGamma::default() });
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
        Compose::new().then(turn).apply(Sample::new("square", &image, Some(&flat(&[1, 2, 3, 4])?))?, Seed::new(0))?;
    assert_eq!(label(&turned), [3, 1, 4, 2]);
    assert!(self::image(&turned).iter().zip([3.0, 1.0, 4.0, 2.0]).all(|(a, b)| (a - b).abs() < 1e-5));
    Ok(())
}

#[test]
fn z_score_gives_mean_0_and_deviation_1() -> Result<()> {
    let compose = Compose::new().then(ZScore::default());
    for channel in image(&compose.apply(sample(&[8, 9, 7], 3), Seed::new(0))?).chunks(8 * 9 * 7) {
        let mean = channel.iter().sum::<f32>() / channel.len() as f32;
        let variance = channel.iter().map(|v| v * v).sum::<f32>() / channel.len() as f32;
        assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "{mean} {variance}");
    }
    let masked = Tensor::from_slice(&[0f32, 1.0, 3.0, 0.0], &[1, 2, 2], Device::Cpu)?;
    let compose = Compose::new().then(ZScore { nonzero: true });
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
    let crop = Compose::new().then(CropOrPad::random([4, 4, 4]).foreground(1.0));
    for seed in 0..20 {
        let cropped = crop.apply(Sample::new("case", &image, Some(&label))?, Seed::new(seed))?;
        assert!(self::label(&cropped).contains(&2));
    }
    Ok(())
}

#[test]
fn errors_name_case_and_transform() {
    let bad = Compose::new().then(CropOrPad::centred([4]));
    let error = bad.apply(sample(&[3, 4], 0), Seed::new(0)).unwrap_err().to_string();
    assert!(error.starts_with("case case: crop_or_pad: "), "{error}");
    let bad = Compose::new().then(RandomNoise { probability: 1.5, ..RandomNoise::default() });
    assert!(bad.apply(sample(&[3, 4], 0), Seed::new(0)).is_err());
}
