//! PNG images: 8-bit greyscale and RGB are written; every kind is read, as colours or as class numbers.
//!
//! A file is read to its end (`IEND`), and the checksums of each chunk and of the compressed pixels are verified. Bytes after
//! the end are ignored. Reading allocates memory for the packed pixels, at most 1032 times the size of the file, and for the
//! tensor, up to 24 bytes for each packed byte (eight 1-bit pixels with a colour palette).
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::Path,
};

use ::png::{BitDepth, ColorType, PixelDimensions, Unit};
use flate2::{Decompress, FlushDecompress, Status};
use tomograd_core::{Device, Element, Error, Result, Tensor, TensorBuilder};

use crate::{
    Volume, picture,
    volume::Format,
    voxels::{self, Coding, Stored},
    write_atomically,
};

/// The maximum compression ratio of deflate.
const DEFLATE_RATIO: u64 = 1032;
const OPERATION: &str = "png";

/// Writes an 8-bit RGB image; `pixels` is (height, width, 3).
///
/// ```
/// use tomograd_io::{read_png, write_rgb};
/// # let path = std::env::temp_dir().join(format!("tomograd-rgb-doc-{}.png", std::process::id()));
/// write_rgb(&path, 2, 1, &[255, 0, 0, 0, 0, 255])?; // a red and a blue pixel
/// assert_eq!(read_png(&path)?.to_vec::<u8>()?, [255, 0, 0, 0, 0, 255]); // channels first
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the sizes don't match, a side is 0 or exceeds 2³¹ − 1, or the file can't be written.
pub fn write_rgb(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<()> {
    write(path, width, height, pixels, ColorType::Rgb)
}

/// Writes an 8-bit greyscale image; `pixels` is (height, width).
///
/// ```
/// # let path = std::env::temp_dir().join(format!("tomograd-gray-doc-{}.png", std::process::id()));
/// tomograd_io::write_gray(&path, 3, 2, &[0, 50, 100, 150, 200, 250])?;
/// assert_eq!(tomograd_io::read_png(&path)?.shape(), [1, 2, 3]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the sizes don't match, a side is 0 or exceeds 2³¹ − 1, or the file can't be written.
pub fn write_gray(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<()> {
    write(path, width, height, pixels, ColorType::Grayscale)
}

fn write(path: &Path, width: u32, height: u32, pixels: &[u8], color: ColorType) -> Result<()> {
    check(width, height, pixels, color)?;
    write_atomically(path, |writer| {
        encode(writer, width, height, pixels, color).map_err(|error| error.within(path.display().to_string()))
    })
}

/// The bytes of an 8-bit PNG file, for a picture within another file; `pixels` is (height, width, 3) if there are three
/// `channels`, and (height, width) if there is one.
///
/// ```
/// let png = tomograd_io::encode_png(3, 2, 1, &[0, 50, 100, 150, 200, 250])?;
/// assert!(png.starts_with(b"\x89PNG"));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the sizes don't match, a side is 0 or exceeds 2³¹ − 1, or there are neither one nor three channels.
pub fn encode_png(width: u32, height: u32, channels: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let color = match channels {
        1 => ColorType::Grayscale,
        3 => ColorType::Rgb,
        _ => return Err(Error::argument(OPERATION, format!("{channels} channels")).expected("one, or three")),
    };
    check(width, height, pixels, color)?;
    let mut bytes = Vec::new();
    encode(&mut bytes, width, height, pixels, color)?;
    Ok(bytes)
}

fn check(width: u32, height: u32, pixels: &[u8], color: ColorType) -> Result<()> {
    let side = 1..=i32::MAX as u32;
    let wanted = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(color.samples() as u64);
    if !side.contains(&width) || !side.contains(&height) || pixels.len() as u64 != wanted {
        return Err(Error::argument(OPERATION, format!("{} bytes for {width} × {height} pixels", pixels.len()))
            .expected(format!("{wanted} bytes, and sides of 1 to 2³¹ − 1")));
    }
    Ok(())
}

fn encode(writer: impl io::Write, width: u32, height: u32, pixels: &[u8], color: ColorType) -> Result<()> {
    let fail = |error: ::png::EncodingError| Error::format(OPERATION, error.to_string());
    let mut encoder = ::png::Encoder::new(writer, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(pixels).map_err(fail)?;
    writer.finish().map_err(fail)
}

/// Reads an image: (1, H, W) for greyscale, (3, H, W) for colour; u8, or i32 from 0 to 65535 for 16 bits. Palettes are
/// expanded, alpha is dropped, and greyscale of fewer than 8 bits is scaled to 0 to 255.
///
/// ```
/// use tomograd_io::{read_png, write_rgb};
/// # let path = std::env::temp_dir().join(format!("tomograd-png-doc-{}.png", std::process::id()));
/// write_rgb(&path, 4, 2, &[7; 4 * 2 * 3])?;
/// assert_eq!(read_png(&path)?.shape(), [3, 2, 4]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the file can't be read, isn't a PNG file, is damaged, or claims more pixels than its bytes can hold (checked before
/// memory is allocated).
pub fn read_png(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    Picture::read(path).and_then(|picture| picture.colours()).map_err(|error| error.within(path.display().to_string()))
}

/// Reads an image of class numbers: (1, H, W), u8, or i32 for 16 bits. Greyscale pixels of any bit depth (1, 2, 4, 8 or 16)
/// are returned as stored; pixels of an image with a palette are palette indices, not colours. Alpha is dropped.
///
/// ```
/// use tomograd_io::{read_png_labels, write_gray};
/// # let path = std::env::temp_dir().join(format!("tomograd-label-doc-{}.png", std::process::id()));
/// write_gray(&path, 3, 1, &[0, 1, 2])?;
/// assert_eq!(read_png_labels(&path)?.to_vec::<u8>()?, [0, 1, 2]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// As [`read_png`], and when the image is RGB without a palette.
pub fn read_png_labels(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    Picture::read(path).and_then(|picture| picture.labels()).map_err(|error| error.within(path.display().to_string()))
}

/// Reads a picture as a volume of one plane.
pub(crate) fn read_volume(bytes: Vec<u8>) -> Result<Volume> {
    let length = bytes.len() as u64;
    let picture = Picture::decode(&mut io::Cursor::new(bytes), length)?;
    let mut notes = Vec::new();
    if matches!(picture.color, ColorType::GrayscaleAlpha | ColorType::Rgba) {
        notes.push("the picture's alpha channel is left out".to_owned());
    }
    let stored = if picture.depth == BitDepth::Sixteen { Stored::U16 } else { Stored::U8 };
    // Millimetres a pixel.
    let spacing = picture.density.and_then(|density| picture::spacing(density.map(|number| f64::from(number) / 1e3)));
    picture::volume(picture.colours()?, stored, spacing, Format::Png, notes)
}

/// The bytes of a PNG file with the single plane of a volume, 8 or 16 bits, grey or RGB.
pub(crate) fn encode_volume(volume: &Volume) -> Result<Vec<u8>> {
    let refused = |what: String| {
        Err(Error::argument(OPERATION, what)
            .expected("one plane of whole numbers from 0 to 65535, grey or RGB; .tif and .nii.gz hold all others"))
    };
    let voxels = volume.voxels();
    let (channels, height, width) = match *voxels.shape() {
        [1, height, width] => (1, height, width),
        [3, 1, height, width] => (3, height, width),
        _ => return refused(format!("voxels of shape {:?}", voxels.shape())),
    };
    let codings = [Stored::U8, Stored::U16].map(|stored| Coding::several(stored, channels));
    let Some(coding) = voxels::first_that_fits(voxels, &codings)? else {
        return refused(format!("voxels of {}", volume.stored_dtype()));
    };
    let mut pixels = Vec::new();
    // PNG's numbers are big-endian.
    voxels::encode(&mut pixels, voxels, coding, true)?;
    let fail = |error: ::png::EncodingError| Error::format(OPERATION, error.to_string());
    let side = |size: usize| u32::try_from(size).map_err(|_| Error::argument(OPERATION, format!("a side of {size}")));
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_color(if channels == 3 { ColorType::Rgb } else { ColorType::Grayscale });
    encoder.set_depth(if coding.stored == Stored::U8 { BitDepth::Eight } else { BitDepth::Sixteen });
    let [x, y, _] = volume.spacing().map(|step| (1e3 / step).round());
    if [x, y].iter().all(|density| (1.0..4e9).contains(density)) {
        encoder.set_pixel_dims(Some(PixelDimensions { xppu: x as u32, yppu: y as u32, unit: Unit::Meter }));
    }
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(&pixels).map_err(fail)?;
    writer.finish().map_err(fail)?;
    Ok(bytes)
}

/// The packed pixels of a file.
struct Picture {
    width: usize,
    height: usize,
    color: ColorType,
    depth: BitDepth,
    /// Red, green and blue of each palette entry.
    palette: Vec<u8>,
    /// Bytes per row.
    pitch: usize,
    /// Pixels a metre, if the file says so.
    density: Option<[u32; 2]>,
    bytes: Vec<u8>,
}

impl Picture {
    fn read(path: &Path) -> Result<Self> {
        let io = |error| Error::io(OPERATION, "the file", error);
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        Self::decode(&mut BufReader::new(file), length)
    }

    fn decode(file: &mut (impl BufRead + Seek), length: u64) -> Result<Self> {
        let io = |error| Error::io(OPERATION, "the file", error);
        let fail = |error: ::png::DecodingError| Error::format(OPERATION, error.to_string());
        let mut options = ::png::DecodeOptions::default();
        // By default, the decoder ignores the checksum of the pixels and those of ancillary chunks.
        options.set_ignore_checksums(false);
        options.set_skip_ancillary_crc_failures(false);
        // Text and profile chunks are compressed and could take much memory; they aren't needed.
        options.set_ignore_text_chunk(true);
        options.set_ignore_iccp_chunk(true);
        let mut decoder = ::png::Decoder::new_with_options(&mut *file, options);
        let most = length.saturating_mul(DEFLATE_RATIO);
        decoder.set_limits(::png::Limits { bytes: usize::try_from(most).unwrap_or(usize::MAX).max(1 << 26) });
        let mut reader = decoder.read_info().map_err(fail)?;
        let size = reader.output_buffer_size().unwrap_or(usize::MAX);
        if size as u64 > most {
            return Err(Error::format(OPERATION, format!("{size} bytes of pixels from a file of {length}")));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|error| Error::format(OPERATION, error.to_string()))?;
        bytes.resize(size, 0);
        let frame = reader.next_frame(&mut bytes).map_err(fail)?;
        reader.finish().map_err(fail)?;
        let palette = reader.info().palette.as_ref().map(|palette| palette.to_vec()).unwrap_or_default();
        let density = reader.info().pixel_dims.filter(|dims| dims.unit == Unit::Meter);
        drop(reader);
        file.rewind().map_err(io)?;
        check_pixels(file, size as u64)?;
        Ok(Self {
            width: frame.width as usize,
            height: frame.height as usize,
            color: frame.color_type,
            depth: frame.bit_depth,
            palette,
            pitch: frame.line_size,
            density: density.map(|dims| [dims.xppu, dims.yppu]),
            bytes,
        })
    }

    /// Bits per sample.
    fn bits(&self) -> u8 {
        match self.depth {
            BitDepth::One => 1,
            BitDepth::Two => 2,
            BitDepth::Four => 4,
            BitDepth::Eight => 8,
            BitDepth::Sixteen => 16,
        }
    }

    fn colours(&self) -> Result<Tensor> {
        // Scales the largest value of a bit depth to 255.
        let factor: u16 = match self.depth {
            BitDepth::One => 255,
            BitDepth::Two => 85,
            BitDepth::Four => 17,
            BitDepth::Eight | BitDepth::Sixteen => 1,
        };
        let spread = |value: u16| value.saturating_mul(factor) as u8;
        match (self.color, self.depth) {
            (ColorType::Indexed, _) => self.planes(3, |index, channel| self.palette_at(index, channel)),
            (ColorType::Grayscale | ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
                self.planes(1, |value, _| Ok(i32::from(value)))
            }
            (ColorType::Grayscale | ColorType::GrayscaleAlpha, BitDepth::Eight) => {
                self.planes(1, |value, _| Ok(value as u8))
            }
            (ColorType::Grayscale | ColorType::GrayscaleAlpha, _) => self.planes(1, |value, _| Ok(spread(value))),
            (ColorType::Rgb | ColorType::Rgba, BitDepth::Sixteen) => self.planes(3, |value, _| Ok(i32::from(value))),
            (ColorType::Rgb | ColorType::Rgba, _) => self.planes(3, |value, _| Ok(value as u8)),
        }
    }

    fn labels(&self) -> Result<Tensor> {
        match (self.color, self.depth) {
            (ColorType::Rgb | ColorType::Rgba, _) => Err(Error::format(OPERATION, "a picture of colours")
                .expected("class numbers: a grey picture, or one with a palette")),
            (_, BitDepth::Sixteen) => self.planes(1, |value, _| Ok(i32::from(value))),
            (ColorType::Indexed, _) => self.planes(1, |index, _| self.palette_at(index, 0).map(|_| index as u8)),
            _ => self.planes(1, |value, _| Ok(value as u8)),
        }
    }

    /// The value of one channel of a palette entry.
    fn palette_at(&self, index: u16, channel: usize) -> Result<u8> {
        let colour = self.palette.chunks_exact(3).nth(usize::from(index)).and_then(|colour| colour.get(channel));
        colour.copied().ok_or_else(|| {
            Error::format(OPERATION, format!("a pixel of colour {index}"))
                .expected(format!("one of the {} of the palette", self.palette.len() / 3))
        })
    }

    /// The tensor (channels, H, W) of `value(sample, channel)`; if a pixel has a single sample, it is passed for all
    /// channels.
    fn planes<T: Element>(&self, channels: usize, value: impl Fn(u16, usize) -> Result<T>) -> Result<Tensor> {
        let bits = self.bits();
        let samples = self.color.samples();
        let mut wrong = None;
        let (mut x, mut y, mut channel) = (0usize, 0usize, 0usize);
        let shape = [channels, self.height, self.width];
        let tensor = TensorBuilder::<T>::new(OPERATION, &shape, Device::Cpu)?.fill_with(|_| {
            let sample = x.saturating_mul(samples).saturating_add(if samples > 1 { channel } else { 0 });
            let made = self.number(y, sample, bits).and_then(|number| value(number, channel));
            x = x.saturating_add(1);
            if x == self.width {
                (x, y) = (0, y.saturating_add(1));
            }
            if y == self.height {
                (y, channel) = (0, channel.saturating_add(1));
            }
            made.unwrap_or_else(|error| {
                wrong.get_or_insert(error);
                T::default()
            })
        })?;
        wrong.map_or(Ok(tensor), Err)
    }

    /// Sample `index` of row `y` with this bit depth; the first sample of a byte is in the highest bits.
    fn number(&self, y: usize, index: usize, bits: u8) -> Result<u16> {
        let row = y.saturating_mul(self.pitch);
        let byte = |at: usize| {
            let byte = self.bytes.get(row.saturating_add(at)).copied().map(u16::from);
            byte.ok_or_else(|| Error::format(OPERATION, "fewer pixels than the header says"))
        };
        if bits == 16 {
            let at = index.saturating_mul(2);
            return Ok(byte(at)? << 8 | byte(at.saturating_add(1))?);
        }
        let per_byte = usize::from(8u8.checked_div(bits).unwrap_or(1));
        let behind = per_byte.saturating_sub(1).saturating_sub(index.checked_rem(per_byte).unwrap_or(0));
        let shift = behind.saturating_mul(usize::from(bits)) as u32;
        let mask = 0xFFu16.checked_shr(u32::from(8u8.saturating_sub(bits))).unwrap_or(0xFF);
        Ok(byte(index.checked_div(per_byte).unwrap_or(index))?.checked_shr(shift).unwrap_or(0) & mask)
    }
}

/// Decompresses the pixels of a file, whose chunks have been checked, to the end of the stream, to verify its checksum; the
/// decoder stops when the image is complete. Excess data in the stream is limited to the size of the pixels plus 16 MiB.
fn check_pixels(file: &mut impl BufRead, size: u64) -> Result<()> {
    let io = |error| Error::io(OPERATION, "the file", error);
    let most = size.saturating_mul(2).saturating_add(1 << 24);
    let mut signature = [0; 8];
    file.read_exact(&mut signature).map_err(io)?;
    let mut inflate = Decompress::new(true);
    let (mut piece, mut sink) = (Vec::new(), vec![0; 1 << 15]);
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head).map_err(io)?;
        let [a, b, c, d, name @ ..] = head;
        let mut left = u64::from(u32::from_be_bytes([a, b, c, d]));
        if name == *b"IEND" {
            return Err(Error::format(OPERATION, "the compressed pixels end before their checksum"));
        }
        while name == *b"IDAT" && left > 0 {
            piece.clear();
            let got = file.by_ref().take(left.min(1 << 15)).read_to_end(&mut piece).map_err(io)? as u64;
            if got == 0 {
                return Err(Error::format(OPERATION, "the file ends inside of the pixels"));
            }
            left = left.saturating_sub(got);
            let mut input = piece.as_slice();
            loop {
                let before = (inflate.total_in(), inflate.total_out());
                let status = inflate
                    .decompress(input, &mut sink, FlushDecompress::None)
                    .map_err(|error| Error::format(OPERATION, format!("the compressed pixels are damaged: {error}")))?;
                if status == Status::StreamEnd {
                    return Ok(());
                }
                if inflate.total_out() > most {
                    return Err(Error::format(OPERATION, format!("more than {most} bytes of pixels"))
                        .expected(format!("about {size}, as the header says")));
                }
                let used = inflate.total_in().saturating_sub(before.0) as usize;
                input = input.get(used..).unwrap_or_default();
                if before == (inflate.total_in(), inflate.total_out()) {
                    break;
                }
            }
        }
        // The rest of the chunk, and its checksum.
        io::copy(&mut file.by_ref().take(left.saturating_add(4)), &mut io::sink()).map_err(io)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A separate path for each test.
    fn place(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("tomograd-{}-{name}.png", std::process::id()))
    }

    fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(name);
        crc.update(body);
        [&(body.len() as u32).to_be_bytes(), &name[..], body, &crc.sum().to_be_bytes()].concat()
    }

    fn deflated(raw: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(raw).unwrap();
        encoder.finish().unwrap()
    }

    /// A file with one IDAT chunk of these compressed bytes, and chunks before it.
    fn file(size: [u32; 2], depth: u8, color: u8, before: &[u8], data: &[u8]) -> Vec<u8> {
        let header = [&size[0].to_be_bytes()[..], &size[1].to_be_bytes(), &[depth, color, 0, 0, 0]].concat();
        let (header, data, end) = (chunk(b"IHDR", &header), chunk(b"IDAT", data), chunk(b"IEND", &[]));
        [b"\x89PNG\r\n\x1A\n", &header[..], before, &data, &end].concat()
    }

    #[test]
    fn reads_what_it_writes_and_refuses_lies() {
        let path = place("writes");
        write_rgb(&path, 2, 1, &[1, 2, 3, 4, 5, 6]).unwrap();
        let tensor = read_png(&path).unwrap();
        assert_eq!((tensor.shape(), tensor.to_vec::<u8>().unwrap()), (&[3, 1, 2][..], vec![1, 4, 2, 5, 3, 6]));
        assert!(read_png_labels(&path).unwrap_err().to_string().contains("colours"));
        write_gray(&path, 1, 3, &[7, 8, 9]).unwrap();
        assert_eq!(read_png(&path).unwrap().shape(), [1, 3, 1]);
        assert_eq!(read_png_labels(&path).unwrap().to_vec::<u8>().unwrap(), [7, 8, 9]);
        assert!(write_gray(&path, 2, 2, &[0]).is_err());
        assert!(write_gray(&path, 0, 3, &[]).is_err());
        assert!(write_gray(&path, 1 << 31, 1, &[]).is_err());
        std::fs::remove_file(path).unwrap();
    }

    /// Damage of all kinds: every bit flipped, every truncation, and invalid streams in valid chunks.
    #[test]
    fn damage_is_an_error_or_changes_nothing() {
        let path = place("damage");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_png(&path).map(|tensor| (tensor.shape().to_vec(), tensor.to_vec::<u8>().unwrap()))
        };
        let pixels: Vec<u8> = (0..12u8).map(|i| i * i).collect();
        let rows: Vec<u8> = pixels.chunks(4).flat_map(|row| std::iter::once(0).chain(row.iter().copied())).collect();
        let text = [chunk(b"tEXt", b"Comment\0of no use"), chunk(b"pHYs", &[0, 0, 1, 0, 0, 0, 1, 0, 1])].concat();
        let good = file([4, 3], 8, 0, &text, &deflated(&rows));
        let expected = (vec![1, 3, 4], pixels);
        assert_eq!(read(&good).unwrap(), expected);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit} of byte {}", bit / 8);
        }
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "{end}");
        }
        assert_eq!(read(&[&good[..], &[0; 512]].concat()).unwrap(), expected);

        // Compressed data that ends early, or has no or a wrong checksum, in a chunk with a valid checksum.
        let whole = deflated(&rows);
        for cut in 1..whole.len() {
            assert!(read(&file([4, 3], 8, 0, &[], &whole[..whole.len() - cut])).is_err(), "without the last {cut}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = read(&file([4, 3], 8, 0, &[], &bytes)) {
                assert_eq!(found, expected, "bit {bit}");
                assert!(bit < (whole.len() - 4) * 8, "bit {bit} of the checksum");
            }
        }
        // A stream split into several chunks, one of them empty, is valid; excess data is skipped up to a limit.
        let chunks: Vec<u8> = whole.chunks(5).flat_map(|part| chunk(b"IDAT", part)).collect();
        let good = [chunk(b"IDAT", &[]), chunks].concat();
        assert_eq!(read(&file([4, 3], 8, 0, &good, &[])).unwrap(), expected);
        let long = |count: usize| deflated(&[&rows[..], &vec![0; count]].concat());
        assert_eq!(read(&file([4, 3], 8, 0, &[], &long(1000))).unwrap(), expected);
        assert!(read(&file([4, 3], 8, 0, &[], &long(17 << 20))).is_err());
        // A header that claims more pixels than there are, 16 MB, and far more.
        assert!(read(&file([4, 4], 8, 0, &[], &whole)).is_err());
        assert!(read(&file([1 << 12, 1 << 12], 8, 0, &[], &whole)).is_err());
        assert!(read(&file([i32::MAX as u32, i32::MAX as u32], 16, 6, &[], &whole)).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn labels_are_the_stored_numbers_whatever_their_bits() {
        let path = place("labels");
        let palette = chunk(b"PLTE", &[10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3]);
        let both = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).unwrap();
            let [picture, labels] = [read_png(&path), read_png_labels(&path)].map(|tensor| tensor.unwrap());
            assert_eq!(labels.shape(), [1, 1, 3]);
            (picture.to_vec_f64().unwrap(), labels.dtype(), labels.to_vec_f64().unwrap())
        };
        use tomograd_core::DType;
        // (bits, kind, row, the image, the class numbers)
        let grey = [
            (1, vec![0b1010_0000], [255.0, 0.0, 255.0], [1.0, 0.0, 1.0]),
            (2, vec![0b0111_1000], [85.0, 255.0, 170.0], [1.0, 3.0, 2.0]),
            (4, vec![0x1F, 0x20], [17.0, 255.0, 34.0], [1.0, 15.0, 2.0]),
            (8, vec![1, 255, 2], [1.0, 255.0, 2.0], [1.0, 255.0, 2.0]),
        ];
        for (bits, row, picture, labels) in grey {
            let found = both(file([3, 1], bits, 0, &[], &deflated(&[&[0], &row[..]].concat())));
            assert_eq!(found, (picture.to_vec(), DType::U8, labels.to_vec()), "{bits} bits");
        }
        let found = both(file([3, 1], 16, 0, &[], &deflated(&[0, 1, 0, 0xFF, 0xFF, 0, 2])));
        assert_eq!(found, (vec![256.0, 65535.0, 2.0], DType::I32, vec![256.0, 65535.0, 2.0]));
        // Greyscale with alpha.
        let found = both(file([3, 1], 8, 4, &[], &deflated(&[0, 1, 99, 2, 99, 3, 0])));
        assert_eq!(found.2, [1.0, 2.0, 3.0]);
        let colours = [40.0, 1.0, 70.0, 50.0, 2.0, 80.0, 60.0, 3.0, 90.0];
        for (bits, row) in [(2, vec![0b0111_1000]), (4, vec![0x13, 0x20]), (8, vec![1, 3, 2])] {
            let found = both(file([3, 1], bits, 3, &palette, &deflated(&[&[0], &row[..]].concat())));
            assert_eq!(found, (colours.to_vec(), DType::U8, vec![1.0, 3.0, 2.0]), "{bits} bits");
        }
        // An index beyond the palette.
        std::fs::write(&path, file([3, 1], 8, 3, &palette, &deflated(&[0, 1, 4, 2]))).unwrap();
        assert!(read_png(&path).is_err() && read_png_labels(&path).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
