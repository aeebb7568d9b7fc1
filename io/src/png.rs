//! PNG pictures of 8 bits a channel, grey or RGB.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{fs::File, io::BufReader, path::Path};

use tomograd_core::{Device, Error, Result, Tensor};

use crate::write_atomically;

/// Deflate can't make more than this of a byte.
const DEFLATE_RATIO: u64 = 1032;

/// Writes an RGB picture of 8 bits a channel; `pixels` is (height, width, 3).
///
/// # Errors
/// When the sizes don't fit, or the file can't be written.
pub fn write_rgb(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<()> {
    write(path, width, height, pixels, ::png::ColorType::Rgb)
}

/// Writes a grey picture of 8 bits; `pixels` is (height, width).
///
/// # Errors
/// When the sizes don't fit, or the file can't be written.
pub fn write_gray(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<()> {
    write(path, width, height, pixels, ::png::ColorType::Grayscale)
}

fn write(path: &Path, width: u32, height: u32, pixels: &[u8], color: ::png::ColorType) -> Result<()> {
    let wanted = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(color.samples() as u64);
    if width == 0 || height == 0 || pixels.len() as u64 != wanted {
        return Err(Error::argument("png", format!("{} bytes for {width} × {height} pixels", pixels.len()))
            .expected(format!("{wanted} bytes, and at least one pixel")));
    }
    let fail = |error: ::png::EncodingError| Error::format("png", error.to_string()).within(path.display().to_string());
    write_atomically(path, |writer| {
        let mut encoder = ::png::Encoder::new(writer, width, height);
        encoder.set_color(color);
        encoder.set_depth(::png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(fail)?;
        writer.write_image_data(pixels).map_err(fail)?;
        writer.finish().map_err(fail)
    })
}

/// Reads a picture: (1, H, W) of u8 for a grey one, (3, H, W) for colours. A palette is expanded, transparency dropped, and
/// 16 bits are an error.
///
/// # Errors
/// When the file can't be read, isn't a PNG, or claims more pixels than its bytes can hold (checked before memory is taken).
pub fn read_png(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    read_file(path).map_err(|error| error.within(path.display().to_string()))
}

fn read_file(path: &Path) -> Result<Tensor> {
    let io = |error| Error::io("png", "the file", error);
    let fail = |error: ::png::DecodingError| Error::format("png", error.to_string());
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut decoder = ::png::Decoder::new_with_limits(BufReader::new(file), ::png::Limits { bytes: 1 << 26 });
    decoder.set_transformations(::png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(fail)?;
    let size = reader.output_buffer_size().unwrap_or(usize::MAX);
    // A palette and packed bits expand by 32 at most, beyond what deflate does.
    if size as u64 > length.saturating_mul(DEFLATE_RATIO).saturating_mul(32) {
        return Err(Error::format("png", format!("{size} bytes of pixels from a file of {length}")));
    }
    if reader.output_color_type().1 != ::png::BitDepth::Eight {
        return Err(Error::format("png", "a picture of 16 bits").expected("8 bits a channel"));
    }
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels).map_err(fail)?;
    let (samples, channels) = match frame.color_type {
        ::png::ColorType::Grayscale => (1, 1),
        ::png::ColorType::GrayscaleAlpha => (2, 1),
        ::png::ColorType::Rgb => (3, 3),
        ::png::ColorType::Rgba => (4, 3),
        ::png::ColorType::Indexed => return Err(Error::format("png", "a palette that wasn't expanded")),
    };
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut planes: Vec<u8> = Vec::with_capacity(width.saturating_mul(height).saturating_mul(channels));
    for channel in 0..channels {
        planes.extend(pixels.chunks_exact(samples).filter_map(|pixel| pixel.get(channel)));
    }
    Tensor::from_slice(&planes, &[channels, height, width], Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_lies() {
        let path = std::env::temp_dir().join(format!("tomograd-{}.png", std::process::id()));
        write_rgb(&path, 2, 1, &[1, 2, 3, 4, 5, 6]).unwrap();
        let tensor = read_png(&path).unwrap();
        assert_eq!((tensor.shape(), tensor.to_vec::<u8>().unwrap()), (&[3, 1, 2][..], vec![1, 4, 2, 5, 3, 6]));
        write_gray(&path, 1, 3, &[7, 8, 9]).unwrap();
        assert_eq!(read_png(&path).unwrap().shape(), [1, 3, 1]);
        assert!(write_gray(&path, 2, 2, &[0]).is_err());
        let good = std::fs::read(&path).unwrap();
        for end in 0..good.len() - 12 {
            std::fs::write(&path, &good[..end]).unwrap();
            assert!(read_png(&path).is_err(), "{end}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
