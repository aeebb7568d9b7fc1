use serde_json::Value;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_io::{Interpolation, Volume, geometry};

use super::{restore::Restore, *};

const NAMES: [&str; 3] = ["background", "a", "b"];

fn preparation() -> Preparation {
    Preparation::new([8, 8, 8], NAMES).unwrap()
}

/// All fields set, with numbers that have no short decimal form.
fn full() -> Preparation {
    let ct = Intensity {
        clip: Some(Clip::Window { low: -1024.0 / 3.0, high: 0.1 + 0.2 }),
        normalisation: Some(Normalisation::Stored { mean: 1e-7 / 3.0, deviation: 123.456_789_012_345_67 }),
    };
    let percentiles = Clip::Percentiles { low: 0.5, high: 200.0 / 3.0, nonzero: true };
    let mr = Intensity { clip: Some(percentiles), normalisation: None };
    preparation()
        .channels([
            Channel::new("t1", "MR"),
            Channel::new("ct", "CT").intensity(ct),
            Channel::new("t2", "").intensity(mr),
        ])
        .and_then(|p| p.label_values(&[0, 205, 65535])?.orientation("lps")?.spacing([0.1 + 0.2, 1.0 / 3.0, 5.0]))
        .and_then(|p| p.interpolation(Interpolation::Nearest).mirroring(true).overlap(1.0 / 3.0))
        .and_then(|p| {
            let steps = [Postprocess::LargestComponent { class: 1 }, Postprocess::FillHoles { class: 2 }];
            p.activation(Activation::Sigmoid).postprocessing(steps)
        })
        .unwrap()
}

#[test]
fn json_comes_back_to_the_bit() {
    for original in [preparation(), full()] {
        let json = original.to_json().unwrap();
        let read = Preparation::from_json(&json).unwrap();
        assert_eq!(read, original);
        assert_eq!(read.to_json().unwrap(), json);
        // Also through `serde_json::Value`, as a model stores it.
        let value = serde_json::to_value(&original).unwrap();
        assert_eq!(Preparation::from_json(&value.to_string()).unwrap(), original);
    }
    assert_eq!(full().orientation.as_deref(), Some("LPS"));
}

