//! Pairs of an image and a label in two folders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tomograd_core::{Device, Error, ErrorKind, Result, Seed, Tensor};

use tomograd_io::Volume;

use crate::{Cases, Sample, sample::class_numbers, transforms::Compose};

/// The cases of a folder with `images/` and `labels/`; a label has the name of its image (the ending may differ).
///
/// A case is read when it is first asked for, checked, prepared, and then kept in memory.
#[derive(Clone)]
pub struct Dataset {
    cases: Arc<Vec<Case>>,
    classes: usize,
    prepare: Compose,
    reader: Arc<Reader>,
    /// The prepared samples, in the order of the cases.
    cache: Arc<Vec<OnceLock<Sample>>>,
}

/// Reads a file: its values `(C, D, H, W)`, and the millimetres between voxels along the spatial axes, in that order.
pub type Reader = dyn Fn(&Path) -> Result<(Tensor, Vec<f64>)> + Send + Sync;

#[derive(Clone)]
struct Case {
    name: String,
    image: PathBuf,
    label: PathBuf,
}

impl Dataset {
    /// The cases of `folder`, read by `reader`, in the order of their names; labels have `classes` classes, with the background.
    ///
    /// # Errors
    /// When a folder can't be read or is empty, an image has no label, or a label has no image.
    pub fn with_reader(
        folder: impl AsRef<Path>,
        classes: usize,
        reader: impl Fn(&Path) -> Result<(Tensor, Vec<f64>)> + Send + Sync + 'static,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let images = files(&folder.join("images"))?;
        let mut labels = files(&folder.join("labels"))?;
        let alone = |path: &Path, partner: &str| {
            Error::new(ErrorKind::Name, "dataset", format!("{} has no {partner}", path.display()))
                .expected("files of the same names in images/ and labels/")
        };
        let pair = |(name, image): (String, PathBuf)| match labels.remove(&name) {
            Some(label) => Ok(Case { name, image, label }),
            None => Err(alone(&image, "label")),
        };
        let cases: Vec<Case> = images.into_iter().map(pair).collect::<Result<_>>()?;
        match labels.values().next() {
            Some(label) => Err(alone(label, "image")),
            None => Ok(Self::of(cases, classes, Arc::new(reader), Compose::new())),
        }
    }

    /// The cases of a folder of NIfTI files; labels have `classes` classes, with the background.
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`].
    pub fn open(folder: impl AsRef<Path>, classes: usize) -> Result<Self> {
        Self::with_reader(folder, classes, |path| {
            let volume = Volume::read(path)?;
            let [x, y, z] = volume.spacing();
            Ok((volume.voxels().unsqueeze(0)?, vec![z, y, x]))
        })
    }

    fn of(cases: Vec<Case>, classes: usize, reader: Arc<Reader>, prepare: Compose) -> Self {
        let cache = Arc::new(cases.iter().map(|_| OnceLock::new()).collect());
        Self { cases: Arc::new(cases), classes, prepare, reader, cache }
    }

    /// With these transforms of each case before it is kept: those that are the same in every epoch. Their random numbers,
    /// if they take any, are keyed by the name of the case.
    #[must_use]
    pub fn prepare(self, transforms: Compose) -> Self {
        Self::of(self.cases.to_vec(), self.classes, self.reader, transforms)
    }

    /// The cases of these names, in this order.
    ///
    /// # Errors
    /// When one isn't there.
    pub fn subset(&self, names: &[String]) -> Result<Self> {
        let find = |name: &String| {
            let case = self.cases.iter().find(|case| case.name == *name).cloned();
            case.ok_or_else(|| Error::new(ErrorKind::Name, "dataset", format!("no case is called {name:?}")))
        };
        let cases = names.iter().map(find).collect::<Result<_>>()?;
        Ok(Self::of(cases, self.classes, self.reader.clone(), self.prepare.clone()))
    }

    /// The names of the cases, in their order.
    pub fn names(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.name.clone()).collect()
    }

    /// The number of classes, with the background.
    pub fn classes(&self) -> usize {
        self.classes
    }

    fn load(&self, case: &Case) -> Result<Sample> {
        let in_label = |error: Error| error.within(case.label.display().to_string());
        let (image, spacing) = (self.reader)(&case.image)?;
        let (label, label_spacing) = (self.reader)(&case.label)?;
        // A label is one channel.
        let label = if label.shape().first() == Some(&1) { label.squeeze(0)? } else { label };
        let numbers = class_numbers(&label, self.classes).map_err(in_label)?;
        let label = Tensor::from_slice(&numbers, label.shape(), Device::Cpu)?;
        if spacing.iter().zip(&label_spacing).any(|(a, b)| (a - b).abs() > 1e-3 * a.abs()) {
            return Err(in_label(
                Error::format("dataset", format!("a spacing of {label_spacing:?} mm"))
                    .expected(format!("{spacing:?} mm, as the image has")),
            ));
        }
        let sample = Sample::new(&case.name, &image, Some(&label)).map_err(in_label)?;
        self.prepare.apply(sample.with_spacing(&spacing)?, Seed::new(0).named(&case.name))
    }
}

impl Cases for Dataset {
    fn len(&self) -> usize {
        self.cases.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (Some(case), Some(place)) = (self.cases.get(index), self.cache.get(index)) else {
            return Err(Error::argument("dataset", format!("case number {index} of {}", self.cases.len())));
        };
        if let Some(sample) = place.get() {
            return Ok(sample.clone());
        }
        let sample = self.load(case)?;
        // Two threads may have read the same case at once; what they read is equal.
        Ok(place.get_or_init(|| sample).clone())
    }
}

/// The files of a folder by the name of their case. Hidden ones are left out.
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let failed = |error| Error::io("read folder", folder.display(), error);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if let Some(other) = files.insert(case_name(name).to_string(), path.clone()) {
            return Err(Error::new(ErrorKind::Name, "dataset", format!("two files for case {:?}", case_name(name)))
                .expected(format!("one of {} and {}", other.display(), path.display())));
        }
    }
    if files.is_empty() {
        return Err(Error::argument("dataset", format!("no files in {}", folder.display())));
    }
    Ok(files)
}

/// A file name without its ending, and without `.gz` behind it.
fn case_name(file: &str) -> &str {
    let name = file.strip_suffix(".gz").unwrap_or(file);
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
