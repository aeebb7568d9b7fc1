//! NIfTI-1 and NIfTI-2 (nifti.nimh.nih.gov): `.nii` and `.nii.gz`, pairs of `.hdr` and `.img`, both byte orders.
//!
//! A file written from a volume that was read keeps the header of the source byte for byte, except for fields that the volume
//! changed; it also keeps byte order, version and extensions. Lengths in metres or micrometres become millimetres, and the
//! code of an sform or qform that isn't finite or is singular becomes 0.
//!
//! A compressed file is read to the end to verify its checksums. Bytes after the voxels are ignored, as in nibabel and ITK,
//! up to the number of bytes before them or 16 MiB, whichever is more; beyond that, a compressed file is an error.
//!
//! Memory is bounded whatever a header claims: reading `n` bytes (after decompression) takes at most 9·n + 1 MiB, or 33·n of a
//! compressed file of 1 MiB or more, where n is the number of bytes actually received. Deflate can't exceed 1032:1, so a compressed file that claims more is rejected
//! before any voxel is read.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod datatype;
mod header;
mod layout;
mod pair;

#[cfg(test)]
mod tests;

use std::{
    io::{BufRead, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use tomograd_core::{Error, Result, element_count};

use crate::{
    Volume,
    atomic::write_all,
    stream::{self, Length, Stream},
    volume::{Placed, one_voxel},
    voxels::{self, Coding},
};
pub(crate) use header::Header;
pub(crate) use layout::Version;

const OPERATION: &str = "nifti";
/// The most bytes that are read after the header of a pair.
const MOST_EXTENSIONS: u64 = 1 << 26;

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

fn io_error(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::io(OPERATION, what, error)
}

/// The parts of a file that a volume keeps, to write the same file again.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) header: Header,
    /// The bytes between header and voxels: the extender and the extensions.
    pub(crate) extension: Vec<u8>,
}

impl Source {
    /// A source that keeps only version, byte order and sizes.
    pub(crate) fn emptied(&self) -> Self {
        Self { header: self.header.emptied(), extension: Vec::new() }
    }
}

/// Reads the pair to which a file of this name belongs; `None` for another name.
pub(crate) fn read_pair_of(path: &Path) -> Option<Result<Volume>> {
    let pair = pair::files(path)?;
    let open = |paths: &[PathBuf]| {
        let path = paths.iter().find(|path| path.exists()).or(paths.first()).map_or(Path::new(""), PathBuf::as_path);
        Stream::open(path).map_err(|error| error.within(path.display().to_string()))
    };
    Some(open(&pair.header).and_then(|header| read_parts(header, Some(&mut || open(&pair.image)))))
}

/// Reads a single file.
pub(crate) fn read_stream(stream: Stream<impl BufRead>) -> Result<Volume> {
    read_parts(stream, None)
}

/// Reads the bytes of the two files of a pair.
pub(crate) fn read_pair(header: &[u8], image: &[u8]) -> Result<Volume> {
    let header = Stream::new(header, Some(header.len() as u64))?;
    read_parts(header, Some(&mut || Stream::new(image, Some(image.len() as u64))))
}

/// Reads a header and the voxels after it; `other` opens the file of the voxels for the header of a pair.
fn read_parts<R: BufRead>(
    mut stream: Stream<R>,
    other: Option<&mut dyn FnMut() -> Result<Stream<R>>>,
) -> Result<Volume> {
    let header = Header::read(&mut stream)?;
    if !header.of_a_pair() {
        return read_voxels(stream, header, None);
    }
    let Some(other) = other else {
        return Err(fail("a header whose voxels are in another file").expected("a header called .hdr beside an .img"));
    };
    let mut extension = Vec::new();
    let mut behind = stream.by_ref().take(MOST_EXTENSIONS.saturating_add(1));
    let got = behind.read_to_end(&mut extension).map_err(io_error("the extensions"))? as u64;
    if got > MOST_EXTENSIONS {
        return Err(
            fail("more behind the header than extensions take").expected(format!("at most {MOST_EXTENSIONS} bytes"))
        );
    }
    stream.finish(header.length().saturating_add(got))?;
    read_voxels(other()?, header, Some(extension))
}

/// Reads the voxels from a stream positioned after the header, or for a pair at the start of the voxel file. `extension` are
/// the extensions, if they have already been read.
fn read_voxels<R: BufRead>(mut stream: Stream<R>, header: Header, extension: Option<Vec<u8>>) -> Result<Volume> {
    let sizes = header.sizes()?;
    let coding = header.coding()?;
    let geometry = header.geometry(&sizes)?;
    let shape = tensor_shape(&sizes);
    if coding.channels > 1 && shape.len() > 6 {
        return Err(fail(format!("{} axes and {} channels", sizes.len(), coding.channels)).expected("at most 7 in all"));
    }
    let count = element_count(OPERATION, &[shape.as_slice(), &[coding.channels]].concat())?;
    let bytes = (count as u64).saturating_mul(coding.stored.size() as u64);
    let start = header.voxels_at()?;
    let end = start.saturating_add(bytes);
    let (Length::Known(most) | Length::AtMost(most)) = stream.length;
    if end > most {
        return Err(fail(format!(
            "{bytes} bytes of voxels from byte {start}, but the file holds at most {most} bytes"
        )));
    }
    let extension = match extension {
        Some(extension) => {
            stream::skip(&mut stream, start, "what is before the voxels")?;
            extension
        }
        None => stream::collect(&mut stream, start.saturating_sub(header.length()), "the extensions")?,
    };
    let voxels = match stream.length {
        Length::Known(_) => voxels::decode(&mut stream, coding, &shape, header.big())?,
        Length::AtMost(_) => stream::worked_on(&mut stream, bytes, end, |mut reader| {
            voxels::decode(&mut reader, coding, &shape, header.big())
        })?,
    };
    Volume::from_file(voxels, geometry, Arc::new(Source { header, extension }), coding)
}

/// Where the voxels of an uncompressed file of one volume are.
pub(crate) fn placed(reader: impl BufRead, path: &Path, length: u64) -> Result<Placed> {
    let mut stream = Stream::new(reader, Some(length))?;
    if !matches!(stream.length, Length::Known(_)) {
        return Err(fail("a compressed file").expected("an uncompressed one, which can be read in part"));
    }
    let header = Header::read(&mut stream)?;
    if header.of_a_pair() {
        return Err(fail("a header whose voxels are in another file").expected("a single file, .nii"));
    }
    let (sizes, coding) = (header.sizes()?, header.coding()?);
    let geometry = header.geometry(&sizes)?;
    let (spatial, others) = sizes.split_at(sizes.len().min(3));
    if others.iter().any(|size| *size != 1) {
        return Err(fail(format!("{} axes, several of them longer than 1 beyond the third", sizes.len()))
            .expected("a single volume"));
    }
    let mut three = [1; 3];
    three.iter_mut().zip(spatial).for_each(|(to, size)| *to = *size);
    let start = header.voxels_at()?;
    let before = start.saturating_sub(header.length());
    let big = header.big();
    let extension = stream::collect(&mut stream, before, "the extensions")?;
    let source = Arc::new(Source { header, extension });
    let template = Volume::from_file(one_voxel()?, geometry, source, coding)?;
    Ok(Placed { path: path.to_owned(), start, sizes: three, coding, big, template })
}

/// The tensor shape for the axes x, y, z, t, ... of a file: reversed, with at least three axes.
fn tensor_shape(sizes: &[usize]) -> Vec<usize> {
    let mut shape = sizes.to_vec();
    shape.resize(shape.len().max(3), 1);
    shape.reverse();
    shape
}

/// The file axes for a tensor shape: the source's, if they differ only in the third axis of a 2D image.
pub(crate) fn file_sizes(shape: &[usize], source: Option<&Source>) -> Vec<usize> {
    let kept = source.and_then(|source| source.header.sizes().ok()).filter(|sizes| tensor_shape(sizes) == shape);
    kept.unwrap_or_else(|| shape.iter().rev().copied().collect())
}

/// Writes to any writer.
pub(crate) fn write_to(writer: &mut dyn Write, volume: &Volume, compressed: bool) -> Result<()> {
    if !compressed {
        return write_plain(writer, volume);
    }
    // The gzip header has no name and no time, so that the same volume gives the same bytes.
    let mut encoder = GzEncoder::new(writer, Compression::new(4));
    write_plain(&mut encoder, volume)?;
    encoder.finish().map(|_| ()).map_err(io_error("the compressed file"))
}

fn write_plain(writer: &mut dyn Write, volume: &Volume) -> Result<()> {
    let coding = voxels::choose(volume, |coding| datatype::code(coding).is_some())?;
    let extension: &[u8] = volume.source().map_or(&[0; 4], |source| &source.extension);
    // The four bytes of the extender are required.
    let extension = if extension.len() < 4 { &[0; 4] } else { extension };
    let header = header_for(volume, coding, extension.len())?;
    write_all(writer, header.bytes())?;
    write_all(writer, extension)?;
    voxels::encode(writer, volume.voxels(), coding, header.big())
}

/// The header for this volume: that of the source, if any; version 2 if version 1 can't represent the volume.
fn header_for(volume: &Volume, coding: Coding, extension: usize) -> Result<Header> {
    let source = volume.source().map(|source| &source.header);
    let shape = volume.voxels().shape();
    let spatial = if coding.channels > 1 { shape.get(1..).unwrap_or_default() } else { shape };
    let sizes = file_sizes(spatial, volume.source());
    let unchanged = source.is_some() && volume.coding() == Some(coding);
    let first = source.cloned().unwrap_or_else(|| Header::new(Version::One));
    let second = match first.version() {
        Version::One => (first.widened()?, unchanged),
        Version::Two => (Header::new(Version::Two), false),
    };
    let mut last = None;
    for (mut header, unchanged) in [(first, unchanged), second] {
        let parsed = header
            .set(&sizes, volume.geometry(), coding, unchanged, extension)
            .and_then(|()| header.must_say(&sizes, coding, volume.geometry()));
        match parsed {
            Ok(()) => return Ok(header),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| fail("no header holds this volume")))
}
