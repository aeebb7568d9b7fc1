//! Datasets in files: pairs of image and label, the Medical Segmentation Decathlon, BIDS, DICOM trees, class folders, CSV files,
//! NumPy arrays.

mod arrays;
mod bids;
#[cfg(feature = "dicom")]
mod dicom;
mod folders;
mod load;
mod msd;
mod table;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_core::{Error, Result, Tensor};
use tomograd_io::numpy::Npz;

use self::{arrays::Rows, load::Readers};
pub use self::{bids::Bids, table::Columns};
use crate::{
    Cache, Cases, Field, Preparation, Sample, Scan, alignment,
    cache::{Statistics, Store},
    loader::missing,
    names,
    sample::check_classes,
    transforms::Compose,
};

/// A dataset of cases in files. Each case is read on first access, checked, prepared, and kept in a [`Cache`].
///
/// The grids of a label and its image must coincide. If both files have an affine, a label whose axes are permuted or
/// reversed is reoriented to the image's axes, and a label elsewhere in world coordinates is rejected (see
/// [`Dataset::alignment_tolerance`]). Without affines, shapes and spacings must be equal. Several images of a case, and the
/// channel files of one image, must have the same grid.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_pipeline::{Cases, Dataset};
/// let images = Tensor::zeros(&[6, 8, 8], DType::F32, Device::Cpu)?;
/// let cases = Dataset::arrays("slice", &images, None)?; // or open, prepared, open_channels, class_folders, csv, npz
/// let train = cases.subset(&["slice_0".to_owned(), "slice_3".to_owned()])?;
/// assert_eq!((train.len(), train.sample(1)?.name), (2, "slice_3".to_owned()));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
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
    /// Identifies the settings other than the cases in the cache.
    settings: u64,
}

/// A case before its files are read.
#[derive(Clone)]
struct Case {
    name: String,
    fields: Vec<(String, Source)>,
    /// Its index in the whole dataset.
    number: usize,
    /// The number of earlier cases with the same name.
    before: usize,
}

/// The source of a field.
#[derive(Clone)]
enum Source {
    /// One file, or one for each channel.
    Image(Vec<PathBuf>),
    Label {
        path: PathBuf,
        classes: usize,
    },
    Value(Field),
    Row(Arc<Rows>, usize),
    /// A volume of a DICOM tree.
    #[cfg(feature = "dicom")]
    Stack(dicom::Place),
}

impl Source {
    fn is_image(&self) -> bool {
        !matches!(self, Self::Label { .. } | Self::Value(_))
    }
}

impl Case {
    fn new(name: String, fields: impl IntoIterator<Item = (String, Source)>) -> Self {
        Self { name, fields: fields.into_iter().collect(), number: 0, before: 0 }
    }
}

impl Dataset {
    /// The cases of `folder` with subfolders `images/` and `labels/`, sorted by name. A label has the same name as its image
    /// (the extension may differ), and `classes` classes (1 to 256, including the background). The fields are `image` and
    /// `label`.
    ///
    /// `reader` reads images and labels: it returns a [`Scan`], or the values `(C, D, H, W)` and the spacing in millimetres
    /// along the spatial axes. A disk cache then needs [`Cache::version`], since it can't know what the reader does.
    ///
    /// # Errors
    /// When a folder can't be read or is empty, an image has no label, a label has no image, or `classes` is out of range.
    pub fn with_reader<S: Into<Scan>>(
        folder: impl AsRef<Path>,
        classes: usize,
        reader: impl Fn(&Path) -> Result<S> + Send + Sync + 'static,
    ) -> Result<Self> {
        let readers = Readers::new(move |path| reader(path).map(Into::into));
        Ok(Self { readers, ..Self::open(folder, classes)? })
    }

