//! Bytes of a stream whose length nobody vouches for: memory grows as they arrive.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use tomograd_core::Result;

use super::{fail, io_error};

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
