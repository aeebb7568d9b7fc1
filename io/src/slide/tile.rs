//! Tiles: how their pixels are stored, and their decoding.

use std::io::Read;

use tomograd_core::{Result, room_for};
use weezl::{BitOrder, LzwStatus, decode::Decoder};

use super::{
    OPERATION,
    directory::{Directory, Tiff, io},
    fail,
};
use crate::zlib::Zlib;

/// The most bytes of a tile's pixels.
const MOST: u64 = 1 << 28;

/// How a tile is compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    /// With the tables that its streams share, and whether the stored colours are luminance and colour differences.
    Jpeg {
        tables: Vec<u8>,
        ycc: bool,
    },
    /// Whether the stored colours are luminance and colour differences.
    Jpeg2000 {
        ycc: bool,
    },
}

impl Compression {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Compression::None => "uncompressed",
            Compression::Lzw => "LZW",
            Compression::Deflate => "deflate",
            Compression::Jpeg { .. } => "JPEG",
            Compression::Jpeg2000 { .. } => "JPEG 2000",
        }
    }
}

/// The tiles of a level.
#[derive(Debug, Clone)]
pub(super) struct Tiles {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Samples of a pixel: 1 (grey) or 3 (RGB).
    pub(super) samples: usize,
    /// Samples of a stored pixel: there may be others after these, such as alpha, which are left out.
    stored: usize,
    /// Each sample has tiles of its own: those of all first samples come before those of all second ones.
    separate: bool,
    /// Bytes of a sample: 1 or 2.
    pub(super) bytes: usize,
    pub(super) compression: Compression,
    /// Each sample is the difference from the one of the pixel before it.
    differences: bool,
    little: bool,
    /// Where each tile is in the file, and how long: row by row.
    pub(super) places: Vec<(u64, u64)>,
}

impl Tiles {
    /// The tiles of a directory whose image has these sides; `None` if it isn't tiled.
    pub(super) fn of(tiff: &mut Tiff, directory: &Directory, sides: [usize; 2]) -> Result<Option<Self>> {
        let mut first = |tag, or| tiff.first(directory, tag, or);
        let (width, height) = (first(322, 0)?, first(323, 0)?);
        if width == 0 && height == 0 {
            return Ok(None);
        }
        let (bits, samples, planar, predictor) = (first(258, 1)?, first(277, 1)?, first(284, 1)?, first(317, 1)?);
        let (photometric, compression, format) =
            (first(262, if samples < 3 { 1 } else { 2 })?, first(259, 1)?, first(339, 1)?);
        // Of samples beside the colours, alpha is known (1 or 2), and left out.
        let others = tiff.numbers(directory, 338)?.unwrap_or_default();
        let alphas = others.iter().filter(|kind| matches!(kind, 1 | 2)).count();
        let ycc = photometric == 6;
        let compression = match compression {
            1 => Compression::None,
            5 => Compression::Lzw,
            8 | 32946 => Compression::Deflate,
            7 => Compression::Jpeg { tables: tiff.bytes(directory, 347)?.unwrap_or_default(), ycc },
            33003 => Compression::Jpeg2000 { ycc: true },
            33005 | 34712 => Compression::Jpeg2000 { ycc: false },
            other => {
                return Err(fail(format!("compression {other}"))
                    .expected("none, LZW, deflate, JPEG or JPEG 2000 (1, 5, 7, 8, 32946, 33003, 33005 or 34712)"));
            }
        };
        let plain = matches!(compression, Compression::None | Compression::Lzw | Compression::Deflate);
        let kept = (samples as usize).saturating_sub(alphas);
        let colours = match photometric {
            0 | 1 => matches!(kept, 1 | 3),
            2 => kept == 3,
            6 => kept == 3 && !plain,
            _ => false,
        };
        let separate = planar == 2 && samples > 1;
        let known = matches!(samples, 1..=4) && matches!(bits, 8 | 16) && matches!(planar, 1 | 2) && format == 1;
        if !known || !colours || (alphas > 0 || separate) && !plain {
            let what = format!(
                "{samples} samples of {bits} bits, {alphas} of them alpha, planes {planar}, format {format}, photometric \
                 {photometric}, {}",
                compression.name()
            );
            return Err(fail(what).expected(
                "grey or RGB, 8 or 16 bits; with alpha or in separate planes: uncompressed, LZW or deflate",
            ));
        }
        if !matches!(predictor, 1 | 2) {
            return Err(fail(format!("predictor {predictor}")).expected("none, or horizontal differences (1 or 2)"));
        }
        let size = [width, height, samples, bits / 8].iter().try_fold(1u64, |size, side| size.checked_mul(*side));
        if width == 0 || height == 0 || size.is_none_or(|size| size > MOST) {
            return Err(fail(format!("tiles of {width} × {height} pixels")).expected(format!("at most {MOST} bytes")));
        }
        let (width, height) = (width as usize, height as usize);
        let planes = if separate { samples as usize } else { 1 };
        let count = sides[0].div_ceil(width).saturating_mul(sides[1].div_ceil(height)).saturating_mul(planes);
        let [offsets, counts] = [324, 325].map(|tag| tiff.numbers(directory, tag));
        let (offsets, counts) = (offsets?.unwrap_or_default(), counts?.unwrap_or_default());
        if offsets.len() != count || counts.len() != count {
            return Err(fail(format!("{} places and {} lengths of tiles", offsets.len(), counts.len()))
                .expected(format!("{count} of each")));
        }
        Ok(Some(Self {
            width,
            height,
            samples: kept,
            stored: samples as usize,
            separate,
            bytes: (bits / 8) as usize,
            compression,
            differences: plain && predictor == 2,
            little: tiff.little,
            places: offsets.into_iter().zip(counts).collect(),
        }))
    }