#[test]
fn other_json_is_refused_with_the_reason() {
    let value = || serde_json::to_value(full()).unwrap();
    let refused = |value: &Value, parts: &[&str]| {
        let error = Preparation::from_json(&value.to_string()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    };
    for version in [Value::from(2), Value::from("1"), Value::Null] {
        let mut other = value();
        other["version"] = version.clone();
        // The version is checked before unknown keys of a later version.
        other["cascade"] = Value::from(1);
        refused(&other, &[&format!("version {version}"), "expected version 1"]);
    }
    let mut none = value();
    none.as_object_mut().unwrap().remove("version");
    refused(&none, &["version none"]);
    type Place = fn(&mut Value) -> &mut Value;
    let places: [Place; 5] = [
        |v| v,
        |v| &mut v["channels"][0],
        |v| &mut v["channels"][1]["intensity"],
        |v| &mut v["channels"][1]["intensity"]["clip"]["window"],
        |v| &mut v["classes"][2],
    ];
    for place in places {
        let mut other = value();
        place(&mut other)["spacng"] = Value::from(1);
        refused(&other, &["unknown field `spacng`"]);
    }
    for (key, wrong, part) in [
        ("overlap", Value::from(1.0), "overlap 1"),
        ("overlap", Value::Null, "null"),
        ("patch", Value::from(vec![8, 0, 8]), "patch (8, 0, 8)"),
        ("orientation", Value::from("RAX"), "\"RAX\" names no orientation"),
        ("spacing", Value::from(vec![1.0, -1.0, 1.0]), "a spacing of"),
        ("activation", Value::from("tanh"), "tanh"),
    ] {
        let mut other = value();
        other[key] = wrong;
        refused(&other, &[part]);
    }
    let mut lacking = value();
    lacking.as_object_mut().unwrap().remove("patch");
    refused(&lacking, &["missing field `patch`"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |made: Result<Preparation>, part: &str| {
        let error = made.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("expected"), "{part}: {error}");
    };
    refused(Preparation::new([8], NAMES), "a patch of 1 axes");
    refused(Preparation::new([8; 4], NAMES), "a patch of 4 axes");
    refused(Preparation::new([8; 3], ["background"]), "1 classes");
    refused(Preparation::new([8; 3], (0..257).map(|i| i.to_string())), "257 classes");
    refused(Preparation::new([8; 3], ["a", "b", "a"]), "called \"a\"");
    refused(preparation().label_values(&[0, 1]), "2 label values");
    refused(preparation().label_values(&[0, 1, 1]), "value 1");
    refused(preparation().channels([]), "no channels");
    refused(preparation().channels([Channel::new("t1", "MR"), Channel::new("t1", "CT")]), "called \"t1\"");
    refused(preparation().orientation("RAL"), "\"RAL\"");
    for step in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-7] {
        refused(preparation().spacing([1.0, step, 1.0]), "a spacing of");
    }
    for class in [0, 3] {
        refused(preparation().postprocessing([Postprocess::FillHoles { class }]), &format!("class {class}"));
    }
    let with = |clip, normalisation| {
        preparation().channels([Channel::new("ct", "CT").intensity(Intensity { clip, normalisation })])
    };
    for (low, high) in [(1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (2.0, 1.0)] {
        refused(with(Some(Clip::Window { low, high }), None), "channel ct: ");
        refused(with(Some(Clip::Percentiles { low, high, nonzero: false }), None), "channel ct: ");
    }
    for (mean, deviation) in [(0.0, 0.0), (f64::NAN, 1.0), (0.0, -1.0), (0.0, 1e-31), (1e39, 1.0)] {
        refused(with(None, Some(Normalisation::Stored { mean, deviation })), "standard deviation");
    }
    // A field that was changed directly is checked before use.
    let mut changed = preparation();
    changed.overlap = 2.0;
    assert!(changed.to_json().is_err() && changed.image(&volume(&[8, 8, 8])).is_err());
}

fn volume(shape: &[usize]) -> Volume {
    let voxels = Tensor::normal(shape, 3.0, 2.0, Seed::new(5), DType::F32, Device::Cpu).unwrap();
    Volume::new(voxels, geometry::from_orientation("RAS").unwrap()).unwrap()
}

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/preparation.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn masks_are_processed_as_scipy_does() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let digits = |key: &str| case[key].as_str().unwrap().bytes().map(|digit| digit - b'0').collect::<Vec<u8>>();
        let shape: Vec<usize> = numbers(&case["shape"]).into_iter().map(|size| size as usize).collect();
        let shape = <[usize; 3]>::try_from(shape).unwrap();
        for (key, step) in
            [("largest", Postprocess::LargestComponent { class: 1 }), ("filled", Postprocess::FillHoles { class: 1 })]
        {
            let mut mask = digits("mask");
            step.apply(&mut mask, shape, shape[0] == 1);
            assert_eq!(mask, digits(key), "{key} of {shape:?}");
        }
    }
    // Of two equal components the first is kept; a missing class changes nothing.
    let mut mask = [1, 0, 1, 2];
    Postprocess::LargestComponent { class: 1 }.apply(&mut mask, [1, 1, 4], false);
    assert_eq!(mask, [1, 0, 0, 2]);
    Postprocess::LargestComponent { class: 3 }.apply(&mut mask, [1, 1, 4], false);
    assert_eq!(mask, [1, 0, 0, 2]);
}

/// The values of a single-channel image after this preprocessing.
fn changed(values: &[f32], intensity: Intensity) -> Result<Vec<f32>> {
    let channel = Channel::new("image", "").intensity(intensity);
    let preparation = Preparation::new([1, 1, 1], ["background", "a"])?.channels([channel])?;
    let voxels = Tensor::from_slice(values, &[1, 1, values.len()], Device::Cpu)?;
    preparation.image(&Volume::new(voxels, geometry::from_orientation("RAS")?)?)?.to_vec::<f32>()
}

