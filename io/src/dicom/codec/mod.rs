//! Decoders of compressed frames.

mod huffman;
mod idct;
mod jpeg;
mod jpeg2000;
mod jpeg_lossless;
mod jpeg_ls;
mod jpeg_ls_numbers;
mod rle;
mod upsample;

use tomograd_core::{Result, room_for};

pub(super) use rle::decode as decode_rle;

use super::{fail, syntax::Compression};

/// A decoded frame, of the size that was expected.
pub(super) struct Picture {
    /// Bits of a sample, as the compressed stream says.
    pub(super) precision: u8,
    /// The samples of each pixel side by side, as bit patterns of `precision` bits.
    pub(super) samples: Vec<i32>,
    /// The stream itself has turned YCbCr to RGB, or says that it is RGB.
    pub(super) rgb: bool,
    /// Chroma is that of YCbCr, as the stream says.
    pub(super) ycc: bool,
}

/// What is known of a frame before it is decoded: a stream that says otherwise is refused, before memory is taken.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
}

impl Expected {
    fn samples(self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.channels)
    }

    /// Checks the sizes of a stream.
    fn check(self, name: &str, [width, height, channels]: [usize; 3]) -> Result<()> {
        if [width, height, channels] != [self.width, self.height, self.channels] {
            return Err(fail(format!("a {name} stream of {width} × {height} pixels with {channels} channels"))
                .expected(format!("{} × {} with {}", self.width, self.height, self.channels)));
        }
        Ok(())
    }

    /// Checks that so few bytes can hold so many samples.
    fn plausible(self, name: &str, bytes: usize, most: usize) -> Result<()> {
        if self.samples() > bytes.saturating_mul(most) {
            return Err(fail(format!("{bytes} bytes of {name} for {} samples", self.samples()))
                .expected(format!("at most {most} samples a byte")));
        }
        Ok(())
    }

    /// Room for the samples, zeros.
    fn room(self) -> Result<Vec<i32>> {
        let mut samples = room_for::<i32>("dicom", self.samples())?;
        samples.resize(self.samples(), 0);
        Ok(samples)
    }
}

/// Decodes a frame that isn't RLE.
pub(super) fn decode(compression: Compression, bytes: &[u8], expected: Expected) -> Result<Picture> {
    match compression {
        Compression::Jpeg => jpeg::decode(bytes, expected),
        Compression::JpegLs => jpeg_ls::decode(bytes, expected),
        Compression::Jpeg2000 => jpeg2000::decode(bytes, expected),
        Compression::None | Compression::Rle => Err(fail("a frame that isn't compressed as a picture")),
    }
}
