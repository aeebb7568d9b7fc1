//! `tomograd predict CHECKPOINT INPUT... --out DIR [--overwrite] [--patch ...]`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use tomograd::{io::dicom, prelude::*};

use crate::{Failure, overrides::Overrides, print::print_line};

/// A volume and the path of its mask.
struct Job<'a> {
    input: &'a Path,
    output: PathBuf,
}

/// How masks are written.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) overwrite: bool,
    /// As DICOM segmentations.
    pub(crate) dicom: bool,
}

/// Segments all inputs, and names those that failed at the end. If the names alone show that a file would be overwritten,
/// fails before anything is read or written.
pub(crate) fn run(
    checkpoint: &Path,
    inputs: &[PathBuf],
    out: &Path,
    output: Output,
    overrides: &Overrides,
) -> Result<(), Failure> {
    let jobs = plan(checkpoint, inputs, out, output).map_err(Failure::CommandLine)?;
    let model = overrides.apply(Model::load(checkpoint, Device::Cpu)?, checkpoint)?;
    fs::create_dir_all(out).map_err(|error| Error::io("create", out.display(), error))?;
    let mut failed = Vec::new();
    for job in &jobs {
        match segment(&model, job, output) {
            Ok(()) => print_line!("{}", job.output.display()),
            Err(error) => {
                eprintln!("tomograd: {error}");
                failed.push(job.input.display().to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of: jobs.len() }) }
}

fn segment(model: &Model, job: &Job<'_>, output: Output) -> Result<()> {
    let within = |error: Error| error.within(job.input.display().to_string());
    let listing = if output.dicom { Some(dicom::Listing::open(job.input)?) } else { None };
    let stack = match &listing {
        Some(listing) => Some(listing.only().and_then(dicom::Series::stack).map_err(within)?),
        None => None,
    };
    let volume = match stack {
        Some(stack) => stack.read().map_err(within)?,
        None => Volume::read(job.input)?,
    };
    let mask = model.segment(&volume).map_err(within)?;
    // The mask may have been created after the plan was made.
    if !output.overwrite && is_there(&job.output) {
        return Err(exists(&job.output));
    }
    match stack {
        Some(stack) => write_segmentation(stack, &mask, &model.preparation()?, &job.output),
        None => mask.write(&job.output),
    }
}

/// Writes a mask as a DICOM segmentation, a segment for each class but the background.
fn write_segmentation(stack: &dicom::Stack, mask: &Volume, preparation: &Preparation, path: &Path) -> Result<()> {
    let classes = preparation.classes.get(1..).unwrap_or_default();
    let number = |value: f64| {
        let class = classes.iter().position(|class| f64::from(class.value) == value);
        class.map_or(0, |class| class as i32 + 1)
    };
    let labels: Vec<i32> = mask.voxels().to_vec_f64()?.into_iter().map(number).collect();
    let labels = Tensor::from_slice(&labels, mask.voxels().shape(), Device::Cpu)?;
    let segments: Vec<dicom::Segment> =
        classes.iter().map(|class| dicom::Segment::new(class.name.as_str(), "tomograd")).collect();
    stack.write_segmentation(path, &labels, &segments)
}

/// Plans the mask path of each input.
///
/// # Errors
/// When two masks would have the same name (file systems may be case-insensitive), one would replace an input or the
/// checkpoint, or an existing file must not be overwritten.
fn plan<'a>(checkpoint: &Path, inputs: &'a [PathBuf], out: &Path, output: Output) -> Result<Vec<Job<'a>>> {
    if is_there(out) && !out.is_dir() {
        return Err(
            Error::argument("predict", format!("{} isn't a folder", out.display())).expected("a folder for --out")
        );
    }
    let mut names: HashMap<String, &Path> = HashMap::new();
    let mut jobs = Vec::new();
    for input in inputs {
        let name = file_name(input);
        if name.is_empty() {
            return Err(Error::argument("predict", format!("{} isn't a file", input.display())));
        }
        let name = mask_name(&name, output.dicom);
        if let Some(other) = names.insert(name.to_lowercase(), input) {
            return Err(Error::argument(
                "predict",
                format!("{} and {} give one mask, {name}", other.display(), input.display()),
            )
            .expected("files of different names (of a pair of files its header alone), or a call for each"));
        }
        jobs.push(Job { input, output: out.join(name) });
    }
    let read: Vec<PathBuf> = inputs.iter().map(PathBuf::as_path).chain([checkpoint]).filter_map(real).collect();
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

fn exists(path: &Path) -> Error {
    Error::argument("predict", format!("{} is there already", path.display()))
        .expected("another folder, or --overwrite")
}

/// Whether a file or a link of this name exists, even a dangling one.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The path with links resolved, if the file exists.
fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// Endings of volumes that aren't single NIfTI files.
const OTHERS: [&str; 11] =
    [".hdr", ".img", ".hdr.gz", ".img.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".tif", ".tiff", ".dcm"];

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
            ("ä.b", "ä.b.nii.gz"),
            (".nii", ".nii.nii.gz"),
        ] {
            assert_eq!(mask_name(name, false), mask);
        }
        assert_eq!((&mask_name("series", true)[..], &mask_name("a.DCM", true)[..]), ("series.dcm", "a.dcm"));
    }
}
