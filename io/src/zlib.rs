//! Zlib streams (RFC 1950), whose end and Adler-32 are required.
//!
//! `flate2`'s own reader takes a stream that is cut off for one that ends.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::io::{self, BufRead, ErrorKind, Read};

use flate2::{Decompress, FlushDecompress, Status};

/// The decompressed bytes of a stream.
pub(crate) struct Zlib<R> {
    reader: R,
    inflate: Decompress,
    ended: bool,
}

impl<R: BufRead> Zlib<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, inflate: Decompress::new(true), ended: false }
    }
}

impl<R: BufRead> Read for Zlib<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !buffer.is_empty() {
            let input = match self.reader.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                input => input?,
            };
            let at_end = input.is_empty();
            let (before, made_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, buffer, FlushDecompress::None)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            let used = self.inflate.total_in().saturating_sub(before);
            let made = self.inflate.total_out().saturating_sub(made_before);
            self.reader.consume(usize::try_from(used).unwrap_or(usize::MAX));
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(usize::try_from(made).unwrap_or(usize::MAX));
            }
            if at_end && !self.ended {
                let what = "the compressed bytes end before their checksum";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, what));
            }
            if used == 0 && !self.ended {
                return Err(io::Error::new(ErrorKind::InvalidData, "the compressed bytes can't be unfolded"));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error() {
        let text: Vec<u8> = (0..300u32).map(|i| (i * i % 61) as u8).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        let good = encoder.finish().unwrap();
        let read = |bytes: &[u8]| {
            let mut all = Vec::new();
            Zlib::new(io::BufReader::with_capacity(7, bytes)).read_to_end(&mut all).map(|_| all)
        };
        assert_eq!(read(&good).unwrap(), text);
        assert_eq!(read(&[&good[..], b"after"].concat()).unwrap(), text);
        let mut same = 0;
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = read(&bytes) {
                assert!(read == text, "bit {bit}");
                same += 1;
            }
        }
        // Bits of padding before the checksum, and a smaller or larger window in the header.
        assert!(same < 16, "{same}");
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "{end}");
        }
    }
}