#[test]
fn intensities_change_as_by_hand() -> Result<()> {
    let golden = golden();
    let (percents, expected) = (numbers(&golden["percents"]), numbers(&golden["percentiles"]));
    let values: Vec<f32> = (0..101).map(|i| ((37 * i % 101) as f32).powi(2)).collect();
    for i in 0..percents.len() - 1 {
        let (low, high) = (percents[i], percents[i + 1]);
        let clip = Some(Clip::Percentiles { low, high, nonzero: false });
        let found = changed(&values, Intensity { clip, normalisation: None })?;
        let [low, high] = [expected[i], expected[i + 1]].map(|bound| bound as f32);
        assert_eq!(found, values.iter().map(|value| value.clamp(low, high)).collect::<Vec<_>>());
    }
    // Quartiles of 1, 2, 3, 4: 1.75 and 3.25.
    let clip = Some(Clip::Percentiles { low: 25.0, high: 75.0, nonzero: true });
    let found = changed(&[0.0, 4.0, 2.0, 0.0, 1.0, 3.0], Intensity { clip, normalisation: None })?;
    assert_eq!(found, [0.0, 3.25, 2.0, 0.0, 1.75, 3.0]);
    // All 0: there is nothing to clip.
    assert_eq!(changed(&[0.0; 3], Intensity { clip, normalisation: None })?, [0.0; 3]);

    let clip = Some(Clip::Window { low: -100.0, high: 300.0 });
    let normalisation = Some(Normalisation::Stored { mean: 100.0, deviation: 50.0 });
    assert_eq!(changed(&[-1000.0, 0.0, 150.0, 3000.0], Intensity { clip, normalisation })?, [-4.0, -2.0, 1.0, 4.0]);
    // Mean 2, standard deviation 1.
    let normalisation = Some(Normalisation::ZScore { nonzero: true });
    assert_eq!(changed(&[0.0, 1.0, 3.0, 0.0], Intensity { clip: None, normalisation })?, [0.0, -1.0, 1.0, 0.0]);
    assert_eq!(changed(&[0.0, 1.5], Intensity::default())?, [0.0, 1.5]);
    let normalisation = Some(Normalisation::Stored { mean: 0.0, deviation: 1e-30 });
    let error = changed(&[1e30, 0.0], Intensity { clip: None, normalisation }).unwrap_err().to_string();
    assert!(error.contains("channel image: ") && error.contains("f32's range"), "{error}");
    Ok(())
}

#[test]
fn volumes_that_do_not_fit_are_refused() {
    let refused = |preparation: &Preparation, volume: &Volume, parts: &[&str]| {
        let error = preparation.image(volume).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
        let error = preparation.segment(volume, |_| panic!("nothing to predict")).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{parts:?}: {error}");
    };
    let two = preparation().channels([Channel::new("t1", "MR"), Channel::new("t2", "MR")]).unwrap();
    refused(&two, &volume(&[4, 4, 4]), &["an image of 1 channels", "expected 2", "t1, t2"]);
    refused(&preparation(), &volume(&[2, 4, 4, 4]), &["an image of 2 channels", "expected 1"]);
    refused(&preparation(), &volume(&[1, 4, 4]), &["a single plane", "three axes"]);
    let flat = Preparation::new([8, 8], NAMES).unwrap();
    refused(&flat, &volume(&[4, 4, 4]), &["several planes", "two axes"]);
    for odd in [f32::NAN, f32::INFINITY] {
        let mut voxels = volume(&[3, 4, 5]).voxels().clone();
        voxels.as_mut_slice::<f32>().unwrap()[(2 * 4 + 1) * 5 + 3] = odd;
        // The voxel index is that of the file, whatever the network's orientation.
        let volume = Volume::new(voxels, geometry::from_orientation("LPI").unwrap()).unwrap();
        let turned = preparation().orientation("SAR").unwrap();
        refused(&turned, &volume, &[&format!("{odd} at voxel [2, 1, 3] of channel 0")]);
    }
}

/// Logits of three classes that are functions of the patch: x, −x, and a third of x².
fn function(patches: &Tensor) -> Result<Tensor> {
    let values = patches.to_vec::<f32>()?;
    let size = patches.shape()[2..].iter().product::<usize>();
    let maps: [fn(f32) -> f32; 3] = [|x| x, |x| -x, |x| x * x / 3.0];
    let logits: Vec<f32> = values
        .chunks_exact(size)
        .flat_map(|patch| maps.into_iter().flat_map(|map| patch.iter().map(move |x| map(*x))))
        .collect();
    let mut shape = patches.shape().to_vec();
    shape[1] = 3;
    Tensor::from_slice(&logits, &shape, Device::Cpu)
}

