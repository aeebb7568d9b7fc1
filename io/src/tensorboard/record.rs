//! TFRecords: messages with their lengths and checksums.

use std::io::{self, Read, Write};

use tomograd_core::{Error, Result};

use super::{OPERATION, message};

/// The bytes before a message (its length and the checksum of the length) and after it (its checksum).
const BEFORE: u64 = 12;
const BEHIND: u64 = 4;

/// The CRC-32C table (Castagnoli; polynomial 0x1EDC6F41, bit-reversed).
#[allow(clippy::indexing_slicing, reason = "the compiler runs it, and would refuse a place beyond the end")]
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut remainder, mut bit) = (byte as u32, 0);
        while bit < 8 {
            remainder = if remainder & 1 == 1 { remainder >> 1 ^ 0x82F6_3B78 } else { remainder >> 1 };
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// CRC-32C (RFC 3720).
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let next = |crc: u32, byte: &u8| {
        let place = usize::from(crc as u8 ^ byte);
        crc >> 8 ^ TABLE.get(place).copied().unwrap_or(0)
    };
    !bytes.iter().fold(!0, next)
}

/// The masked checksum of TFRecords: rotated by 15 bits plus a constant, because the CRC of data that contains CRCs is weak.
pub(super) fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

pub(super) fn write(writer: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let length = (message.len() as u64).to_le_bytes();
    // One write call, so that a crash rarely leaves a partial record.
    let parts = [&length[..], &masked(&length).to_le_bytes(), message, &masked(message).to_le_bytes()];
    writer.write_all(&parts.concat())
}

/// The end of the last complete record of a file of `size` bytes such that all events up to it are of step `step` or earlier.
pub(super) fn end_of_step(reader: &mut impl Read, size: u64, step: u64) -> Result<u64> {
    let mut end = 0u64;
    loop {
        let left = size.saturating_sub(end);
        let mut before = [0; BEFORE as usize];
        if left < BEFORE + BEHIND || !filled(reader, &mut before)? {
            return Ok(end);
        }
        let [length @ .., a, b, c, d] = before;
        let sum = u32::from_le_bytes([a, b, c, d]);
        let count = u64::from_le_bytes(length);
        // A length beyond the end of the file is that of an incomplete record, or the data isn't a record.
        if masked(&length) != sum || count > left - BEFORE - BEHIND {
            return Ok(end);
        }
        let (mut message, mut sum) = (Vec::new(), [0; BEHIND as usize]);
        // Memory grows as the bytes arrive.
        let got = reader.by_ref().take(count).read_to_end(&mut message).map_err(fail)? as u64;
        if got != count || !filled(reader, &mut sum)? || masked(&message) != u32::from_le_bytes(sum) {
            return Ok(end);
        }
        match message::step(&message) {
            Some(found) if found <= step => end = end.saturating_add(BEFORE + BEHIND).saturating_add(count),
            _ => return Ok(end),
        }
    }
}

/// Fills `bytes`; returns whether there were enough.
fn filled(reader: &mut impl Read, bytes: &mut [u8]) -> Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

fn fail(error: io::Error) -> Error {
    Error::io(OPERATION, "an event file", error)
}
