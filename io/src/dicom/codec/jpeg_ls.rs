//! JPEG-LS (ITU-T T.87), lossless and near-lossless, 2 to 16 bits. Tables of colours and restart intervals are refused.

use tomograd_core::Result;

use super::{
    Expected, Picture,
    jpeg_ls_numbers::{Bits, Numbers, Preset},
};
use crate::dicom::fail;

/// The orders of the run lengths, J in the standard.
const ORDERS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// Contexts of gradients; two more are for ends of runs.
const REGULAR: usize = 365;
/// A picture of one value takes a bit for 2¹⁵ samples; what is beyond this is taken for damage.
const MOST_PER_BYTE: usize = 1 << 14;

/// What a context has seen (A.2.1).
#[derive(Clone, Copy)]
struct Context {
    /// The sum of the sizes of errors.
    a: i32,
    /// The sum of errors.
    b: i32,
    /// The correction of the prediction.
    c: i32,
    n: i32,
    /// Negative errors, of ends of runs.
    negative: i32,
}

impl Context {
    fn k(&self, sum: i32) -> u32 {
        let mut k = 0;
        while k < 24 && self.n << k < sum {
            k += 1;
        }
        k
    }
}

struct Scan<'a> {
    bits: Bits<'a>,
    numbers: Numbers,
    contexts: Vec<Context>,
}

impl<'a> Scan<'a> {
    fn new(bytes: &'a [u8], at: usize, numbers: Numbers) -> Self {
        let a = 2.max((numbers.range + 32) / 64);
        let contexts = vec![Context { a, b: 0, c: 0, n: 1, negative: 0 }; REGULAR + 2];
        Self { bits: Bits::new(bytes, at), numbers, contexts }
    }

    fn context(&mut self, place: usize) -> Result<&mut Context> {
        self.contexts.get_mut(place).ok_or_else(|| fail("a JPEG-LS context that isn't there"))
    }

    /// A sample in regular mode (A.4 to A.6).
    fn regular(&mut self, [q1, q2, q3]: [i32; 3], [a, b, c]: [i32; 3]) -> Result<i32> {
        let place = 81 * q1 + 9 * q2 + q3;
        let sign = if place < 0 { -1 } else { 1 };
        let Numbers { most, near, reset, limit, qbpp, range, .. } = self.numbers;
        let context = *self.context(place.unsigned_abs() as usize)?;
        let median = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let predicted = (median + sign * context.c).clamp(0, most);
        let k = context.k(context.a);
        let code = self.bits.golomb(k, limit, qbpp, 2 * range)?;
        let turned = near == 0 && k == 0 && 2 * context.b <= -context.n;
        let error = match (code & 1 == 1, turned) {
            (true, true) => (code - 1) / 2,
            (false, true) => -(code / 2) - 1,
            (true, false) => -((code + 1) / 2),
            (false, false) => code / 2,
        };
        let context = self.context(place.unsigned_abs() as usize)?;
        context.b += error * (2 * near + 1);
        context.a = context.a.saturating_add(error.abs());
        if context.n == reset {
            context.a >>= 1;
            context.b >>= 1;
            context.n >>= 1;
        }
        context.n += 1;
        if context.b <= -context.n {
            context.b = (context.b + context.n).max(1 - context.n);
            context.c = (context.c - 1).max(-128);
        } else if context.b > 0 {
            context.b = (context.b - context.n).min(0);
            context.c = (context.c + 1).min(127);
        }
        Ok(self.numbers.reconstructed(predicted, sign * error))
    }

    /// The sample that ends a run (A.7.2); `alike` says that its neighbours are.
    fn interruption(&mut self, alike: bool, [a, b]: [i32; 2], run_index: usize) -> Result<i32> {
        let kind = i32::from(alike);
        let place = REGULAR + usize::from(alike);
        let (predicted, sign) = if alike { (a, 1) } else { (b, if a > b { -1 } else { 1 }) };
        let Numbers { reset, limit, qbpp, range, .. } = self.numbers;
        let context = *self.context(place)?;
        let k = context.k(context.a + if alike { context.n >> 1 } else { 0 });
        let order = ORDERS.get(run_index).copied().unwrap_or(0);
        let code = self.bits.golomb(k, limit - order - 1, qbpp, 2 * range)?;
        let sum = code + kind;
        let odd = sum & 1;
        let size = (sum + odd) / 2;
        let error = if (k != 0 || 2 * context.negative >= context.n) == (odd == 1) { -size } else { size };
        let context = self.context(place)?;
        context.negative += i32::from(error < 0);
        context.a = context.a.saturating_add((code + 1 - kind) >> 1);
        if context.n == reset {
            context.a >>= 1;
            context.n >>= 1;
            context.negative >>= 1;
        }
        context.n += 1;
        Ok(self.numbers.reconstructed(predicted, sign * error))
    }

