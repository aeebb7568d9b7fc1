//! Transforms move all fields of a sample consistently.

use proptest::prelude::*;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::geometry;

use super::*;
use crate::{Boxes, Field, Points};

/// A sample with every kind of field: a bright ball around a point on a dark image, its label, and its bounding box.
fn ball(shape: [usize; 3], centre: [usize; 3]) -> Result<Sample> {
    let count = shape.iter().product::<usize>();
    let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
    let square = |i: usize| (0..3).map(|a| (place(i)[a] as f32 - centre[a] as f32).powi(2)).sum::<f32>();
    let bright: Vec<f32> = (0..count).map(|i| (-square(i) / 4.0).exp()).collect();
    let mask: Vec<u8> = (0..count).map(|i| u8::from(square(i) <= 4.0)).collect();
    let whole = |bright: &[f32]| Tensor::from_slice(bright, &[&[1], &shape[..]].concat(), Device::Cpu);
    let inside: Vec<[usize; 3]> = (0..count).filter(|&i| mask[i] > 0).map(place).collect();
    let low: [f64; 3] = std::array::from_fn(|a| inside.iter().map(|v| v[a]).min().unwrap_or(0) as f64);
    let high: [f64; 3] = std::array::from_fn(|a| inside.iter().map(|v| v[a] + 1).max().unwrap_or(1) as f64);
    let ramp: Vec<f32> = (0..count).map(|i| i as f32).collect();
    Sample::new("ball", &whole(&bright)?, Some(&Tensor::from_slice(&mask, &shape, Device::Cpu)?))?
        .with("ramp", Field::Image(whole(&ramp)?))?
        .with("box", Field::Boxes(Boxes::new(&[(low, high)], &[5])?))?
        .with("point", Field::Points(Points::new(&[centre.map(|x| x as f64)])?))?
        .with("class", Field::Class(3))?
        .with("labels", Field::Labels(vec![true]))?
        .with("numbers", Field::Numbers(vec![2.5]))
}

