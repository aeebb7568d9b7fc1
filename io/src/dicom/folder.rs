//! Files on disk: folders, lists of files, and DICOMDIR.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dicom_dictionary_std::tags;
use tomograd_core::{Error, Result, pieces};

use super::{
    OPERATION, fail,
    file::{Header, Source},
    image::{self, Image},
    series::Series,
};

/// Folders within folders beyond this are left out.
const DEEPEST: usize = 32;
/// The files that a thread reads before it looks for others.
const AT_ONCE: usize = 4;

/// The series of a folder, a DICOMDIR, or a list of files.
///
/// ```no_run
/// use tomograd_io::dicom::Listing;
/// let listing = Listing::open("study")?;
/// for series in listing.series() {
///     println!("{} {:?}: {} stacks", series.modality(), series.description(), series.stacks().len());
/// }
/// let volume = listing.find("1.2.840.113619.2.5.1762583153")?.stack()?.read()?; // a series by its UID
/// println!("{:?} {}", volume.voxels().shape(), volume.orientation());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Listing {
    series: Vec<Series>,
    skipped: Vec<(PathBuf, Error)>,
    others: usize,
}

impl Listing {
    /// Lists what a path holds: a folder with all folders in it, the files that a DICOMDIR names, or one file. Only the elements
    /// before the pixels are read.
    ///
    /// # Errors
    /// When the path can't be read, or is a file that isn't DICOM.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let named = |error: Error| error.within(path.display().to_string());
        let about = fs::metadata(path).map_err(|error| Error::io(OPERATION, path.display(), error))?;
        if about.is_dir() {
            return Self::of(files(path)?, false);
        }
        let source = Source::File(path.into());
        let header = Header::read(&source).map_err(named)?;
        if image::is_directory(header.view()) {
            let (files, mut skipped) = referenced(path, &header);
            let mut listing = Self::of(files, true)?;
            skipped.append(&mut listing.skipped);
            return Ok(Self { skipped, ..listing });
        }
        let image = Image::of(source, &header).map_err(named)?;
        let series = Series::new(vec![Arc::new(image)]).map_err(named)?;
        Ok(Self { series: vec![series], skipped: Vec::new(), others: 0 })
    }

    /// Lists these files. One that can't be read is among [`Listing::skipped`].
    ///
    /// # Errors
    /// When a series has too many kinds of images.
    pub fn from_files(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Result<Self> {
        Self::of(paths.into_iter().map(Into::into).collect(), true)
    }

    /// `named`: the files are said to be DICOM.
    fn of(files: Vec<PathBuf>, named: bool) -> Result<Self> {
        let (mut images, mut skipped, mut others) = (BTreeMap::<_, Vec<Arc<Image>>>::new(), Vec::new(), 0);
        let mut found: Vec<(PathBuf, Option<Result<Image>>)> = files.into_iter().map(|path| (path, None)).collect();
        pieces::each(&mut found, AT_ONCE, |_, part| {
            part.iter_mut().for_each(|(path, found)| *found = image_of(path, named).transpose());
            Ok(())
        })?;
        for (path, found) in found {
            match found {
                None => others += 1,
                Some(Err(error)) => skipped.push((path, error)),
                Some(Ok(image)) => {
                    let key = (
                        image.about.study.clone(),
                        image.about.number.unwrap_or(0.0) as i64,
                        image.about.series.clone(),
                    );
                    images.entry(key).or_default().push(Arc::new(image));
                }
            }
        }
        let series = images.into_values().map(Series::new).collect::<Result<Vec<_>>>()?;
        Ok(Self { series, skipped, others })
    }

    /// The series, by study and number.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// DICOM files that weren't read, each with its reason: damaged ones, and objects without pixels.
    pub fn skipped(&self) -> &[(PathBuf, Error)] {
        &self.skipped
    }

    /// The number of files in a folder that aren't DICOM, and of DICOMDIRs.
    pub fn others(&self) -> usize {
        self.others
    }

    /// The series of this SeriesInstanceUID, or of its beginning, if it is the only one.
    ///
    /// # Errors
    /// When no series has it, or several; the error lists them.
    pub fn find(&self, uid: &str) -> Result<&Series> {
        let found: Vec<&Series> = self.series.iter().filter(|series| series.uid().starts_with(uid)).collect();
        match found.iter().find(|series| series.uid() == uid).or(if found.len() == 1 { found.first() } else { None }) {
            Some(series) => Ok(series),
            None => Err(fail(format!("{} series begin with {uid:?}", found.len())).expected(self.choices())),
        }
    }

    /// The only series.
    ///
    /// # Errors
    /// When there is none, or there are several; the error lists them.
    pub fn only(&self) -> Result<&Series> {
        match (self.series.as_slice(), self.skipped.first()) {
            ([series], _) => Ok(series),
            ([], Some((path, error))) => Err(fail(format!(
                "no images; {} files were skipped, the first {}: {error}",
                self.skipped.len(),
                path.display()
            ))),
            ([], None) => Err(fail("no DICOM files").expected("a folder, a DICOMDIR or a file with images")),
            (several, _) => Err(fail(format!("{} series", several.len())).expected(self.choices())),
        }
    }

    fn choices(&self) -> String {
        let one = |series: &Series| format!("{} ({} {:?})", series.uid(), series.modality(), series.description());
        let list: Vec<String> = self.series.iter().take(20).map(one).collect();
        format!("one of {}", list.join(", "))
    }
}

