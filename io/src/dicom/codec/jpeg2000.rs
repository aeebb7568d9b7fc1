//! JPEG 2000, decoded by `hayro-jpeg2000`.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use tomograd_core::Result;

use super::{Expected, Picture};
use crate::dicom::fail;

/// A picture of one value takes a few bytes for each block of 64 × 64 samples and less; what is beyond this is taken for damage.
const MOST_PER_BYTE: usize = 1 << 14;
/// The largest pictures that a few bytes may hold.
const ALWAYS: usize = 1 << 20;

pub(super) fn decode(bytes: &[u8], expected: Expected) -> Result<Picture> {
    let stream = codestream(bytes)?;
    let header = Header::read(stream)?;
    expected.check("JPEG 2000", [header.width, header.height, header.channels])?;
    if expected.samples() > ALWAYS {
        expected.plausible("JPEG 2000", bytes.len(), MOST_PER_BYTE)?;
    }
    let broken = |error| fail(format!("a JPEG 2000 stream can't be decoded: {error}"));
    // Strict: a stream that ends early is an error, not a blurred picture.
    let settings = DecodeSettings { resolve_palette_indices: false, strict: true, target_resolution: None };
    let image = Image::new(stream, &settings).map_err(broken)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(broken)?;
    let mut samples = expected.room()?;
    let components = decoded.components();
    let pixels = expected.width.saturating_mul(expected.height);
    if components.len() != expected.channels || components.iter().any(|one| one.samples().len() != pixels) {
        return Err(fail("a JPEG 2000 stream whose channels have different sizes"));
    }
    let (most, mask) = (((1i64 << header.precision) - 1) as f32, ((1i64 << header.precision) - 1) as i32);
    // The decoder adds half of the range to signed samples too.
    let half = if header.signed { 1i64 << (header.precision - 1) } else { 0 };
    for (place, component) in components.iter().enumerate() {
        let pixels = samples.iter_mut().skip(place).step_by(expected.channels.max(1));
        for (to, &sample) in pixels.zip(component.samples()) {
            let sample = sample.round_ties_even().clamp(0.0, most) as i64;
            *to = (sample - half) as i32 & mask;
        }
    }
    Ok(Picture { precision: header.precision, samples, rgb: header.transformed, ycc: false })
}

/// The codestream in the boxes of a JP2 file, which DICOM doesn't allow but some writers use.
fn codestream(bytes: &[u8]) -> Result<&[u8]> {
    const START: &[u8] = &[0xFF, 0x4F, 0xFF, 0x51];
    if bytes.starts_with(START) {
        return Ok(bytes);
    }
    let mut rest = bytes;
    while let Some((&[a, b, c, d, name @ ..], content)) = rest.split_first_chunk::<8>() {
        if name == *b"jp2c" && content.starts_with(START) {
            return Ok(content);
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match rest.get(length..) {
            Some(next) if length >= 8 => rest = next,
            _ => break,
        }
    }
    Err(fail("a frame that isn't a JPEG 2000 stream"))
}

/// What the main header of a codestream says.
struct Header {
    width: usize,
    height: usize,
    channels: usize,
    precision: u8,
    signed: bool,
    /// The colours are transformed, so that decoding gives RGB.
    transformed: bool,
}

impl Header {
    fn read(stream: &[u8]) -> Result<Self> {
        let short = || fail("a JPEG 2000 stream that ends in its header");
        let size = stream.get(6..).ok_or_else(short)?;
        let word = |at: usize| {
            let part = size.get(at..).and_then(|rest| rest.first_chunk::<4>());
            part.map(|part| u32::from_be_bytes(*part)).ok_or_else(short)
        };
        let sides =
            |end: usize, start: usize| Ok::<_, tomograd_core::Error>(word(end)?.saturating_sub(word(start)?) as usize);
        let (width, height) = (sides(2, 10)?, sides(6, 14)?);
        let count = size.get(34..36).and_then(|part| part.first_chunk::<2>()).ok_or_else(short)?;
        let channels = usize::from(u16::from_be_bytes(*count));
        let described = size.get(36..).unwrap_or_default().as_chunks::<3>().0.get(..channels).ok_or_else(short)?;
        let &[depth, _, _] = described.first().ok_or_else(short)?;
        let (precision, signed) = ((depth & 0x7F).saturating_add(1), depth & 0x80 != 0);
        if described.iter().any(|other| *other != [depth, 1, 1]) || precision > 24 {
            return Err(fail("a JPEG 2000 stream whose channels differ, are subsampled, or have more than 24 bits"));
        }
        // Two bytes of length are in front of `size`'s fields; the next marker is behind the segment.
        let length = stream.get(4..).and_then(|rest| rest.first_chunk::<2>()).ok_or_else(short)?;
        let mut at = usize::from(u16::from_be_bytes(*length)).saturating_add(4);
        let mut transformed = false;
        while let Some((&[0xFF, code, high, low], _)) = stream.get(at..).and_then(|rest| rest.split_first_chunk::<4>())
        {
            match code {
                0x52 => transformed = stream.get(at.saturating_add(8)) == Some(&1),
                0x90 => break,
                _ => {}
            }
            at = at.saturating_add(2).saturating_add(usize::from(u16::from_be_bytes([high, low])));
        }
        Ok(Self { width, height, channels, precision, signed, transformed })
    }
}
