//! Input streams of volumes' files. If the length isn't known reliably, memory grows as the bytes arrive.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use tomograd_core::{Error, Result};

use crate::{
    gzip::{self, Gzip},
    zlib::Zlib,
};

const OPERATION: &str = "volume";

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

pub(crate) fn io_error(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| Error::io(OPERATION, what, error)
}

/// The maximum compression ratio of deflate: 258 bytes in two bits.
pub(crate) const DEFLATE_RATIO: u64 = 1032;
/// This many bytes may follow the voxels of a compressed file, or as many as precede them, if that is more.
const MOST_AFTER: u64 = 1 << 24;

/// The bytes of a file from a header on; what a text header has taken is known.
pub(crate) struct Input<R> {
    reader: R,
    /// The number of bytes left, if known.
    pub(crate) left: Option<u64>,
    /// How much more text is read.
    text: u64,
}

impl<R: BufRead> Input<R> {
    pub(crate) fn new(reader: R, length: Option<u64>) -> Self {
        Self { reader, left: length, text: MOST_TEXT }
    }

    /// The next line without its end; `None` at the end of the file. All lines together have at most 4 MiB.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let most = self.text;
        let got = self.by_ref().take(most).read_until(b'\n', &mut line).map_err(io_error("the header"))? as u64;
        self.text = most.saturating_sub(got);
        if self.text == 0 {
            return Err(fail("a header without an end").expected(format!("at most {MOST_TEXT} bytes of text")));
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok((got > 0).then(|| String::from_utf8_lossy(line).into_owned()))
    }
}

/// The longest text header that is read.
const MOST_TEXT: u64 = 1 << 22;

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.left = self.left.map(|left| left.saturating_sub(count as u64));
    }
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zlib,
}

/// The number of bytes that a stream can deliver.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// Exactly this many, so that memory can be allocated at once.
    Known(u64),
    /// At most this many after decompression; memory is allocated as they arrive.
    AtMost(u64),
}

/// The decompressed bytes of a file.
pub(crate) struct Stream<R> {
    bytes: Bytes<R>,
    pub(crate) length: Length,
}

enum Bytes<R> {
    Plain(R),
    Gzip(Box<Gzip<R>>),
    Zlib(Box<Zlib<R>>),
}

/// Opens a file; its length is `None` for a pipe, which reports 0.
pub(crate) fn open(path: &Path) -> Result<(BufReader<File>, Option<u64>)> {
    let file = File::open(path).map_err(io_error("the file"))?;
    let about = file.metadata().map_err(io_error("the file"))?;
    Ok((BufReader::with_capacity(1 << 16, file), about.is_file().then_some(about.len())))
}

impl Stream<BufReader<File>> {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (reader, length) = open(path)?;
        Self::new(reader, length)
    }
}

impl<R: BufRead> Stream<R> {
    /// Compression by gzip is detected from the first bytes, not from a name.
    pub(crate) fn new(mut reader: R, length: Option<u64>) -> Result<Self> {
        let compressed = gzip::is_compressed(reader.fill_buf().map_err(io_error("the file"))?);
        Ok(Self::of(reader, length, if compressed { Compression::Gzip } else { Compression::None }))
    }

    /// A stream whose compression is known.
    pub(crate) fn of(reader: R, length: Option<u64>, compression: Compression) -> Self {
        let most = length.map_or(u64::MAX, |length| length.saturating_mul(DEFLATE_RATIO));
        let (bytes, length) = match compression {
            Compression::None => (Bytes::Plain(reader), length.map_or(Length::AtMost(u64::MAX), Length::Known)),
            Compression::Gzip => (Bytes::Gzip(Box::new(Gzip::new(reader))), Length::AtMost(most)),
            Compression::Zlib => (Bytes::Zlib(Box::new(Zlib::new(reader))), Length::AtMost(most)),
        };
        Self { bytes, length }
    }

    /// Called after `count` bytes have been passed over: the stream delivers so many fewer.
    pub(crate) fn forget(&mut self, count: u64) {
        self.length = match self.length {
            Length::Known(length) => Length::Known(length.saturating_sub(count)),
            Length::AtMost(length) => Length::AtMost(length.saturating_sub(count)),
        };
    }

