//! JPEG pictures as volumes: 8 bits, grey or RGB, baseline and progressive.
//!
//! Memory is bounded by 1200 bytes for each byte of the file: a picture that claims more pixels than its bytes can hold is
//! refused before memory is taken.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use tomograd_core::{Device, Error, Result, Tensor};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use crate::{Volume, picture, volume::Format, voxels::Stored};

const OPERATION: &str = "jpeg";
/// The most pixels a byte: a block of 64 takes at least a bit a component, and colours may be stored for every fourth pixel.
const MOST_PIXELS: u64 = 350;

/// Reads a picture as a volume of one plane.
pub(crate) fn read_volume(bytes: Vec<u8>) -> Result<Volume> {
    let fail = |error: zune_jpeg::errors::DecodeErrors| Error::format(OPERATION, error.to_string());
    let length = bytes.len() as u64;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16)
        .jpeg_set_max_scans(64);
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
