//! Cases that lie in files: pairs of image and label, a folder a class, a CSV file, arrays of NumPy.

mod arrays;
mod folders;
mod load;
mod table;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::numpy::Npz;

pub use self::table::Columns;
use self::{arrays::Rows, load::Readers};
use crate::{
    Cache, Cases, Field, Preparation, Sample, Scan, alignment,
    cache::{Statistics, Store},
    loader::missing,
    names,
    sample::check_classes,
    transforms::Compose,
};

/// Cases that are read when they are first asked for, checked, prepared, and kept in a [`Cache`].
///
/// A label lies on its image: where both files say their place in the world, a label whose axes are turned or mirrored against
/// the image's is brought into the image's order, and one that lies elsewhere is refused (see
/// [`Dataset::alignment_tolerance`]). Where they don't, shapes and spacings must agree. Several images of a case, and the files
/// of the channels of one, must have one grid.
#[derive(Clone)]
pub struct Dataset {
    cases: Arc<Vec<Case>>,
    classes: usize,
    class_names: Arc<Vec<String>>,
    preparation: Option<Arc<Preparation>>,
    prepare: Compose,
    tolerance: f64,
    readers: Readers,
    store: Arc<Store>,
    /// What was set besides the cases, as the store knows it.
    settings: u64,
}

/// What is known of a case before its files are read.
#[derive(Clone)]
struct Case {
    name: String,
    fields: Vec<(String, Source)>,
    /// Its place in the whole list.
    number: usize,
    /// How many cases of the same name come before it in the list.
    before: usize,
}

/// Where a field comes from.
#[derive(Clone)]
enum Source {
    /// A file, or one for each channel.
    Image(Vec<PathBuf>),
    Label {
        path: PathBuf,
        classes: usize,
    },
    Value(Field),
    Row(Arc<Rows>, usize),
}

impl Case {
    fn new(name: String, fields: impl IntoIterator<Item = (String, Source)>) -> Self {
        Self { name, fields: fields.into_iter().collect(), number: 0, before: 0 }
    }
}

impl Dataset {
    /// The cases of `folder` with `images/` and `labels/`, in the order of their names; a label has the name of its image (the
    /// ending may differ), and `classes` classes (1 to 256), with the background. The fields are `image` and `label`.
    ///
    /// `reader` reads images and labels: it gives a [`Scan`], or the values `(C, D, H, W)` and the millimetres between voxels
    /// along the spatial axes. A cache on disk needs [`Cache::version`], since it can't know what the reader does.
    ///
    /// # Errors
    /// When a folder can't be read or is empty, an image has no label, a label has no image, or `classes` is out of its range.
    pub fn with_reader<S: Into<Scan>>(
        folder: impl AsRef<Path>,
        classes: usize,
        reader: impl Fn(&Path) -> Result<S> + Send + Sync + 'static,
    ) -> Result<Self> {
        let readers = Readers::new(move |path| reader(path).map(Into::into));
        Ok(Self { readers, ..Self::open(folder, classes)? })
    }

    /// The cases of a folder of NIfTI files (or PNG pictures) in `images/` and `labels/`; labels have `classes` classes (1 to
    /// 256), with the background. The volumes of an image of four axes are its channels; a label has one volume.
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`].
    pub fn open(folder: impl AsRef<Path>, classes: usize) -> Result<Self> {
        check_classes("dataset", classes)?;
        Ok(Self::of(folders::pairs(folder.as_ref(), None, classes)?, classes))
    }

    /// The cases of a folder of NIfTI files (or PNG pictures), each image and label as `preparation` says: [`Dataset::open`] and
    /// [`Dataset::preparation`].
    ///
    /// # Errors
    /// As for both.
    pub fn prepared(folder: impl AsRef<Path>, preparation: &Preparation) -> Result<Self> {
        preparation.check()?;
        Self::open(folder, preparation.classes.len())?.preparation(preparation)
    }

    /// The cases of a folder whose images have one file a channel, `images/CASE+SUFFIX` and `labels/CASE`, the channels in the
    /// order of `suffixes` (`["_t1", "_flair"]`). Without any, files are numbered as nnU-Net's are (`case_0000.nii.gz`,
    /// `case_0001.nii.gz`), and its folders `imagesTr` and `labelsTr` are taken where there is no `images`.
    ///
    /// ```no_run
    /// use tomograd_pipeline::Dataset;
    /// let brats = Dataset::open_channels("Task01_BrainTumour", &["_t1", "_t2", "_flair"], 4)?;
    /// let nnunet = Dataset::open_channels("Dataset001_BrainTumour", &[], 4)?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`], and when a file is of no channel, or a case lacks one.
    pub fn open_channels(folder: impl AsRef<Path>, suffixes: &[&str], classes: usize) -> Result<Self> {
        check_classes("dataset", classes)?;
        let suffixes: Vec<String> = suffixes.iter().map(ToString::to_string).collect();
        Ok(Self::of(folders::pairs(folder.as_ref(), Some(&suffixes), classes)?, classes))
    }

