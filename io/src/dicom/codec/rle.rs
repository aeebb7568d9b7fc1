//! RLE Lossless (DICOM PS3.5, annex G): each byte of the samples is a segment of its own, packed in runs.

use tomograd_core::{Result, room_for};

use crate::dicom::fail;

/// The bytes of `segments` planes of `size` bytes each, one behind the other, in the order of the segments: for each channel,
/// the highest byte first.
pub(in crate::dicom) fn decode(bytes: &[u8], segments: usize, size: usize) -> Result<Vec<u8>> {
    let word = |at: usize| {
        let part = bytes.get(at.saturating_mul(4)..).and_then(|rest| rest.first_chunk::<4>());
        part.map(|part| u32::from_le_bytes(*part) as usize).ok_or_else(|| fail("an RLE frame that ends in its header"))
    };
    if word(0)? != segments {
        return Err(fail(format!("an RLE frame of {} segments", word(0)?)).expected(format!("{segments}")));
    }
    // A run of two bytes gives at most 128.
    if segments.saturating_mul(size) > bytes.len().saturating_mul(64) {
        return Err(fail(format!("{} bytes of RLE for {segments} segments of {size} bytes", bytes.len())));
    }
    let mut planes = room_for::<u8>("dicom", segments.saturating_mul(size))?;
    for segment in 1..=segments {
        let end = if segment == segments { bytes.len() } else { word(segment.saturating_add(1))?.min(bytes.len()) };
        let packed = bytes.get(word(segment)?..end).ok_or_else(|| fail("an RLE segment that isn't in its frame"))?;
        unpack(packed, segment.saturating_mul(size), &mut planes)
            .ok_or_else(|| fail(format!("RLE segment {segment} ends before its {size} bytes")))?;
    }
    Ok(planes)
}

/// Unpacks until `planes` has `until` bytes.
fn unpack(mut packed: &[u8], until: usize, planes: &mut Vec<u8>) -> Option<()> {
    while planes.len() < until {
        let (&count, rest) = packed.split_first()?;
        let left = until.saturating_sub(planes.len());
        packed = match count {
            0..=127 => {
                let (literal, rest) = rest.split_at_checked(usize::from(count).saturating_add(1))?;
                planes.extend(literal.iter().take(left));
                rest
            }
            128 => rest,
            129.. => {
                let (&value, rest) = rest.split_first()?;
                let run = 257usize.saturating_sub(usize::from(count)).min(left);
                planes.resize(planes.len().saturating_add(run), value);
                rest
            }
        };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(segments: &[&[u8]]) -> Vec<u8> {
        let mut bytes = (segments.len() as u32).to_le_bytes().to_vec();
        let mut at = 64u32;
        for segment in segments {
            bytes.extend(at.to_le_bytes());
            at += segment.len() as u32;
        }
        bytes.resize(64, 0);
        segments.iter().for_each(|segment| bytes.extend(*segment));
        bytes
    }

    #[test]
    fn runs_literals_and_what_is_too_short() {
        // Three literal bytes, a byte without meaning, a run of four.
        let packed = [2, 7, 8, 9, 128, 253, 5, 0];
        let bytes = frame(&[&packed, &packed]);
        assert_eq!(decode(&bytes, 2, 7).unwrap(), [7, 8, 9, 5, 5, 5, 5, 7, 8, 9, 5, 5, 5, 5]);
        assert!(decode(&bytes, 2, 9).unwrap_err().to_string().contains("segment 1 ends"));
        assert!(decode(&bytes, 3, 7).unwrap_err().to_string().contains("2 segments; expected 3"));
        assert!(decode(&bytes[..60], 2, 7).is_err());
        assert!(decode(&bytes, 2, usize::MAX).is_err());
        for end in 0..bytes.len() {
            let _ = decode(&bytes[..end], 2, 7);
        }
    }
}