    /// Decodes a line of `rows.len()` channels that are interleaved by sample. Each has the row above and this one, both with a
    /// sample before and behind the picture's.
    fn line(&mut self, rows: &mut [[Vec<i32>; 2]], width: usize, run_index: &mut usize) -> Result<()> {
        let at = |row: &[i32], x: usize| row.get(x).copied().unwrap_or(0);
        for [above, row] in rows.iter_mut() {
            // Before the line is the sample above its first, behind the line above that line's last.
            let (first, last) = (at(above, 1), at(above, width));
            if let Some(edge) = row.first_mut() {
                *edge = first;
            }
            if let Some(edge) = above.get_mut(width + 1) {
                *edge = last;
            }
        }
        let mut x = 1;
        while x <= width {
            let gradients = |[above, row]: &[Vec<i32>; 2]| {
                let (a, b, c, d) = (at(row, x - 1), at(above, x), at(above, x - 1), at(above, x + 1));
                ([d - b, b - c, c - a], [a, b, c])
            };
            let near = self.numbers.near;
            if rows.iter().all(|rows| gradients(rows).0.iter().all(|gradient| gradient.abs() <= near)) {
                x = self.run(rows, x, width, run_index)?;
                continue;
            }
            for rows in rows.iter_mut() {
                let (steps, beside) = gradients(rows);
                let sample = self.regular(steps.map(|step| self.numbers.quantised(step)), beside)?;
                let [_, row] = rows;
                if let Some(to) = row.get_mut(x) {
                    *to = sample;
                }
            }
            x += 1;
        }
        Ok(())
    }

    /// A run from `x` and the sample that ends it (A.7); returns the next x.
    fn run(&mut self, rows: &mut [[Vec<i32>; 2]], mut x: usize, width: usize, run_index: &mut usize) -> Result<usize> {
        let fill = |rows: &mut [[Vec<i32>; 2]], from: usize, count: usize| {
            for [_, row] in rows {
                let value = row.get(from - 1).copied().unwrap_or(0);
                row.iter_mut().skip(from).take(count).for_each(|to| *to = value);
            }
        };
        loop {
            let left = width + 1 - x;
            if left == 0 {
                return Ok(x);
            }
            let order = ORDERS.get(*run_index).copied().unwrap_or(0);
            if self.bits.take(1)? == 1 {
                let count = (1 << order).min(left);
                fill(rows, x, count);
                x += count;
                if count == 1 << order {
                    *run_index = (*run_index + 1).min(31);
                }
                continue;
            }
            let count = self.bits.take(order)? as usize;
            if count >= left {
                return Err(fail("a JPEG-LS run that exceeds its line"));
            }
            fill(rows, x, count);
            x += count;
            let several = rows.len() > 1;
            for [above, row] in rows.iter_mut() {
                let (a, b) = (row.get(x - 1).copied().unwrap_or(0), above.get(x).copied().unwrap_or(0));
                let alike = !several && (a - b).abs() <= self.numbers.near;
                let sample = self.interruption(alike, [a, b], *run_index)?;
                if let Some(to) = row.get_mut(x) {
                    *to = sample;
                }
            }
            *run_index = run_index.saturating_sub(1);
            return Ok(x + 1);
        }
    }
}