    /// The images of a folder that has one folder a class. The fields are `image` and `class`, the number of the class's folder
    /// among all in the order of their names ([`Dataset::class_names`]); a case is called `CLASS/IMAGE`.
    ///
    /// # Errors
    /// When a folder can't be read, or one has no files.
    pub fn class_folders(folder: impl AsRef<Path>) -> Result<Self> {
        let (cases, names) = folders::classes(folder.as_ref())?;
        Ok(Self { class_names: Arc::new(names.clone()), ..Self::of(cases, names.len()) })
    }

    /// The cases of a CSV file, one a row, whose columns `columns` declares. Paths begin at the folder of the file.
    ///
    /// ```no_run
    /// use tomograd_pipeline::{Columns, Dataset};
    /// let columns = Columns::new().name("id").image("path").class("diagnosis", ["benign", "malignant"]).number("age");
    /// let cases = Dataset::csv("cases.csv", &columns)?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read, isn't CSV, lacks a column, or a field isn't what its column is declared to be; with the row
    /// and the column.
    pub fn csv(path: impl AsRef<Path>, columns: &Columns) -> Result<Self> {
        let (cases, classes) = columns.read(path.as_ref())?;
        Ok(Self::of(cases, classes))
    }

    /// The cases of a split (`train`, `val`, `test`) of an `.npz` archive as MedMNIST's are: the arrays `SPLIT_images` and
    /// `SPLIT_labels`, taken as [`Dataset::arrays`] does. The arrays stay in memory, beside what the cache keeps.
    ///
    /// ```no_run
    /// use tomograd_pipeline::Dataset;
    /// let train = Dataset::npz("pneumoniamnist.npz", "train")?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the archive can't be read or lacks an array, and as [`Dataset::arrays`].
    pub fn npz(path: impl AsRef<Path>, split: &str) -> Result<Self> {
        let archive = Npz::open(path.as_ref())?;
        let (images, labels) = (archive.array(&format!("{split}_images"))?, archive.array(&format!("{split}_labels"))?);
        let within = |error: Error| error.within(path.as_ref().display().to_string());
        Self::arrays(split, &images, Some(&labels)).map_err(within)
    }

    /// The cases of an array of images, called `NAME_0`, `NAME_1`, ...: `(N, H, W)`, `(N, H, W, 3)` with the colours last,
    /// `(N, D, H, W)` if the last axis isn't 3, or `(N, D, H, W, C)`. They become the field `image`, their channels first.
    ///
    /// Labels of whole numbers `(N,)` or `(N, 1)` become the field `class`; 0 and 1 in `(N, K)` the field `labels`; and other
    /// numbers, or those of a floating dtype, the field `numbers`.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_pipeline::{Cases, Dataset};
    /// let images = Tensor::zeros(&[10, 28, 28, 3], DType::U8, Device::Cpu)?;
    /// let labels = Tensor::arange(10, DType::I64, Device::Cpu)?;
    /// let cases = Dataset::arrays("train", &images, Some(&labels))?;
    /// assert_eq!(cases.sample(4)?.image()?.shape(), [3, 28, 28]);
    /// assert_eq!(cases.classes(), 10);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the arrays have other shapes.
    pub fn arrays(name: &str, images: &Tensor, labels: Option<&Tensor>) -> Result<Self> {
        let (cases, classes) = arrays::cases(name, images, labels)?;
        Ok(Self::of(cases, classes))
    }

    fn of(mut cases: Vec<Case>, classes: usize) -> Self {
        cases.iter_mut().enumerate().for_each(|(number, case)| case.number = number);
        Self {
            cases: counted(cases),
            classes,
            class_names: Arc::default(),
            preparation: None,
            prepare: Compose::new(),
            tolerance: alignment::TOLERANCE,
            readers: Readers::default(),
            store: Arc::new(Store::unlimited()),
            settings: Store::new_settings(),
        }
    }

    /// With each image and label as `preparation` says: turned, resampled, intensities normalised, label values as class
    /// numbers. It is the same code that prediction runs, so that a network sees in prediction what it was trained on. The
    /// preparation belongs into the checkpoint (`Checkpoint::preparation` in `tomograd-nn`). The classes of labels are then
    /// the preparation's.
    ///
    /// # Errors
    /// When an attribute of the preparation is out of its range.
    pub fn preparation(self, preparation: &Preparation) -> Result<Self> {
        preparation.check()?;
        let labels = |case: &Case| case.fields.iter().any(|(_, source)| matches!(source, Source::Label { .. }));
        let classes = if self.cases.iter().any(labels) { preparation.classes.len() } else { self.classes };
        let preparation = Some(Arc::new(preparation.clone()));
        Ok(Self { classes, preparation, settings: Store::new_settings(), ..self })
    }