#[test]
fn all_turns_of_an_image_give_its_mask() -> Result<()> {
    let original = volume(&[9, 12, 10]);
    let steps = [Postprocess::LargestComponent { class: 1 }, Postprocess::FillHoles { class: 2 }];
    for preparation in [
        preparation().orientation("RAS")?.postprocessing(steps)?,
        preparation().orientation("PIL")?.label_values(&[3, 500, 7])?,
        preparation().orientation("RAS")?.spacing([1.3, 0.8, 1.0])?,
    ] {
        let mask = preparation.segment(&original, function)?;
        assert_eq!((mask.voxels().shape(), mask.affine()), (original.voxels().shape(), original.affine()));
        let values = mask.voxels().to_vec_f64()?;
        for class in &preparation.classes {
            assert!(values.contains(&f64::from(class.value)), "{class:?} occurs");
        }
        for order in ["RAS", "RSA", "ARS", "ASR", "SRA", "SAR"] {
            for flips in 0..8 {
                let other = |letter: char| match letter {
                    'R' => 'L',
                    'A' => 'P',
                    _ => 'I',
                };
                let codes: String =
                    order.chars().enumerate().map(|(i, c)| if flips >> i & 1 == 1 { other(c) } else { c }).collect();
                let turned = original.reorient(&codes)?;
                let found = preparation.segment(&turned, function)?;
                assert_eq!((found.voxels().shape(), found.affine()), (turned.voxels().shape(), turned.affine()));
                assert_eq!(found.reorient("RAS")?.voxels().to_vec_f64()?, values, "{codes}");
            }
        }
    }
    // Without an orientation, the axes of the file are used.
    let turned = original.reorient("PIL")?;
    let found = preparation().segment(&turned, function)?;
    assert_eq!((found.voxels().shape(), found.affine()), (turned.voxels().shape(), turned.affine()));
    Ok(())
}

