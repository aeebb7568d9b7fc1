//! A loader gives the same batches whatever the timing, and errors instead of panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use tomograd_core::{DType, Device, ErrorKind, Random, Result, Seed, Tensor};
use tomograd_pipeline::{
    Batch, Cases, Loader, Sample,
    transforms::{Compose, CropOrPad, Flip, RandomBrightness, RandomNoise, Transform},
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
    let transforms = Compose::new().then(Flip::default()).unwrap().then(noise).unwrap();
    Loader::new(cases(count), 3, Seed::new(11)).unwrap().transforms(transforms)
}

fn contents(batches: impl Iterator<Item = Result<Batch>>) -> Vec<(Vec<String>, Vec<f32>, Vec<i64>)> {
    batches
        .map(|batch| {
            let batch = batch.unwrap();
            let [image, label] = [batch.image(), batch.label()].map(Result::unwrap);
            (batch.names.clone(), image.to_vec().unwrap(), label.to_vec().unwrap())
        })
        .collect()
}

#[test]
fn the_pace_of_the_consumer_changes_nothing() {
    let loader = loader(10);
    let fast = contents(loader.epoch(4));
    let slow = contents(loader.epoch(4).inspect(|_| sleep(Duration::from_millis(5))));
    assert_eq!(fast, slow);
    assert_eq!(fast.len() as u64, loader.steps());
    let mut names: Vec<&String> = fast.iter().flat_map(|batch| &batch.0).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 10);
    assert_ne!(fast, contents(loader.epoch(5)));
    assert_eq!(loader.clone().drop_last().unwrap().epoch(4).count(), 3);
}

#[test]
fn a_resumed_epoch_is_the_rest_of_it() {
    let loader = loader(10);
    let whole = contents(loader.epoch(2));
    for step in 0..=5 {
        assert_eq!(contents(loader.resume(2, step)), whole[step.min(4) as usize..]);
    }
}

/// `count` black images under two names in turn.
fn twins(count: usize) -> Arc<Vec<Sample>> {
    let image = Tensor::zeros(&[1, 3, 4, 5], DType::F32, Device::Cpu).unwrap();
    let label = Tensor::zeros(&[3, 4, 5], DType::U8, Device::Cpu).unwrap();
    Arc::new((0..count).map(|i| Sample::new(["a", "b"][i % 2], &image, Some(&label)).unwrap()).collect())
}

fn noisy(cases: Arc<dyn Cases>, batch: usize) -> Loader {
    let noise = RandomNoise { probability: 1.0, ..RandomNoise::default() };
    Loader::new(cases, batch, Seed::new(5)).unwrap().transforms(Compose::new().then(noise).unwrap())
}

