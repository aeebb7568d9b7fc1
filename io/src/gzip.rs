//! Gzip streams (RFC 1952), read to the end, so that the CRC-32 and the length of each member are verified.
//!
//! Zeros after the last member are padding, as `tar` and tape drives leave it; `gzip -t`, nibabel and ITK accept them. Any
//! other trailing data is an error, as in `gzip -t`: it may be a member with a damaged header.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::bufread::GzDecoder;

/// The decompressed bytes of all members of a stream.
pub(crate) struct Gzip<R> {
    /// The current member; `None` at the end.
    member: Option<GzDecoder<R>>,
}

/// The first bytes of a gzip stream.
const MAGIC: [u8; 2] = [0x1F, 0x8B];

/// Whether these bytes are the start of a gzip stream.
pub(crate) fn is_compressed(first: &[u8]) -> bool {
    first.starts_with(&MAGIC)
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(mut member) = self.member.take() {
            match member.read(buffer) {
                // The decoder has verified the checksum.
                Ok(0) => self.member = after(member.into_inner())?,
                result => {
                    self.member = Some(member);
                    return result;
                }
            }
        }
        Ok(0)
    }
}

/// Continues after a member: with the next one, or `None` if only zeros follow.
fn after<R: BufRead>(mut reader: R) -> io::Result<Option<GzDecoder<R>>> {
    let Some(&first) = peek(&mut reader)?.first() else { return Ok(None) };
    if Some(&first) == MAGIC.first() {
        return Ok(Some(GzDecoder::new(reader)));
    }
    loop {
        let bytes = peek(&mut reader)?;
        let count = bytes.len();
        if count == 0 {
            return Ok(None);
        }
        if bytes.iter().any(|&byte| byte != 0) {
            let what = "bytes after the end of the gzip stream that are neither zeros nor another stream";
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        reader.consume(count);
    }
}

fn peek<R: BufRead>(reader: &mut R) -> io::Result<&[u8]> {
    while let Err(error) = reader.fill_buf() {
        if error.kind() != ErrorKind::Interrupted {
            return Err(error);
        }
    }
    reader.fill_buf()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        // A small buffer, so that member boundaries fall inside and across buffers.
        Gzip::new(io::BufReader::with_capacity(7, bytes)).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn members_follow_one_another_and_zeros_end_them() {
        let two = [member(b"one "), member(b""), member(b"two")].concat();
        assert_eq!(read(&two).unwrap(), b"one two");
        for zeros in [1, 6, 512] {
            assert_eq!(read(&[two.clone(), vec![0; zeros]].concat()).unwrap(), b"one two");
        }
        for after in [&b"x"[..], b"\x1F", b"\x1F\x8B", b"\x1F\x8Bx", b"\0\0x", &[&[0; 20][..], &member(b"no")].concat()]
        {
            assert!(read(&[&two, after].concat()).is_err(), "{after:?}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error_or_gives_the_same() {
        let text: Vec<u8> = (0..300u32).map(|i| (i * i % 61) as u8).collect();
        let good = [member(&text[..200]), member(&text[200..])].concat();
        let mut same = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = read(&bytes) {
                assert!(read == text, "bit {bit}");
                same += 1;
            }
        }
        // Time, system and level of two headers, 6 bytes each, and other bits that no decoder checks.
        assert!((2 * 48..2 * 63).contains(&same), "{same}");
        for end in 0..good.len() {
            // A cut between the members leaves a complete stream.
            assert!(read(&good[..end]).is_err() || end == member(&text[..200]).len(), "{end}");
        }
    }
}