    /// With these transforms of each case before it is kept: those that are the same in every epoch. They come behind a
    /// preparation, if there is one. Their random numbers,
    /// if they take any, are keyed by the name of the case, and by how often it was named before.
    #[must_use]
    pub fn prepare(self, transforms: Compose) -> Self {
        Self { settings: Store::new_settings(), prepare: transforms, ..self }
    }

    /// With another tolerance than [`alignment::TOLERANCE`]: how far, in voxels of the image, the centre of a corner voxel of
    /// a label may lie from where that of its image is.
    ///
    /// # Errors
    /// When `voxels` is negative or not finite.
    pub fn alignment_tolerance(self, voxels: f64) -> Result<Self> {
        Ok(Self { settings: Store::new_settings(), tolerance: alignment::tolerance(voxels)?, ..self })
    }

    /// With another cache than one in memory without a limit. What is made from this dataset afterwards (clones, subsets)
    /// shares it, and its budget.
    ///
    /// ```no_run
    /// use tomograd_pipeline::{Cache, Dataset};
    /// let cases = Dataset::open("cases", 2)?.cache(Cache::disk("/scratch/cases", 500 << 30))?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the folder of a cache on disk can't be used.
    pub fn cache(self, cache: Cache) -> Result<Self> {
        Ok(Self { store: Arc::new(cache.open()?), ..self })
    }

    /// What the cache holds and did.
    pub fn cache_statistics(&self) -> Statistics {
        self.store.statistics()
    }

    /// The cases of these names, in this order; one that is named twice is there twice.
    ///
    /// # Errors
    /// When one isn't there.
    pub fn subset(&self, names: &[String]) -> Result<Self> {
        let mut known = HashMap::new();
        for case in self.cases.iter() {
            known.entry(case.name.as_str()).or_insert(case);
        }
        let find = |name: &String| known.get(name.as_str()).map_or_else(|| self.case(name), |&case| Ok(case)).cloned();
        let cases = names.iter().map(find).collect::<Result<_>>()?;
        Ok(Self { cases: counted(cases), ..self.clone() })
    }

    /// The (first) file of the (first) image of a case.
    ///
    /// # Errors
    /// When no case has that name, or it has no image in a file.
    pub fn image_file(&self, name: &str) -> Result<&Path> {
        self.file(name, "image", |source| match source {
            Source::Image(paths) => paths.first(),
            _ => None,
        })
    }

    /// The file of the (first) label of a case.
    ///
    /// # Errors
    /// When no case has that name, or it has no label in a file.
    pub fn label_file(&self, name: &str) -> Result<&Path> {
        self.file(name, "label", |source| match source {
            Source::Label { path, .. } => Some(path),
            _ => None,
        })
    }

    fn file(&self, name: &str, what: &str, path: impl Fn(&Source) -> Option<&PathBuf>) -> Result<&Path> {
        let found = self.case(name)?.fields.iter().find_map(|(_, source)| path(source));
        let missing = || Error::argument("dataset", format!("case {name:?} has no {what} in a file"));
        found.map(PathBuf::as_path).ok_or_else(missing)
    }

    fn case(&self, name: &str) -> Result<&Case> {
        let case = self.cases.iter().find(|case| case.name == name);
        let known = || self.cases.iter().map(|case| case.name.as_str());
        case.ok_or_else(|| names::unknown("dataset", "case", name, known()))
    }

    /// The names of the cases, in their order.
    pub fn names(&self) -> Vec<String> {
        self.cases.iter().map(|case| case.name.clone()).collect()
    }

    /// The number of classes of labels, with the background; where there are none, of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The names of the classes of [`Dataset::class_folders`], in the order of their numbers; none for other datasets.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }
}

/// The cases, each with the number of those of its name that come before.
fn counted(mut cases: Vec<Case>) -> Arc<Vec<Case>> {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for case in &mut cases {
        let count = uses.entry(case.name.clone()).or_default();
        case.before = *count;
        *count += 1;
    }
    Arc::new(cases)
}

impl Cases for Dataset {
    fn len(&self) -> usize {
        self.cases.len()
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let case = self.cases.get(index).ok_or_else(|| missing(index, self.cases.len()))?;
        let key = (self.settings, case.number, case.before);
        self.store.get(key, || self.disk_key(case), || self.load(case))
    }

    fn name(&self, index: usize) -> Result<String> {
        let case = self.cases.get(index).ok_or_else(|| missing(index, self.cases.len()))?;
        Ok(case.name.clone())
    }
}