#[test]
fn an_axis_at_45_degrees_is_turned_back_too() -> Result<()> {
    // Two axes are equally close to right and anterior.
    let half = 0.5f64.sqrt();
    let affine = [[half, -half, 0.0, 1.0], [half, half, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
    let original = Volume::new(volume(&[9, 12, 10]).voxels().clone(), affine)?;
    // Without windows and statistics, the label of a voxel depends on that voxel only.
    let plain = Channel::new("image", "").intensity(Intensity::default());
    let mut preparation = Preparation::new([64; 3], NAMES)?.channels([plain])?;
    let mask = preparation.segment(&original, function)?.voxels().to_vec::<u8>()?;
    for codes in ["RAS", "LPS", "SAR", "ARI"] {
        preparation = preparation.orientation(codes)?;
        assert_eq!(preparation.segment(&original, function)?.voxels().to_vec::<u8>()?, mask, "{codes}");
    }
    Ok(())
}

#[test]
fn logits_come_back_as_volumes_are_resampled() -> Result<()> {
    let original = Volume::new(
        Tensor::zeros(&[9, 12, 10], DType::F32, Device::Cpu)?,
        [[0.7, 0.0, 0.0, 5.0], [0.0, 1.3, 0.0, -3.0], [0.0, 0.0, 2.1, 1.0], [0.0, 0.0, 0.0, 1.0]],
    )?;
    for spacing in [[1.0; 3], [0.7, 1.3, 4.0], [0.3, 9.0, 2.0], [100.0; 3]] {
        let resampled = original.resample(spacing, Interpolation::Linear)?;
        let &[depth, height, width] = resampled.voxels().shape() else { unreachable!() };
        let logits = Tensor::normal(&[4, depth, height, width], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
        let expected =
            Volume::new(logits.clone(), *resampled.affine())?.resample_to(&original, Interpolation::Linear)?;
        let expected = expected.voxels().to_vec::<f32>()?;
        let zyx = |[x, y, z]: [f64; 3]| [z, y, x];
        let from = ([depth, height, width], zyx(resampled.spacing()));
        let mut restore = Restore::new(4, from, ([9, 12, 10], zyx(original.spacing())))?;
        let (mut planes, mut worst) = (0, 0.0f32);
        for z in 0..depth {
            let plane = logits.narrow(1, z, 1)?.contiguous()?;
            restore.take(z, plane.as_slice::<f32>()?, &mut |at, found: &mut [f32]| {
                assert_eq!(at, planes);
                planes += 1;
                for (map, found) in found.chunks_exact(120).enumerate() {
                    let expected = &expected[(map * 9 + at) * 120..][..120];
                    worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
                }
            })?;
        }
        assert_eq!(planes, 9, "{spacing:?}");
        // Logits up to 4, interpolated in f32 by the code and in f64 here.
        assert!(worst < 4e-6, "{spacing:?}: {worst}");
    }
    Ok(())
}

#[test]
fn independent_maps_are_decided_at_a_half() -> Result<()> {
    // Two foreground classes; each voxel has a logit of both.
    let logits = [[-1.0f32, 0.0, 2.0, 1.0, 3.0, -0.5], [-2.0, 0.0, 1.0, 1.0, 4.0, 0.25]];
    let image = Tensor::zeros(&[1, 1, 1, 6], DType::F32, Device::Cpu)?;
    let predict = |maps: usize| {
        move |patches: &Tensor| {
            let maps = logits[..maps].concat();
            Tensor::from_slice(&maps, &[1, maps.len() / 6, 1, 1, 6], patches.device())
        }
    };
    let independent = Preparation::new([1, 1, 6], NAMES)?.activation(Activation::Sigmoid);
    assert_eq!(independent.maps(), 2);
    assert_eq!(independent.labels(&image, predict(2))?.to_vec::<u8>()?, [0, 0, 1, 1, 2, 2]);
    let single = Preparation::new([1, 1, 6], ["background", "a"])?.activation(Activation::Sigmoid);
    assert_eq!(single.labels(&image, predict(1))?.to_vec::<u8>()?, [0, 0, 1, 1, 1, 0]);
    let softmax = Preparation::new([1, 1, 6], ["background", "a"])?;
    assert_eq!(softmax.labels(&image, predict(2))?.to_vec::<u8>()?, [0, 0, 0, 0, 1, 1]);
    let error = softmax.labels(&image, predict(1)).unwrap_err().to_string();
    assert!(error.contains("logits of 1 maps") && error.contains("expected 2"), "{error}");
    Ok(())
}

#[test]
fn label_values_become_class_numbers_and_come_back() -> Result<()> {
    let preparation = preparation().label_values(&[7, 0, 300])?.orientation("RAS")?.spacing([2.0, 1.0, 1.0])?;
    let plane = [7i32, 7, 0, 0, 300, 300, 7, 7];
    let values = Tensor::from_slice(&[plane, plane].concat(), &[2, 2, 4], Device::Cpu)?;
    let label = Volume::new(values, geometry::from_orientation("LAS")?)?;
    // Mirrored along x; halfway between two voxels, the one with the larger index is taken.
    assert_eq!(preparation.label(&label)?.to_vec::<u8>()?, [1, 0, 0, 2, 1, 0, 0, 2]);
    let other = [7, 7, 0, 0, 300, 301, 7, 7];
    let values = Tensor::from_slice(&[plane, other].concat(), &[2, 2, 4], Device::Cpu)?;
    let error = preparation.label(&Volume::new(values, *label.affine())?).unwrap_err().to_string();
    assert!(error.contains("value 301 at voxel [1, 1, 1]") && error.contains("300 (b)"), "{error}");
    Ok(())
}

#[test]
fn a_picture_is_a_volume_of_one_plane() -> Result<()> {
    let affine = [[0.5, 0.0, 0.0, 5.0], [0.0, 1.5, 0.0, -3.0], [0.0, 0.0, 7.0, 1.0], [0.0, 0.0, 0.0, 1.0]];
    let picture = Volume::new(volume(&[1, 12, 10]).voxels().clone(), affine)?;
    // The spacing between planes is ignored.
    for spacing in [None, Some([0.5, 1.5, 1.0]), Some([1.0; 3])] {
        let mut preparation = Preparation::new([8, 8], NAMES)?;
        preparation.spacing = spacing;
        let image = preparation.image(&picture)?;
        let size = if spacing == Some([1.0; 3]) { [1, 18, 5] } else { [1, 12, 10] };
        assert_eq!(image.shape(), size);
        let mask = preparation.segment(&picture, function)?;
        assert_eq!((mask.voxels().shape(), mask.affine()), (picture.voxels().shape(), picture.affine()));
        assert_eq!(preparation.label(&mask)?.shape(), &size[1..]);
        assert_eq!(preparation.labels(&image, function)?.shape(), &size[1..]);
    }
    Ok(())
}
