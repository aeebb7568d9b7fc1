//! Cases of `tomograd-pipeline`.

use std::{path::Path, sync::Arc};

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    io::{
        Volume,
        geometry::{self, Affine},
    },
    pipeline::{
        Batch, Bids, Boxes, Cache, Cases, ClassMetrics, Columns, ContactSheet, Dataset, Field, HeatSheet, Loader,
        Points, Preparation, Report, Sample, SlidingWindow, bootstrap_interval, compare_volumes, confusion,
        confusion_volumes, evaluate, evaluate_volumes,
        preparation::{Activation, Channel, Clip, Intensity, Normalisation, Postprocess},
        progress, quantile, roc_auc,
        transforms::{
            Compose, CropOrPad, Flip, RandomAffine, RandomBrightness, RandomContrast, RandomGamma, RandomNoise,
            Transform,
        },
    },
};

use crate::walk::{cases, made};

fn image(shape: &[usize]) -> Result<Tensor> {
    Tensor::normal(shape, 0.0, 1.0, Seed::new(3), DType::F32, Device::Cpu)
}

fn label(shape: &[usize]) -> Result<Tensor> {
    let count = shape.iter().product::<usize>();
    Tensor::from_slice(&(0..count).map(|i| u8::from(i % 3 == 0)).collect::<Vec<_>>(), shape, Device::Cpu)
}

fn sample() -> Result<Sample> {
    Sample::new("a", &image(&[1, 5, 6])?, Some(&label(&[5, 6])?))
}

fn finite(tensor: &Tensor) -> Result<bool> {
    Ok(tensor.to_vec_f64()?.iter().all(|x| x.is_finite()))
}

