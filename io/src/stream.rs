//! Input streams of volumes' files. If the length isn't known reliably, memory grows as the bytes arrive.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    mem,
    path::Path,
    sync::mpsc,
    thread,
};

use tomograd_core::{Error, Result, pieces};

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

/// From this many bytes on another thread works on what is decompressed.
const MANY: u64 = 1 << 20;
/// What must have arrived of them before it is believed that all will: `work` takes memory for them then.
const BELIEVED: u64 = 4;
/// The pieces that wait for the other thread.
const AHEAD: usize = 2;

/// Reads exactly `wanted` bytes, and a compressed stream to its end (`finish(end)`). `work` makes something of the bytes: of many, in
/// another thread, while this one decompresses the next.
pub(crate) fn worked_on<R: BufRead, T: Send>(
    stream: &mut Stream<R>,
    wanted: u64,
    end: u64,
    work: impl FnOnce(&mut dyn Read) -> Result<T> + Send,
) -> Result<T> {
    let alone = wanted < MANY || pieces::threads() < 2;
    let first = if alone { wanted } else { wanted.div_ceil(BELIEVED) };
    let mut held = hold(stream, first)?;
    if alone {
        stream.finish(end)?;
        return work(&mut held);
    }
    let (full, arrived) = mpsc::sync_channel::<Vec<u8>>(AHEAD);
    let (give_back, empty) = mpsc::channel::<Vec<u8>>();
    let mut left = wanted.saturating_sub(first);
    thread::scope(|scope| {
        let arriving = Arriving { pieces: arrived, give_back, piece: Vec::new(), at: 0 };
        let worker = thread::Builder::new()
            .spawn_scoped(scope, move || work(&mut held.chain(arriving)))
            .map_err(io_error("a thread"))?;
        let mut fill = || {
            while left > 0 {
                let mut piece = empty.try_recv().unwrap_or_default();
                let part = left.min(STEP);
                piece.resize(usize::try_from(part).unwrap_or(usize::MAX), 0);
                stream.read_exact(&mut piece).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => ends_inside("the voxels"),
                    _ => io_error("the voxels")(error),
                })?;
                left = left.saturating_sub(part);
                // The other thread has failed; its error comes below.
                if full.send(piece).is_err() {
                    return Ok(());
                }
            }
            stream.finish(end)
        };
        let filled = fill();
        drop(full);
        let made = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where bytes are missing, that is what the work has failed at.
        filled.and(made)
    })
}

/// Pieces of bytes that another thread reads.
struct Arriving {
    pieces: mpsc::Receiver<Vec<u8>>,
    give_back: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            // Nobody needs it where all have been read.
            self.give_back.send(mem::take(&mut self.piece)).ok();
            // No piece comes where all have been sent.
            self.piece = self.pieces.recv().unwrap_or_default();
            self.at = 0;
        }
        let got = self.piece.get(self.at..).unwrap_or_default().read(buffer)?;
        self.at = self.at.saturating_add(got);
        Ok(got)
    }
}

fn ends_inside(what: &str) -> Error {
    fail(format!("the file ends inside of {what}"))
}

/// Reads exactly `wanted` bytes, contiguously; errors call them `what`.
pub(crate) fn collect(reader: &mut impl Read, wanted: u64, what: &'static str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let got = reader.take(wanted).read_to_end(&mut bytes).map_err(io_error(what))?;
    if (got as u64) < wanted {
        return Err(ends_inside(what));
    }
    Ok(bytes)
}

/// Skips `count` bytes.
pub(crate) fn skip(reader: &mut impl Read, count: u64, what: &'static str) -> Result<()> {
    let passed = io::copy(&mut reader.take(count), &mut io::sink()).map_err(io_error(what))?;
    if passed < count { Err(ends_inside(what)) } else { Ok(()) }
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
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    /// Numbers that can't be compressed much, and the stream of their file.
    fn gzip(count: u64) -> (Vec<u8>, Vec<u8>) {
        let bytes: Vec<u8> = (0..count).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as u8).collect();
        let mut file = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        file.write_all(&bytes).unwrap();
        (bytes, file.finish().unwrap())
    }

    fn stream(file: &[u8]) -> Stream<&[u8]> {
        Stream::new(file, Some(file.len() as u64)).unwrap()
    }

    fn all(reader: &mut dyn Read) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).map_err(io_error("test"))?;
        Ok(all)
    }

    #[test]
    fn bytes_are_worked_on_by_any_number_of_threads() {
        for count in [0, 5, MANY - 1, MANY, 4 * STEP + 4 * MANY + 3] {
            let (bytes, file) = gzip(count + 7);
            for threads in [1, 2] {
                let read = pieces::with_threads(threads, || worked_on(&mut stream(&file), count, count, all));
                assert!(read.unwrap() == bytes[..count as usize], "{count} {threads}");
            }
        }
    }

    #[test]
    fn what_goes_wrong_in_either_thread_is_the_error() {
        let (_, mut file) = gzip(4 * MANY);
        let count = 4 * MANY;
        let read = |file: &[u8], work: fn(&mut dyn Read) -> Result<Vec<u8>>| {
            pieces::with_threads(2, || worked_on(&mut stream(file), count, count, work)).unwrap_err().to_string()
        };
        // The work fails at once, or at the end.
        let fails = |_: &mut dyn Read| Err(fail("no such numbers"));
        let fails_late = |reader: &mut dyn Read| all(reader).and_then(|_| Err(fail("no such numbers")));
        assert!(read(&file, fails).contains("no such numbers") && read(&file, fails_late).contains("no such numbers"));
        // The file is cut off, or its checksum is wrong.
        assert!(read(&file[..file.len() / 2], all).contains("the voxels"));
        // Without its last byte, the stream may have all voxels, but not its end.
        let error = read(&file[..file.len() - 9], all);
        assert!(error.contains("the voxels") || error.contains("the end of the compressed file"), "{error}");
        let end = file.len() - 8;
        file[end] ^= 1;
        assert!(read(&file, all).contains("the end of the compressed file"));
    }

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
