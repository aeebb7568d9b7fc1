//! Bits and Huffman codes of JPEG streams.

use tomograd_core::Result;

use crate::dicom::fail;

/// The entropy-coded bits of a scan.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte.
    pub(super) at: usize,
    buffer: u64,
    /// Bits in the buffer.
    held: u32,
    /// Of these, how many are padding behind the end of the data.
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, buffer: 0, held: 0, padding: 0 }
    }

    /// Fills the buffer to at least 32 bits; with zeros where a marker or the end of the bytes is.
    fn fill(&mut self) {
        while self.held <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at.saturating_add(1))) {
                (Some(&0xFF), Some(0)) => {
                    self.at = self.at.saturating_add(2);
                    0xFF
                }
                (Some(&0xFF), _) | (None, _) => {
                    self.padding = self.padding.saturating_add(8);
                    0
                }
                (Some(&byte), _) => {
                    self.at = self.at.saturating_add(1);
                    byte
                }
            };
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.held = self.held.saturating_add(8);
        }
    }

    /// The next `count` bits, at most 16, without taking them.
    fn peek(&mut self, count: u32) -> u32 {
        if self.held < 32 {
            self.fill();
        }
        let shift = self.held.saturating_sub(count);
        (self.buffer.checked_shr(shift).unwrap_or(0) & ((1u64 << count.min(32)) - 1)) as u32
    }

    fn drop_bits(&mut self, count: u32) -> Result<()> {
        self.held = self.held.saturating_sub(count);
        if self.held < self.padding {
            return Err(fail("a JPEG stream that ends inside of a scan"));
        }
        Ok(())
    }

    /// The next `count` bits, at most 16.
    pub(super) fn take(&mut self, count: u32) -> Result<u32> {
        let bits = self.peek(count);
        self.drop_bits(count)?;
        Ok(bits)
    }

    /// A signed number of `size` bits, at most 16, as JPEG codes it.
    pub(super) fn signed(&mut self, size: u32) -> Result<i32> {
        if size == 0 {
            return Ok(0);
        }
        let bits = self.take(size)? as i32;
        let half = 1i32 << (size - 1).min(15);
        Ok(if bits < half { bits - 2 * half + 1 } else { bits })
    }

    /// Behind the bits of a restart interval: passes its marker.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn restart(&mut self) -> Result<()> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let next = self.bytes.get(self.at.saturating_add(1)).copied().unwrap_or(0);
            self.at = self.at.saturating_add(1);
            match (byte, next) {
                (0xFF, 0xD0..=0xD7) => {
                    self.at = self.at.saturating_add(1);
                    (self.buffer, self.held, self.padding) = (0, 0, 0);
                    return Ok(());
                }
                (0xFF, 0 | 0xFF) => {}
                (0xFF, _) => break,
                _ => {}
            }
        }
        Err(fail("a JPEG stream without the restart marker that it announces"))
    }

    /// Where the marker behind the scan is.
    pub(super) fn end(&self) -> usize {
        self.at
    }
}

/// Codes up to this length are found by one look.
const FAST: u32 = 9;

/// A Huffman table.
#[derive(Clone)]
pub(super) struct Table {
    /// For each beginning of nine bits: the value and the length of its code; length 0 if it is longer.
    fast: Vec<(u8, u8)>,
    /// For each length from 1: the first code behind those of that length, left-aligned in 16 bits.
    ends: [u32; 16],
    /// For each length: what to add to a code to have the place of its value.
    offsets: [i32; 16],
    values: Vec<u8>,
}

impl Table {
    /// The table with so many codes of each length from 1 to 16.
    ///
    /// # Errors
    /// When they aren't a prefix code.
    pub(super) fn new(counts: [u8; 16], values: &[u8]) -> Result<Self> {
        let mut table =
            Self { fast: vec![(0, 0); 1 << FAST], ends: [0; 16], offsets: [0; 16], values: values.to_vec() };
        let (mut code, mut place) = (0u32, 0usize);
        let lengths = counts.iter().zip(table.ends.iter_mut()).zip(table.offsets.iter_mut());
        for (length, ((&count, end), offset)) in (1u32..).zip(lengths) {
            *offset = place as i32 - code as i32;
            for _ in 0..count {
                let value = *values.get(place).ok_or_else(|| fail("a Huffman table that ends early"))?;
                if code >> length != 0 {
                    return Err(fail("a Huffman table with too many codes"));
                }
                if length <= FAST {
                    let free = FAST - length;
                    let start = (code << free) as usize;
                    table.fast.iter_mut().skip(start).take(1 << free).for_each(|entry| *entry = (value, length as u8));
                }
                code += 1;
                place += 1;
            }
            *end = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// Decodes the next value.
    pub(super) fn decode(&self, bits: &mut Bits<'_>) -> Result<u8> {
        let next = bits.peek(16);
        if let Some(&(value, length @ 1..)) = self.fast.get((next >> (16 - FAST)) as usize) {
            bits.drop_bits(length.into())?;
            return Ok(value);
        }
        for (length, (&end, &offset)) in (1u32..).zip(self.ends.iter().zip(&self.offsets)) {
            if next < end {
                bits.drop_bits(length)?;
                let place = (next >> (16 - length)) as i32 + offset;
                let value = usize::try_from(place).ok().and_then(|place| self.values.get(place));
                return value.copied().ok_or_else(|| fail("a code that isn't in its Huffman table"));
            }
        }
        Err(fail("a code that isn't in its Huffman table"))
    }
}