pub(super) fn decode(bytes: &[u8], expected: Expected) -> Result<Picture> {
    let short = || fail("a JPEG-LS stream that ends before its picture");
    let pair = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied().ok_or_else(short);
    if pair(0)? != [0xFF, 0xD8] {
        return Err(fail("a frame that isn't a JPEG-LS stream"));
    }
    let (mut at, mut preset, mut frame, mut scanned) = (2usize, Preset::default(), None, 0);
    let mut samples = Vec::new();
    loop {
        let [mark, code] = pair(at)?;
        if mark != 0xFF || code == 0xFF || code == 0 {
            at += 1;
            continue;
        }
        at += 2;
        if code == 0xD9 {
            break;
        }
        let end = at.saturating_add(usize::from(u16::from_be_bytes(pair(at)?)));
        let segment = bytes.get(at + 2..end).ok_or_else(short)?;
        at = end;
        match code {
            0xF7 => {
                let &[precision, y1, y0, x1, x0, count] = segment.first_chunk::<6>().ok_or_else(short)?;
                let [width, height] = [[x1, x0], [y1, y0]].map(|pair| usize::from(u16::from_be_bytes(pair)));
                if !(2..=16).contains(&precision) {
                    return Err(fail(format!("a JPEG-LS stream of {precision} bits")).expected("2 to 16"));
                }
                expected.check("JPEG-LS", [width, height, count.into()])?;
                expected.plausible("JPEG-LS", bytes.len(), MOST_PER_BYTE)?;
                let ids: Vec<u8> =
                    segment.get(6..).unwrap_or_default().chunks_exact(3).filter_map(|c| c.first().copied()).collect();
                samples = expected.room()?;
                frame = Some((precision, ids));
            }
            0xF8 => preset = Preset::read(segment)?,
            0xDA => {
                let (precision, ids) = frame.as_ref().ok_or_else(|| fail("a JPEG-LS scan before its frame"))?;
                let (&count, rest) = segment.split_first().ok_or_else(short)?;
                let (chosen, rest) = rest.split_at_checked(usize::from(count) * 2).ok_or_else(short)?;
                let &[near, interleave, _] = rest.first_chunk::<3>().ok_or_else(short)?;
                let mut places = Vec::new();
                for &[id, table] in chosen.as_chunks::<2>().0 {
                    let place = ids.iter().position(|&other| other == id).filter(|place| !places.contains(place));
                    places.push(place.ok_or_else(|| fail(format!("a JPEG-LS scan of channel {id}")))?);
                    if table != 0 {
                        return Err(fail("a JPEG-LS stream with tables of values").expected("one without"));
                    }
                }
                if places.is_empty() || (interleave == 0) != (places.len() == 1) || interleave > 2 {
                    let what = format!("a JPEG-LS scan of {} channels, interleaved by {interleave}", places.len());
                    return Err(fail(what).expected("one alone (0), or several by line (1) or sample (2)"));
                }
                let numbers = Numbers::new(*precision, near.into(), preset)?;
                at = scan(Scan::new(bytes, at, numbers), &places, interleave == 2, &mut samples, expected)?;
                scanned += places.len();
                if scanned >= expected.channels {
                    break;
                }
            }
            0xDD => return Err(fail("a JPEG-LS stream with restart intervals").expected("one without")),
            _ => {}
        }
    }
    let Some((precision, _)) = frame.filter(|_| scanned >= expected.channels) else {
        return Err(fail("a JPEG-LS stream without all of its channels"));
    };
    Ok(Picture { precision, samples, rgb: false, ycc: false })
}

/// Decodes a scan of the channels at `places` into interleaved `samples`; returns where its bits end.
fn scan(
    mut scan: Scan<'_>,
    places: &[usize],
    together: bool,
    samples: &mut [i32],
    Expected { width, channels, .. }: Expected,
) -> Result<usize> {
    let mut rows: Vec<[Vec<i32>; 2]> = places.iter().map(|_| [vec![0; width + 2], vec![0; width + 2]]).collect();
    let mut run_indices = vec![0; places.len()];
    for line in samples.chunks_exact_mut((width * channels).max(1)) {
        if together {
            if let Some(index) = run_indices.first_mut() {
                scan.line(&mut rows, width, index)?;
            }
        } else {
            for (row, index) in rows.iter_mut().zip(&mut run_indices) {
                scan.line(std::slice::from_mut(row), width, index)?;
            }
        }
        for (&place, rows) in places.iter().zip(&mut rows) {
            let [_, row] = rows;
            let samples = row.iter().skip(1);
            line.iter_mut().skip(place).step_by(channels.max(1)).zip(samples).for_each(|(to, &sample)| *to = sample);
            rows.swap(0, 1);
        }
    }
    Ok(scan.bits.end())
}
