//! JPEG (ITU-T T.81) as DICOM uses it: sequential with 8 or 12 bits (baseline and extended), and lossless with 2 to 16 bits,
//! with Huffman codes. Progressive, hierarchical and arithmetic coding are refused.

use tomograd_core::{Result, room_for};

use super::{
    Expected, Picture,
    huffman::{Bits, Table},
    idct,
    upsample::Plane,
};
use crate::dicom::fail;

/// Where coefficient i of a stream belongs in its block, row by row.
#[rustfmt::skip]
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
/// A block of 64 samples takes two bits at least, and a channel may have a sample for 16 pixels.
const MOST_PER_BYTE: usize = 256 * 16;

pub(super) struct Channel {
    id: u8,
    /// Samples of a minimum coded unit, horizontally and vertically.
    sampling: [usize; 2],
    quantisation: usize,
    pub(super) plane: Plane,
}

pub(super) struct Frame {
    lossless: bool,
    pub(super) precision: u8,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: Vec<Channel>,
    most: [usize; 2],
}

#[derive(Default)]
pub(super) struct Decoder {
    quantisation: [Option<[u16; 64]>; 4],
    pub(super) dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    frame: Option<Frame>,
    /// Units between restarts; 0 if there are none.
    pub(super) restart: usize,
    jfif: bool,
    adobe: Option<u8>,
    scanned: usize,
}

pub(super) fn decode(bytes: &[u8], expected: Expected) -> Result<Picture> {
    let mut decoder = Decoder::default();
    let mut at = 0usize;
    let pair = |at: usize| {
        let part = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
        part.copied().ok_or_else(|| fail("a JPEG stream that ends before its picture"))
    };
    if pair(0)? != [0xFF, 0xD8] {
        return Err(fail("a frame that isn't a JPEG stream"));
    }
    loop {
        let [mark, code] = pair(at)?;
        if mark != 0xFF || code == 0xFF || code == 0 {
            // Padding between segments.
            at = at.saturating_add(1);
            continue;
        }
        at = at.saturating_add(2);
        match code {
            0xD8 | 0x01 | 0xD0..=0xD7 => continue,
            0xD9 => break,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(pair(at)?));
        let end = at.saturating_add(length);
        let segment = bytes.get(at.saturating_add(2)..end).ok_or_else(|| fail("a JPEG segment that ends early"))?;
        at = end;
        match code {
            0xC0 | 0xC1 | 0xC3 => decoder.start(segment, code == 0xC3, bytes.len(), expected)?,
            0xC4 => decoder.huffman(segment)?,
            0xC2 | 0xC5..=0xCF => {
                return Err(fail(format!("a JPEG stream of process {code:#04X}"))
                    .expected("sequential or lossless with Huffman codes (0xC0, 0xC1, 0xC3)"));
            }
            0xDB => decoder.quantise(segment)?,
            0xDD => {
                let count =
                    segment.first_chunk::<2>().ok_or_else(|| fail("a JPEG restart interval that ends early"))?;
                decoder.restart = usize::from(u16::from_be_bytes(*count));
            }
            0xDA => {
                at = decoder.scan(bytes, at, segment)?;
                if decoder.frame.as_ref().is_some_and(|frame| decoder.scanned >= frame.channels.len()) {
                    break;
                }
            }
            0xE0 => decoder.jfif |= segment.starts_with(b"JFIF"),
            0xEE if segment.starts_with(b"Adobe") => decoder.adobe = segment.get(11).copied(),
            _ => {}
        }
    }
    decoder.finish(expected)
}

impl Decoder {
    fn start(&mut self, segment: &[u8], lossless: bool, bytes: usize, expected: Expected) -> Result<()> {
        if self.frame.is_some() {
            return Err(fail("a JPEG stream with two frames"));
        }
        let Some((&[precision, y1, y0, x1, x0, count], rest)) = segment.split_first_chunk::<6>() else {
            return Err(fail("a JPEG frame header that ends early"));
        };
        let [width, height] = [[x1, x0], [y1, y0]].map(|pair| usize::from(u16::from_be_bytes(pair)));
        let allowed = if lossless { (2..=16).contains(&precision) } else { precision == 8 || precision == 12 };
        if !allowed {
            return Err(
                fail(format!("a JPEG stream of {precision} bits")).expected("8 or 12; 2 to 16 if it is lossless")
            );
        }
        expected.check("JPEG", [width, height, count.into()])?;
        expected.plausible("JPEG", bytes, MOST_PER_BYTE)?;
        let described = rest.as_chunks::<3>().0;
        if described.len() < usize::from(count) {
            return Err(fail("a JPEG frame header that ends early"));
        }
        let described = || described.iter().take(count.into());
        let [mut across, mut down] = [1, 1];
        for &[_, sampling, _] in described() {
            let [h, v] = [usize::from(sampling >> 4), usize::from(sampling & 15)];
            if !(1..=4).contains(&h) || !(1..=4).contains(&v) || (lossless && (h, v) != (1, 1) && count > 1) {
                return Err(fail(format!("JPEG sampling of {h} × {v}")).expected("1 to 4; 1 × 1 if it is lossless"));
            }
            [across, down] = [h.max(across), v.max(down)];
        }
        let mut channels = Vec::new();
        for &[id, sampling, quantisation] in described() {
            // One channel alone isn't interleaved, whatever it says.
            let sampling = if count == 1 { [1, 1] } else { [usize::from(sampling >> 4), usize::from(sampling & 15)] };
            if count == 1 {
                [across, down] = [1, 1];
            }
            let [h, v] = sampling;
            if !across.is_multiple_of(h) || !down.is_multiple_of(v) {
                return Err(fail(format!("JPEG sampling of {h} × {v} where {across} × {down} is the most"))
                    .expected("divisors of it"));
            }
            let plane = [width.saturating_mul(h).div_ceil(across), height.saturating_mul(v).div_ceil(down)];
            let [w, h] = plane;
            let mut samples = room_for::<u16>("dicom", w.saturating_mul(h))?;
            samples.resize(w.saturating_mul(h), 0);
            let plane = Plane { width: w, height: h, samples };
            channels.push(Channel { id, sampling, quantisation: quantisation.into(), plane });
        }
        self.frame = Some(Frame { lossless, precision, width, height, channels, most: [across, down] });
        Ok(())
    }

