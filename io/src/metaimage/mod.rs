//! MetaImage (itk.org/Wiki/ITK/MetaIO/Documentation): `.mha`, and `.mhd` with its data in other files.
//!
//! The format's world is LPS; it becomes RAS+. The numbers of a voxel (`ElementNumberOfChannels`) and axes after the third
//! come in front of (D, H, W). A field that ITK passes over and that would change values or places
//! (`ElementToIntensityFunction...`, `HeaderSizePerSlice`) is passed over too, with a note of it, or refused.
//!
//! Memory is bounded as for NIfTI: 9 bytes for each byte that arrives, after decompression, and 1 MiB.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod header;
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
    array::{Array, Bytes},
    stream::{Stream, io_error},
    volume::{Format, Placed, one_voxel},
    voxels::Coding,
};
pub(crate) use header::begins;
use header::{Header, Skip};
pub(crate) use write::{data_file, write, write_detached};

const OPERATION: &str = "metaimage";

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

/// Reads a file from its start; `folder` is the header's, if the data may be in other files.
pub(crate) fn read(mut input: Bytes<'_>, folder: Option<&Path>) -> Result<Volume> {
    let header = Header::read(&mut input)?;
    let (placed, array) = (header.place()?, array(&header));
    let (voxels, coding) =
        array.read_from(&header.data, input, folder, |input, bytes| behind_skip(input, &header, bytes))?;
    Volume::of_array(voxels, placed.affine, placed.step, coding, Format::MetaImage, placed.notes)
}

fn array(header: &Header) -> Array {
    let together = header.channels > 1;
    let first = usize::from(together);
    let channels = together.then_some(header.channels);
    Array {
        stored: header.stored,
        sizes: channels.iter().chain(&header.sizes).copied().collect(),
        spatial: (first..first.saturating_add(header.sizes.len().min(3))).collect(),
        big: header.big,
        encoding: header.encoding,
    }
}

/// Where the voxels of a file of raw data are.
pub(crate) fn placed(mut input: Bytes<'_>, path: &Path, length: u64) -> Result<Placed> {
    let header = Header::read(&mut input)?;
    let (placed, array) = (header.place()?, array(&header));
    let skip = |input, bytes| behind_skip(input, &header, bytes);
    let (file, start, sizes) = array.located(&header.data, input, path, length, skip)?;
    let coding = Coding::plain(header.stored);
    let template = Volume::of_array(one_voxel()?, placed.affine, placed.step, coding, Format::MetaImage, placed.notes)?;
    Ok(Placed { path: file, start, sizes, coding, big: header.big, template })
}

/// A stream after the header of a data file, in front of `bytes` bytes of data.
fn behind_skip<'a>(mut input: Bytes<'a>, header: &Header, bytes: u64) -> Result<Stream<Bytes<'a>>> {
    let skip = match header.skip {
        Skip::Bytes(skip) => skip,
        Skip::ToTheLast => {
            let bytes = header.compressed_size.unwrap_or(bytes);
            input
                .left
                .and_then(|left| left.checked_sub(bytes))
                .ok_or_else(|| fail("HeaderSize = -1").expected("data of at least the size that the header says"))?
        }
    };
    let passed = io::copy(&mut input.by_ref().take(skip), &mut io::sink()).map_err(io_error("the bytes to skip"))?;
    if passed < skip {
        return Err(fail(format!("the file ends within the {skip} bytes of HeaderSize")));
    }
    // The compressed bytes are those that the header counts, if it does.
    let most = match (input.left, header.compressed_size) {
        (Some(left), Some(size)) => Some(left.min(size)),
        (left, size) => left.or(size),
    };
    Ok(Stream::of(input, most, header.encoding.compression()))
}
