//! A buffered reader of a pickle.

use std::sync::Arc;

use tomograd_core::{Error, Result};

use super::OPERATION;
use crate::blob::Source;

const PIECE: u64 = 1 << 14;

/// A position in a source, and the end of the readable range.
pub(crate) struct Input {
    source: Arc<Source>,
    buffer: Vec<u8>,
    taken: usize,
    /// The position after the buffer.
    at: u64,
    end: u64,
}

impl Input {
    pub(crate) fn new(source: Arc<Source>, at: u64, end: u64) -> Self {
        Self { end: end.min(source.length()), source, buffer: Vec::new(), taken: 0, at }
    }

    /// The position of the next byte.
    pub(crate) fn place(&self) -> u64 {
        self.at - (self.buffer.len() - self.taken) as u64
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        if self.taken == self.buffer.len() {
            let count = self.end.saturating_sub(self.at).min(PIECE);
            if count == 0 {
                return Err(self.short(1));
            }
            self.buffer.resize(count as usize, 0);
            self.source.read_at(self.at, &mut self.buffer)?;
            (self.at, self.taken) = (self.at + count, 0);
        }
        let byte = self.buffer.get(self.taken).copied().ok_or_else(|| self.short(1))?;
        self.taken += 1;
        Ok(byte)
    }

    /// The next `count` bytes; the number of available bytes is checked before memory is allocated.
    pub(crate) fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let place = self.place();
        if count > self.end.saturating_sub(place) {
            return Err(self.short(count));
        }
        let part = self.taken.checked_add(count as usize).and_then(|end| self.buffer.get(self.taken..end));
        if let Some(part) = part {
            let bytes = part.to_vec();
            self.taken += bytes.len();
            return Ok(bytes);
        }
        let bytes = self.source.bytes(place, count)?;
        (self.at, self.taken) = (place + count, 0);
        self.buffer.clear();
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// The bytes up to the next line feed, without it.
    pub(crate) fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => line.push(byte),
            }
        }
    }

    fn short(&self, count: u64) -> Error {
        let place = self.place();
        Error::format(OPERATION, format!("the pickle ends at byte {place}"))
            .expected(format!("{count} more, where {} are left", self.end.saturating_sub(place)))
    }
}
