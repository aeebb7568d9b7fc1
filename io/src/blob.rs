//! Sources of bytes: the data of tensors and archive entries before they are read.

use std::{
    fmt,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tomograd_core::{Error, Result, room_for};

const OPERATION: &str = "read";
/// The number of bytes read at a time; a multiple of every element size.
const PIECE: usize = 1 << 16;

/// A file, or bytes in memory.
pub(crate) enum Source {
    File { file: Mutex<File>, place: String, length: u64 },
    Bytes(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl Source {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Arc<Self>> {
        let place = path.display().to_string();
        let fail = |error| Error::io(OPERATION, &place, error);
        let file = File::open(path).map_err(fail)?;
        let about = file.metadata().map_err(fail)?;
        if !about.is_file() {
            return Err(Error::argument(OPERATION, format!("{place} isn't a plain file")).expected("a file"));
        }
        Ok(Arc::new(Self::File { length: about.len(), place, file: Mutex::new(file) }))
    }

    /// A source of bytes in memory.
    pub(crate) fn of(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::Bytes(Box::new(bytes))
    }

    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Bytes(bytes) => (**bytes).as_ref().len() as u64,
        }
    }

    /// Fills `buffer` with the bytes starting at `at`.
    pub(crate) fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::File { file, place, .. } => {
                let fail = |error| Error::io(OPERATION, place, error);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(at)).map_err(fail)?;
                file.read_exact(buffer).map_err(fail)
            }
            Self::Bytes(bytes) => {
                let end = at.saturating_add(buffer.len() as u64);
                let part = usize::try_from(at).ok().zip(usize::try_from(end).ok());
                let part = part
                    .and_then(|(start, end)| (**bytes).as_ref().get(start..end))
                    .ok_or_else(|| self.beyond(at, end))?;
                buffer.copy_from_slice(part);
                Ok(())
            }
        }
    }

    fn beyond(&self, start: u64, end: u64) -> Error {
        Error::format(OPERATION, format!("bytes {start}..{end} of {}", self.length()))
            .expected("bytes inside of the file")
    }

    /// `count` bytes starting at `at`. The range is checked against the length before memory is allocated.
    pub(crate) fn bytes(&self, at: u64, count: u64) -> Result<Vec<u8>> {
        let end = at.saturating_add(count);
        let room = usize::try_from(count).ok().filter(|_| end <= self.length()).ok_or_else(|| self.beyond(at, end))?;
        let mut bytes = room_for(OPERATION, room)?;
        bytes.resize(room, 0);
        self.read_at(at, &mut bytes)?;
        Ok(bytes)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { place, length, .. } => write!(f, "{place} ({length} bytes)"),
            Self::Bytes(_) => write!(f, "{} bytes", self.length()),
        }
    }
}

/// A range of a source: one storage, or the data of a file.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) source: Arc<Source>,
    pub(crate) at: u64,
    /// The number of bytes in the source.
    pub(crate) length: u64,
    /// The number of bytes after decompression (raw deflate), if compressed.
    pub(crate) deflated: Option<u64>,
    /// The CRC-32 of the uncompressed bytes, if the file has it.
    pub(crate) checksum: Option<u32>,
}

impl Blob {
    pub(crate) fn new(source: Arc<Source>, at: u64, length: u64) -> Self {
        Self { source, at, length, deflated: None, checksum: None }
    }

    /// The number of uncompressed bytes.
    pub(crate) fn size(&self) -> u64 {
        self.deflated.unwrap_or(self.length)
    }

    /// The same bytes, decompressed into memory if necessary.
    pub(crate) fn plain(&self) -> Result<Self> {
        let Some(size) = self.deflated else { return Ok(self.clone()) };
        // Deflate can't expand data by a factor of more than 1032.
        let room =
            usize::try_from(size).ok().filter(|_| size <= self.length.saturating_mul(1032)).ok_or_else(|| {
                Error::format(OPERATION, format!("{} compressed bytes that should unfold to {size}", self.length))
            })?;
        let mut bytes: Vec<u8> = room_for(OPERATION, room)?;
        let mut reader = self.reader()?;
        let got = (&mut reader).take(size.saturating_add(1)).read_to_end(&mut bytes);
        got.map_err(|error| Error::io(OPERATION, "a compressed entry", error))?;
        reader.finish()?;
        // The checksum was verified here, and needs no check when parts are read.
        Ok(Self::new(Arc::new(Source::of(bytes)), 0, size))
    }