/// The image of a file; `None` if it isn't DICOM and isn't said to be (`named`), or is a DICOMDIR.
fn image_of(path: &Path, named: bool) -> Result<Option<Image>> {
    let source = Source::File(path.into());
    let header = match Header::read(&source) {
        Ok(header) => header,
        // In a folder there may be files of all sorts.
        Err(_) if !named && !claims_to_be_dicom(path) => return Ok(None),
        Err(error) => return Err(error),
    };
    if image::is_directory(header.view()) {
        return Ok(None);
    }
    Image::of(source, &header).map(Some)
}

/// All files of a folder and the folders in it, by name. Links to folders aren't followed.
///
/// # Errors
/// When a folder can't be read.
pub fn files(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    walk(folder.as_ref(), 0, &mut files)?;
    Ok(files)
}

/// Whether a file begins as DICOM files do: with `DICM` at byte 128, or with elements of a low group.
pub fn looks_like_dicom(path: impl AsRef<Path>) -> bool {
    super::file::looks_like_dicom(path.as_ref())
}

/// Whether a file that can't be read says that it is DICOM.
fn claims_to_be_dicom(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 132];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start.ends_with(b"DICM")
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let io = |error| Error::io(OPERATION, folder.display(), error);
    let mut entries = fs::read_dir(folder).map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, kind) = (entry.path(), entry.file_type().map_err(io)?);
        if kind.is_dir() {
            if depth < DEEPEST {
                walk(&path, depth.saturating_add(1), files)?;
            }
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// The files that a DICOMDIR names, and why others are left out. None is outside of its folder.
fn referenced(path: &Path, header: &Header) -> (Vec<PathBuf>, Vec<(PathBuf, Error)>) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for record in header.view().items(tags::DIRECTORY_RECORD_SEQUENCE) {
        let parts = record.texts(tags::REFERENCED_FILE_ID);
        if parts.is_empty() {
            continue;
        }
        match inside(folder, &parts) {
            Ok(file) => files.push(file),
            Err(error) => skipped.push((parts.iter().collect(), error)),
        }
    }
    (files, skipped)
}

/// The file of these names in `folder`, in either case of letters.
fn inside(folder: &Path, parts: &[String]) -> Result<PathBuf> {
    let plain =
        |part: &&String| !part.is_empty() && *part != "." && *part != ".." && !part.contains(['/', '\\', ':', '\0']);
    if parts.len() > 16 || parts.iter().any(|part| !plain(&part)) {
        return Err(fail(format!("a DICOMDIR names {parts:?}")).expected("names of files and folders within its own"));
    }
    let mut place = folder.to_owned();
    for part in parts {
        let exact = place.join(part);
        place = if exact.exists() { exact } else { place.join(part.to_lowercase()) };
    }
    // A link could lead out of the folder.
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| Error::io(OPERATION, path.display(), error));
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !real(&place)?.starts_with(real(here)?) {
        return Err(fail(format!("{} is outside of the DICOMDIR's folder", place.display())));
    }
    Ok(place)
}
