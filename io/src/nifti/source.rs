//! Input streams for NIfTI data. If the length isn't known reliably, memory grows as the bytes arrive.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use tomograd_core::Result;

use super::{fail, io_error};
use crate::gzip::{self, Gzip};

/// The maximum compression ratio of deflate: 258 bytes in two bits.
const DEFLATE_RATIO: u64 = 1032;
/// This many bytes may follow the voxels of a compressed file, or as many as precede them, if that is more.
const MOST_AFTER: u64 = 1 << 24;

/// The number of bytes that a stream can deliver.
#[derive(Clone, Copy)]
pub(super) enum Length {
    /// Exactly this many, so that memory can be allocated at once.
    Known(u64),
    /// At most this many after decompression; memory is allocated as they arrive.
    AtMost(u64),
}

/// The decompressed bytes of a file. Compression is detected from the first bytes, not from the name.
pub(super) struct Stream<R> {
    bytes: Bytes<R>,
    pub(super) length: Length,
}

enum Bytes<R> {
    Plain(R),
    Compressed(Box<Gzip<R>>),
}

impl Stream<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error("the file"))?;
        let about = file.metadata().map_err(io_error("the file"))?;
        // A pipe reports length 0, so that its length is unknown and memory grows with the data.
        let length = about.is_file().then_some(about.len());
        Self::new(BufReader::with_capacity(1 << 16, file), length)
    }
}

impl<R: BufRead> Stream<R> {
    pub(super) fn new(mut reader: R, length: Option<u64>) -> Result<Self> {
        let compressed = gzip::is_compressed(reader.fill_buf().map_err(io_error("the file"))?);
        Ok(if compressed {
            let most = length.map_or(u64::MAX, |length| length.saturating_mul(DEFLATE_RATIO));
            Self { bytes: Bytes::Compressed(Box::new(Gzip::new(reader))), length: Length::AtMost(most) }
        } else {
            Self { bytes: Bytes::Plain(reader), length: length.map_or(Length::AtMost(u64::MAX), Length::Known) }
        })
    }

    /// Called after the `used` bytes have been read: reads a compressed stream to the end, to verify its checksums. At most
    /// `used` more bytes are decompressed, or 16 MiB if that is more.
    pub(super) fn finish(&mut self, used: u64) -> Result<()> {
        match &mut self.bytes {
            Bytes::Plain(_) => Ok(()),
            Bytes::Compressed(bytes) => {
                bytes.finish(used.max(MOST_AFTER)).map_err(io_error("the end of the compressed file"))
            }
        }
    }
}

impl<R: BufRead> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::Plain(bytes) => bytes.read(buffer),
            Bytes::Compressed(bytes) => bytes.read(buffer),
        }
    }
}

/// The most by which memory is allocated ahead of the data.
const STEP: u64 = 1 << 18;

/// Bytes in pieces, which are freed as they are read.
pub(super) struct Held {
    pieces: VecDeque<Vec<u8>>,
    /// The position in the first piece.
    at: usize,
}

/// Reads exactly `wanted` bytes from `reader`.
pub(super) fn hold(reader: &mut impl Read, wanted: u64) -> Result<Held> {
    let mut pieces = VecDeque::new();
    let mut left = wanted;
    while left > 0 {
        pieces.push_back(collect(reader, left.min(STEP), "the voxels")?);
        left = left.saturating_sub(STEP);
    }
    Ok(Held { pieces, at: 0 })
}

/// Reads exactly `wanted` bytes, contiguously; errors call them `what`.
pub(super) fn collect(reader: &mut impl Read, wanted: u64, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = reader.take(wanted).read_to_end(&mut bytes).map_err(io_error(what))?;
    if (got as u64) < wanted {
        return Err(fail(format!("the file ends inside of {what}")));
    }
    Ok(bytes)
}

/// Skips `count` bytes.
pub(super) fn skip(reader: &mut impl Read, count: u64, what: &'static str) -> Result<()> {
    let passed = io::copy(&mut reader.take(count), &mut io::sink()).map_err(io_error(what))?;
    if passed < count { Err(fail(format!("the file ends inside of {what}"))) } else { Ok(()) }
}

impl Read for Held {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(piece) = self.pieces.front() {
            let mut rest = piece.get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                let got = rest.read(buffer)?;
                self.at = self.at.saturating_add(got);
                return Ok(got);
            }
            self.pieces.pop_front();
            self.at = 0;
        }
        Ok(0)
    }
}