    fn quantise(&mut self, mut segment: &[u8]) -> Result<()> {
        let short = || fail("a JPEG quantisation table that ends early");
        while let Some((&kind, rest)) = segment.split_first() {
            let wide = kind >> 4 != 0;
            let (part, rest) = rest.split_at_checked(if wide { 128 } else { 64 }).ok_or_else(short)?;
            let mut table = [0; 64];
            for (i, &place) in ZIGZAG.iter().enumerate() {
                let value = if wide {
                    part.as_chunks::<2>().0.get(i).map(|&pair| u16::from_be_bytes(pair))
                } else {
                    part.get(i).map(|&byte| u16::from(byte))
                };
                if let Some(entry) = table.get_mut(usize::from(place)) {
                    *entry = value.unwrap_or(0);
                }
            }
            let slot = self.quantisation.get_mut(usize::from(kind & 15));
            *slot.ok_or_else(|| fail(format!("JPEG quantisation table {}", kind & 15)).expected("0 to 3"))? =
                Some(table);
            segment = rest;
        }
        Ok(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Result<()> {
        let short = || fail("a JPEG Huffman table that ends early");
        while let Some((&kind, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let total = counts.iter().map(|&count| usize::from(count)).sum();
            let (values, rest) = rest.split_at_checked(total).ok_or_else(short)?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut(usize::from(kind & 15));
            *slot.ok_or_else(|| fail(format!("JPEG Huffman table {}", kind & 15)).expected("0 to 3"))? =
                Some(Table::new(*counts, values)?);
            segment = rest;
        }
        Ok(())
    }

    /// Decodes the scan whose bits begin at `at`; returns where they end.
    fn scan(&mut self, bytes: &[u8], at: usize, header: &[u8]) -> Result<usize> {
        let short = || fail("a JPEG scan header that ends early");
        let mut frame = self.frame.take().ok_or_else(|| fail("a JPEG scan before its frame"))?;
        let (&count, rest) = header.split_first().ok_or_else(short)?;
        let (chosen, rest) = rest.split_at_checked(usize::from(count).saturating_mul(2)).ok_or_else(short)?;
        let &[first, _, approximation] = rest.first_chunk::<3>().ok_or_else(short)?;
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        for &[id, tables] in chosen.as_chunks::<2>().0 {
            let place = frame.channels.iter().position(|channel| channel.id == id);
            let place = place.filter(|&place| parts.iter().all(|part| part.0 != place));
            let place = place.ok_or_else(|| fail(format!("a JPEG scan of channel {id}, which isn't there or came")))?;
            parts.push((place, usize::from(tables >> 4), usize::from(tables & 15)));
        }
        if parts.is_empty() {
            return Err(fail("a JPEG scan of no channels"));
        }
        let mut bits = Bits::new(bytes, at);
        if frame.lossless {
            self.lossless(&mut frame, &parts, &mut bits, first, approximation & 15)?;
        } else {
            self.sequential(&mut frame, &parts, &mut bits)?;
        }
        self.scanned = self.scanned.saturating_add(parts.len());
        self.frame = Some(frame);
        Ok(bits.end())
    }

    fn sequential(&self, frame: &mut Frame, parts: &[(usize, usize, usize)], bits: &mut Bits<'_>) -> Result<()> {
        let missing = |what: &str| fail(format!("a JPEG scan without its {what} table"));
        let alone = parts.len() == 1;
        let [across, down] = frame.most;
        // Units of the scan: those of the picture, or the blocks of the one channel.
        let mut units = [frame.width.div_ceil(8 * across), frame.height.div_ceil(8 * down)];
        let mut coders = Vec::new();
        for &(place, dc, ac) in parts {
            let channel = frame.channels.get(place).ok_or_else(|| missing("channel"))?;
            if alone {
                units = [channel.plane.width.div_ceil(8), channel.plane.height.div_ceil(8)];
            }
            let dc = self.dc.get(dc).and_then(Option::as_ref).ok_or_else(|| missing("DC"))?;
            let ac = self.ac.get(ac).and_then(Option::as_ref).ok_or_else(|| missing("AC"))?;
            let quantisation = self.quantisation.get(channel.quantisation).and_then(Option::as_ref);
            let sampling = if alone { [1, 1] } else { channel.sampling };
            coders.push((place, dc, ac, quantisation.ok_or_else(|| missing("quantisation"))?, sampling, 0i64));
        }
        let [wide, high] = units;
        let (mut done, precision) = (0usize, frame.precision);
        for unit_y in 0..high {
            for unit_x in 0..wide {
                if self.restart > 0 && done > 0 && done.is_multiple_of(self.restart) {
                    bits.restart()?;
                    coders.iter_mut().for_each(|coder| coder.5 = 0);
                }
                done += 1;
                for (place, dc, ac, quantisation, [h, v], predicted) in &mut coders {
                    for y in 0..*v {
                        for x in 0..*h {
                            let mut block = coefficients(bits, dc, ac, quantisation, predicted)?;
                            let Some(channel) = frame.channels.get_mut(*place) else { continue };
                            idct::inverse(&mut block, precision);
                            store(&mut channel.plane, [unit_x * *h + x, unit_y * *v + y], &block);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self, expected: Expected) -> Result<Picture> {
        let frame = self.frame.ok_or_else(|| fail("a JPEG stream without a picture"))?;
        if self.scanned < frame.channels.len() {
            return Err(fail(format!("a JPEG stream with {} of {} channels", self.scanned, frame.channels.len())));
        }
        let mut samples = expected.room()?;
        let (count, [across, down]) = (frame.channels.len(), frame.most);
        let line = frame.width.saturating_mul(count).max(1);
        for (y, line) in samples.chunks_exact_mut(line).enumerate() {
            for (place, channel) in frame.channels.iter().enumerate() {
                let [h, v] = channel.sampling;
                let factors = [across.checked_div(h).unwrap_or(1), down.checked_div(v).unwrap_or(1)];
                let row = channel.plane.upsampled_row(y, factors, frame.width);
                line.iter_mut().skip(place).step_by(count).zip(row).for_each(|(to, sample)| *to = sample.into());
            }
        }
        let ids: Vec<u8> = frame.channels.iter().map(|channel| channel.id).collect();
        let rgb = self.adobe == Some(0) || (self.adobe.is_none() && !self.jfif && ids == *b"RGB");
        let ycc = !frame.lossless && (self.adobe == Some(1) || (self.adobe.is_none() && self.jfif));
        Ok(Picture { precision: frame.precision, samples, rgb, ycc })
    }
}

/// The dequantised coefficients of the next block, row by row; `predicted` is the channel's last DC coefficient.
fn coefficients(
    bits: &mut Bits<'_>,
    dc: &Table,
    ac: &Table,
    quantisation: &[u16; 64],
    predicted: &mut i64,
) -> Result<[[i64; 8]; 8]> {
    let mut block = [[0i64; 8]; 8];
    let flat = block.as_flattened_mut();
    let size = dc.decode(bits)?;
    if size > 16 {
        return Err(fail(format!("a JPEG coefficient of {size} bits")).expected("at most 16"));
    }
    // Wraps as 16-bit coefficients do, so that it stays bounded.
    *predicted = (*predicted + i64::from(bits.signed(size.into())?)) as i16 as i64;
    let mut put = |i: usize, value: i64| {
        let place = ZIGZAG.get(i).map_or(0, |&place| usize::from(place));
        if let (Some(to), Some(&scale)) = (flat.get_mut(place), quantisation.get(place)) {
            *to = value * i64::from(scale);
        }
    };
    put(0, *predicted);
    let mut i = 1;
    while i < 64 {
        let code = ac.decode(bits)?;
        let (run, size) = (usize::from(code >> 4), u32::from(code & 15));
        match (run, size) {
            (15, 0) => i += 16,
            (_, 0) => break,
            _ => {
                i += run;
                let value = bits.signed(size)?;
                if i > 63 {
                    return Err(fail("a JPEG block of more than 64 coefficients"));
                }
                put(i, value.into());
                i += 1;
            }
        }
    }
    Ok(block)
}

/// Puts a block into its plane; what is beyond the border is padding.
fn store(plane: &mut Plane, [x, y]: [usize; 2], block: &[[i64; 8]; 8]) {
    let width = plane.width;
    let left = x * 8;
    for (line, row) in (y * 8..plane.height).zip(block) {
        let start = line * width;
        let part = plane.samples.get_mut(start.saturating_add(left)..start.saturating_add(width)).unwrap_or_default();
        part.iter_mut().zip(row).for_each(|(to, &sample)| *to = sample as u16);
    }
}
