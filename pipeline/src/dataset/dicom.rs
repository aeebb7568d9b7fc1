//! DICOM trees: the series below a folder.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_core::{Error, ErrorKind, Result};
use tomograd_io::dicom::{Listing, Stack};

use super::{Case, Dataset, Source, folders::files};
use crate::{Scan, sample::check_classes};

/// A volume of a listing: the numbers of its series and of its stack.
#[derive(Clone)]
pub(super) struct Place {
    listing: Arc<Listing>,
    series: usize,
    stack: usize,
}

impl Place {
    fn stack(&self) -> Result<&Stack> {
        let series = self.listing.series().get(self.series);
        let stack = series.and_then(|series| series.stacks().get(self.stack));
        stack.ok_or_else(|| Error::argument("dataset", "a stack that isn't in its listing"))
    }

    pub(super) fn scan(&self) -> Result<Scan> {
        Scan::of_volume(&self.stack()?.read()?)
    }
}

impl Dataset {
    /// The volumes below a folder of DICOM files as cases, with the field `image`. A folder in it is a patient or a study: a case is
    /// called by it where it has one volume, `FOLDER/UID` by the series' UID where there are more, and `FOLDER/UID_2` by the
    /// number of a stack where a series has several. Files in the folder itself are cases by the UIDs of their series.
    ///
    /// `labels` is a folder of masks with `classes` classes (1 to 256, with the background), in any format of
    /// [`Volume::read`](tomograd_io::Volume::read), which have the names of their cases (with `_` for `/`); a volume without a
    /// mask is then left out, and a mask without a volume is an error. Headers alone are read at first.
    ///
    /// ```no_run
    /// use tomograd_pipeline::Dataset;
    /// let cases = Dataset::dicom("scans", Some(("masks", 2)))?; // scans/patient_1/*.dcm, masks/patient_1.nii.gz
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a folder can't be read, a DICOM file is damaged, there are no volumes, a mask has none, or `classes` is out of range.
    pub fn dicom(folder: impl AsRef<Path>, labels: Option<(impl AsRef<Path>, usize)>) -> Result<Self> {
        let folder = folder.as_ref();
        let failed = |error| Error::io("read folder", folder.display(), error);
        let (mut below, mut own): (Vec<PathBuf>, Vec<PathBuf>) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() { below.push(path) } else { own.push(path) }
        }
        below.sort();
        own.sort();
        let mut found: BTreeMap<String, Place> = BTreeMap::new();
        for path in &below {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add(&mut found, &name, Listing::open(path)?)?;
        }
        let is_dicom = |path: &PathBuf| Listing::open(path).is_ok();
        let own: Vec<PathBuf> = own.into_iter().filter(is_dicom).collect();
        if !own.is_empty() {
            add(&mut found, "", Listing::from_files(own)?)?;
        }
        if found.is_empty() {
            return Err(Error::argument("dataset", format!("no DICOM volumes in {}", folder.display())));
        }
        let image = |place: Place| ("image".to_owned(), Source::Stack(place));
        let Some((labels, classes)) = labels else {
            let cases = found.into_iter().map(|(name, place)| Case::new(name, [image(place)])).collect();
            return Ok(Self::of(cases, 0));
        };
        check_classes("dataset", classes)?;
        let mut labels = files(labels.as_ref())?;
        let mut cases = Vec::new();
        for (name, place) in found {
            if let Some(path) = labels.remove(&name.replace('/', "_")) {
                let label = ("label".to_owned(), Source::Label { path, classes });
                cases.push(Case::new(name, [image(place), label]));
            }
        }
        match labels.into_values().next() {
            Some(label) => Err(Error::new(ErrorKind::Name, "dataset", format!("{} has no volume", label.display()))
                .expected("masks named as the folders of the volumes, or their series")),
            None => Ok(Self::of(cases, classes)),
        }
    }
}

/// Adds the volumes of a folder.
fn add(found: &mut BTreeMap<String, Place>, folder: &str, listing: Listing) -> Result<()> {
    // A damaged slice would otherwise be missing in silence.
    if let Some((path, error)) = listing.skipped().iter().find(|(_, error)| !is_without_pixels(error)) {
        return Err(Error::format("dataset", error.to_string()).within(path.display().to_string()));
    }
    let listing = Arc::new(listing);
    let volumes: usize = listing.series().iter().map(|series| series.stacks().len()).sum();
    for (series, of_series) in listing.series().iter().enumerate() {
        for stack in 0..of_series.stacks().len() {
            let uid = of_series.uid();
            let name = match (volumes, of_series.stacks().len()) {
                (1, _) if !folder.is_empty() => folder.to_owned(),
                (_, 1) => format!("{folder}/{uid}"),
                _ => format!("{folder}/{uid}_{}", stack + 1),
            };
            let place = Place { listing: listing.clone(), series, stack };
            found.insert(name.trim_start_matches('/').to_owned(), place);
        }
    }
    Ok(())
}

/// Whether a file was skipped since it is another kind of object: a report, a presentation state, a directory.
fn is_without_pixels(error: &Error) -> bool {
    error.to_string().contains("no pixels, in an object")
}
