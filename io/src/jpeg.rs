//! JPEG pictures as volumes: 8 bits, grey or RGB, baseline and progressive. Baseline ones are written, without subsampled colours; as JPEG
//! isn't lossless, their values are near those that they were made of.
//!
//! Memory is bounded by 1200 bytes for each byte of the file: a picture that claims more pixels than its bytes can hold is
//! refused before memory is taken.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};
use tomograd_core::{Device, Error, Result, Tensor};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{
    Volume, picture,
    volume::Format,
    voxels::{self, Coding, Stored},
};

const OPERATION: &str = "jpeg";
/// The most pixels a byte: a block of 64 takes at least a bit a component, and colours may be stored for every fourth pixel.
const MOST_PIXELS: u64 = 350;

fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16)
        .jpeg_set_max_scans(64)
}

/// Reads a picture as a volume of one plane.
pub(crate) fn read_volume(bytes: Vec<u8>) -> Result<Volume> {
    let fail = |error: zune_jpeg::errors::DecodeErrors| Error::format(OPERATION, error.to_string());
    let length = bytes.len() as u64;
    let options = options();
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(fail)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels == 0 || pixels > length.saturating_mul(MOST_PIXELS) {
        return Err(Error::format(OPERATION, format!("{width} × {height} pixels from a file of {length} bytes"))
            .expected(format!("1 to {MOST_PIXELS} pixels a byte")));
    }
    let (channels, colours) = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => (1, ColorSpace::Luma),
        Some(ColorSpace::RGB | ColorSpace::YCbCr) => (3, ColorSpace::RGB),
        other => {
            return Err(Error::format(OPERATION, format!("colours of the kind {other:?}")).expected("grey or RGB"));
        }
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(fail)?;
    let planes = Tensor::from_slice(&pixels, &[height, width, channels], Device::Cpu)?;
    picture::volume(planes.permute(&[2, 0, 1])?.contiguous()?, Stored::U8, None, Format::Jpeg, Vec::new())
}

/// The pixels of a tile of a slide, the channels of each together; `ycc`: three channels are stored as luminance and colour differences,
/// whatever the stream says or doesn't say of it.
#[cfg(feature = "tiff")]
pub(crate) fn decode_tile(bytes: Vec<u8>, sides: [usize; 2], channels: usize, ycc: bool) -> Result<Vec<u8>> {
    let fail = |error: zune_jpeg::errors::DecodeErrors| Error::format(OPERATION, error.to_string());
    let options = options();
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(fail)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let stored = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => 1,
        Some(ColorSpace::RGB | ColorSpace::YCbCr) => 3,
        _ => 0,
    };
    if [width, height] != sides || stored != channels {
        return Err(Error::format(OPERATION, format!("a stream of {width} × {height} pixels, {stored} channels"))
            .expected(format!("{} × {} pixels, {channels} channels, as its file says", sides[0], sides[1])));
    }
    let colours = match (channels, decoder.input_colorspace()) {
        (1, _) => ColorSpace::Luma,
        // As they are stored.
        (_, Some(ColorSpace::YCbCr)) if !ycc => ColorSpace::YCbCr,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    decoder.decode().map_err(fail)
}

/// What the encoder calls 1 to 100: high enough that a head looks the same.
const QUALITY: u8 = 95;

/// The bytes of a JPEG file with the single plane of a volume, grey or RGB.
pub(crate) fn encode_volume(volume: &Volume) -> Result<Vec<u8>> {
    let refused = |what: String| {
        Err(Error::argument(OPERATION, what)
            .expected("one plane of whole numbers from 0 to 255, grey or RGB; .png and .nii.gz hold all values"))
    };
    let voxels = volume.voxels();
    let (channels, height, width) = match *voxels.shape() {
        [1, height, width] => (1, height, width),
        [3, 1, height, width] => (3, height, width),
        _ => return refused(format!("voxels of shape {:?}", voxels.shape())),
    };
    let Some(coding) = voxels::first_that_fits(voxels, &[Coding::several(Stored::U8, channels)])? else {
        return refused(format!("voxels of {}", volume.stored_dtype()));
    };
    let mut pixels = Vec::new();
    voxels::encode(&mut pixels, voxels, coding, false)?;
    let side = |size: usize| u32::try_from(size).map_err(|_| Error::argument(OPERATION, format!("a side of {size}")));
    encode_jpeg(side(width)?, side(height)?, channels, &pixels)
}

