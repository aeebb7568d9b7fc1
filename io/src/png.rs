//! PNG pictures.

use std::path::Path;

use tomograd_core::{Error, Result};

use crate::write_atomically;

/// Writes an RGB picture of 8 bits a channel; `pixels` is (height, width, 3).
///
/// # Errors
/// When the sizes don't fit, or the file can't be written.
pub fn write_rgb(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<()> {
    if width == 0 || height == 0 || pixels.len() as u64 != u64::from(width) * u64::from(height) * 3 {
        return Err(Error::argument("png", format!("{} bytes for {width} × {height} pixels", pixels.len()))
            .expected("three bytes a pixel, and at least one pixel"));
    }
    let fail = |error: ::png::EncodingError| Error::format("png", error.to_string()).within(path.display().to_string());
    write_atomically(path, |writer| {
        let mut encoder = ::png::Encoder::new(writer, width, height);
        encoder.set_color(::png::ColorType::Rgb);
        encoder.set_depth(::png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(fail)?;
        writer.write_image_data(pixels).map_err(fail)?;
        writer.finish().map_err(fail)
    })
}
