//! Pairs of an image and a label in two folders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};

use crate::{
    Cases, Preparation, Sample, Scan, alignment,
    sample::{check_classes, class_numbers},
    transforms::{Compose, nth_use},
};

/// The cases of a folder with `images/` and `labels/`; a label has the name of its image (the ending may differ).
///
/// A case is read when it is first asked for, checked, prepared, and then kept in memory.
///
/// A label lies on its image: where both files say their place in the world, a label whose axes are turned or mirrored against
/// the image's is brought into the image's order, and one that lies elsewhere is refused (see
/// [`Dataset::alignment_tolerance`]). Where they don't, shapes and spacings must agree.
#[derive(Clone)]
pub struct Dataset {
    cases: Arc<Vec<Case>>,
    classes: usize,
    preparation: Option<Arc<Preparation>>,
    prepare: Compose,
    tolerance: f64,
    readers: Readers,
    /// The prepared samples, in the order of the cases.
    cache: Arc<Vec<OnceLock<Sample>>>,
}

type Reader = dyn Fn(&Path) -> Result<Scan> + Send + Sync;

#[derive(Clone)]
struct Readers {
    image: Arc<Reader>,
    label: Arc<Reader>,
}

#[derive(Clone)]
struct Case {
    name: String,
    image: PathBuf,
    label: PathBuf,
}

impl Dataset {
    /// The cases of `folder`, in the order of their names; labels have `classes` classes (1 to 256), with the background.
    /// `reader` reads images and labels: it gives a [`Scan`], or the values `(C, D, H, W)` and the millimetres between voxels
    /// along the spatial axes.
    ///
    /// # Errors
    /// When a folder can't be read or is empty, an image has no label, a label has no image, or `classes` is out of its range.
    pub fn with_reader<S: Into<Scan>>(
        folder: impl AsRef<Path>,
        classes: usize,
        reader: impl Fn(&Path) -> Result<S> + Send + Sync + 'static,
    ) -> Result<Self> {
        let reader: Arc<Reader> = Arc::new(move |path| reader(path).map(Into::into));
        Self::with_readers(folder.as_ref(), classes, Readers { image: reader.clone(), label: reader })
    }

    /// The cases of a folder of NIfTI files (or PNG pictures); labels have `classes` classes (1 to 256), with the background.
    /// The volumes of an image of four axes are its channels; a label has one volume.
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`].
    pub fn open(folder: impl AsRef<Path>, classes: usize) -> Result<Self> {
        let readers = Readers { image: Arc::new(Scan::read_image), label: Arc::new(Scan::read_label) };
        Self::with_readers(folder.as_ref(), classes, readers)
    }

    /// The cases of a folder of NIfTI files (or PNG pictures), each image and label as `preparation` says: turned, resampled,
    /// intensities normalised, label values as class numbers. It is the same code that prediction runs, so that a network sees
    /// in prediction what it was trained on. The preparation belongs into the checkpoint
    /// (`Checkpoint::preparation` in `tomograd-nn`).
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`], and when an attribute of the preparation is out of its range.
    pub fn prepared(folder: impl AsRef<Path>, preparation: &Preparation) -> Result<Self> {
        preparation.check()?;
        let dataset = Self::open(folder, preparation.classes.len())?;
        Ok(Self { preparation: Some(Arc::new(preparation.clone())), ..dataset })
    }

    fn with_readers(folder: &Path, classes: usize, readers: Readers) -> Result<Self> {
        check_classes("dataset", classes)?;
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
            None => {
                let (prepare, tolerance, cases) = (Compose::new(), alignment::TOLERANCE, Arc::new(cases));
                let cache = unread(&cases);
                Ok(Self { cases, classes, preparation: None, prepare, tolerance, readers, cache })
            }
        }
    }

    /// With these transforms of each case before it is kept: those that are the same in every epoch. They come behind a
    /// preparation, if there is one. Their random numbers,
    /// if they take any, are keyed by the name of the case, and by how often it was named before.
    #[must_use]
    pub fn prepare(self, transforms: Compose) -> Self {
        Self { cache: unread(&self.cases), prepare: transforms, ..self }
    }

    /// With another tolerance than [`alignment::TOLERANCE`]: how far, in voxels of the image, the centre of a corner voxel of
    /// a label may lie from where that of its image is.
    ///
    /// # Errors
    /// When `voxels` is negative or not finite.
    pub fn alignment_tolerance(self, voxels: f64) -> Result<Self> {
        Ok(Self { cache: unread(&self.cases), tolerance: alignment::tolerance(voxels)?, ..self })
    }

    /// The cases of these names, in this order; one that is named twice is there twice.
    ///
    /// # Errors
    /// When one isn't there.
    pub fn subset(&self, names: &[String]) -> Result<Self> {
        let find = |name: &String| self.case(name).cloned();
        let cases: Arc<Vec<Case>> = Arc::new(names.iter().map(find).collect::<Result<_>>()?);
        Ok(Self { cache: unread(&cases), cases, ..self.clone() })
    }

    /// The file of the image of a case.
    ///
    /// # Errors
    /// When no case has that name.
    pub fn image_file(&self, name: &str) -> Result<&Path> {
        Ok(&self.case(name)?.image)
    }

    /// The file of the label of a case.
    ///
    /// # Errors
    /// When no case has that name.
    pub fn label_file(&self, name: &str) -> Result<&Path> {
        Ok(&self.case(name)?.label)
    }

    fn case(&self, name: &str) -> Result<&Case> {
        let case = self.cases.iter().find(|case| case.name == name);
        case.ok_or_else(|| Error::new(ErrorKind::Name, "dataset", format!("no case is called {name:?}")))
    }

    /// The names of the cases, in their order.
    pub fn names(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.name.clone()).collect()
    }

    /// The number of classes, with the background.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Reads case number `index`.
    fn load(&self, index: usize, case: &Case) -> Result<Sample> {
        let in_label = |error: Error| error.within(case.label.display().to_string());
        let in_image = |error: Error| error.within(case.image.display().to_string());
        let image = (self.readers.image)(&case.image)?;
        let label = (self.readers.label)(&case.label)?;
        let numbers = |values: &Tensor| match &self.preparation {
            Some(preparation) => preparation.class_numbers(values),
            None => class_numbers(values, self.classes),
        };
        let label = alignment::label_on(&image, "image", &label, numbers, self.tolerance).map_err(in_label)?;
        let (image, label) = match &self.preparation {
            Some(preparation) => {
                let label = preparation.label_scan(label, &image).map_err(in_label)?;
                (preparation.image_scan(image).map_err(in_image)?, label)
            }
            None => (image, label),
        };
        let sample = Sample::new(&case.name, &image.values, Some(&label))
            .and_then(|sample| sample.with_spacing(&image.spacing))
            .map_err(in_image)?;
        let before = self.cases.iter().take(index).filter(|other| other.name == case.name).count();
        self.prepare.apply(sample, nth_use(Seed::new(0).named(&case.name), before))
    }
}