fn point(sample: &Sample) -> Vec<f64> {
    match sample.get("point") {
        Ok(Field::Points(points)) => points.coordinates().unwrap().to_vec_f64().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn boxes(sample: &Sample) -> (Vec<f64>, Vec<i64>) {
    match sample.get("box") {
        Ok(Field::Boxes(boxes)) => (boxes.corners().unwrap().to_vec_f64().unwrap(), boxes.classes().to_vec()),
        other => panic!("{other:?}"),
    }
}

/// The values of a field as text.
fn text(field: &Field) -> String {
    match field {
        Field::Image(tensor) | Field::Label(tensor) => {
            format!("{:?} {:?}", tensor.shape(), tensor.to_vec_f64().unwrap())
        }
        other => format!("{other:?}"),
    }
}

/// The invariants of a moved ball: its point is on its brightest voxel, and its box is that of the remaining label, up to
/// `slack` voxels.
fn holds_together(sample: &Sample, slack: f64) -> std::result::Result<(), TestCaseError> {
    let shape: [usize; 3] = sample.label().unwrap().shape().try_into().unwrap();
    let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
    let at = point(sample);
    let voxel: Vec<f64> = at.iter().map(|x| x.round()).collect();
    let image = sample.get("image").unwrap().tensor().unwrap().to_vec_f64().unwrap();
    if (0..3).all(|a| voxel[a] >= 1.0 && voxel[a] + 1.0 < shape[a] as f64) {
        let index = (0..3).fold(0, |index, a| index * shape[a] + voxel[a] as usize);
        let most = image.iter().copied().fold(0.0, f64::max);
        let brightest = image.iter().position(|&value| value == most).map(place).unwrap();
        // Between two voxels, either may be the brighter one.
        prop_assert!((0..3).all(|a| (brightest[a] as f64 - at[a]).abs() <= 1.25), "{brightest:?} {at:?}");
        prop_assert!(image[index] > 0.75 * most && most > 0.5, "{} of {most}", image[index]);
    }
    let mask = sample.label().unwrap().to_vec::<u8>().unwrap();
    let voxels: Vec<[usize; 3]> = (0..mask.len()).filter(|&i| mask[i] > 0).map(place).collect();
    let (corners, classes) = boxes(sample);
    prop_assert_eq!(corners.len(), 6 * classes.len());
    if corners.is_empty() {
        prop_assert!(voxels.is_empty());
        return Ok(());
    }
    for axis in 0..3 {
        let (low, high) = (corners[axis], corners[3 + axis]);
        prop_assert!(0.0 <= low && low < high && high <= shape[axis] as f64);
        for voxel in &voxels {
            let centre = voxel[axis] as f64 + 0.5;
            prop_assert!(low - 1e-3 <= centre && centre <= high + 1e-3, "{voxel:?} of {corners:?}");
        }
        let extent = |f: fn(f64, f64) -> f64, start| voxels.iter().map(|v| v[axis] as f64).fold(start, f);
        if !voxels.is_empty() {
            prop_assert!(extent(f64::min, f64::INFINITY) - low <= slack);
            prop_assert!(high - 1.0 - extent(f64::max, f64::NEG_INFINITY) <= slack);
        }
    }
    Ok(())
}

fn places() -> impl Strategy<Value = ([usize; 3], [usize; 3])> {
    ([9usize..16, 9usize..16, 9usize..16]).prop_flat_map(|shape| {
        let centre = shape.map(|size| 2..size - 2);
        (Just(shape), centre)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_flips_are_none_for_all_kinds((shape, centre) in places(), seed: u64) {
        let before = ball(shape, centre).unwrap();
        let flip = Compose::new().then(Flip::default()).unwrap();
        let once = flip.apply(before.clone(), Seed::new(seed)).unwrap();
        holds_together(&once, 0.0)?;
        let twice = flip.apply(once, Seed::new(seed)).unwrap();
        for ((name, a), (other, b)) in before.fields().zip(twice.fields()) {
            prop_assert_eq!((name, text(a)), (other, text(b)));
        }
    }

    #[test]
    fn a_window_takes_all_kinds_along((shape, centre) in places(), seed: u64, size in [3usize..20, 3usize..20, 3usize..20]) {
        let crop = Compose::new().then(CropOrPad::random(size)).unwrap();
        let cut = crop.apply(ball(shape, centre).unwrap(), Seed::new(seed)).unwrap();
        holds_together(&cut, f64::INFINITY)?;
    }

    #[test]
    fn an_affine_map_takes_all_kinds_along((shape, centre) in places(), seed: u64, spacing in [0.8f64..1.25, 0.8f64..1.25, 0.8f64..1.25]) {
        let affine = RandomAffine {
            probability: 1.0,
            degrees: (-180.0, 180.0),
            scale: (0.9, 1.1),
            translation: (-2.0, 2.0),
        };
        let all = Compose::new().then(affine).unwrap().then(Flip::default()).unwrap();
        let place = geometry::from_spacing([spacing[2], spacing[1], spacing[0]]).unwrap();
        let sample = ball(shape, centre).unwrap().with_spacing(&spacing).unwrap().with_affine(&place).unwrap();
        let after = all.clone().then(CropOrPad::random([7, 8, 9])).unwrap().apply(sample.clone(), Seed::new(seed)).unwrap();
        // The world coordinates of the point don't change.
        let world = |sample: &Sample| {
            let at = point(sample);
            geometry::apply(sample.affine().unwrap(), [at[2], at[1], at[0]])
        };
        prop_assert!(world(&sample).iter().zip(world(&after)).all(|(a, b)| (a - b).abs() < 1e-4));
        holds_together(&all.apply(sample, Seed::new(seed)).unwrap(), f64::INFINITY)?;
    }
}

#[test]
fn two_images_share_the_map_and_the_window() -> Result<()> {
    let sample = ball([12, 13, 14], [6, 6, 6])?;
    let twin = sample.get("image")?.clone();
    let sample = sample.with("twin", twin)?;
    let all = Compose::new()
        .then(RandomAffine { probability: 1.0, ..RandomAffine::default() })?
        .then(CropOrPad::random([8; 3]))?
        .then(Flip::default())?;
    let after = all.apply(sample, Seed::new(4))?;
    assert_eq!(text(after.get("image")?), text(after.get("twin")?));
    assert_ne!(text(after.get("image")?), text(after.get("ramp")?));
    Ok(())
}

#[test]
fn a_box_outside_of_the_window_is_dropped_with_its_class() -> Result<()> {
    let edges = [([0.0, 0.0], [2.0, 2.0]), ([3.5, 3.0], [9.0, 6.25]), ([0.0, 0.0], [3.0, 9.0])];
    let image = Tensor::zeros(&[1, 9, 9], DType::F32, Device::Cpu)?;
    let sample = Sample::new("case", &image, None)?.with("box", Field::Boxes(Boxes::new(&edges, &[1, 2, 3])?))?;
    let cut = Compose::new().then(CropOrPad::centred([3, 3]))?.apply(sample, Seed::new(0))?;
    assert_eq!(boxes(&cut), (vec![0.5, 0.0, 3.0, 3.0], vec![2]));
    Ok(())
}

/// The effects are those of the table: kept fields stay equal bit for bit, others change.
#[test]
fn transforms_do_what_they_say() -> Result<()> {
    let affine = RandomAffine { probability: 1.0, degrees: (20.0, 20.0), ..RandomAffine::default() };
    let transforms: Vec<Box<dyn Transform>> = vec![
        Box::new(affine),
        Box::new(CropOrPad::centred([6, 6, 6])),
        Box::new(Flip::new([1.0; 3])),
        Box::new(ZScore::default()),
        Box::new(RandomNoise { probability: 1.0, deviation: (0.1, 0.2) }),
        Box::new(RandomBrightness { probability: 1.0, factor: (0.5, 0.6) }),
        Box::new(RandomContrast { probability: 1.0, factor: (0.5, 0.6) }),
        Box::new(RandomGamma { probability: 1.0, exponent: (1.5, 1.6), keep_moments: false }),
        Box::new(OnImages::new(["image", "ramp"], ZScore::default())),
    ];
    let before = ball([10, 10, 10], [3, 4, 5])?;
    for transform in transforms {
        let after = transform.apply(before.clone(), &mut Seed::new(1).random())?;
        for ((name, a), (other, b)) in before.fields().zip(after.fields()) {
            assert_eq!(name, other);
            let kept = transform.effect(a.kind()) == Effect::Kept;
            assert_eq!(text(a) == text(b), kept, "{}: {name}", transform.name());
            assert_ne!(transform.effect(a.kind()), Effect::Other);
        }
        let key = transform.key().unwrap();
        assert!(key.contains(char::is_alphanumeric), "{key}");
    }
    Ok(())
}

#[test]
fn chosen_images_change_alone() -> Result<()> {
    let before = ball([10, 10, 10], [3, 4, 5])?.with_spacing(&[1.0, 2.0, 3.0])?;
    let noise = RandomNoise { probability: 1.0, deviation: (0.1, 0.2) };
    let after = Compose::new().then(OnImages::new(["ramp"], noise))?.apply(before.clone(), Seed::new(1))?;
    let changed: Vec<&str> = before
        .fields()
        .zip(after.fields())
        .filter(|((_, a), (_, b))| text(a) != text(b))
        .map(|((name, _), _)| name)
        .collect();
    assert_eq!((changed, after.spacing()), (vec!["ramp"], before.spacing()));
    assert_eq!(before.fields().map(|f| f.0).collect::<Vec<_>>(), after.fields().map(|f| f.0).collect::<Vec<_>>());

    let error = Compose::new().then(OnImages::new(["rump"], noise))?.apply(before.clone(), Seed::new(1));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("no image is called \"rump\"; expected one of image, ramp (nearest: ramp)")
    );
    assert!(Compose::new().then(OnImages::new(["ramp"], Flip::default())).is_err());
    assert!(Compose::new().then(OnImages::new([""; 0], noise)).is_err());
    // A sample without a grid has nothing to transform.
    let numbers = Sample::empty("n").with("x", Field::Numbers(vec![1.0]))?;
    for transform in [&Flip::default() as &dyn Transform, &noise] {
        let error = transform.apply(numbers.clone(), &mut Seed::new(1).random()).unwrap_err().to_string();
        assert!(error.contains("a sample without a grid"), "{error}");
    }
    Ok(())
}
