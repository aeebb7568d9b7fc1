//! Writing, as ITK does: raw, or compressed by zlib.

use std::{
    fmt::Write as _,
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::ZlibEncoder};
use tomograd_core::{Error, Result};

use super::fail;
use crate::{
    Volume,
    atomic::write_all,
    detached, geometry,
    voxels::{self, Coding, Stored},
    write_atomically,
};

fn name(stored: Stored) -> &'static str {
    match stored {
        Stored::U8 => "MET_UCHAR",
        Stored::I8 => "MET_CHAR",
        Stored::U16 => "MET_USHORT",
        Stored::I16 => "MET_SHORT",
        Stored::U32 => "MET_UINT",
        Stored::I32 => "MET_INT",
        Stored::U64 => "MET_ULONG_LONG",
        Stored::I64 => "MET_LONG_LONG",
        Stored::F32 => "MET_FLOAT",
        Stored::F64 => "MET_DOUBLE",
    }
}

fn numbers(values: impl IntoIterator<Item = f64>) -> String {
    let plus = |value: f64| if value == 0.0 { 0.0 } else { value };
    values.into_iter().map(|value| plus(value).to_string()).collect::<Vec<_>>().join(" ")
}

/// The header; `compressed` is the number of compressed bytes.
fn header(volume: &Volume, coding: Coding, compressed: Option<usize>, data_file: &str) -> Result<String> {
    let shape = volume.voxels().shape();
    let outer = if coding.channels > 1 { shape.get(1..).unwrap_or_default() } else { shape };
    let rank = outer.len();
    let spacing = volume.spacing();
    let lps = [-1.0, -1.0, 1.0];
    // Row `axis` is the direction of that axis; axes of time are apart from space.
    let entry = |axis: usize, world: usize| match (volume.affine().get(world), lps.get(world), spacing.get(axis)) {
        (Some(row), Some(sign), Some(step)) => row.get(axis).map_or(0.0, |value| sign * value / step),
        _ => f64::from(u8::from(axis == world)),
    };
    let matrix = (0..rank).flat_map(|axis| (0..rank).map(move |world| (axis, world)));
    let origin = volume.affine().iter().zip(lps).map(|(row, sign)| sign * row[3]);
    let [_, _, _, _, time, ..] = volume.geometry().pixdim;
    let time = if time > 0.0 && time.is_finite() { time } else { 1.0 };
    let steps = spacing.into_iter().chain([time]).chain(std::iter::repeat(1.0));
    let zeros = std::iter::repeat(0.0);
    let mut text = String::new();
    let mut line = |key: &str, value: &str| writeln!(text, "{key} = {value}").map_err(|error| fail(error.to_string()));
    line("ObjectType", "Image")?;
    line("NDims", &rank.to_string())?;
    line("BinaryData", "True")?;
    line("BinaryDataByteOrderMSB", "False")?;
    line("CompressedData", if compressed.is_some() { "True" } else { "False" })?;
    if let Some(size) = compressed {
        line("CompressedDataSize", &size.to_string())?;
    }
    line("TransformMatrix", &numbers(matrix.map(|(axis, world)| entry(axis, world))))?;
    line("Offset", &numbers(origin.chain(zeros.clone()).take(rank)))?;
    line("CenterOfRotation", &numbers(zeros.take(rank)))?;
    if rank == 3 {
        // Letters say where an axis comes from, in this format.
        let opposite = |letter| match letter {
            'R' => 'L',
            'L' => 'R',
            'A' => 'P',
            'P' => 'A',
            'S' => 'I',
            'I' => 'S',
            other => other,
        };
        line(
            "AnatomicalOrientation",
            &geometry::orientation(volume.affine()).chars().map(opposite).collect::<String>(),
        )?;
    }
    line("ElementSpacing", &numbers(steps.take(rank)))?;
    line("DimSize", &outer.iter().rev().map(usize::to_string).collect::<Vec<_>>().join(" "))?;
    if coding.channels > 1 {
        line("ElementNumberOfChannels", &coding.channels.to_string())?;
    }
    line("ElementType", name(coding.stored))?;
    line("ElementDataFile", data_file)?;
    Ok(text)
}

fn coding(volume: &Volume) -> Result<Coding> {
    voxels::choose(volume, |coding| coding.scaling.is_none())
}

/// The compressed data, whose size the header says.
fn compressed(volume: &Volume, coding: Coding) -> Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(4));
    voxels::encode(&mut encoder, volume.voxels(), coding, false)?;
    encoder.finish().map_err(|error| Error::io(super::OPERATION, "the compressed data", error))
}

/// Writes header and data to any writer.
pub(crate) fn write(writer: &mut dyn Write, volume: &Volume, compress: bool) -> Result<()> {
    let coding = coding(volume)?;
    if !compress {
        write_all(writer, header(volume, coding, None, "LOCAL")?.as_bytes())?;
        return voxels::encode(writer, volume.voxels(), coding, false);
    }
    let data = compressed(volume, coding)?;
    write_all(writer, header(volume, coding, Some(data.len()), "LOCAL")?.as_bytes())?;
    write_all(writer, &data)
}

/// The data file beside a header.
pub(crate) fn data_file(path: &Path, compressed: bool) -> PathBuf {
    path.with_extension(if compressed { "zraw" } else { "raw" })
}

/// Writes the data file, then the header.
pub(crate) fn write_detached(path: &Path, volume: &Volume, compress: bool) -> Result<()> {
    let coding = coding(volume)?;
    let data = data_file(path, compress);
    let name = detached::name(&data)?;

    if !compress {
        let header = header(volume, coding, None, name)?;
        write_atomically(&data, |writer| voxels::encode(writer, volume.voxels(), coding, false))?;
        return write_atomically(path, |writer| write_all(writer, header.as_bytes()));
    }
    let bytes = compressed(volume, coding)?;
    let header = header(volume, coding, Some(bytes.len()), name)?;
    write_atomically(&data, |writer| write_all(writer, &bytes))?;
    write_atomically(path, |writer| write_all(writer, header.as_bytes()))
}