/// The bytes of a JPEG file of these pixels, in rows: 1 channel (grey) or 3 (RGB), whose values a reader gets nearly.
///
/// ```
/// use tomograd_io::encode_jpeg;
/// let bytes = encode_jpeg(2, 1, 1, &[0, 255])?;
/// assert!(bytes.starts_with(&[0xFF, 0xD8]));
/// assert!(encode_jpeg(2, 1, 3, &[0, 255]).is_err());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When a side isn't 1 to 65535, or the pixels aren't as many as the sides and channels say.
pub fn encode_jpeg(width: u32, height: u32, channels: usize, pixels: &[u8]) -> Result<Vec<u8>> {
    let sides = u16::try_from(width).ok().zip(u16::try_from(height).ok()).filter(|&(x, y)| x > 0 && y > 0);
    let (x, y) = sides.ok_or_else(|| {
        Error::argument(OPERATION, format!("{width} × {height} pixels")).expected("sides of 1 to 65535")
    })?;
    let colour = match channels {
        1 => ColorType::Luma,
        3 => ColorType::Rgb,
        _ => return Err(Error::argument(OPERATION, format!("{channels} channels")).expected("1 or 3")),
    };
    let count = usize::from(x).saturating_mul(y.into()).saturating_mul(channels);
    if pixels.len() != count {
        return Err(Error::argument(OPERATION, format!("{} values", pixels.len())).expected(format!("{count}")));
    }
    let fail = |error: EncodingError| Error::format(OPERATION, error.to_string());
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, QUALITY);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.encode(pixels, x, y, colour).map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry;

    /// A plane that is smooth, as JPEG likes it.
    fn plane(channels: usize, height: usize, width: usize) -> Volume {
        let value = |at: usize| {
            let (channel, y, x) = (at / (height * width), at / width % height, at % width);
            (128.0 + 100.0 * ((x + 2 * y) as f64 / 9.0 + channel as f64).sin()) as u8
        };
        let values: Vec<u8> = (0..channels * height * width).map(value).collect();
        let shape = [channels, 1, height, width];
        let shape = if channels == 1 { &shape[1..] } else { &shape[..] };
        let voxels = Tensor::from_slice(&values, shape, Device::Cpu).unwrap();
        Volume::new(voxels, geometry::from_spacing([1.0; 3]).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_nearly() {
        for (channels, height, width) in [(1, 1, 1), (1, 37, 50), (3, 37, 50), (3, 16, 8)] {
            let volume = plane(channels, height, width);
            let read = read_volume(encode_volume(&volume).unwrap()).unwrap();
            assert_eq!(read.voxels().shape(), volume.voxels().shape());
            let (a, b) = (read.voxels().to_vec::<u8>().unwrap(), volume.voxels().to_vec::<u8>().unwrap());
            let worst = a.iter().zip(&b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            // At this quality a coefficient is rounded by 5 at most, and a pixel's colour is the sum of three components.
            assert!(worst <= 10, "{channels} {height} {width}: {worst}");
        }
    }

    #[test]
    fn what_a_picture_cant_hold_is_refused() {
        let affine = geometry::from_spacing([1.0; 3]).unwrap();
        for (values, shape) in [(&[0i32, 256][..], [1, 1, 2]), (&[0, -1], [1, 1, 2]), (&[0, 1], [2, 1, 1])] {
            let volume = Volume::new(Tensor::from_slice(values, &shape, Device::Cpu).unwrap(), affine).unwrap();
            assert!(encode_volume(&volume).is_err(), "{values:?} {shape:?}");
        }
        assert!(encode_jpeg(1 << 16, 1, 1, &[0; 1 << 16]).is_err() && encode_jpeg(0, 1, 1, &[]).is_err());
    }
}
