//! A loader gives the same batches whatever the timing, and errors instead of panics.

use std::{sync::Arc, thread::sleep, time::Duration};

use tomograd_core::{DType, Device, ErrorKind, Random, Result, Seed, Tensor};
use tomograd_pipeline::{
    Batch, Cases, Loader, Sample,
    transforms::{Compose, Flip, RandomNoise, Transform},
};

fn cases(count: usize) -> Arc<Vec<Sample>> {
    let case = |i: usize| {
        let image = Tensor::full(&[1, 3, 4, 5], i as f64, DType::F32, Device::Cpu)?;
        let label = Tensor::full(&[3, 4, 5], i as f64, DType::U8, Device::Cpu)?;
        Sample::new(format!("case_{i}"), &image, Some(&label))
    };
    Arc::new((0..count).map(case).collect::<Result<_>>().unwrap())
}

fn loader(count: usize) -> Loader {
    let noise = RandomNoise { probability: 1.0, ..RandomNoise::default() };
    let transforms = Compose::new().then(Flip::default()).then(noise);
    Loader::new(cases(count), 3, Seed::new(11)).unwrap().transforms(transforms)
}

fn contents(batches: impl Iterator<Item = Result<Batch>>) -> Vec<(Vec<String>, Vec<f32>, Vec<i64>)> {
    batches
        .map(|batch| {
            let batch = batch.unwrap();
            (batch.names, batch.image.to_vec().unwrap(), batch.label.to_vec().unwrap())
        })
        .collect()
}

#[test]
fn the_pace_of_the_consumer_changes_nothing() {
    let loader = loader(10);
    let fast = contents(loader.epoch(4));
    let slow = contents(loader.epoch(4).inspect(|_| sleep(Duration::from_millis(5))));
    assert_eq!(fast, slow);
    assert_eq!(fast.len(), loader.steps());
    let mut names: Vec<&String> = fast.iter().flat_map(|batch| &batch.0).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10);
    assert_ne!(fast, contents(loader.epoch(5)));
    assert_eq!(loader.clone().drop_last().epoch(4).count(), 3);
}

#[test]
fn a_resumed_epoch_is_the_rest_of_it() {
    let loader = loader(10);
    let whole = contents(loader.epoch(2));
    for step in 0..=5 {
        assert_eq!(contents(loader.resume(2, step)), whole[step.min(4)..]);
    }
}

#[test]
fn an_epoch_can_be_dropped_early() {
    let mut epoch = loader(100).epoch(0);
    assert!(epoch.next().is_some());
}

struct Broken(bool);

impl Transform for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn apply(&self, sample: Sample, _: &mut Random) -> Result<Sample> {
        if sample.name == "case_4" {
            assert!(!self.0, "a panic in a transform");
            return Err(tomograd_core::Error::argument("broken", "an error in a transform"));
        }
        Ok(sample)
    }
}

#[test]
fn errors_and_panics_end_the_epoch_with_an_error() {
    for (panics, kind, text) in [
        (true, ErrorKind::Panic, "epoch 0, step 1: loader: a panic in a transform"),
        (false, ErrorKind::Argument, "epoch 0, step 1: case case_4: broken: broken: an error in a transform"),
    ] {
        let loader = Loader::new(cases(9), 3, Seed::new(0)).unwrap().in_order();
        let mut epoch = loader.transforms(Compose::new().then(Broken(panics))).epoch(0);
        assert!(epoch.next().unwrap().is_ok());
        let error = epoch.next().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
        assert!(epoch.next().is_none());
    }
}

#[test]
fn samples_of_different_shapes_are_named() {
    let mut samples = (*cases(2)).clone();
    samples[1] = Sample::new("odd", &Tensor::zeros(&[1, 3, 4], DType::F32, Device::Cpu).unwrap(), None).unwrap();
    let error = Batch::collate(&samples).unwrap_err().to_string();
    assert!(error.contains("case odd") && error.contains("(1, 3, 4), (1, 3, 4, 5)"), "{error}");
    assert!(Batch::collate(&[]).is_err());
    assert!(Batch::collate(&samples[1..]).is_err(), "no label");
    assert!(Loader::new(Arc::new(Vec::<Sample>::new()), 1, Seed::new(0)).is_err());
    assert!(Vec::<Sample>::new().sample(0).is_err());
}