/// Whether a transform gives finite values for several seeds.
fn transforms(transform: &dyn Transform) -> Result<bool> {
    for seed in 0..6 {
        let made = transform.apply(sample()?, &mut Seed::new(seed).random())?;
        if !finite(made.image()?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an accepted transform works: it crops or pads to the given size, if the number of axes matches and there is
/// enough memory.
fn crops(transform: CropOrPad, size: &[usize]) -> Result<bool> {
    let made = Compose::new().then(transform)?.apply(sample()?, Seed::new(1));
    Ok(made.is_ok_and(|made| made.image().is_ok_and(|image| image.shape()[1..] == *size))
        || size.len() != 2
        || size.iter().any(|x| *x >= 1 << 40))
}

fn cases_of(count: usize) -> Result<Arc<dyn Cases>> {
    Ok(Arc::new((0..count).map(|_| sample()).collect::<Result<Vec<Sample>>>()?))
}

/// The total size of all batches of an epoch.
fn batches(epoch: impl Iterator<Item = Result<Batch>>) -> Result<usize> {
    epoch.map(|batch| Ok(batch?.image()?.shape()[0])).sum()
}

/// Sliding-window inference on a 2D image, where the logits are the patches.
fn slides(window: &SlidingWindow, shape: &[usize]) -> Result<bool> {
    let x = image(&[&[1], shape].concat())?;
    let logits = window.logits(&x, |patches| Ok(patches.clone()))?;
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-4;
    Ok(logits.to_vec_f64()?.iter().zip(&x.to_vec_f64()?).all(near) && window.windows(shape)? > 0)
}

fn window(patch: &[usize]) -> Result<SlidingWindow> {
    made(SlidingWindow::new(patch.to_vec()))
}

fn preparation() -> Result<Preparation> {
    Preparation::new([2, 3, 4], ["background", "organ"])
}

/// Whether an accepted preparation works: each voxel of the mask has the value of one of the first two classes.
fn segments(preparation: &Preparation) -> Result<bool> {
    let affine = made::<Affine>(geometry::from_spacing([1.0, 1.0, 2.0]))?;
    let volume = Volume::new(image(&[3, 5, 6])?, affine)?;
    let mask = preparation.segment(&volume, |patches| {
        let mut shape = patches.shape().to_vec();
        shape[1] = preparation.maps();
        patches.expand(&shape)?.copy()
    })?;
    let values = &preparation.classes[..2];
    let known = |value: &f64| values.iter().any(|class| f64::from(class.value) == *value);
    Ok(finite(&preparation.image(&volume)?)? && mask.voxels().to_vec_f64()?.iter().all(known))
}

/// A folder with one case of 5 × 6 × 1 voxels, removed on drop.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let folder = Self(std::env::temp_dir().join(format!("tomograd-arguments-{}", std::process::id())));
        let affine = made::<geometry::Affine>(geometry::from_spacing([1.0; 3]))?;
        for (name, voxels) in [("images", image(&[1, 5, 6])?), ("labels", label(&[1, 5, 6])?)] {
            let path = folder.0.join(name);
            std::fs::create_dir_all(&path).map_err(|error| Error::io("test", path.display(), error))?;
            Volume::new(voxels, affine)?.write(path.join("a.nii"))?;
        }
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn metrics(dice: f64) -> ClassMetrics {
    ClassMetrics { dice, iou: 0.5, hd95: 1.0, assd: 1.0 }
}

cases! {
    "pipeline::Cases::sample": (index: usize = 1) => {
        let cases = cases_of(2)?;
        Ok::<_, Error>(cases.sample(index)?.image()?.shape() == [1, 5, 6] && index < 2)
    };
    "pipeline::Cases::sample": (index: usize = 0) => {
        let folder = Folder::new()?;
        let cases = Dataset::open(&folder.0, 2)?;
        Ok::<_, Error>(cases.sample(index)?.image()?.count() == 30 && index < 1)
    };
    "pipeline::Cases::name": (index: usize = 1) => {
        let cases = cases_of(2)?;
        Ok::<_, Error>(cases.name(index)? == "a" && index < 2)
    };
    "pipeline::Cases::name": (index: usize = 0) => {
        let folder = Folder::new()?;
        Ok::<_, Error>(Dataset::open(&folder.0, 2)?.name(index)? == "a" && index < 1)
    };
    "pipeline::ContactSheet::new": (slices: usize = 2, classes: usize = 2) => {
        let mut sheet = made::<ContactSheet>(ContactSheet::new(slices, classes))?;
        sheet.add(&sample()?, &label(&[5, 6])?)?;
        Ok::<_, Error>(sheet.pixels()?.count() > 0)
    };
    "pipeline::HeatSheet::new": (columns: usize = 2) => {
        let mut sheet = made::<HeatSheet>(HeatSheet::new(columns))?;
        sheet.add(&image(&[1, 5, 6])?, &image(&[5, 6])?, "a")?;
        Ok::<_, Error>(sheet.svg()?.contains("</svg>"))
    };
    "pipeline::roc_auc": (scores: Vec<f64> = vec![0.5, -1.0, 2.0]) => {
        Ok::<_, Error>((0.0..=1.0).contains(&roc_auc(&scores, &[true, false, true])?))
    };
    "pipeline::Dataset::open": (classes: usize = 2) => {
        let folder = Folder::new()?;
        let dataset = Dataset::open(&folder.0, classes)?;
        // Labels are 0 and 1; other numbers of classes than 2 to 256 must fail.
        Ok::<_, Error>(dataset.sample(0).is_ok() && (2..=256).contains(&classes))
    };
    "pipeline::Dataset::open_channels": (classes: usize = 2) => {
        let folder = Folder::new()?;
        std::fs::rename(folder.0.join("images/a.nii"), folder.0.join("images/a_0000.nii"))
            .map_err(|error| Error::io("test", "rename", error))?;
        let dataset = Dataset::open_channels(&folder.0, &[], classes)?;
        Ok::<_, Error>(dataset.sample(0).is_ok() && (2..=256).contains(&classes))
    };
    "pipeline::Columns::label": (classes: usize = 2) => {
        let folder = Folder::new()?;
        let table = folder.0.join("cases.csv");
        std::fs::write(&table, "mask\nlabels/a.nii").map_err(|error| Error::io("test", "write", error))?;
        let dataset = Dataset::csv(&table, &Columns::new().label("mask", classes))?;
        Ok::<_, Error>(dataset.sample(0).is_ok() && (2..=256).contains(&classes))
    };
    "pipeline::Cache::memory": (bytes: u64 = 1000) => {
        let folder = Folder::new()?;
        let dataset = Dataset::open(&folder.0, 2)?.cache(made::<Cache>(Cache::memory(bytes))?)?;
        dataset.sample(0)?;
        Ok::<_, Error>(dataset.cache_statistics().bytes <= bytes)
    };
    "pipeline::Cache::disk": (bytes: u64 = 1000) => {
        let folder = Folder::new()?;
        let cache = made::<Cache>(Cache::disk(folder.0.join("cache"), bytes))?;
        let dataset = Dataset::open(&folder.0, 2)?.cache(cache)?;
        dataset.sample(0)?;
        Ok::<_, Error>(dataset.cache_statistics().bytes <= bytes)
    };
    "pipeline::Dataset::alignment_tolerance": (voxels: f64 = 0.5) => {
        let folder = Folder::new()?;
        let dataset = Dataset::open(&folder.0, 2)?.alignment_tolerance(voxels)?;
        // Image and label have the same grid, so any valid tolerance is enough.
        Ok::<_, Error>(dataset.sample(0).is_ok() && voxels >= 0.0 && voxels.is_finite())
    };
    "pipeline::Dataset::with_reader": (
        classes: usize = 2,
        spacing: Vec<f64> = vec![1.0, 1.0, 1.0],
        value: f64 = 1.0,
    ) => {
        let folder = Folder::new()?;
        let given = spacing.clone();
        let dataset = Dataset::with_reader(&folder.0, classes, move |_: &Path| {
            Ok((Tensor::full(&[1, 1, 2, 3], value, DType::F64, Device::Cpu)?, spacing.clone()))
        })?;
        let sample = dataset.sample(0)?;
        Ok::<_, Error>(sample.spacing() == given && (2..=256).contains(&classes) && finite(sample.image()?)?)
    };
    "pipeline::Loader::new": (batch: usize = 2) => {
        Ok::<_, Error>(batches(Loader::new(cases_of(3)?, batch, Seed::new(1))?.epoch(0))? == 3)
    };
    "pipeline::Loader::device": (device: Device = Device::Meta) => {
        let mut batches = Loader::new(cases_of(3)?, 2, Seed::new(1))?.device(device).epoch(0);
        let batch = batches.next().transpose()?.ok_or_else(|| Error::argument("test", "no batch"))?;
        Ok::<_, Error>(batch.image()?.device() == device)
    };
    "pipeline::Batch::to": (device: Device = Device::Meta) => {
        let batch = Loader::new(cases_of(3)?, 2, Seed::new(1))?.epoch(0).next().transpose()?;
        let batch = batch.ok_or_else(|| Error::argument("test", "no batch"))?.to(device)?;
        Ok::<_, Error>(batch.image()?.device() == device)
    };
    "pipeline::Loader::epoch": (epoch: u64 = 1) => {
        Ok::<_, Error>(batches(Loader::new(cases_of(3)?, 2, Seed::new(1))?.epoch(epoch))? == 3)
    };
    "pipeline::Loader::workers": (workers: usize = 3) => {
        let loader = Loader::new(cases_of(5)?, 2, Seed::new(1))?.workers(workers)?;
        Ok::<_, Error>(batches(loader.epoch(0))? == 5 && (1..=256).contains(&workers))
    };
    "pipeline::Loader::resume": (epoch: u64 = 1, step: u64 = 1) => {
        let left = batches(Loader::new(cases_of(3)?, 2, Seed::new(1))?.resume(epoch, step))?;
        Ok::<_, Error>(left == [3, 1].get(step as usize).copied().unwrap_or(0))
    };
    "pipeline::Preparation::new": (patch: Vec<usize> = vec![2, 3, 4], classes: usize = 2) => {
        let preparation = Preparation::new(patch, (0..classes.min(300)).map(|class| class.to_string()))?;
        segments(&preparation)
    };
    "pipeline::Preparation::activation": (classes: usize = 2) => {
        let preparation = Preparation::new([2, 3, 4], (0..classes.min(300)).map(|class| class.to_string()))?;
        segments(&preparation.activation(Activation::Sigmoid))
    };
    "pipeline::Preparation::label_values": (values: Vec<usize> = vec![0, 300]) => {
        let values: Vec<u16> = values.into_iter().map(|value| value.min(65535) as u16).collect();
        segments(&preparation()?.label_values(&values)?)
    };
    "pipeline::Preparation::spacing": (spacing: [f64; 3] = [1.0, 1.5, 2.0]) => {
        segments(&preparation()?.spacing(spacing)?)
    };
    "pipeline::Preparation::overlap": (overlap: f64 = 0.25) => segments(&preparation()?.overlap(overlap)?);
    "pipeline::Preparation::channels": (
        percentiles: (f64, f64) = (1.0, 99.0),
        mean: f64 = 1.0,
        deviation: f64 = 2.0,
    ) => {
        let clip = Some(Clip::Percentiles { low: percentiles.0, high: percentiles.1, nonzero: false });
        let intensity = Intensity { clip, normalisation: Some(Normalisation::Stored { mean, deviation }) };
        segments(&preparation()?.channels([Channel::new("t1", "MR").intensity(intensity)])?)
    };
    "pipeline::preparation::Channel::intensity": (window: (f64, f64) = (-1.0, 1.0)) => {
        let clip = Some(Clip::Window { low: window.0, high: window.1 });
        let channel = Channel::new("ct", "CT").intensity(Intensity { clip, normalisation: None });
        segments(&preparation()?.channels([channel])?)
    };
    "pipeline::preparation::Channel {}": (window: (f64, f64) = (-1.0, 1.0)) => {
        let intensity = Intensity { clip: Some(Clip::Window { low: window.0, high: window.1 }), normalisation: None };
        let channel = Channel { name: "ct".to_owned(), modality: "CT".to_owned(), intensity };
        segments(&preparation()?.channels([channel])?)
    };
    "pipeline::Preparation::postprocessing": (class: usize = 1) => {
        segments(&preparation()?.postprocessing([Postprocess::LargestComponent { class }, Postprocess::FillHoles { class }])?)
    };
    "pipeline::Report::add": (dice: f64 = 0.5, count: usize = 1) => {
        let mut report = Report::new(["a"]);
        report.add("case", vec![metrics(dice); count.min(9)])?;
        Ok::<_, Error>(count == 1 && !report.to_string().is_empty())
    };
    "pipeline::Report::class_mean": (class: usize = 1) => {
        let mut report = Report::new(["a", "b"]);
        report.add("case", vec![metrics(0.5), metrics(0.7)])?;
        let mean = report.class_mean(class, |metrics| metrics.dice)?;
        Ok::<_, Error>([0.5, 0.7].get(class.wrapping_sub(1)) == Some(&mean.value) && (mean.defined, mean.cases) == (1, 1))
    };
    "pipeline::Report::mean": (number: f64 = 0.5) => {
        let mut report = Report::new(["a", "b"]);
        report.add("case", vec![metrics(0.5), metrics(0.7)])?;
        let mean = report.mean(|_| number);
        // Undefined values are excluded; the mean of equal numbers is that number.
        let right = mean.value == number || number.is_nan() && mean.value.is_nan() || number.abs() > 1e300;
        Ok::<_, Error>(right && mean.defined == if number.is_nan() { 0 } else { 2 } && mean.cases == 2)
    };
    "pipeline::Sample::with": (class: i64 = 1, numbers: Vec<f64> = vec![1.0, -2.0]) => {
        let sample = sample()?.with("class", Field::Class(class))?.with("numbers", Field::Numbers(numbers.clone()))?;
        let batch = Batch::collate(&[sample])?;
        let wide = numbers.iter().any(|x| x.abs() > f64::from(f32::MAX));
        Ok::<_, Error>(batch.class()?.to_vec::<i64>()? == [class] && (wide || finite(batch.tensor("numbers")?)?))
    };
    "pipeline::Sample::with_fields": (number: f64 = 1.0) => {
        let fields = [("number".to_owned(), Field::Numbers(vec![number]))];
        Ok::<_, Error>(sample()?.with_fields(fields)?.fields().count() == 1 && number.is_finite())
    };
    "pipeline::Field {}": (class: i64 = 1, numbers: Vec<f64> = vec![1.0]) => {
        Field::Class(class).bytes() == 8 && Field::Numbers(numbers.clone()).bytes() == 8 * numbers.len()
    };
    "pipeline::Boxes::new": (low: [f64; 2] = [0.0, 1.0], high: [f64; 2] = [2.0, 3.0], classes: Vec<i64> = vec![1]) => {
        let boxes = Boxes::new(&[(low, high)], &classes)?;
        let sample = Flip::new([1.0, 1.0]).apply(sample()?.with("boxes", Field::Boxes(boxes))?, &mut Seed::new(1).random());
        let batch = Batch::collate(&[sample?])?;
        finite(&batch.boxes("boxes")?[0].0)
    };
    "pipeline::Points::new": (point: [f64; 2] = [0.0, 1.0]) => {
        let sample = sample()?.with("points", Field::Points(Points::new(&[point])?))?;
        let batch = Batch::collate(&[Flip::new([1.0, 1.0]).apply(sample, &mut Seed::new(1).random())?])?;
        finite(&batch.points("points")?[0])
    };
    "pipeline::Sample::with_spacing": (shape: Vec<usize> = vec![1, 5, 6], spacing: Vec<f64> = vec![1.0, 2.0]) => {
        let affine = RandomAffine { probability: 1.0, ..RandomAffine::default() };
        let compose = made::<Compose>(Compose::new().then(affine)?.then(Flip::default()))?;
        let sample = Sample::new("a", &image(&shape)?, None)?.with_spacing(&spacing)?;
        finite(compose.apply(sample, Seed::new(1))?.image()?)
    };
    "pipeline::Sample::with_spacing": (spacing: Vec<f64> = vec![1.0, 2.0]) => {
        Ok::<_, Error>(
            sample()?.with_spacing(&spacing)?.spacing() == spacing && spacing.iter().all(|x| *x > 0.0 && x.is_finite()),
        )
    };
    "pipeline::SlidingWindow::new": (patch: Vec<usize> = vec![4, 3]) => {
        Ok::<_, Error>(slides(&window(&patch)?, &[5, 6])? && patch.len() == 2)
    };
    "pipeline::SlidingWindow::overlap": (overlap: f64 = 0.5) => {
        slides(&made::<SlidingWindow>(window(&[4, 3])?.overlap(overlap))?, &[5, 6]).or(Ok::<_, Error>(false))
    };
    "pipeline::SlidingWindow::batch": (batch: usize = 2) => {
        slides(&made::<SlidingWindow>(window(&[4, 3])?.batch(batch))?, &[5, 6]).or(Ok::<_, Error>(false))
    };
    "pipeline::SlidingWindow::windows": (spatial: Vec<usize> = vec![5, 6]) => {
        let count = window(&[4, 3])?.windows(&spatial)?;
        Ok::<_, Error>(count > 0 && spatial.len() == 2)
    };
    "pipeline::SlidingWindow::memory_bound": (
        channels: usize = 1,
        classes: usize = 2,
        spatial: Vec<usize> = vec![5, 6],
    ) => {
        let bytes = window(&[4, 3])?.memory_bound(channels, classes, &spatial)?;
        let labels = spatial.iter().fold(1u128, |count, &size| count * size as u128);
        Ok::<_, Error>(bytes as u128 >= labels)
    };
    "pipeline::evaluate": (spacing: Vec<f64> = vec![1.0, 2.0], classes: usize = 2) => {
        let truth = label(&[5, 6])?;
        let metrics = evaluate(&truth, &truth, &spacing, classes)?;
        Ok::<_, Error>(metrics.len() + 1 == classes && metrics[0].dice == 1.0 && metrics[0].hd95 == 0.0)
    };
    "pipeline::evaluate_volumes": (classes: usize = 2, tolerance: f64 = 0.5) => {
        let affine = made::<Affine>(geometry::from_spacing([1.0, 1.0, 2.0]))?;
        let truth = Volume::new(label(&[1, 5, 6])?, affine)?;
        let metrics = evaluate_volumes(&truth, &truth, classes, tolerance)?;
        Ok::<_, Error>(metrics.len() + 1 == classes && metrics[0].dice == 1.0 && tolerance.is_finite() && tolerance >= 0.0)
    };
    "pipeline::compare_volumes": (classes: usize = 2, tolerance: f64 = 0.5, surface_tolerance: f64 = 1.0) => {
        let affine = made::<Affine>(geometry::from_spacing([1.0, 1.0, 2.0]))?;
        let truth = Volume::new(label(&[1, 5, 6])?, affine)?;
        let compared = compare_volumes(&truth, &truth, classes, tolerance, surface_tolerance)?;
        let valid = [tolerance, surface_tolerance].iter().all(|x| x.is_finite() && *x >= 0.0);
        Ok::<_, Error>(compared.len() + 1 == classes && compared[0].surface_dice == 1.0 && valid)
    };
    "pipeline::Bids::label": (classes: usize = 2) => {
        let folder = Folder::new()?;
        std::fs::create_dir_all(folder.0.join("sub-01/anat")).map_err(|error| Error::io("test", "sub-01", error))?;
        for (from, to) in [("images", "sub-01/anat/sub-01_T1w.nii"), ("labels", "sub-01/anat/sub-01_dseg.nii")] {
            std::fs::copy(folder.0.join(from).join("a.nii"), folder.0.join(to))
                .map_err(|error| Error::io("test", to, error))?;
        }
        let cases = Dataset::bids(&folder.0, &Bids::new(["T1w"]).label(".", "dseg", classes))?;
        Ok::<_, Error>(cases.sample(0)?.label()?.count() == 30 && classes > 1)
    };
    "pipeline::Dataset::dicom": (classes: usize = 2) => {
        let scans = crate::io::series()?.join("..");
        let masks = std::env::temp_dir().join(format!("tomograd-arguments-masks-{}", std::process::id()));
        std::fs::create_dir_all(&masks).map_err(|error| Error::io("create", masks.display(), error))?;
        Volume::new(label(&[1, 2, 2])?, made::<Affine>(geometry::from_spacing([1.0; 3]))?)?.write(masks.join("patient.nii"))?;
        let cases = Dataset::dicom(&scans, Some((&masks, classes)))?;
        Ok::<_, Error>(cases.names() == ["patient"] && (1..=256).contains(&classes))
    };
    "pipeline::confusion": (classes: usize = 2) => {
        let truth = label(&[5, 6])?;
        let matrix = confusion(&truth, &truth, classes)?;
        Ok::<_, Error>(matrix.len() == classes && matrix.iter().flatten().sum::<u64>() == 30)
    };
    "pipeline::confusion_volumes": (classes: usize = 2, tolerance: f64 = 0.5) => {
        let affine = made::<Affine>(geometry::from_spacing([1.0, 1.0, 2.0]))?;
        let truth = Volume::new(label(&[1, 5, 6])?, affine)?;
        let matrix = confusion_volumes(&truth, &truth, classes, tolerance)?;
        let valid = tolerance.is_finite() && tolerance >= 0.0;
        Ok::<_, Error>(matrix.len() == classes && matrix[0][1] == 0 && matrix[1][1] == 10 && valid)
    };
    "pipeline::quantile": (values: Vec<f64> = vec![0.5, 0.75], fraction: f64 = 0.95) => {
        let (least, most) = (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let value = quantile(&mut values.clone(), fraction)?;
        Ok::<_, Error>((0.0..=1.0).contains(&fraction) && (value.is_nan() || (least <= value && value <= most)))
    };
    "pipeline::bootstrap_interval": (values: Vec<f64> = vec![0.5, 0.75], resamples: usize = 100, level: f64 = 0.95) => {
        let [low, high] = bootstrap_interval(&values, resamples, level, Seed::new(1))?;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let slack = 1e-9 * most.abs().max(least.abs());
        Ok::<_, Error>(low.is_finite() && least - slack <= low && low <= high && high <= most + slack)
    };
    "pipeline::progress::bar": (length: u64 = 10) => {
        let bar = progress::bar(length, "test");
        bar.inc(1);
        bar.length() == Some(length)
    };
    "pipeline::transforms::CropOrPad::centred": (size: Vec<usize> = vec![3, 9]) => {
        crops(made::<CropOrPad>(CropOrPad::centred(size.clone()))?, &size)
    };
    "pipeline::transforms::CropOrPad::random": (size: Vec<usize> = vec![3, 9]) => {
        crops(made::<CropOrPad>(CropOrPad::random(size.clone()))?, &size)
    };
    "pipeline::transforms::CropOrPad::foreground": (probability: f64 = 0.5) => {
        let crop = made::<CropOrPad>(CropOrPad::random([3, 4]))?;
        crops(made::<CropOrPad>(crop.foreground(probability))?, &[3, 4])
    };
    "pipeline::transforms::Flip::new": (probabilities: Vec<f64> = vec![0.5, 1.0]) => {
        let flip = made::<Flip>(Flip::new(probabilities.clone()))?;
        let compose = Compose::new().then(flip)?;
        // Accepted attributes work on images with the same number of axes.
        Ok::<_, Error>(compose.apply(sample()?, Seed::new(1)).is_ok() || probabilities.len() != 2)
    };
    "pipeline::transforms::RandomAffine {}": (
        probability: f64 = 1.0,
        degrees: (f64, f64) = (-15.0, 15.0),
        scale: (f64, f64) = (0.9, 1.1),
        translation: (f64, f64) = (0.0, 1.0),
    ) => { transforms(&RandomAffine { probability, degrees, scale, translation }) };
    "pipeline::transforms::RandomBrightness {}": (probability: f64 = 1.0, factor: (f64, f64) = (0.75, 1.25)) => {
        Ok::<_, Error>(
            transforms(&RandomBrightness { probability, factor })? || factor.0.abs().max(factor.1.abs()) > 1e37,
        )
    };
    "pipeline::transforms::RandomContrast {}": (
        probability: f64 = 1.0,
        factor: (f64, f64) = (0.75, 1.25),
    ) => { transforms(&RandomContrast { probability, factor }) };
    "pipeline::transforms::RandomGamma {}": (
        probability: f64 = 1.0,
        exponent: (f64, f64) = (0.7, 1.5),
    ) => { transforms(&RandomGamma { probability, exponent, keep_moments: true }) };
    "pipeline::transforms::RandomNoise {}": (probability: f64 = 1.0, deviation: (f64, f64) = (0.0, 0.1)) => {
        Ok::<_, Error>(
            transforms(&RandomNoise { probability, deviation })? || deviation.0.abs().max(deviation.1.abs()) > 1e30,
        )
    };
}
