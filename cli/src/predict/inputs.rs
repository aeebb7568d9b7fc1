//! What is segmented: files, the volumes of folders, DICOM series; and what the masks are called.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd::{
    io::dicom::{self, Listing},
    pipeline::Dataset,
    prelude::*,
};

use super::Output;

/// A volume and the path of its mask.
pub(super) struct Job {
    pub(super) input: PathBuf,
    /// The place of a volume among those of a DICOM folder: the numbers of its series and of its stack.
    pub(super) place: Option<(Arc<Listing>, usize, usize)>,
    pub(super) output: PathBuf,
}

impl Job {
    /// The stack of a DICOM series, where the input is one of several of a folder.
    pub(super) fn stack(&self) -> Option<&dicom::Stack> {
        let (listing, series, stack) = self.place.as_ref()?;
        listing.series().get(*series)?.stacks().get(*stack)
    }
}

/// A volume before its mask has a name.
struct Found {
    input: PathBuf,
    name: String,
    place: Option<(Arc<Listing>, usize, usize)>,
}

/// The endings of files that are volumes in a folder. The data files of headers aren't among them.
const VOLUMES: [&str; 13] =
    [".nii", ".nii.gz", ".hdr", ".hdr.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".tiff", ".png", ".jpg", ".jpeg"];

/// Endings of volumes that aren't single NIfTI files.
const OTHERS: [&str; 14] = [
    ".hdr", ".img", ".hdr.gz", ".img.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".tiff", ".dcm", ".png", ".jpg",
    ".jpeg",
];

/// Plans the mask path of each volume.
///
/// # Errors
/// When two masks would have the same name (file systems may be case-insensitive), one would replace an input or a
/// checkpoint, or an existing file must not be overwritten.
pub(super) fn plan(checkpoints: &[PathBuf], inputs: &[PathBuf], out: &Path, output: Output) -> Result<Vec<Job>> {
    if is_there(out) && !out.is_dir() {
        return Err(
            Error::argument("predict", format!("{} isn't a folder", out.display())).expected("a folder for --out")
        );
    }
    let mut found = Vec::new();
    for input in inputs {
        found.extend(volumes(input, output)?);
    }
    let mut names: HashMap<String, PathBuf> = HashMap::new();
    let mut jobs = Vec::new();
    for Found { input, name, place } in found {
        let name = mask_name(&name, output.dicom);
        if let Some(other) = names.insert(name.to_lowercase(), input.clone()) {
            return Err(Error::argument(
                "predict",
                format!("{} and {} give one mask, {name}", other.display(), input.display()),
            )
            .expected("files of different names (of a pair of files its header alone), or a call for each"));
        }
        jobs.push(Job { input, place, output: out.join(name) });
    }
    let read: Vec<PathBuf> =
        jobs.iter().map(|job| &job.input).chain(checkpoints).filter_map(|path| real(path)).collect();
    for job in &jobs {
        if real(&job.output).is_some_and(|output| read.contains(&output)) {
            return Err(Error::argument(
                "predict",
                format!("the mask would replace {}, which is read", job.output.display()),
            )
            .expected("another folder for --out"));
        }
        if !output.overwrite && is_there(&job.output) {
            return Err(exists(&job.output));
        }
    }
    Ok(jobs)
}

/// The volumes of an input: a file; the images that the `dataset.json` of a folder names for testing; the files of a folder;
/// the DICOM volumes below it.
fn volumes(input: &Path, output: Output) -> Result<Vec<Found>> {
    let name = file_name(input);
    if name.is_empty() {
        return Err(Error::argument("predict", format!("{} isn't a file", input.display())));
    }
    if !input.is_dir() {
        return Ok(vec![Found { input: input.to_owned(), name, place: None }]);
    }
    let file = |path: PathBuf| Found { name: file_name(&path), input: path, place: None };
    if input.join("dataset.json").is_file() {
        let cases = Dataset::msd_test(input)?;
        let path = |name: &String| cases.image_file(name).map(|path| file(path.to_owned()));
        return cases.names().iter().map(path).collect();
    }
    let failed = |error| Error::io("read folder", input.display(), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(input).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = file_name(&path).to_lowercase();
        if !name.starts_with('.') && path.is_file() && VOLUMES.iter().any(|ending| name.ends_with(ending)) {
            files.push(path);
        }
    }
    files.sort();
    if !files.is_empty() && !output.dicom {
        return Ok(files.into_iter().map(file).collect());
    }
    let listing = Arc::new(Listing::open(input)?);
    let places = listing.series().iter().enumerate();
    let places: Vec<(usize, usize)> =
        places.flat_map(|(series, of)| (0..of.stacks().len()).map(move |stack| (series, stack))).collect();
    if places.len() < 2 {
        return Ok(vec![Found { input: input.to_owned(), name, place: None }]);
    }
    let found = places.into_iter().map(|(series, stack)| {
        let uid = listing.series().get(series).map_or("", dicom::Series::uid);
        let place = Some((listing.clone(), series, stack));
        Found { input: input.to_owned(), name: format!("{name}_{uid}_{}", stack + 1), place }
    });
    Ok(found.collect())
}

pub(super) fn exists(path: &Path) -> Error {
    Error::argument("predict", format!("{} is there already", path.display()))
        .expected("another folder, or --overwrite")
}

/// Whether a file or a link of this name exists, even a dangling one.
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The path with links resolved, if the file exists.
fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// The name of the mask of a file: the same name, with the extension of NIfTI or DICOM.
fn mask_name(name: &str, dicom: bool) -> String {
    let ends = |ending: &str| {
        let stem = name.len().checked_sub(ending.len()).filter(|&at| at > 0 && name.is_char_boundary(at))?;
        let (stem, end) = name.split_at(stem);
        end.eq_ignore_ascii_case(ending).then_some(stem)
    };
    if dicom {
        return format!("{}.dcm", ends(".dcm").unwrap_or(name));
    }
    if ends(".nii").is_some() || ends(".nii.gz").is_some() {
        return name.to_owned();
    }
    let stem = OTHERS.into_iter().find_map(ends).unwrap_or(name);
    format!("{stem}.nii.gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_nifti_files() {
        for (name, mask) in [
            ("a.nii", "a.nii"),
            ("A.NII.GZ", "A.NII.GZ"),
            ("a.hdr", "a.nii.gz"),
            ("a.img.gz", "a.nii.gz"),
            ("a.DCM", "a.nii.gz"),
            ("a.NRRD", "a.nii.gz"),
            ("a.b.mhd", "a.b.nii.gz"),
            ("a", "a.nii.gz"),
            ("a.png", "a.nii.gz"),
            ("ä.b", "ä.b.nii.gz"),
            (".nii", ".nii.nii.gz"),
        ] {
            assert_eq!(mask_name(name, false), mask);
        }
        assert_eq!((&mask_name("series", true)[..], &mask_name("a.DCM", true)[..]), ("series.dcm", "a.dcm"));
    }
}
