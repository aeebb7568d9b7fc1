//! NIfTI-1 and NIfTI-2 (nifti.nimh.nih.gov), `.nii` and `.nii.gz`, both byte orders.
//!
//! What is read is kept: a file written from a volume that was read has its header, byte for byte, with only those fields
//! changed that the volume changed, its byte order, its version and its extensions.
//!
//! Memory, whatever a header says: reading `n` bytes (after decompression) takes at most 6·n + 1 MiB, n being what really
//! arrived. Deflate can't exceed 1032:1, so a compressed header that claims more is refused before any voxel is read.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod header;
mod source;
mod voxels;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::Path,
    sync::Arc,
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use tomograd_core::{Error, Result, element_count};

pub(crate) use header::{Header, Version};
pub(crate) use voxels::{Coding, Stored};

use crate::{Volume, atomic::write_all, write_atomically};

const OPERATION: &str = "nifti";
/// The most that deflate can compress: 258 bytes by two bits.
const DEFLATE_RATIO: u64 = 1032;

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(OPERATION, what, error)
}

/// The part of a file that a volume keeps to write the same again.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) header: Header,
    /// The bytes between the header and the voxels: the extender and the extensions.
    pub(crate) extension: Vec<u8>,
}

/// How many bytes a stream can give.
#[derive(Clone, Copy)]
enum Length {
    /// Exactly this many: memory can be taken for them at once.
    Known(u64),
    /// At most this many, after decompression: memory is taken as they arrive.
    AtMost(u64),
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Volume> {
    let open = || -> Result<Volume> {
        let file = File::open(path).map_err(io_error("the file"))?;
        let about = file.metadata().map_err(io_error("the file"))?;
        // A pipe says it is empty; then nothing is known, and memory grows with what arrives.
        let length = about.is_file().then_some(about.len());
        read_stream(&mut BufReader::with_capacity(1 << 16, file), length)
    };
    open().map_err(|error| error.within(path.display().to_string()))
}

/// Reads bytes as if they were a file.
pub(crate) fn read_bytes(bytes: &[u8]) -> Result<Volume> {
    read_stream(&mut &*bytes, Some(bytes.len() as u64))
}

fn read_stream<R: std::io::BufRead>(reader: &mut R, length: Option<u64>) -> Result<Volume> {
    // Compression shows in the first bytes, whatever the name is.
    let compressed = reader.fill_buf().map_err(io_error("the file"))?.starts_with(&[0x1F, 0x8B]);
    if !compressed {
        return read_from(reader, length.map_or(Length::AtMost(u64::MAX), Length::Known));
    }
    let most = length.map_or(u64::MAX, |length| length.saturating_mul(DEFLATE_RATIO));
    let mut decoder = MultiGzDecoder::new(reader);
    let volume = read_from(&mut decoder, Length::AtMost(most))?;
    // The checksum is compared at the end of the stream only; what may follow the voxels isn't read through.
    decoder.read(&mut [0; 1]).map_err(io_error("the end of the compressed file"))?;
    Ok(volume)
}

fn read_from(reader: &mut impl Read, length: Length) -> Result<Volume> {
    let header = Header::read(reader)?;
    let sizes = header.sizes()?;
    let coding = header.coding()?;
    let geometry = header.geometry(&sizes)?;
    let shape = tensor_shape(&sizes);
    let bytes = (element_count(OPERATION, &shape)? as u64).saturating_mul(coding.stored.size() as u64);
    let start = header.voxels_at()?;
    let (Length::Known(most) | Length::AtMost(most)) = length;
    if start.saturating_add(bytes) > most {
        return Err(fail(format!(
            "{bytes} bytes of voxels from byte {start}, but the file holds at most {most} bytes"
        )));
    }
    let between = start.saturating_sub(header.length());
    let extension = source::collect(reader, between, "the extensions")?;
    let voxels = match length {
        Length::Known(_) => voxels::decode(reader, coding, &shape, header.big())?,
        Length::AtMost(_) => {
            let mut held = source::hold(reader, bytes)?;
            voxels::decode(&mut held, coding, &shape, header.big())?
        }
    };
    Volume::from_file(voxels, geometry, Arc::new(Source { header, extension }), coding)
}

/// The shape of the tensor for the axes x, y, z, t, ... of a file: the same, backwards, with at least three axes and without
/// trailing axes of 1.
fn tensor_shape(sizes: &[usize]) -> Vec<usize> {
    let mut shape = sizes.to_vec();
    while shape.len() > 3 && shape.last() == Some(&1) {
        shape.pop();
    }
    while shape.len() < 3 {
        shape.push(1);
    }
    shape.reverse();
    shape
}

/// The axes of the file for the shape of a tensor: those of the source if they are the same but for axes of 1.
pub(crate) fn file_sizes(shape: &[usize], source: Option<&Source>) -> Vec<usize> {
    let kept = source.and_then(|source| source.header.sizes().ok()).filter(|sizes| tensor_shape(sizes) == shape);
    kept.unwrap_or_else(|| shape.iter().rev().copied().collect())
}

/// Writes a file.
pub(crate) fn write(path: &Path, volume: &Volume) -> Result<()> {
    let compressed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    write_atomically(path, |writer| write_to(writer, volume, compressed))
        .map_err(|error| error.within(path.display().to_string()))
}

/// Writes to any writer.
pub(crate) fn write_to(writer: &mut dyn Write, volume: &Volume, compressed: bool) -> Result<()> {
    if !compressed {
        return write_plain(writer, volume);
    }
    // No name and no time go in, so the same volume gives the same bytes.
    let mut encoder = GzEncoder::new(writer, Compression::new(4));
    write_plain(&mut encoder, volume)?;
    encoder.finish().map(|_| ()).map_err(io_error("the compressed file"))
}

fn write_plain(writer: &mut dyn Write, volume: &Volume) -> Result<()> {
    let source = volume.source();
    let coding = voxels::choose(volume)?;
    let sizes = file_sizes(volume.voxels().shape(), source);
    let extension: &[u8] = source.map_or(&[0; 4], |source| &source.extension);
    // The four bytes that say whether extensions follow must be there.
    let extension = if extension.len() < 4 { &[0; 4] } else { extension };
    let mut header = match source {
        Some(source) if sizes.iter().all(|&size| source.header.version().fits(size)) => source.header.clone(),
        _ if sizes.iter().all(|&size| Version::One.fits(size)) => Header::new(Version::One),
        _ => Header::new(Version::Two),
    };
    header.set(&sizes, volume.geometry(), coding, volume.coding() == Some(coding), extension.len())?;
    write_all(writer, header.bytes())?;
    write_all(writer, extension)?;
    voxels::encode(writer, volume.voxels(), coding, header.big())
}