    /// The cases of a folder of NIfTI files (or PNG images) in `images/` and `labels/`; labels have `classes` classes (1 to
    /// 256, including the background). The volumes of a 4D image are its channels; a label must be a single volume.
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Dataset};
    /// # use tomograd_core::{DType, Device, Tensor};
    /// # use tomograd_io::{Volume, geometry};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-open-doc-{}", std::process::id()));
    /// # for part in ["images", "labels"] {
    /// #     std::fs::create_dir_all(folder.join(part)).unwrap();
    /// #     let voxels = Tensor::zeros(&[4, 5, 6], DType::U8, Device::Cpu)?;
    /// #     Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(folder.join(part).join("liver_1.nii.gz"))?;
    /// # }
    /// let cases = Dataset::open(&folder, 2)?; // images/liver_1.nii.gz, labels/liver_1.nii.gz
    /// assert_eq!(cases.names(), ["liver_1"]);
    /// assert_eq!(cases.sample(0)?.image()?.shape(), [1, 4, 5, 6]);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Dataset::with_reader`].
    pub fn open(folder: impl AsRef<Path>, classes: usize) -> Result<Self> {
        check_classes("dataset", classes)?;
        Ok(Self::of(folders::pairs(folder.as_ref(), None, classes)?, classes))
    }

    /// The cases of a folder of NIfTI files (or PNG images), prepared by `preparation`: [`Dataset::open`] followed by
    /// [`Dataset::preparation`].
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Dataset, Preparation};
    /// # use tomograd_core::{DType, Device, Tensor};
    /// # use tomograd_io::{Volume, geometry};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-prepared-doc-{}", std::process::id()));
    /// # for part in ["images", "labels"] {
    /// #     std::fs::create_dir_all(folder.join(part)).unwrap();
    /// #     let voxels = Tensor::zeros(&[4, 5, 6], DType::U8, Device::Cpu)?;
    /// #     Volume::new(voxels, geometry::from_spacing([2.0; 3])?)?.write(folder.join(part).join("liver_1.nii.gz"))?;
    /// # }
    /// let preparation = Preparation::new([8, 8, 8], ["background", "liver"])?.orientation("RAS")?.spacing([1.0; 3])?;
    /// let cases = Dataset::prepared(&folder, &preparation)?; // files with 2 mm voxels
    /// assert_eq!(cases.sample(0)?.image()?.shape(), [1, 8, 10, 12]);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As both.
    pub fn prepared(folder: impl AsRef<Path>, preparation: &Preparation) -> Result<Self> {
        preparation.check()?;
        Self::open(folder, preparation.classes.len())?.preparation(preparation)
    }

    /// The cases of a folder with one file per channel, `images/CASE+SUFFIX` and `labels/CASE`, channels in the order of
    /// `suffixes` (`["_t1", "_flair"]`). Without suffixes, files are numbered as in nnU-Net (`case_0000.nii.gz`,
    /// `case_0001.nii.gz`), and its folders `imagesTr` and `labelsTr` are used if there is no folder `images`.
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Dataset};
    /// # use tomograd_core::{DType, Device, Tensor};
    /// # use tomograd_io::{Volume, geometry};
    /// # let voxels = Tensor::zeros(&[4, 5, 6], DType::U8, Device::Cpu)?;
    /// # let volume = Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?;
    /// # let folder = std::env::temp_dir().join(format!("tomograd-channels-doc-{}", std::process::id()));
    /// # let [brats, nnunet] = ["brats", "nnunet"].map(|name| folder.join(name));
    /// # for file in [
    /// #     "brats/images/a_t1.nii.gz", "brats/images/a_flair.nii.gz", "brats/labels/a.nii.gz",
    /// #     "nnunet/imagesTr/a_0000.nii.gz", "nnunet/imagesTr/a_0001.nii.gz", "nnunet/labelsTr/a.nii.gz",
    /// # ] {
    /// #     std::fs::create_dir_all(folder.join(file).parent().unwrap()).unwrap();
    /// #     volume.write(folder.join(file))?;
    /// # }
    /// let cases = Dataset::open_channels(&brats, &["_t1", "_flair"], 4)?; // images/a_t1.nii.gz, images/a_flair.nii.gz
    /// assert_eq!(cases.sample(0)?.image()?.shape(), [2, 4, 5, 6]);
    /// let cases = Dataset::open_channels(&nnunet, &[], 4)?; // imagesTr/a_0000.nii.gz, imagesTr/a_0001.nii.gz
    /// assert_eq!(cases.sample(0)?.image()?.shape(), [2, 4, 5, 6]);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Dataset::with_reader`], and when a file matches no channel, or a case lacks one.
    pub fn open_channels(folder: impl AsRef<Path>, suffixes: &[&str], classes: usize) -> Result<Self> {
        check_classes("dataset", classes)?;
        let suffixes: Vec<String> = suffixes.iter().map(ToString::to_string).collect();
        Ok(Self::of(folders::pairs(folder.as_ref(), Some(&suffixes), classes)?, classes))
    }

    /// The images of a folder with one subfolder per class. The fields are `image` and `class`, the index of the class among
    /// the sorted subfolder names ([`Dataset::class_names`]); a case is called `CLASS/IMAGE`.
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Dataset};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-classes-doc-{}", std::process::id()));
    /// for class in ["normal", "pneumonia"] {
    ///     std::fs::create_dir_all(folder.join(class)).unwrap();
    ///     tomograd_io::write_gray(&folder.join(class).join("1.png"), 4, 4, &[0; 16])?;
    /// }
    /// let cases = Dataset::class_folders(&folder)?;
    /// assert_eq!(cases.names(), ["normal/1", "pneumonia/1"]);
    /// assert_eq!(cases.class_names(), ["normal", "pneumonia"]);
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a folder can't be read, or a subfolder has no files.
    pub fn class_folders(folder: impl AsRef<Path>) -> Result<Self> {
        let (cases, names) = folders::classes(folder.as_ref())?;
        Ok(Self { class_names: Arc::new(names.clone()), ..Self::of(cases, names.len()) })
    }

    /// The cases of a CSV file, one per row, whose columns are declared by `columns`. Paths are relative to the folder of the
    /// file.
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Columns, Dataset, Field};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-csv-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// # tomograd_io::write_gray(&folder.join("1.png"), 6, 5, &[0; 30])?;
    /// std::fs::write(folder.join("cases.csv"), "id,path,diagnosis,age\np1,1.png,malignant,64\n").unwrap();
    /// let columns = Columns::new().name("id").image("path").class("diagnosis", ["benign", "malignant"]).number("age");
    /// let sample = Dataset::csv(folder.join("cases.csv"), &columns)?.sample(0)?;
    /// assert_eq!((&sample.name[..], sample.image()?.shape()), ("p1", &[1, 5, 6][..]));
    /// assert!(matches!(sample.get("diagnosis")?, Field::Class(1)));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read, isn't CSV, lacks a column, or a field doesn't fit the declaration of its column; the
    /// error has the row and the column.
    pub fn csv(path: impl AsRef<Path>, columns: &Columns) -> Result<Self> {
        let (cases, classes) = columns.read(path.as_ref())?;
        Ok(Self::of(cases, classes))
    }

    /// The cases of a split (`train`, `val`, `test`) of an `.npz` archive in MedMNIST's format: the arrays `SPLIT_images` and
    /// `SPLIT_labels`, interpreted as by [`Dataset::arrays`]. The arrays stay in memory, in addition to the cache.
    ///
    /// ```
    /// use tomograd_pipeline::Dataset;
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/numpy/medmnist.npz");
    /// let train = Dataset::npz(path, "train")?;
    /// assert_eq!((train.names().len(), train.classes()), (4, 3));
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

    /// The cases of an array of images, named `NAME_0`, `NAME_1`, ...: `(N, H, W)`, `(N, H, W, 3)` with channels last,
    /// `(N, D, H, W)` if the last axis isn't 3, or `(N, D, H, W, C)`. The field is `image`, with channels first.
    ///
    /// Integer labels `(N,)` or `(N, 1)` become the field `class`; 0 and 1 in `(N, K)` the field `labels`; other numbers, and
    /// floating-point labels, the field `numbers`.
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

    /// Prepares each image and label by `preparation`: reoriented, resampled, intensities normalised, label values mapped to
    /// class numbers. Prediction runs the same code, so that a network gets the same kind of input as in training. Save the
    /// preparation in the checkpoint (`Checkpoint::preparation` in `tomograd-nn`). The classes of labels are those of the
    /// preparation.
    ///
    /// # Errors
    /// When an attribute of the preparation is out of range.
    pub fn preparation(self, preparation: &Preparation) -> Result<Self> {
        preparation.check()?;
        let labels = |case: &Case| case.fields.iter().any(|(_, source)| matches!(source, Source::Label { .. }));
        let classes = if self.cases.iter().any(labels) { preparation.classes.len() } else { self.classes };
        let preparation = Some(Arc::new(preparation.clone()));
        Ok(Self { classes, preparation, settings: Store::new_settings(), ..self })
    }

    /// Sets transforms that are applied to each case once, before it is cached and after the preparation, if any. Their
    /// random numbers, if they use any, depend on the name of the case and the number of earlier cases with this name, not on
    /// the epoch.
    #[must_use]
    pub fn prepare(self, transforms: Compose) -> Self {
        Self { settings: Store::new_settings(), prepare: transforms, ..self }
    }

    /// Sets the tolerance, by default [`alignment::TOLERANCE`]: the largest distance, in voxels of the image, between the
    /// centres of corresponding corner voxels of label and image.
    ///
    /// # Errors
    /// When `voxels` is negative or not finite.
    pub fn alignment_tolerance(self, voxels: f64) -> Result<Self> {
        Ok(Self { settings: Store::new_settings(), tolerance: alignment::tolerance(voxels)?, ..self })
    }

    /// Sets the cache; the default is an unlimited memory cache. Datasets that are made from this one afterwards (clones,
    /// subsets) share the cache and its budget.
    ///
    /// ```
    /// use tomograd_pipeline::{Cache, Cases, Dataset};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-disk-doc-{}", std::process::id()));
    /// # let cache = folder.with_extension("cache");
    /// # std::fs::create_dir_all(folder.join("normal")).unwrap();
    /// # tomograd_io::write_gray(&folder.join("normal/1.png"), 4, 4, &[0; 16])?;
    /// let cases = Dataset::class_folders(&folder)?.cache(Cache::disk(&cache, 1 << 30))?;
    /// for _epoch in 0..2 {
    ///     cases.sample(0)?;
    /// }
    /// assert_eq!((cases.cache_statistics().misses, cases.cache_statistics().hits), (1, 1));
    /// # [folder, cache].iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the folder of a cache on disk can't be used.
    pub fn cache(self, cache: Cache) -> Result<Self> {
        Ok(Self { store: Arc::new(cache.open()?), ..self })
    }

    /// The statistics of the cache.
    pub fn cache_statistics(&self) -> Statistics {
        self.store.statistics()
    }

    /// The cases with these names, in this order; a repeated name gives a repeated case.
    ///
    /// # Errors
    /// When one doesn't exist.
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
    /// When there is no case of this name, or it has no image file.
    pub fn image_file(&self, name: &str) -> Result<&Path> {
        self.file(name, "image", |source| match source {
            Source::Image(paths) => paths.first(),
            _ => None,
        })
    }

    /// The file of the (first) label of a case.
    ///
    /// # Errors
    /// When there is no case of this name, or it has no label file.
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

    /// The number of classes of labels, including the background; for datasets without labels, that of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The class names of [`Dataset::class_folders`] and [`Dataset::msd`], in the order of their numbers; empty for other datasets.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }
}

/// Numbers the cases that have the same name.
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