/// The images of an epoch one by one.
fn images(batches: impl Iterator<Item = Result<Batch>>) -> Vec<Vec<f32>> {
    contents(batches)
        .into_iter()
        .flat_map(|(_, images, _)| images.chunks(60).map(<[f32]>::to_vec).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_case_that_comes_twice_is_drawn_twice() {
    let loader = noisy(twins(6), 2);
    let whole = images(loader.epoch(1));
    for (i, first) in whole.iter().enumerate() {
        assert!(whole[i + 1..].iter().all(|second| first.iter().zip(second).all(|(a, b)| a != b)), "{i}");
    }
    assert_eq!(images(noisy(twins(6), 3).epoch(1)), whole, "the size of a batch is no part of the key");
    for step in 0..3 {
        assert_eq!(images(loader.resume(1, step)), whole[2 * step as usize..]);
    }
    // The first use of each name draws what it would draw alone.
    let alone = images(noisy(twins(2), 2).epoch(1));
    assert!(alone.iter().all(|image| whole.contains(image)));
}

/// Cases that leave the names to the default.
struct Patches(Arc<Vec<Sample>>);

impl Cases for Patches {
    fn len(&self) -> usize {
        3 * self.0.as_slice().len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.0.sample(index / 3)
    }
}

#[test]
fn patches_of_one_case_differ_and_resume() {
    let loader = noisy(Arc::new(Patches(twins(2))), 1);
    let whole = images(loader.epoch(0));
    let distinct: std::collections::BTreeSet<Vec<u32>> =
        whole.iter().map(|image| image.iter().map(|v| v.to_bits()).collect()).collect();
    assert_eq!((whole.len(), distinct.len()), (6, 6));
    for step in 0..6 {
        assert_eq!(images(loader.resume(0, step)), whole[step as usize..]);
    }
}

#[test]
fn an_epoch_without_a_batch_is_an_error() {
    assert!(Loader::new(cases(2), 3, Seed::new(0)).unwrap().drop_last().err().unwrap().to_string().contains("2 cases"));
    assert!(Loader::new(cases(2), 0, Seed::new(0)).is_err());
    let all = Loader::new(cases(2), usize::MAX, Seed::new(0)).unwrap();
    assert_eq!(contents(all.epoch(u64::MAX)).len(), 1);
    assert_eq!(all.resume(0, u64::MAX).count(), 0);
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
        let mut epoch = loader.transforms(Compose::new().then(Broken(panics)).unwrap()).epoch(0);
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
    assert!(
        error.contains("case odd") && error.contains("image (image), label (label), as case case_0 has"),
        "{error}"
    );
    let small = Tensor::zeros(&[1, 3, 4], DType::F32, Device::Cpu).unwrap();
    samples[1] = Sample::new("odd", &small, Some(&small.squeeze(0).unwrap())).unwrap();
    let error = Batch::collate(&samples).unwrap_err().to_string();
    assert!(error.contains("case odd") && error.contains("(1, 3, 4), (1, 3, 4, 5)"), "{error}");
    assert!(Batch::collate(&[]).is_err());
    assert!(Loader::new(Arc::new(Vec::<Sample>::new()), 1, Seed::new(0)).is_err());
    assert!(Vec::<Sample>::new().sample(0).is_err());
}

#[test]
fn any_number_of_workers_gives_the_same_batches() {
    let loader = loader(23);
    let whole = contents(loader.epoch(3));
    let twice = noisy(twins(9), 2);
    let drawn = images(twice.epoch(1));
    for workers in [2, 3, 7, 64] {
        let several = loader.clone().workers(workers).unwrap();
        assert_eq!(contents(several.epoch(3)), whole);
        for step in [0, 1, 5, 7, 8] {
            assert_eq!(contents(several.resume(3, step)), whole[step.min(8) as usize..], "{workers} from {step}");
        }
        // How often a name came before is counted over what all of them prepare.
        assert_eq!(images(twice.clone().workers(workers).unwrap().epoch(1)), drawn);
        assert_eq!(images(twice.clone().workers(workers).unwrap().resume(1, 2)), drawn[4..]);
    }
    for workers in [0, 257, usize::MAX] {
        assert!(loader.clone().workers(workers).err().unwrap().to_string().contains("1 to 256"));
    }
}

/// Cases that say when they are asked for, some slower than others.
struct Counted {
    cases: Arc<Vec<Sample>>,
    begun: Arc<AtomicUsize>,
    /// How many are being read now, and the most that were at once.
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl Cases for Counted {
    fn len(&self) -> usize {
        self.cases.as_slice().len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(1 + self.now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        sleep(Duration::from_millis(if index.is_multiple_of(3) { 4 } else { 1 }));
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.cases.sample(index)
    }

    fn name(&self, index: usize) -> Result<String> {
        self.cases.name(index)
    }
}

#[test]
fn workers_wait_for_the_consumer_and_stop_with_it() {
    let [begun, most] = [0, 0].map(|zero| Arc::new(AtomicUsize::new(zero)));
    let cases =
        Arc::new(Counted { cases: cases(300), begun: begun.clone(), now: AtomicUsize::new(0), most: most.clone() });
    let loader = Loader::new(cases, 1, Seed::new(1)).unwrap().in_order().workers(3).unwrap();
    let mut epoch = loader.epoch(0);
    for step in 0..10 {
        assert_eq!(epoch.next().unwrap().unwrap().names, [format!("case_{step}")]);
        // Two that wait and one in hand for each worker, and what was taken.
        assert!(begun.load(Ordering::SeqCst) <= step + 1 + 3 * 3);
    }
    sleep(Duration::from_millis(50));
    assert!(begun.load(Ordering::SeqCst) <= 10 + 3 * 3);
    assert_eq!(most.load(Ordering::SeqCst), 3, "all of them read at once");
    drop(epoch);
    let stopped = begun.load(Ordering::SeqCst);
    sleep(Duration::from_millis(30));
    assert_eq!(begun.load(Ordering::SeqCst), stopped, "nothing is prepared for nobody");
}

#[test]
fn the_first_error_in_order_arrives_whoever_meets_it() {
    for workers in [1, 2, 4] {
        for panics in [false, true] {
            let loader = Loader::new(cases(9), 1, Seed::new(0)).unwrap().in_order().workers(workers).unwrap();
            let mut epoch = loader.transforms(Compose::new().then(Broken(panics)).unwrap()).epoch(0);
            for step in 0..4 {
                assert_eq!(epoch.next().unwrap().unwrap().names, [format!("case_{step}")]);
            }
            let error = epoch.next().unwrap().unwrap_err().to_string();
            assert!(error.starts_with("epoch 0, step 4: "), "{error}");
            assert!(epoch.next().is_none() && epoch.next().is_none());
        }
    }
}

/// The same batches for a seed as in every version: what shifts a random number or a voxel changes them.
#[test]
fn the_bits_of_a_batch_stay() {
    let case = |i: usize| {
        let image = Tensor::uniform(&[2, 9, 8, 7], -1.0, 1.0, Seed::new(i as u64), DType::F32, Device::Cpu)?;
        let label = Tensor::uniform(&[9, 8, 7], 0.0, 3.0, Seed::new(i as u64), DType::U8, Device::Cpu)?;
        Sample::new(format!("case_{}", i % 4), &image, Some(&label))
    };
    let cases: Vec<Sample> = (0..7).map(case).collect::<Result<_>>().unwrap();
    let transforms = Compose::new()
        .then(CropOrPad::random([6, 9, 7]).foreground(0.5))
        .unwrap()
        .then(Flip::default())
        .unwrap()
        .then(RandomBrightness { probability: 0.5, ..RandomBrightness::default() })
        .unwrap();
    let loader = Loader::new(Arc::new(cases), 2, Seed::new(3)).unwrap().transforms(transforms);
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut feed = |bits: u64| hash = (hash ^ bits).wrapping_mul(0x0000_0100_0000_01b3);
    for (names, image, label) in (0..3).flat_map(|epoch| contents(loader.epoch(epoch))) {
        names.concat().bytes().for_each(|byte| feed(byte.into()));
        image.iter().for_each(|value| feed(value.to_bits().into()));
        label.iter().for_each(|&class| feed(class as u64));
    }
    assert_eq!(hash, 15_552_828_333_562_001_061);
}
