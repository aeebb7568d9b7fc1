//! Reads DICOM files and writes what was found, for a comparison with other programs (`tests/golden/dicom_check.py`):
//!
//! ```text
//! dicom_report OUT PATH...
//! ```
//!
//! Each path is a file, a DICOMDIR or a folder. OUT gets the voxels of each stack as `N.raw` (little endian, row-major) and
//! `report.jsonl`, an object a stack: path, series, stack, label, shape, dtype, affine, notes; or path and error.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tomograd_core::{DType, Error, Result, Tensor};
use tomograd_io::dicom::{Gaps, Listing, Series, Stack};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let out = arguments.next().ok_or_else(|| Error::argument("dicom_report", "no folder").expected("OUT PATH..."))?;
    let io = |error| Error::io("dicom_report", out.display(), error);
    fs::create_dir_all(&out).map_err(io)?;
    let mut report = fs::File::create(out.join("report.jsonl")).map_err(io)?;
    let mut count = 0usize;
    for path in arguments {
        for line in lines(&path, &out, &mut count) {
            writeln!(report, "{line}").map_err(io)?;
        }
    }
    Ok(())
}

fn lines(path: &Path, out: &Path, count: &mut usize) -> Vec<Value> {
    let path = path.display().to_string();
    let listing = match Listing::open(&path) {
        Ok(listing) => listing,
        Err(error) => return vec![json!({"path": path, "error": error.to_string()})],
    };
    let mut lines = Vec::new();
    for series in listing.series() {
        for (i, stack) in series.stacks().iter().enumerate() {
            *count += 1;
            let described = describe(series, stack, &out.join(format!("{count}.raw")));
            let mut line = described.unwrap_or_else(|error| json!({"error": error.to_string()}));
            for (name, value) in [("path", json!(path)), ("series", json!(series.uid())), ("stack", json!(i))] {
                line[name] = value;
            }
            lines.push(line);
        }
    }
    for (file, error) in listing.skipped() {
        lines.push(json!({"path": path, "file": file.display().to_string(), "error": error.to_string()}));
    }
    lines
}

fn describe(series: &Series, stack: &Stack, raw: &Path) -> Result<Value> {
    let volume = match stack.read() {
        Err(_) if stack.is_uneven() => stack.read_with(Gaps::Interpolate)?,
        volume => volume?,
    };
    let voxels = volume.voxels();
    fs::write(raw, bytes(voxels)?).map_err(|error| Error::io("dicom_report", raw.display(), error))?;
    Ok(json!({
        "raw": raw.file_name().map(|name| name.to_string_lossy()),
        "modality": series.modality(),
        "syntax": stack.transfer_syntax(),
        "label": stack.label(),
        "shape": voxels.shape(),
        "dtype": voxels.dtype().to_string(),
        "affine": volume.affine(),
        "uneven": stack.is_uneven(),
        "windows": stack.windows(),
        "notes": series.notes().iter().chain(stack.notes()).collect::<Vec<_>>(),
    }))
}

fn bytes(voxels: &Tensor) -> Result<Vec<u8>> {
    Ok(match voxels.dtype() {
        DType::U8 => voxels.to_vec::<u8>()?,
        DType::I32 => voxels.to_vec::<i32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I64 => voxels.to_vec::<i64>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F32 => voxels.to_vec::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => voxels.to_vec_f64()?.iter().flat_map(|x| x.to_le_bytes()).collect(),
    })
}