    /// A reader of the bytes that decompresses on the fly. The declared sizes are checked first: deflate can't expand data by
    /// a factor of more than 1032.
    pub(crate) fn reader(&self) -> Result<BlobReader<'_>> {
        let end = self.at.checked_add(self.length).filter(|&end| end <= self.source.length());
        end.ok_or_else(|| self.source.beyond(self.at, self.at.saturating_add(self.length)))?;
        if self.size() > self.length.saturating_mul(1032) {
            return Err(Error::format(OPERATION, format!("{} bytes that hold {}", self.length, self.size())));
        }
        let raw = BufReader::new(Span { source: &self.source, at: self.at, left: self.length });
        let inner: Box<dyn Read> = match self.deflated {
            Some(_) => Box::new(flate2::bufread::DeflateDecoder::new(raw)),
            None => Box::new(raw),
        };
        Ok(BlobReader { blob: self, inner, count: 0, crc: flate2::Crc::new() })
    }

    /// All bytes, uncompressed.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>> {
        let plain = self.plain()?;
        plain.part(0, plain.length)
    }

    /// `count` bytes starting at `start` of an uncompressed blob. If that is the whole blob, the checksum is verified.
    pub(crate) fn part(&self, start: u64, count: u64) -> Result<Vec<u8>> {
        let bytes = self.source.bytes(self.at.saturating_add(start), count)?;
        if start == 0 && count == self.length {
            let mut crc = flate2::Crc::new();
            crc.update(&bytes);
            self.compare(&crc)?;
        }
        Ok(bytes)
    }

    /// `count` bytes starting at `start` of an uncompressed blob, in pieces.
    pub(crate) fn pieces(&self, start: u64, count: u64) -> Result<Pieces<'_>> {
        if start.checked_add(count).is_none_or(|end| end > self.length) {
            return Err(self.source.beyond(start, start.saturating_add(count)));
        }
        let whole = start == 0 && count == self.length;
        Ok(Pieces {
            blob: self,
            at: self.at + start,
            left: count,
            buffer: Vec::new(),
            taken: 0,
            crc: whole.then(flate2::Crc::new),
            failed: None,
        })
    }

    fn compare(&self, crc: &flate2::Crc) -> Result<()> {
        match self.checksum {
            Some(checksum) if checksum != crc.sum() => {
                Err(Error::format(OPERATION, format!("the checksum of {} bytes is {:08x}", self.length, crc.sum()))
                    .expected(format!("{checksum:08x}, as the file says: it is damaged")))
            }
            _ => Ok(()),
        }
    }
}

/// A reader of a range of a source.
struct Span<'a> {
    source: &'a Source,
    at: u64,
    left: u64,
}

impl Read for Span<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..count).unwrap_or_default();
        self.source.read_at(self.at, part).map_err(std::io::Error::other)?;
        (self.at, self.left) = (self.at + count as u64, self.left - count as u64);
        Ok(count)
    }
}

/// A sequential reader of a blob.
pub(crate) struct BlobReader<'a> {
    blob: &'a Blob,
    inner: Box<dyn Read + 'a>,
    count: u64,
    crc: flate2::Crc,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}

impl BlobReader<'_> {
    /// Checks that everything was read, with the declared length and checksum.
    pub(crate) fn finish(self) -> Result<()> {
        if self.count != self.blob.size() {
            return Err(Error::format(OPERATION, format!("{} bytes of an entry", self.count))
                .expected(format!("{}, as the file says", self.blob.size())));
        }
        self.blob.compare(&self.crc)
    }
}

/// A sequential reader of a blob's elements. An error is stored and reported at the end, to keep the inner loop fast.
pub(crate) struct Pieces<'a> {
    blob: &'a Blob,
    at: u64,
    left: u64,
    buffer: Vec<u8>,
    taken: usize,
    /// Only if the whole blob is read.
    crc: Option<flate2::Crc>,
    failed: Option<Error>,
}

impl Pieces<'_> {
    /// Reads the next piece; returns whether there was one.
    fn refill(&mut self) -> Result<bool> {
        let count = self.left.min(PIECE as u64);
        if count == 0 {
            return Ok(false);
        }
        self.buffer.resize(count as usize, 0);
        self.blob.source.read_at(self.at, &mut self.buffer)?;
        if let Some(crc) = &mut self.crc {
            crc.update(&self.buffer);
        }
        (self.at, self.left, self.taken) = (self.at + count, self.left - count, 0);
        Ok(true)
    }

    /// The first bytes of the next piece; zeros if there is none.
    #[cold]
    fn first_of_next<const N: usize>(&mut self) -> [u8; N] {
        let filled = if self.failed.is_some() { Ok(false) } else { self.refill() };
        let first = self.buffer.first_chunk::<N>().copied().filter(|_| matches!(filled, Ok(true)));
        self.taken = N;
        first.unwrap_or_else(|| {
            let beyond = || self.blob.source.beyond(self.at, self.at + N as u64);
            let error = filled.err().unwrap_or_else(beyond);
            self.failed.get_or_insert(error);
            self.buffer.clear();
            [0; N]
        })
    }

    /// The next `N` bytes, where `N` divides the piece size.
    #[inline(always)]
    pub(crate) fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.buffer.get(self.taken..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => {
                self.taken += N;
                *bytes
            }
            None => self.first_of_next(),
        }
    }

    /// Reports an earlier error; if everything was read, verifies the checksum.
    pub(crate) fn finish(self) -> Result<()> {
        match self.failed {
            Some(error) => Err(error),
            None => self.crc.map_or(Ok(()), |crc| self.blob.compare(&crc)),
        }
    }
}
