//! The pixels of a file, frame by frame.

use std::{ops::Range, sync::Arc};

use tomograd_core::{Result, room_for};

use super::{
    OPERATION,
    codec::{self, Expected, Picture},
    fail,
    file::PixelBytes,
    image::{self, Format, Image, Photometric},
    lut::Palette,
    mosaic::Tiles,
    syntax::{Compression, Syntax},
};

/// The values of a frame. Where pixels have colours, red, green and blue of each are side by side.
pub(super) enum Values {
    /// Integers of at most 32 bits, two's complement; unsigned ones too.
    Whole(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// An open file.
pub(super) struct Pixels {
    bytes: PixelBytes,
    syntax: Syntax,
    format: Format,
    /// For each frame its fragments, if they are encapsulated.
    frames: Vec<Vec<Range<usize>>>,
    /// A mosaic, and how it is cut into frames.
    mosaic: Option<(Tiles, Values)>,
}

impl Pixels {
    pub(super) fn open(image: &Image) -> Result<Self> {
        let mut bytes = PixelBytes::read(&image.source, image.syntax, &image.pixels)?;
        if image.syntax.encoding.big && image.pixels.words && image.format.allocated <= 8 {
            bytes.swap_pairs();
        }
        let compressed = image.syntax.compression != Compression::None;
        let frames = match &bytes.fragments {
            None if compressed => return Err(fail("compressed pixels that aren't in fragments")),
            Some(_) if !compressed => {
                return Err(fail("pixels in fragments, in a transfer syntax without compression"));
            }
            None => Vec::new(),
            Some(fragments) => {
                frames_of(&bytes, fragments, if image.tiles.is_some() { 1 } else { image.frames.len() })?
            }
        };
        let mut format = image.format.clone();
        if let Some(Tiles { rows, columns, .. }) = image.tiles {
            (format.rows, format.columns) = (rows, columns);
        }
        let mut pixels = Self { syntax: image.syntax, format, frames, bytes, mosaic: None };
        if let Some(tiles) = image.tiles {
            pixels.mosaic = Some((tiles, pixels.whole_frame(0)?));
        }
        Ok(pixels)
    }

    fn pixels(&self) -> usize {
        self.format.rows.saturating_mul(self.format.columns)
    }

    /// Decodes a frame: grey values as they are stored, or colours as red, green and blue.
    pub(super) fn frame(&self, index: usize) -> Result<Values> {
        // After colours became red, green and blue.
        let samples = if self.format.photometric.coloured() { 3 } else { 1 };
        Ok(match &self.mosaic {
            None => self.whole_frame(index)?,
            Some((tiles, Values::Whole(values))) => Values::Whole(tiles.cut(values, samples, index)),
            Some((tiles, Values::F32(values))) => Values::F32(tiles.cut(values, samples, index)),
            Some((tiles, Values::F64(values))) => Values::F64(tiles.cut(values, samples, index)),
        })
    }

    fn whole_frame(&self, index: usize) -> Result<Values> {
        let format = &self.format;
        if format.float {
            return self.floats(index);
        }
        let (mut samples, photometric) = match self.syntax.compression {
            Compression::None => (self.native(index)?, format.photometric),
            Compression::Rle => (self.rle(index)?, format.photometric),
            compression => {
                let picture = self.picture(compression, index)?;
                let photometric = match format.photometric {
                    // What the stream says of itself is right where the file contradicts it.
                    Photometric::YbrFull | Photometric::YbrFull422 if picture.rgb => Photometric::Rgb,
                    Photometric::Rgb if picture.ycc => Photometric::YbrFull,
                    other => other,
                };
                (signed(picture, format), photometric)
            }
        };
        match (photometric, &format.palette) {
            (Photometric::YbrFull | Photometric::YbrFull422, _) => to_rgb(&mut samples, format.stored),
            (Photometric::Palette, Some(palette)) => samples = coloured(&samples, palette)?,
            _ => {}
        }
        Ok(Values::Whole(samples))
    }

    /// The compressed bytes of a frame.
    fn compressed(&self, index: usize) -> Result<Vec<u8>> {
        let fragments = self.frames.get(index).ok_or_else(|| fail(format!("no fragments of frame {}", index + 1)))?;
        let total = fragments.iter().fold(0usize, |sum, place| sum.saturating_add(place.len()));
        let mut bytes = room_for::<u8>(OPERATION, total)?;
        for place in fragments {
            bytes.extend_from_slice(self.bytes.get(place.clone())?);
        }
        Ok(bytes)
    }

    fn picture(&self, compression: Compression, index: usize) -> Result<Picture> {
        let Format { rows, columns, samples, .. } = self.format;
        let expected = Expected { width: columns, height: rows, channels: samples };
        codec::decode(compression, &self.compressed(index)?, expected)
    }

    fn rle(&self, index: usize) -> Result<Vec<i32>> {
        let format = &self.format;
        if format.allocated == 1 {
            return Err(fail("RLE of single bits"));
        }
        let (pixels, bytes) = (self.pixels(), format.allocated / 8);
        let planes = codec::decode_rle(&self.compressed(index)?, format.samples.saturating_mul(bytes), pixels)?;
        let mut samples = zeros(pixels.saturating_mul(format.samples))?;
        for (place, plane) in planes.chunks_exact(pixels.max(1)).enumerate() {
            let channel = place.checked_div(bytes).unwrap_or(0);
            for (to, &byte) in samples.iter_mut().skip(channel).step_by(format.samples.max(1)).zip(plane) {
                *to = *to << 8 | i32::from(byte);
            }
        }
        samples.iter_mut().for_each(|sample| *sample = masked(*sample, format));
        Ok(samples)
    }

    /// Samples that aren't compressed.
    fn native(&self, index: usize) -> Result<Vec<i32>> {
        let format = &self.format;
        let (pixels, big) = (self.pixels(), self.syntax.encoding.big);
        let bits = image::bits_of_frame(format, self.syntax) as usize;
        let first = bits.saturating_mul(index);
        let place = first / 8..first.saturating_add(bits).div_ceil(8);
        let bytes = self.bytes.get(place)?;
        if format.allocated == 1 {
            let mut samples = room_for::<i32>(OPERATION, bits)?;
            let offset = first % 8;
            let bit = |bit: usize| bytes.get(bit / 8).map_or(0, |byte| i32::from(byte >> (bit % 8) & 1));
            samples.extend((offset..offset.saturating_add(bits)).map(bit));
            return Ok(samples);
        }
        let mut samples: Vec<i32> = match (format.allocated, big) {
            (8, _) => bytes.iter().map(|&byte| byte.into()).collect(),
            (16, true) => bytes.as_chunks::<2>().0.iter().map(|&part| u16::from_be_bytes(part).into()).collect(),
            (16, false) => bytes.as_chunks::<2>().0.iter().map(|&part| u16::from_le_bytes(part).into()).collect(),
            (_, true) => bytes.as_chunks::<4>().0.iter().map(|&part| i32::from_be_bytes(part)).collect(),
            (_, false) => bytes.as_chunks::<4>().0.iter().map(|&part| i32::from_le_bytes(part)).collect(),
        };
        samples.iter_mut().for_each(|sample| *sample = masked(*sample, format));
        if image::shares_chroma(format, self.syntax) {
            // Y1 Y2 Cb Cr, for two pixels in a row.
            let mut full = room_for::<i32>(OPERATION, pixels.saturating_mul(3))?;
            full.extend(samples.as_chunks::<4>().0.iter().flat_map(|&[y1, y2, cb, cr]| [y1, cb, cr, y2, cb, cr]));
            full.resize(pixels.saturating_mul(3), 0);
            return Ok(full);
        }
        if format.planar {
            let mut mixed = zeros(samples.len())?;
            for (channel, plane) in samples.chunks_exact(pixels.max(1)).enumerate() {
                let places = mixed.iter_mut().skip(channel).step_by(format.samples.max(1));
                places.zip(plane).for_each(|(to, &sample)| *to = sample);
            }
            return Ok(mixed);
        }
        Ok(samples)
    }

    fn floats(&self, index: usize) -> Result<Values> {
        let (size, big) = (self.format.allocated / 8, self.syntax.encoding.big);
        let bytes = self.pixels().saturating_mul(size);
        let start = bytes.saturating_mul(index);
        let bytes = self.bytes.get(start..start.saturating_add(bytes))?;
        Ok(if size == 8 {
            let number = |&part: &[u8; 8]| if big { f64::from_be_bytes(part) } else { f64::from_le_bytes(part) };
            Values::F64(bytes.as_chunks::<8>().0.iter().map(number).collect())
        } else {
            let number = |&part: &[u8; 4]| if big { f32::from_be_bytes(part) } else { f32::from_le_bytes(part) };
            Values::F32(bytes.as_chunks::<4>().0.iter().map(number).collect())
        })
    }
}

fn zeros(count: usize) -> Result<Vec<i32>> {
    let mut zeros = room_for::<i32>(OPERATION, count)?;
    zeros.resize(count, 0);
    Ok(zeros)
}

/// The bits that a sample has, without what other bits hold.
fn masked(sample: i32, format: &Format) -> i32 {
    let shift = format.high.saturating_add(1).saturating_sub(format.stored) as u32;
    extended((sample as u32).checked_shr(shift).unwrap_or(0) as i32, format.stored, format.signed)
}

/// The lowest `bits` of a sample, with their sign if it has one.
fn extended(sample: i32, bits: usize, signed: bool) -> i32 {
    let free = 32usize.saturating_sub(bits).min(31) as u32;
    if signed { sample << free >> free } else { ((sample as u32) << free >> free) as i32 }
}

/// The samples of a picture, with the signs that the file says.
fn signed(picture: Picture, format: &Format) -> Vec<i32> {
    let mut samples = picture.samples;
    if format.signed {
        // Some streams have fewer bits than the file says.
        let bits = format.stored.min(picture.precision.into());
        samples.iter_mut().for_each(|sample| *sample = extended(*sample, bits, true));
    }
    samples
}

/// Luminance and colour differences to red, green and blue (PS3.3, C.7.6.3.1.2).
fn to_rgb(samples: &mut [i32], bits: usize) {
    let most = (2f64).powi(bits.min(32) as i32) - 1.0;
    let half = (most + 1.0) / 2.0;
    for [y, cb, cr] in samples.as_chunks_mut::<3>().0 {
        let (light, blue, red) = (f64::from(*y), f64::from(*cb) - half, f64::from(*cr) - half);
        let rgb = [
            light + 1.402 * red,
            light - (0.114 * 1.772 / 0.587) * blue - (0.299 * 1.402 / 0.587) * red,
            light + 1.772 * blue,
        ];
        [*y, *cb, *cr] = rgb.map(|x| (x + 0.5).floor().clamp(0.0, most) as i32);
    }
}

fn coloured(samples: &[i32], palette: &Arc<Palette>) -> Result<Vec<i32>> {
    let mut colours = room_for::<i32>(OPERATION, samples.len().saturating_mul(3))?;
    colours.extend(samples.iter().flat_map(|&sample| palette.colour(sample.into())).map(i32::from));
    Ok(colours)
}

/// The fragments of each frame.
fn frames_of(bytes: &PixelBytes, fragments: &[Range<usize>], count: usize) -> Result<Vec<Vec<Range<usize>>>> {
    let (table, rest) = fragments.split_first().ok_or_else(|| fail("encapsulated pixels without an offset table"))?;
    if count == 1 {
        return Ok(vec![rest.to_vec()]);
    }
    if rest.len() == count {
        return Ok(rest.iter().map(|place| vec![place.clone()]).collect());
    }
    let offsets = bytes.get(table.clone())?.as_chunks::<4>().0;
    let starts: Vec<usize> = if offsets.len() == count {
        // From the first byte behind the table, where the first fragment's header is.
        offsets
            .iter()
            .map(|&part| (u32::from_le_bytes(part) as usize).saturating_add(table.end).saturating_add(8))
            .collect()
    } else {
        // A fragment that begins a stream begins a frame.
        let begins = |place: &Range<usize>| {
            let start = bytes.get(place.start..place.start.saturating_add(2).min(place.end)).unwrap_or_default();
            start == [0xFF, 0xD8] || start == [0xFF, 0x4F]
        };
        rest.iter().filter(|place| begins(place)).map(|place| place.start).collect()
    };
    let mut frames: Vec<Vec<Range<usize>>> = Vec::new();
    for place in rest {
        if starts.contains(&place.start) {
            frames.push(Vec::new());
        }
        frames.last_mut().ok_or_else(|| fail("a fragment before the first frame"))?.push(place.clone());
    }
    if frames.len() != count {
        return Err(
            fail(format!("{} fragments, which make {} frames", rest.len(), frames.len())).expected(format!("{count}"))
        );
    }
    Ok(frames)
}