    /// Bytes of a row of a tile.
    pub(super) fn pitch(&self) -> usize {
        self.row(self.samples)
    }

    /// Bytes of a row of a tile of this many samples.
    fn row(&self, samples: usize) -> usize {
        self.width.saturating_mul(samples).saturating_mul(self.bytes)
    }

    /// The pixels of a tile, row by row, the samples of each together, 16 bits in little-endian order; none of a tile without bytes, which
    /// is zeros.
    pub(super) fn read(&self, tiff: &mut Tiff, index: usize) -> Result<Vec<u8>> {
        if !self.separate && self.stored == self.samples {
            return self.stored(tiff, index, self.samples);
        }
        // Each sample from a tile of its own, or all from the one, without those behind them.
        let (tiles, samples) = if self.separate { (self.samples, 1) } else { (1, self.stored) };
        let apart = self.places.len().checked_div(self.stored).unwrap_or(0);
        let [pixel, from] = [self.samples, samples].map(|samples| samples.saturating_mul(self.bytes));
        let mut pixels = Vec::new();
        for tile in 0..tiles {
            let stored = self.stored(tiff, index.saturating_add(tile.saturating_mul(apart)), samples)?;
            // Memory for the pixels is taken once there is something in them.
            if !stored.is_empty() && pixels.is_empty() {
                let size = self.pitch().saturating_mul(self.height);
                pixels = room_for::<u8>(OPERATION, size)?;
                pixels.resize(size, 0);
            }
            let at = tile.saturating_mul(self.bytes);
            for (pixel, from) in pixels.chunks_exact_mut(pixel).zip(stored.chunks_exact(from)) {
                pixel.iter_mut().skip(at).zip(from).for_each(|(to, from)| *to = *from);
            }
        }
        Ok(pixels)
    }

    /// A tile as it is stored, with this many samples of a pixel; nothing of one without bytes.
    fn stored(&self, tiff: &mut Tiff, index: usize, samples: usize) -> Result<Vec<u8>> {
        let (place, length) = *self.places.get(index).ok_or_else(|| fail(format!("no tile {index}")))?;
        let pitch = self.row(samples);
        let size = pitch.saturating_mul(self.height);
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut pixels = room_for::<u8>(OPERATION, size)?;
        let bytes = tiff.at(place, length)?;
        match &self.compression {
            Compression::Jpeg { tables, ycc } => return self.jpeg(&bytes, tables, *ycc),
            Compression::Jpeg2000 { ycc } => return self.jpeg2000(&bytes, *ycc),
            Compression::None => pixels.extend(bytes.into_iter().take(size)),
            Compression::Deflate => {
                // To the checksum, unless there is more than the pixels.
                let most = (size as u64).saturating_add(1);
                Zlib::new(&bytes[..]).take(most).read_to_end(&mut pixels).map_err(io)?;
                pixels.truncate(size);
            }
            Compression::Lzw => {
                pixels.resize(size, 0);
                let made = lzw(&bytes, &mut pixels)?;
                pixels.truncate(made);
            }
        }
        if pixels.len() < size {
            return Err(fail(format!("a tile of {} bytes", pixels.len())).expected(format!("{size}")));
        }
        if self.bytes == 2 && !self.little {
            pixels.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        }
        if self.differences {
            pixels.chunks_exact_mut(pitch).for_each(|row| self.sum(row, samples));
        }
        Ok(pixels)
    }

