//! Lossless JPEG (ITU-T T.81, annex H).

use tomograd_core::Result;

use super::{
    huffman::Bits,
    jpeg::{Decoder, Frame},
};
use crate::dicom::fail;

impl Decoder {
    /// Decodes a scan: for each of its `parts` the place of the channel and that of its table. Samples are predicted from
    /// neighbours by `predictor` and lack their lowest `shift` bits.
    pub(super) fn lossless(
        &self,
        frame: &mut Frame,
        parts: &[(usize, usize, usize)],
        bits: &mut Bits<'_>,
        predictor: u8,
        shift: u8,
    ) -> Result<()> {
        if !(1..=7).contains(&predictor) || shift >= frame.precision {
            return Err(fail(format!("lossless JPEG with predictor {predictor} and a shift of {shift} bits"))
                .expected("a predictor from 1 to 7 and a shift below the precision"));
        }
        let mut tables = Vec::new();
        for &(_, dc, _) in parts {
            let table = self.dc.get(dc).and_then(Option::as_ref);
            tables.push(table.ok_or_else(|| fail("a JPEG scan without its DC table"))?);
        }
        let (width, height) = (frame.width, frame.height);
        let start = 1i32 << (frame.precision - shift - 1);
        // The row above and this one, of each channel of the scan.
        let mut rows: Vec<[Vec<i32>; 2]> = parts.iter().map(|_| [vec![0; width], vec![0; width]]).collect();
        let (mut done, mut fresh) = (0usize, true);
        for y in 0..height {
            for row in &mut rows {
                row.swap(0, 1);
            }
            // The row in which a restart was is predicted as the first one is.
            let mut first_row = fresh;
            fresh = false;
            for x in 0..width {
                if self.restart > 0 && done > 0 && done.is_multiple_of(self.restart) {
                    bits.restart()?;
                    first_row = true;
                    fresh = x > 0;
                }
                let begins = first_row && (x == 0 || (self.restart > 0 && done.is_multiple_of(self.restart)));
                done += 1;
                for ([above, row], table) in rows.iter_mut().zip(&tables) {
                    let at = |row: &[i32], x: usize| row.get(x).copied().unwrap_or(0);
                    let left = if x > 0 { at(row, x - 1) } else { 0 };
                    let predicted = if begins {
                        start
                    } else if first_row {
                        left
                    } else if x == 0 {
                        at(above, 0)
                    } else {
                        let (b, c) = (at(above, x), at(above, x - 1));
                        match predictor {
                            1 => left,
                            2 => b,
                            3 => c,
                            4 => left + b - c,
                            5 => left + ((b - c) >> 1),
                            6 => b + ((left - c) >> 1),
                            _ => (left + b) >> 1,
                        }
                    };
                    let difference = match table.decode(bits)? {
                        16 => 32768,
                        size @ 0..16 => bits.signed(size.into())?,
                        size => return Err(fail(format!("a JPEG difference of {size} bits")).expected("at most 16")),
                    };
                    if let Some(sample) = row.get_mut(x) {
                        *sample = (predicted + difference) & 0xFFFF;
                    }
                }
            }
            for (&(place, ..), [_, row]) in parts.iter().zip(&rows) {
                let plane = frame.channels.get_mut(place).map(|channel| &mut channel.plane.samples);
                let line = plane.and_then(|samples| samples.get_mut(y * width..(y + 1) * width)).unwrap_or_default();
                line.iter_mut().zip(row).for_each(|(to, &sample)| *to = (sample << shift) as u16);
            }
        }
        Ok(())
    }
}
