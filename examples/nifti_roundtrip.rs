//! Reads every `.nii.gz` of a folder, writes it to another, and reports what was understood.
//!
//!     cargo run --release --example nifti_roundtrip -- IN_DIR OUT_DIR
//!
//! `tests/golden/nifti_check.py IN_DIR OUT_DIR` compares both folders and the report with what nibabel and SimpleITK say.

use std::{fmt::Write, path::Path, process::ExitCode};

use serde_json::json;
use tomograd::prelude::*;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &arguments[..] else {
        eprintln!("nifti_roundtrip: two folders are expected");
        return ExitCode::from(2);
    };
    match run(Path::new(from), Path::new(to)) {
        Ok(count) => {
            println!("{count} files");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nifti_roundtrip: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(from: &Path, to: &Path) -> Result<usize> {
    let io = |error| Error::io("nifti_roundtrip", from.display(), error);
    std::fs::create_dir_all(to).map_err(io)?;
    let entries = std::fs::read_dir(from).map_err(io)?.collect::<std::io::Result<Vec<_>>>().map_err(io)?;
    let mut files: Vec<_> = entries.iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "gz"));
    files.sort();
    let mut report = String::new();
    for path in &files {
        let volume = Volume::read(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        volume.write(to.join(&name))?;
        let voxels = volume.voxels();
        let values = voxels.to_vec_f64()?;
        let shape: Vec<usize> = voxels.shape().iter().rev().copied().collect();
        let line = json!({
            "file": name,
            "shape": shape,
            "dtype": volume.stored_dtype(),
            "spacing": volume.spacing(),
            "affine": volume.affine(),
            "qform_code": volume.geometry().qform_code,
            "sform_code": volume.geometry().sform_code,
            "sum": values.iter().sum::<f64>(),
            "min": values.iter().copied().fold(f64::INFINITY, f64::min),
            "max": values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "orientation": volume.orientation(),
        });
        writeln!(report, "{line}").map_err(|error| Error::argument("nifti_roundtrip", error.to_string()))?;
    }
    tomograd::io::write_atomically(&to.join("report.jsonl"), |writer| {
        writer.write_all(report.as_bytes()).map_err(|error| Error::io("nifti_roundtrip", "report.jsonl", error))
    })?;
    Ok(files.len())
}
