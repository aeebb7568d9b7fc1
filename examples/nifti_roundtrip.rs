//! Reads every NIfTI file of a folder, writes it to another folder, and reports what was read.
//!
//! ```text
//! cargo run --release --example nifti_roundtrip -- IN_DIR OUT_DIR
//! ```
//! OUT_DIR, which must be new or empty, gets a file of the same name for each `.nii` and `.nii.gz`, and `report.jsonl` with
//! one object per file. `tests/golden/nifti_check.py IN_DIR OUT_DIR` compares both with the results of nibabel and SimpleITK.

use std::{fs, path::PathBuf};

use serde_json::json;
use tomograd::{Error, Result, io::write_atomically, prelude::Volume};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(from), Some(to), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err(Error::argument("nifti_roundtrip", "two folders are needed").expected("IN_DIR OUT_DIR"));
    };
    let list = |folder: &PathBuf| -> Result<Vec<PathBuf>> {
        let fail = |error| Error::io("list", folder.display(), error);
        fs::read_dir(folder).map_err(fail)?.map(|entry| Ok(entry.map_err(fail)?.path())).collect()
    };
    let mut paths = list(&from)?;
    paths.sort();
    if to.exists() && !list(&to)?.is_empty() {
        return Err(Error::argument("nifti_roundtrip", format!("{} isn't empty", to.display()))
            .expected("a new or an empty folder: nothing is written over"));
    }
    fs::create_dir_all(&to).map_err(|error| Error::io("create", to.display(), error))?;

    let mut report = Vec::new();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // macOS creates files called ._name beside the real ones.
        if name.starts_with('.') || !(name.ends_with(".nii") || name.ends_with(".nii.gz")) {
            continue;
        }
        let volume = Volume::read(&path)?;
        volume.write(to.join(name))?;
        let info = volume.info()?;
        report.push(
            json!({
                "file": name,
                "shape": info.shape,
                "dtype": info.stored,
                "spacing": info.spacing,
                "affine": info.affine,
                "qform_code": info.qform_code,
                "sform_code": info.sform_code,
                "sum": info.sum,
                "min": info.min,
                "max": info.max,
                "orientation": info.orientation,
            })
            .to_string(),
        );
    }
    let path = to.join("report.jsonl");
    write_atomically(&path, |file| {
        report
            .iter()
            .try_for_each(|line| writeln!(file, "{line}"))
            .map_err(|error| Error::io("write", path.display(), error))
    })?;
    println!("{} files read and written; see {}", report.len(), path.display());
    Ok(())
}
