//! NRRD (teem.sourceforge.net/nrrd/format.html): `.nrrd`, and `.nhdr` with its data in other files.
//!
//! Axes whose kind isn't spatial, or whose space direction is `none`, come in front of (D, H, W): those before the first
//! spatial axis are the numbers of a voxel (colours, vectors), those after it time or volumes of a series.
//!
//! World coordinates become RAS+ millimetres, whatever the header's `space` and `space units`. A header without a space, or
//! with one that doesn't say left from right, is taken as LPS, as ITK does, and the volume has a note of it. Key/value pairs,
//! `measurement frame` and texts aren't kept.
//!
//! Memory is bounded as for NIfTI: 9 bytes for each byte that arrives, after decompression, and 1 MiB.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod header;
mod space;
mod write;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Read},
    path::Path,
};

use tomograd_core::{Error, Result};

use crate::{
    Volume,
    array::{Array, Bytes, Encoding},
    stream::{Compression, Stream, io_error},
    volume::{Format, Placed, one_voxel},
    voxels::Coding,
};
use header::Header;
pub(crate) use write::{data_file, write, write_detached};

const OPERATION: &str = "nrrd";

/// The first bytes of every file; four digits or letters follow.
pub(crate) const MAGIC: &[u8] = b"NRRD";

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

/// Reads a file from its start; `folder` is the header's, if the data may be in other files.
pub(crate) fn read(mut input: Bytes<'_>, folder: Option<&Path>) -> Result<Volume> {
    let header = Header::read(&mut input)?;
    let (placed, array) = array(&header)?;
    let (voxels, coding) =
        array.read_from(&header.data, input, folder, |input, bytes| behind_skips(input, &header, bytes))?;
    Volume::of_array(voxels, placed.affine, placed.step, coding, Format::Nrrd, placed.notes)
}

fn array(header: &Header) -> Result<(space::Placed, Array)> {
    let placed = space::place(header)?;
    let array = Array {
        stored: header.stored,
        sizes: header.sizes.clone(),
        spatial: placed.spatial.clone(),
        big: header.big,
        encoding: header.encoding,
    };
    Ok((placed, array))
}

/// Where the voxels of a file of raw data are.
pub(crate) fn placed(mut input: Bytes<'_>, path: &Path, length: u64) -> Result<Placed> {
    let header = Header::read(&mut input)?;
    let (placed, array) = array(&header)?;
    let skip = |input, bytes| behind_skips(input, &header, bytes);
    let (file, start, sizes) = array.located(&header.data, input, path, length, skip)?;
    let coding = Coding::plain(header.stored);
    let template = Volume::of_array(one_voxel()?, placed.affine, placed.step, coding, Format::Nrrd, placed.notes)?;
    Ok(Placed { path: file, start, sizes, coding, big: header.big, template })
}

/// A stream after what `line skip` and `byte skip` leave out, in front of `bytes` bytes of data.
fn behind_skips<'a>(mut input: Bytes<'a>, header: &Header, bytes: u64) -> Result<Stream<Bytes<'a>>> {
    for _ in 0..header.line_skip {
        let line = input.line()?;
        if line.is_none() {
            return Err(fail(format!("the file ends within the {} lines to skip", header.line_skip)));
        }
    }
    let compression = header.encoding.compression();
    let skip = match u64::try_from(header.byte_skip) {
        Ok(skip) => skip,
        // −1: the data is at the end of the file.
        Err(_) => {
            let fits = matches!(header.encoding, Encoding::Bytes(Compression::None));
            let left = input.left.filter(|_| fits).and_then(|left| left.checked_sub(bytes));
            left.ok_or_else(|| fail("byte skip -1").expected("raw data of at least the size that the header says"))?
        }
    };
    let left = input.left;
    let mut stream = Stream::of(input, left, compression);
    let passed = io::copy(&mut stream.by_ref().take(skip), &mut io::sink()).map_err(io_error("the bytes to skip"))?;
    if passed < skip {
        return Err(fail(format!("the file ends within the {skip} bytes to skip")));
    }
    stream.forget(passed);
    Ok(stream)
}
