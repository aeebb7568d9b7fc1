//! Writing: version 4 in LPS, as ITK and 3D Slicer write it, raw or compressed by gzip.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use tomograd_core::{Error, Result};

use super::fail;
use crate::{
    Volume,
    atomic::write_all,
    detached,
    voxels::{self, Coding, Stored},
    write_atomically,
};

/// The name of a type in headers.
fn name(stored: Stored) -> &'static str {
    match stored {
        Stored::U8 => "unsigned char",
        Stored::I8 => "signed char",
        Stored::U16 => "unsigned short",
        Stored::I16 => "short",
        Stored::U32 => "unsigned int",
        Stored::I32 => "int",
        Stored::U64 => "unsigned long long",
        Stored::I64 => "long long",
        Stored::F32 => "float",
        Stored::F64 => "double",
    }
}

/// The kind of the axis of a voxel's numbers.
fn kind(coding: Coding) -> &'static str {
    match (coding.stored, coding.channels) {
        (Stored::U8, 3) => "RGB-color",
        (Stored::U8, 4) => "RGBA-color",
        (Stored::F32 | Stored::F64, 2) => "complex",
        _ => "vector",
    }
}

fn header(volume: &Volume, coding: Coding, compressed: bool, data_file: Option<&str>) -> Result<String> {
    let shape = volume.voxels().shape();
    let together = coding.channels > 1;
    let outer = if together { shape.get(1..).unwrap_or_default() } else { shape };
    let channels = together.then_some(coding.channels);
    let sizes: Vec<String> = channels.iter().chain(outer.iter().rev()).map(usize::to_string).collect();
    let mut columns = Vec::new();
    for axis in 0..3 {
        let lps = [-1.0, -1.0, 1.0];
        let part = |(row, sign): (&[f64; 4], f64)| row.get(axis).map_or(0.0, |value| plus(value * sign));
        let parts: Vec<f64> = volume.affine().iter().zip(lps).map(part).collect();
        columns.push(vector(&parts));
    }
    let [x, y, z, _] = volume.affine().map(|row| row[3]);
    let later = outer.len().saturating_sub(3);
    let directions: Vec<&str> = std::iter::repeat_n("none", usize::from(together))
        .chain(columns.iter().map(String::as_str))
        .chain(std::iter::repeat_n("none", later))
        .collect();
    let kinds: Vec<&str> = std::iter::repeat_n(kind(coding), usize::from(together))
        .chain(["domain"; 3])
        .chain(std::iter::repeat_n("list", later))
        .collect();
    let mut text = String::from("NRRD0004\n");
    let mut line =
        |field: &str, value: &str| writeln!(text, "{field}: {value}").map_err(|error| fail(error.to_string()));
    line("type", name(coding.stored))?;
    line("dimension", &sizes.len().to_string())?;
    line("space", "left-posterior-superior")?;
    line("sizes", &sizes.join(" "))?;
    line("space directions", &directions.join(" "))?;
    line("kinds", &kinds.join(" "))?;
    let [.., step, _, _, _] = volume.geometry().pixdim;
    if later == 1 && step > 0.0 && step.is_finite() {
        let unknown = std::iter::repeat_n("nan".to_owned(), sizes.len().saturating_sub(1));
        line("spacings", &unknown.chain([step.to_string()]).collect::<Vec<_>>().join(" "))?;
    }
    line("space units", r#""mm" "mm" "mm""#)?;
    if coding.stored.size() > 1 {
        line("endian", "little")?;
    }
    line("encoding", if compressed { "gzip" } else { "raw" })?;
    line("space origin", &vector(&[plus(-x), plus(-y), z]))?;
    if let Some(name) = data_file {
        line("data file", name)?;
    }
    Ok(text)
}

/// The number, without the sign of −0.
fn plus(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

fn vector(parts: &[f64]) -> String {
    format!("({})", parts.iter().map(f64::to_string).collect::<Vec<_>>().join(","))
}

fn coding(volume: &Volume) -> Result<Coding> {
    voxels::choose(volume, |coding| coding.scaling.is_none())
}

fn write_data(writer: &mut dyn Write, volume: &Volume, coding: Coding, compressed: bool) -> Result<()> {
    if !compressed {
        return voxels::encode(writer, volume.voxels(), coding, false);
    }
    let mut encoder = GzEncoder::new(writer, Compression::new(4));
    voxels::encode(&mut encoder, volume.voxels(), coding, false)?;
    encoder.finish().map(|_| ()).map_err(|error| Error::io(super::OPERATION, "the compressed data", error))
}

/// Writes header and data to any writer.
pub(crate) fn write(writer: &mut dyn Write, volume: &Volume, compressed: bool) -> Result<()> {
    let coding = coding(volume)?;
    write_all(writer, header(volume, coding, compressed, None)?.as_bytes())?;
    write_all(writer, b"\n")?;
    write_data(writer, volume, coding, compressed)
}

/// The data file beside a detached header.
pub(crate) fn data_file(path: &Path, compressed: bool) -> PathBuf {
    path.with_extension(if compressed { "raw.gz" } else { "raw" })
}

/// Writes the data file, then the header.
pub(crate) fn write_detached(path: &Path, volume: &Volume, compressed: bool) -> Result<()> {
    let coding = coding(volume)?;
    let data = data_file(path, compressed);
    let name = detached::name(&data)?;

    let header = header(volume, coding, compressed, Some(name))?;
    write_atomically(&data, |writer| write_data(writer, volume, coding, compressed))?;
    write_atomically(path, |writer| write_all(writer, header.as_bytes()))
}