    /// From differences of pixels of a row to their values.
    fn sum(&self, row: &mut [u8], samples: usize) {
        let mut last = [0u16; 4];
        let samples = row.chunks_exact_mut(self.bytes).zip((0..samples).cycle());
        for (sample, channel) in samples {
            let Some(last) = last.get_mut(channel) else { continue };
            match sample {
                [low, high] => {
                    *last = last.wrapping_add(u16::from_le_bytes([*low, *high]));
                    [*low, *high] = last.to_le_bytes();
                }
                [value] => {
                    *last = u16::from((*last as u8).wrapping_add(*value));
                    *value = *last as u8;
                }
                _ => {}
            }
        }
    }

    #[cfg(feature = "jpeg")]
    fn jpeg(&self, bytes: &[u8], tables: &[u8], ycc: bool) -> Result<Vec<u8>> {
        // The tables are a stream of their own: its end and the start of the other are left out between them.
        let whole = match (tables.strip_suffix(&[0xFF, 0xD9]), bytes.strip_prefix(&[0xFF, 0xD8])) {
            (Some(tables), Some(rest)) => [tables, rest].concat(),
            _ => bytes.to_vec(),
        };
        if self.bytes != 1 {
            return Err(fail("JPEG of 16 bits").expected("8"));
        }
        crate::jpeg::decode_tile(whole, [self.width, self.height], self.samples, ycc)
    }

    #[cfg(not(feature = "jpeg"))]
    fn jpeg(&self, _: &[u8], _: &[u8], _: bool) -> Result<Vec<u8>> {
        Err(fail("tiles in JPEG").expected("tomograd-io built with the feature \"jpeg\""))
    }

    #[cfg(feature = "dicom")]
    fn jpeg2000(&self, bytes: &[u8], ycc: bool) -> Result<Vec<u8>> {
        let (samples, transformed) = crate::dicom::decode_jpeg2000(bytes, [self.width, self.height], self.samples)?;
        let bytes = self.bytes;
        let mut pixels = room_for::<u8>(OPERATION, samples.len().saturating_mul(bytes))?;
        if ycc && !transformed && bytes == 1 && self.samples == 3 {
            pixels.extend(samples.as_chunks::<3>().0.iter().flat_map(|&ycc| to_rgb(ycc)));
        } else {
            pixels.extend(samples.iter().flat_map(|sample| sample.to_le_bytes().into_iter().take(bytes)));
        }
        Ok(pixels)
    }

    #[cfg(not(feature = "dicom"))]
    fn jpeg2000(&self, _: &[u8], _: bool) -> Result<Vec<u8>> {
        Err(fail("tiles in JPEG 2000").expected("tomograd-io built with the feature \"dicom\""))
    }
}

/// Luminance and colour differences of 8 bits to red, green and blue (ITU-T T.871).
#[cfg(feature = "dicom")]
fn to_rgb([y, cb, cr]: [i32; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
    rgb.map(|value| value.round().clamp(0.0, 255.0) as u8)
}

/// Unfolds LZW into `pixels`; how many bytes there were.
fn lzw(bytes: &[u8], pixels: &mut [u8]) -> Result<usize> {
    let mut decoder = Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let (mut used, mut made) = (0usize, 0usize);
    while made < pixels.len() {
        let (from, to) = (bytes.get(used..).unwrap_or_default(), pixels.get_mut(made..).unwrap_or_default());
        let result = decoder.decode_bytes(from, to);
        used = used.saturating_add(result.consumed_in);
        made = made.saturating_add(result.consumed_out);
        match result.status {
            Ok(LzwStatus::Ok) if result.consumed_in > 0 || result.consumed_out > 0 => {}
            Ok(_) => break,
            Err(error) => return Err(fail(format!("a tile in LZW can't be unfolded: {error}"))),
        }
    }
    Ok(made)
}
