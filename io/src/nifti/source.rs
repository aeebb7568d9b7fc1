//! The bytes of a file, and those of a stream whose length nobody vouches for: there memory grows as they arrive.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use tomograd_core::Result;

use super::{fail, io_error};
use crate::gzip::{self, Gzip};

/// The most that deflate can compress: 258 bytes by two bits.
const DEFLATE_RATIO: u64 = 1032;
/// Bytes that may follow the voxels of a compressed file, where the voxels are fewer.
const MOST_AFTER: u64 = 1 << 24;

/// How many bytes a stream can give.
#[derive(Clone, Copy)]
pub(super) enum Length {
    /// Exactly this many: memory can be taken for them at once.
    Known(u64),
    /// At most this many, after decompression: memory is taken as they arrive.
    AtMost(u64),
}

/// The bytes of a file, decompressed if need be: compression shows in the first bytes, whatever the name is.
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
        // A pipe says it is empty; then nothing is known, and memory grows with what arrives.
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

    /// Called when all is read that is wanted, `used` bytes: reads a compressed stream to its end, for its checksums. Of what
    /// follows at most as much again is decompressed, or 16 MiB if that is more.
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

/// Memory grows by at most this much before the bytes that it is for have arrived.
const STEP: u64 = 1 << 18;

/// Bytes in pieces; reading them frees the pieces as they are passed.
pub(super) struct Held {
    pieces: VecDeque<Vec<u8>>,
    /// How far the first piece is read.
    at: usize,
}

/// Takes exactly `wanted` bytes from `reader`.
pub(super) fn hold(reader: &mut impl Read, wanted: u64) -> Result<Held> {
    let mut pieces = VecDeque::new();
    let mut left = wanted;
    while left > 0 {
        pieces.push_back(collect(reader, left.min(STEP), "the voxels")?);
        left = left.saturating_sub(STEP);
    }
    Ok(Held { pieces, at: 0 })
}

/// Exactly `wanted` bytes of `what` in one piece.
pub(super) fn collect(reader: &mut impl Read, wanted: u64, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = reader.take(wanted).read_to_end(&mut bytes).map_err(io_error(what))?;
    if (got as u64) < wanted {
        return Err(fail(format!("the file ends inside of {what}")));
    }
    Ok(bytes)
}

/// Passes over `count` bytes.
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
