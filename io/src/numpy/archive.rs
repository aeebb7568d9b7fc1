//! The zip archive of an `.npz` file.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::{Crc, read::DeflateDecoder};
use tomograd_core::{Error, ErrorKind, Result, Tensor};

use super::{OPERATION, bytes_at, exact, fail, failed, read_array};

/// No list of the files of an archive is longer.
const MOST_DIRECTORY: u64 = 64 << 20;
/// Deflate makes of a byte at most this many.
const MOST_INFLATED: u64 = 1032;

/// An `.npz` archive, whose arrays are read one by one.
pub struct Npz {
    place: String,
    file: BufReader<File>,
    length: u64,
    entries: Vec<Entry>,
}

/// A file in an archive.
struct Entry {
    /// Without `.npy`.
    name: String,
    deflated: bool,
    crc: u32,
    /// Its bytes in the archive, and as they are.
    packed: u64,
    whole: u64,
    /// Where its local header begins.
    at: u64,
}

impl Npz {
    /// Reads the list of arrays.
    ///
    /// # Errors
    /// When the file can't be read, or isn't a zip archive of one part.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let place = path.as_ref().display().to_string();
        let open = || {
            let file = File::open(path.as_ref()).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let mut file = BufReader::new(file);
            let entries = directory(&mut file, length)?;
            Ok((file, length, entries))
        };
        let (file, length, entries) = open().map_err(|error: Error| error.within(&place))?;
        Ok(Self { place, file, length, entries })
    }

    /// The names of the arrays, in the order of the archive.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// Reads the array of that name.
    ///
    /// # Errors
    /// When there is none, or it is damaged, isn't what its header says, or has elements that no tensor has.
    pub fn array(&mut self, name: &str) -> Result<Tensor> {
        let Some(entry) = self.entries.iter().find(|entry| entry.name == name) else {
            return Err(Error::new(ErrorKind::Name, OPERATION, format!("no array is called {name:?}"))
                .expected(format!("one of {}", self.names().join(", ")))
                .within(&self.place));
        };
        entry.read(&mut self.file, self.length).map_err(|error| error.within(name).within(&self.place))
    }
}

impl Entry {
    fn read(&self, file: &mut BufReader<File>, length: u64) -> Result<Tensor> {
        file.seek(SeekFrom::Start(self.at)).map_err(failed)?;
        let local: [u8; 30] = exact(file)?;
        if !local.starts_with(b"PK\x03\x04") {
            return Err(fail("no file begins where the archive says"));
        }
        let behind = i64::from(u16_at(&local, 26)).saturating_add(i64::from(u16_at(&local, 28)));
        file.seek_relative(behind).map_err(failed)?;
        let begin = file.stream_position().map_err(failed)?;
        if begin.checked_add(self.packed).is_none_or(|end| end > length) {
            return Err(fail(format!("{} bytes at {begin} of a file of {length}", self.packed)));
        }
        let most = if self.deflated { self.packed.saturating_mul(MOST_INFLATED) } else { self.packed };
        if self.whole > most || (!self.deflated && self.whole != self.packed) {
            return Err(fail(format!("{} bytes that hold {}", self.packed, self.whole)));
        }
        let packed = file.take(self.packed);
        let mut checked = Checked {
            inner: if self.deflated { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) },
            crc: Crc::new(),
        };
        let array = read_array(&mut checked, self.whole)?;
        if checked.crc.sum() != self.crc {
            return Err(
                fail(format!("the checksum is {:08x}", checked.crc.sum())).expected(format!("{:08x}", self.crc))
            );
        }
        Ok(array)
    }
}

/// A reader that sums up what it read.
struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    crc: Crc,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.crc.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// What a zip archive lists at its end (APPNOTE 6.3, sections 4.3.12 to 4.3.16).
fn directory(file: &mut BufReader<File>, length: u64) -> Result<Vec<Entry>> {
    // The record at the end has 22 bytes and a comment of at most 65535.
    let tail = length.min(22 + 65535);
    let from = length.saturating_sub(tail);
    let bytes = part(file, from, tail)?;
    let end = bytes.windows(22).rposition(|record| record.starts_with(b"PK\x05\x06"));
    let Some(end) = end else { return Err(fail("no zip archive: it has no list of files at its end")) };
    let record = bytes.get(end..).unwrap_or_default();
    let (mut size, mut start) = (u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16)));
    // Large archives say it again in a record before, to which a locator points.
    let locator = end.checked_sub(20).and_then(|at| bytes.get(at..)).filter(|at| at.starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator {
        let record = part(file, u64_at(locator, 8), 56)?;
        if !record.starts_with(b"PK\x06\x06") {
            return Err(fail("no list of files where the archive says"));
        }
        (size, start) = (u64_at(&record, 40), u64_at(&record, 48));
    }
    if size > MOST_DIRECTORY || start.checked_add(size).is_none_or(|end| end > length) {
        return Err(fail(format!("a list of files of {size} bytes at {start} of {length}")));
    }
    let list = part(file, start, size)?;
    let mut rest = list.as_slice();
    let (mut entries, mut names) = (Vec::new(), HashSet::new());
    while !rest.is_empty() {
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(rest, at)));
        let [name, extra, comment] = lengths;
        let next = 46usize.saturating_add(name).saturating_add(extra).saturating_add(comment);
        let Some((entry, after)) = rest.split_at_checked(next).filter(|_| rest.starts_with(b"PK\x01\x02")) else {
            return Err(fail("the list of files is damaged"));
        };
        rest = after;
        let text = entry.get(46..).and_then(|rest| rest.get(..name)).unwrap_or_default();
        let name = String::from_utf8_lossy(text).into_owned();
        let extra = entry.get(46..).and_then(|rest| rest.get(text.len()..)).and_then(|rest| rest.get(..extra));
        let mut wide = wide_sizes(extra.unwrap_or_default());
        // A size of all ones stands among the extra fields, in this order.
        let mut size = |at: usize| match u32_at(entry, at) {
            u32::MAX => wide.next().unwrap_or(u64::MAX),
            size => u64::from(size),
        };
        let (whole, packed, at) = (size(24), size(20), size(42));
        let deflated = match (u16_at(entry, 8) & 1, u16_at(entry, 10)) {
            (0, 0) => false,
            (0, 8) => true,
            (0, method) => {
                return Err(fail(format!("{name} is packed by method {method}")).expected("stored or deflated"));
            }
            _ => return Err(fail(format!("{name} is encrypted"))),
        };
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        if !names.insert(name.clone()) {
            return Err(fail(format!("two arrays are called {name:?}")));
        }
        entries.push(Entry { name, deflated, crc: u32_at(entry, 16), packed, whole, at });
    }
    Ok(entries)
}

/// The sizes of the extra field 1, of 64 bits each.
fn wide_sizes(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut sizes: &[u8] = &[];
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let (id, length) = (u16_at(head, 0), usize::from(u16_at(head, 2)));
        let Some((field, after)) = rest.split_at_checked(length) else { break };
        if id == 1 {
            sizes = field;
        }
        extra = after;
    }
    sizes.chunks_exact(8).map(|size| u64_at(size, 0))
}

/// `count` bytes from `start` on, of which there are as many.
fn part(file: &mut BufReader<File>, start: u64, count: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 == count {
        Ok(bytes)
    } else {
        Err(fail(format!("the file ends before {count} bytes at {start}")))
    }
}
