//! Zip archives (APPNOTE 6.3) as PyTorch and NumPy write them: the central directory, zip64, and stored or deflated
//! entries.

use std::{collections::HashMap, sync::Arc};

use tomograd_core::{Error, Result};

use crate::blob::{Blob, Source};

const OPERATION: &str = "zip";

/// An entry of the central directory.
struct Entry {
    method: u16,
    encrypted: bool,
    checksum: u32,
    packed: u64,
    size: u64,
    header: u64,
}

/// The entries of an archive, in order and by name.
pub(crate) struct Archive {
    source: Arc<Source>,
    names: Vec<String>,
    entries: HashMap<String, Entry>,
}

/// The first bytes of a nonempty archive.
pub(crate) const MAGIC: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const END_LENGTH: usize = 22;
const CENTRAL_LENGTH: usize = 46;
const LOCAL_LENGTH: u64 = 30;

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what).expected("a zip archive of one part")
}

/// A little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end)).ok_or_else(|| fail("a zip record is cut off"))?;
    Ok(part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

impl Archive {
    /// Reads the central directory.
    pub(crate) fn open(source: &Arc<Source>) -> Result<Self> {
        let (at, length, count) = directory(source)?;
        let directory = source.bytes(at, length)?;
        let (mut names, mut entries) = (Vec::new(), HashMap::new());
        let mut rest = &directory[..];
        for _ in 0..count {
            let (name, entry, after) = central(rest)?;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(fail(format!("the name {name} is given twice")));
            }
            names.push(name);
            rest = after;
        }
        Ok(Self { source: source.clone(), names, entries })
    }

    /// The names of all entries, in the order of the archive.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The bytes of the entry called `name`.
    pub(crate) fn blob(&self, name: &str) -> Result<Blob> {
        let entry = self.entries.get(name).ok_or_else(|| fail(format!("there is no entry {name}")))?;
        let within = |error: Error| error.within(name.to_owned());
        if entry.encrypted || !matches!(entry.method, 0 | 8) {
            let how =
                if entry.encrypted { "encrypted".to_owned() } else { format!("compressed by method {}", entry.method) };
            return Err(within(
                Error::format(OPERATION, format!("an entry that is {how}")).expected("stored or deflated"),
            ));
        }
        // The length of the extra field is only in the local header.
        let local = self.source.bytes(entry.header, LOCAL_LENGTH).map_err(within)?;
        if !local.starts_with(&MAGIC) {
            return Err(within(fail("no entry where the directory says")));
        }
        let lengths = number::<2>(&local, 26)? + number::<2>(&local, 28)?;
        let at = entry.header.checked_add(LOCAL_LENGTH + lengths);
        let at = at.filter(|at| at.checked_add(entry.packed).is_some_and(|end| end <= self.source.length()));
        let at = at.ok_or_else(|| within(fail(format!("{} bytes behind the end of the file", entry.packed))))?;
        if entry.method == 0 && entry.packed != entry.size {
            return Err(within(fail(format!("{} stored bytes that should be {}", entry.packed, entry.size))));
        }
        Ok(Blob {
            deflated: (entry.method == 8).then_some(entry.size),
            // PyTorch can be configured to omit checksums, and writes 0 then.
            checksum: Some(entry.checksum).filter(|&checksum| checksum != 0),
            ..Blob::new(self.source.clone(), at, entry.packed)
        })
    }
}

/// Offset, size and number of entries of the central directory.
fn directory(source: &Source) -> Result<(u64, u64, u64)> {
    // A comment of at most 65535 bytes may follow.
    let tail_length = source.length().min(END_LENGTH as u64 + u64::from(u16::MAX));
    let tail_at = source.length() - tail_length;
    let tail = source.bytes(tail_at, tail_length)?;
    let found = tail.windows(END_LENGTH).rposition(|part| part.starts_with(&END));
    let found = found.ok_or_else(|| fail("no zip archive: it has no directory at its end"))?;
    let end = tail.get(found..).unwrap_or_default();
    let (mut count, mut length, mut at) = (number::<2>(end, 10)?, number::<4>(end, 12)?, number::<4>(end, 16)?);
    if count == 0xFFFF || length == 0xFFFF_FFFF || at == 0xFFFF_FFFF {
        let locator_at = (tail_at + found as u64).checked_sub(20).ok_or_else(|| fail("no zip64 locator"))?;
        let locator = source.bytes(locator_at, 20)?;
        if locator.starts_with(&LOCATOR64) {
            let end = source.bytes(number::<8>(&locator, 8)?, 56)?;
            if !end.starts_with(&END64) {
                return Err(fail("no zip64 directory where its locator says"));
            }
            (count, length, at) = (number::<8>(&end, 32)?, number::<8>(&end, 40)?, number::<8>(&end, 48)?);
        }
    }
    if count > length / CENTRAL_LENGTH as u64 {
        return Err(fail(format!("a directory of {count} entries in {length} bytes")));
    }
    Ok((at, length, count))
}

/// Parses the first entry of a directory; also returns the remaining bytes.
fn central(record: &[u8]) -> Result<(String, Entry, &[u8])> {
    if !record.starts_with(&CENTRAL) {
        return Err(fail("the zip directory has something else than an entry"));
    }
    let (name, extra) = (number::<2>(record, 28)? as usize, number::<2>(record, 30)? as usize);
    let end = CENTRAL_LENGTH + name + extra;
    let cut = || fail("a zip record is cut off");
    let text = record.get(CENTRAL_LENGTH..CENTRAL_LENGTH + name).ok_or_else(cut)?;
    let mut extra = record.get(CENTRAL_LENGTH + name..end).ok_or_else(cut)?;
    let after = record.get(end + number::<2>(record, 32)? as usize..).ok_or_else(cut)?;
    // Values that don't fit their 32-bit fields are in the zip64 extra field, in this order.
    let mut fields = [number::<4>(record, 24)?, number::<4>(record, 20)?, number::<4>(record, 42)?];
    while fields.contains(&0xFFFF_FFFF) && extra.len() >= 4 {
        let (kind, length) = (number::<2>(extra, 0)?, number::<2>(extra, 2)? as usize);
        let body = extra.get(4..4 + length).ok_or_else(cut)?;
        if kind == 1 {
            let mut at = 0;
            for field in fields.iter_mut().filter(|field| **field == 0xFFFF_FFFF) {
                *field = number::<8>(body, at)?;
                at += 8;
            }
            break;
        }
        extra = extra.get(4 + length..).ok_or_else(cut)?;
    }
    let [size, packed, header] = fields;
    let entry = Entry {
        method: number::<2>(record, 10)? as u16,
        encrypted: number::<2>(record, 8)? & 1 == 1,
        checksum: number::<4>(record, 16)? as u32,
        packed,
        size,
        header,
    };
    Ok((String::from_utf8_lossy(text).into_owned(), entry, after))
}
