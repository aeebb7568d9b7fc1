//! Bits of JPEG-LS scans, and the numbers that their coding follows from.

use tomograd_core::Result;

use crate::dicom::fail;

/// The bits of a scan: behind a byte 0xFF the next has seven.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    held: u32,
    after_ff: bool,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, buffer: 0, held: 0, after_ff: false }
    }

    /// Where the next byte is.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    fn fill(&mut self, wanted: u32) -> Result<()> {
        while self.held < wanted {
            let byte = self.bytes.get(self.at).copied();
            let byte = byte.filter(|&byte| !self.after_ff || byte < 0x80);
            let byte = byte.ok_or_else(|| fail("a JPEG-LS stream that ends inside of a scan"))?;
            let new = if self.after_ff { 7 } else { 8 };
            self.buffer = self.buffer << new | u64::from(byte);
            self.held += new;
            self.after_ff = byte == 0xFF;
            self.at += 1;
        }
        Ok(())
    }

    /// The next `count` bits, at most 32.
    pub(super) fn take(&mut self, count: u32) -> Result<i32> {
        if count == 0 {
            return Ok(0);
        }
        self.fill(count)?;
        self.held -= count;
        Ok((self.buffer >> self.held & ((1u64 << count) - 1)) as i32)
    }

    /// A number in a limited Golomb code (A.5.3), at most `most`.
    pub(super) fn golomb(&mut self, k: u32, limit: u32, qbpp: u32, most: i32) -> Result<i32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > limit {
                return Err(fail("a JPEG-LS code beyond its limit"));
            }
        }
        let prefixed = zeros < limit.saturating_sub(qbpp + 1);
        let number = if prefixed { (zeros as i32) << k | self.take(k)? } else { self.take(qbpp)? + 1 };
        if number > most {
            return Err(fail(format!("a JPEG-LS error of {number}")).expected(format!("at most {most}")));
        }
        Ok(number)
    }
}

/// The numbers of a scan that follow from its precision and error bound (C.2.4.1).
pub(super) struct Numbers {
    pub(super) most: i32,
    pub(super) near: i32,
    pub(super) thresholds: [i32; 3],
    pub(super) reset: i32,
    pub(super) range: i32,
    pub(super) qbpp: u32,
    pub(super) limit: u32,
}

/// The preset parameters of an LSE segment; 0 stands for the default.
#[derive(Clone, Copy, Default)]
pub(super) struct Preset {
    pub(super) most: i32,
    pub(super) thresholds: [i32; 3],
    pub(super) reset: i32,
}

fn bits_of(number: i32) -> u32 {
    // ⌈log2⌉
    if number <= 1 { 0 } else { 32 - (number - 1).leading_zeros() }
}

impl Numbers {
    pub(super) fn new(precision: u8, near: i32, preset: Preset) -> Result<Self> {
        let full = (1 << precision) - 1;
        let most = if preset.most == 0 { full } else { preset.most };
        if most > full || most < 1 || near > 255.min(most / 2) {
            return Err(fail(format!("JPEG-LS with values to {most} and errors to {near}"))
                .expected(format!("values to {full} and errors to half of that and 255")));
        }
        let clamp = |value: i32, least: i32| if value > most || value < least { least } else { value };
        let defaults = if most >= 128 {
            let factor = (most.min(4095) + 128) >> 8;
            [factor + 2 + 3 * near, 4 * factor + 3 + 5 * near, 17 * factor + 4 + 7 * near]
        } else {
            let factor = 256 / (most + 1);
            [2.max(3 / factor + 3 * near), 3.max(7 / factor + 5 * near), 4.max(21 / factor + 7 * near)]
        };
        let mut thresholds = [0; 3];
        let mut least = near + 1;
        for ((to, default), given) in thresholds.iter_mut().zip(defaults).zip(preset.thresholds) {
            *to = if given == 0 { clamp(default, least) } else { given };
            if *to < least || *to > most.max(least) {
                return Err(fail(format!("JPEG-LS thresholds {:?}", preset.thresholds)).expected("growing ones"));
            }
            least = *to;
        }
        let reset = if preset.reset == 0 { 64 } else { preset.reset };
        if reset < 3 {
            return Err(fail(format!("a JPEG-LS reset of {reset}")).expected("at least 3"));
        }
        let range = if near == 0 { most + 1 } else { (most + 2 * near) / (2 * near + 1) + 1 };
        let bpp = 2.max(bits_of(most + 1));
        Ok(Self { most, near, thresholds, reset, range, qbpp: bits_of(range), limit: 2 * (bpp + bpp.max(8)) })
    }

    pub(super) fn quantised(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = gradient.abs();
        let level = if size <= self.near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        if gradient < 0 { -level } else { level }
    }

    /// The sample of a prediction and its error.
    pub(super) fn reconstructed(&self, predicted: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let mut sample = predicted + error * step;
        if sample < -self.near {
            sample += self.range * step;
        } else if sample > self.most + self.near {
            sample -= self.range * step;
        }
        sample.clamp(0, self.most)
    }
}

impl Preset {
    /// Reads an LSE segment.
    pub(super) fn read(segment: &[u8]) -> Result<Self> {
        let (&kind, rest) = segment.split_first().ok_or_else(|| fail("an empty JPEG-LS preset"))?;
        let words: Vec<i32> = rest.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair).into()).collect();
        match (kind, words.as_slice()) {
            (1, &[most, t1, t2, t3, reset, ..]) => Ok(Preset { most, thresholds: [t1, t2, t3], reset }),
            _ => Err(fail(format!("a JPEG-LS preset of kind {kind}")).expected("parameters of coding (kind 1)")),
        }
    }
}
