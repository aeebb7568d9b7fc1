//! `tomograd predict CHECKPOINT INPUT... --out DIR [--overwrite] [--patch ...]`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use tomograd::prelude::*;

use crate::{Failure, overrides::Overrides, print::print_line};

/// A volume and the path of its mask.
struct Job<'a> {
    input: &'a Path,
    output: PathBuf,
}

/// Segments all inputs, and names those that failed at the end. If the names alone show that a file would be overwritten,
/// fails before anything is read or written.
pub(crate) fn run(
    checkpoint: &Path,
    inputs: &[PathBuf],
    out: &Path,
    overwrite: bool,
    overrides: &Overrides,
) -> Result<(), Failure> {
    let jobs = plan(checkpoint, inputs, out, overwrite).map_err(Failure::CommandLine)?;
    let model = overrides.apply(Model::load(checkpoint, Device::Cpu)?, checkpoint)?;
    fs::create_dir_all(out).map_err(|error| Error::io("create", out.display(), error))?;
    let mut failed = Vec::new();
    for job in &jobs {
        match segment(&model, job, overwrite) {
            Ok(()) => print_line!("{}", job.output.display()),
            Err(error) => {
                eprintln!("tomograd: {error}");
                failed.push(job.input.display().to_string());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of: jobs.len() }) }
}

fn segment(model: &Model, job: &Job<'_>, overwrite: bool) -> Result<()> {
    let volume = Volume::read(job.input)?;
    let mask = model.segment(&volume).map_err(|error| error.within(job.input.display().to_string()))?;
    // The mask may have been created after the plan was made.
    if !overwrite && is_there(&job.output) {
        return Err(exists(&job.output));
    }
    mask.write(&job.output)
}

/// Plans the mask path of each input.
///
/// # Errors
/// When two masks would have the same name (file systems may be case-insensitive), one would replace an input or the
/// checkpoint, or an existing file must not be overwritten.
fn plan<'a>(checkpoint: &Path, inputs: &'a [PathBuf], out: &Path, overwrite: bool) -> Result<Vec<Job<'a>>> {
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
        let name = mask_name(&name);
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
        if !overwrite && is_there(&job.output) {
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

/// The name of the mask of a file: the same name, with a NIfTI extension.
fn mask_name(name: &str) -> String {
    let ends = |ending: &str| {
        let stem = name.len().checked_sub(ending.len()).filter(|&at| at > 0 && name.is_char_boundary(at))?;
        let (stem, end) = name.split_at(stem);
        end.eq_ignore_ascii_case(ending).then_some(stem)
    };
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
            assert_eq!(mask_name(name), mask);
        }
    }
}
