//! The directories of a TIFF file, classic or BigTIFF, read one by one where they are.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use tomograd_core::{Error, Result};

use super::{OPERATION, fail};

/// More entries than a directory has.
const MOST_ENTRIES: u64 = 4096;

/// A TIFF file.
pub(super) struct Tiff {
    file: BufReader<File>,
    pub(super) length: u64,
    pub(super) little: bool,
    /// Numbers of entries and places are wider.
    big: bool,
    /// Where the first directory is.
    pub(super) first: u64,
}

/// The entries of a directory by tag.
pub(super) struct Directory {
    entries: BTreeMap<u16, Entry>,
    /// Where the next directory is; 0 if this is the last.
    pub(super) next: u64,
}

struct Entry {
    kind: u16,
    count: u64,
    /// The values, or where they are.
    value: Vec<u8>,
}

/// Bytes of a value of this kind; 0 of an unknown one.
fn size(kind: u16) -> u64 {
    match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 0,
    }
}

impl Tiff {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io)?;
        let about = file.metadata().map_err(io)?;
        let mut tiff = Self { file: BufReader::new(file), length: about.len(), little: true, big: false, first: 0 };
        let start = tiff.at(0, 8)?;
        tiff.little = start.first() == Some(&b'I');
        match start[..] {
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => {
                tiff.first = tiff.number(start.get(4..).unwrap_or_default());
            }
            [b'I', b'I', 43, 0, 8, 0, 0, 0] | [b'M', b'M', 0, 43, 0, 8, 0, 0] => {
                tiff.big = true;
                let first = tiff.at(8, 8)?;
                tiff.first = tiff.number(&first);
            }
            _ => return Err(fail("a file that isn't TIFF")),
        }
        Ok(tiff)
    }

    /// An unsigned number of as many bytes as these.
    fn number(&self, bytes: &[u8]) -> u64 {
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, append) } else { bytes.iter().fold(0, append) }
    }

    /// The bytes at a place, which must be there.
    pub(super) fn at(&mut self, place: u64, size: u64) -> Result<Vec<u8>> {
        if place.saturating_add(size) > self.length {
            return Err(fail(format!("{size} bytes at byte {place} of a file of {}", self.length)));
        }
        self.file.seek(SeekFrom::Start(place)).map_err(io)?;
        let mut bytes = Vec::new();
        self.file.by_ref().take(size).read_to_end(&mut bytes).map_err(io)?;
        if (bytes.len() as u64) < size { Err(fail("a file that became shorter")) } else { Ok(bytes) }
    }

    /// The directory at a place.
    pub(super) fn directory(&mut self, place: u64) -> Result<Directory> {
        let (wide, inline) = if self.big { (8u64, 8u64) } else { (2, 4) };
        let entry = inline.saturating_mul(2).saturating_add(4);
        let count = self.at(place, wide)?;
        let count = self.number(&count);
        if count > MOST_ENTRIES {
            return Err(fail(format!("a directory of {count} entries")).expected(format!("at most {MOST_ENTRIES}")));
        }
        let first = place.saturating_add(wide);
        let bytes = self.at(first, count.saturating_mul(entry))?;
        let next = self.at(first.saturating_add(count.saturating_mul(entry)), inline)?;
        let mut entries = BTreeMap::new();
        for bytes in bytes.chunks_exact(entry as usize) {
            let (tag, rest) = bytes.split_at_checked(2).unwrap_or_default();
            let (kind, rest) = rest.split_at_checked(2).unwrap_or_default();
            let (count, value) = rest.split_at_checked(inline as usize).unwrap_or_default();
            let kind = self.number(kind) as u16;
            entries.insert(self.number(tag) as u16, Entry { kind, count: self.number(count), value: value.to_vec() });
        }
        Ok(Directory { entries, next: self.number(&next) })
    }

    /// The bytes of an entry's values; `None` without the entry.
    pub(super) fn bytes(&mut self, directory: &Directory, tag: u16) -> Result<Option<Vec<u8>>> {
        let Some(Entry { kind, count, value }) = directory.entries.get(&tag) else { return Ok(None) };
        let bytes = count.saturating_mul(size(*kind));
        let found = match value.get(..usize::try_from(bytes).unwrap_or(usize::MAX)) {
            Some(here) => Ok(here.to_vec()),
            None => self.at(self.number(value), bytes),
        };
        found.map(Some).map_err(|error| error.within(format!("tag {tag}")))
    }

    /// The unsigned integers of an entry; `None` without the entry.
    pub(super) fn numbers(&mut self, directory: &Directory, tag: u16) -> Result<Option<Vec<u64>>> {
        let kind = directory.entries.get(&tag).map_or(4, |entry| entry.kind);
        if !matches!(kind, 1 | 3 | 4 | 13 | 16 | 18) {
            return Err(fail(format!("tag {tag} of type {kind}")).expected("unsigned integers"));
        }
        let bytes = self.bytes(directory, tag)?;
        Ok(bytes.map(|bytes| bytes.chunks_exact(size(kind) as usize).map(|part| self.number(part)).collect()))
    }

    /// The first number of an entry, or this.
    pub(super) fn first(&mut self, directory: &Directory, tag: u16, or: u64) -> Result<u64> {
        Ok(self.numbers(directory, tag)?.and_then(|numbers| numbers.first().copied()).unwrap_or(or))
    }

    /// A ratio of two integers.
    pub(super) fn ratio(&mut self, directory: &Directory, tag: u16) -> Result<Option<f64>> {
        let bytes = self.bytes(directory, tag)?.filter(|bytes| bytes.len() == 8);
        let parts = bytes.map(|bytes| {
            let (number, of) = bytes.split_at_checked(4).unwrap_or_default();
            self.number(number) as f64 / self.number(of) as f64
        });
        Ok(parts.filter(|ratio| ratio.is_finite()))
    }

    /// A text.
    pub(super) fn text(&mut self, directory: &Directory, tag: u16) -> Result<String> {
        let bytes = self.bytes(directory, tag)?.unwrap_or_default();
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

pub(super) fn io(error: std::io::Error) -> Error {
    Error::io(OPERATION, "the file", error)
}