    /// Called after the `used` bytes have been read: reads a compressed stream to the end, to verify its checksums. At most
    /// `used` more bytes are decompressed, or 16 MiB if that is more.
    pub(crate) fn finish(&mut self, used: u64) -> Result<()> {
        let most = used.max(MOST_AFTER);
        let left = match &mut self.bytes {
            Bytes::Plain(_) => return Ok(()),
            Bytes::Gzip(bytes) => rest(bytes, most),
            Bytes::Zlib(bytes) => rest(bytes, most),
        };
        left.map_err(io_error("the end of the compressed file"))
    }
}

/// Reads and discards the rest, so that checksums are verified. More than `most` bytes are an error, since a hostile file
/// could otherwise keep the reader busy.
fn rest(reader: &mut impl Read, most: u64) -> io::Result<()> {
    let left = io::copy(&mut reader.take(most.saturating_add(1)), &mut io::sink())?;
    if left > most {
        let what = format!("more than {most} bytes follow the voxels, decompressed; they aren't read through");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(())
}

impl<R: BufRead> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Bytes::Plain(bytes) => bytes.read(buffer),
            Bytes::Gzip(bytes) => bytes.read(buffer),
            Bytes::Zlib(bytes) => bytes.read(buffer),
        }
    }
}

/// The most by which memory is allocated ahead of the data.
const STEP: u64 = 1 << 18;

/// Bytes in pieces, which are freed as they are read.
#[derive(Default)]
pub(crate) struct Held {
    pieces: VecDeque<Vec<u8>>,
    /// The position in the first piece.
    at: usize,
}

impl Held {
    /// Adds the bytes of another, of which nothing has been read.
    pub(crate) fn append(&mut self, mut other: Held) {
        self.pieces.append(&mut other.pieces);
    }
}

impl From<Vec<u8>> for Held {
    fn from(bytes: Vec<u8>) -> Self {
        Self { pieces: VecDeque::from([bytes]), at: 0 }
    }
}

/// Reads exactly `wanted` bytes from `reader`.
pub(crate) fn hold(reader: &mut impl Read, wanted: u64) -> Result<Held> {
    let mut pieces = VecDeque::new();
    let mut left = wanted;
    while left > 0 {
        pieces.push_back(collect(reader, left.min(STEP), "the voxels")?);
        left = left.saturating_sub(STEP);
    }
    Ok(Held { pieces, at: 0 })
}

/// Reads exactly `wanted` bytes, contiguously; errors call them `what`.
pub(crate) fn collect(reader: &mut impl Read, wanted: u64, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = reader.take(wanted).read_to_end(&mut bytes).map_err(io_error(what))?;
    if (got as u64) < wanted {
        return Err(fail(format!("the file ends inside of {what}")));
    }
    Ok(bytes)
}

/// Skips `count` bytes.
pub(crate) fn skip(reader: &mut impl Read, count: u64, what: &'static str) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wants_is_bounded() {
        assert!(rest(&mut &[7; 100_000][..], 99_999).is_err());
        assert!(rest(&mut &[7; 100_000][..], 100_000).is_ok());
    }

    #[test]
    fn lines_end_and_are_bounded() {
        let mut input = Input::new(&b"one\r\ntwo\n\nrest"[..], Some(14));
        assert_eq!(input.line().unwrap().as_deref(), Some("one"));
        assert_eq!(input.line().unwrap().as_deref(), Some("two"));
        assert_eq!(input.line().unwrap().as_deref(), Some(""));
        assert_eq!(input.left, Some(4));
        assert_eq!(input.line().unwrap().as_deref(), Some("rest"));
        assert_eq!((input.line().unwrap(), input.left), (None, Some(0)));
        let long = vec![b'a'; 5 << 20];
        assert!(Input::new(&long[..], None).line().is_err());
        let many = b"a\n".repeat(3 << 20);
        let mut input = Input::new(&many[..], None);
        assert!((0..3 << 20).any(|_| input.line().is_err()));
    }
}