impl Cases for Dataset {
    fn len(&self) -> usize {
        self.cases.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (Some(case), Some(place)) = (self.cases.get(index), self.cache.get(index)) else {
            return Err(missing(index, self.cases.len()));
        };
        if let Some(sample) = place.get() {
            return Ok(sample.clone());
        }
        let sample = self.load(index, case)?;
        // Two threads may have read the same case at once; what they read is equal.
        Ok(place.get_or_init(|| sample).clone())
    }

    fn name(&self, index: usize) -> Result<String> {
        self.cases.get(index).map(|case| case.name.clone()).ok_or_else(|| missing(index, self.cases.len()))
    }
}

fn missing(index: usize, count: usize) -> Error {
    Error::argument("dataset", format!("case number {index} of {count}"))
}

/// A place for each case, none of which was read.
fn unread(cases: &[Case]) -> Arc<Vec<OnceLock<Sample>>> {
    Arc::new(cases.iter().map(|_| OnceLock::new()).collect())
}

/// The files of a folder by the name of their case. Hidden ones are left out, and the voxels (`.img`) beside a header (`.hdr`).
fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let failed = |error| Error::io("read folder", folder.display(), error);
    let wrong = |what: String| Error::new(ErrorKind::Name, "dataset", what);
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy()).filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        if name.contains(char::REPLACEMENT_CHARACTER) {
            return Err(
                wrong(format!("{} has a name that isn't UTF-8", path.display())).expected("a name that can be read")
            );
        }
        let case = case_name(&name).to_string();
        match files.get(&case).map(|other| (other.clone(), pair(other, &path))) {
            None => _ = files.insert(case, path),
            Some((_, Some(header))) => _ = files.insert(case, header),
            Some((other, None)) => {
                return Err(wrong(format!("two files for case {case:?}")).expected(format!(
                    "one of {} and {}",
                    other.display(),
                    path.display()
                )));
            }
        }
    }
    if files.is_empty() {
        return Err(Error::argument("dataset", format!("no files in {}", folder.display())));
    }
    Ok(files)
}

/// The header of two files that are a pair of header and voxels.
fn pair(first: &Path, second: &Path) -> Option<PathBuf> {
    let ending = |path: &Path| {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.rsplit_once('.').map(|(_, ending)| ending.to_owned())
    };
    match (ending(first)?.as_str(), ending(second)?.as_str()) {
        ("hdr", "img") => Some(first.into()),
        ("img", "hdr") => Some(second.into()),
        _ => None,
    }
}

/// A file name without its ending, and without `.gz` behind it.
fn case_name(file: &str) -> &str {
    let name = match file.rsplit_once('.') {
        Some((stem, ending)) if ending.eq_ignore_ascii_case("gz") => stem,
        _ => file,
    };
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}
