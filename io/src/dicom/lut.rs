//! Tables of values: palettes of colours, and the modality's table.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use tomograd_core::{Result, room_for};

use super::{dataset, fail, view::View};

/// A table from stored values to others; values before the first and behind the last have theirs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Table {
    first: i64,
    values: Vec<u16>,
    /// Bits of a value.
    bits: u32,
}

impl Table {
    /// The modality's table; `root` says whether the stored values have signs.
    pub(super) fn read(item: View<'_>, root: View<'_>) -> Result<Self> {
        Self::of(item, root, [tags::LUT_DESCRIPTOR, tags::LUT_DATA])
    }

    fn of(view: View<'_>, root: View<'_>, [described, data]: [Tag; 2]) -> Result<Self> {
        let Some([count, first, bits]) = view.exactly::<3>(described)? else {
            return Err(fail(format!("{} is missing", dataset::name(described))));
        };
        // 0 stands for 65536, which 16 bits can't say. All three are 16 bits, whose sign depends on the pixels'.
        let count = match count as i64 & 0xFFFF {
            0 => 1 << 16,
            count => count as usize,
        };
        let signed = root.count(tags::PIXEL_REPRESENTATION, 1).ok().flatten() == Some(1);
        let first = if signed { i64::from(first as i64 as i16) } else { first as i64 & 0xFFFF };
        let bits = bits as i64;
        if !(1..=16).contains(&bits) {
            return Err(fail(format!("{} of {bits} bits", dataset::name(described))).expected("8 to 16"));
        }
        let values = words(view, data, count, bits as u32)?;
        Ok(Self { first, values, bits: bits as u32 })
    }

    /// The value for a stored one.
    pub(super) fn value(&self, stored: i64) -> u16 {
        let last = self.values.len().saturating_sub(1);
        let place = stored.saturating_sub(self.first).clamp(0, last as i64);
        self.values.get(place as usize).copied().unwrap_or(0)
    }
}

/// The `count` values of a table: 16 bits each, or 8 if there are as many bytes as values.
fn words(view: View<'_>, tag: Tag, count: usize, bits: u32) -> Result<Vec<u16>> {
    let Some((bytes, _, big)) = view.raw(tag) else {
        return Err(fail(format!("{} is missing", dataset::name(tag))));
    };
    let mut words = room_for::<u16>("dicom", count)?;
    if bytes.len() >= count.saturating_mul(2) {
        let pairs = bytes.as_chunks::<2>().0.iter().take(count);
        words.extend(pairs.map(|&pair| if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }));
    } else if bytes.len() >= count && bits <= 8 {
        // Two values share a word, whose bytes are swapped where numbers are big endian.
        let swapped = |i: usize| if big { i ^ 1 } else { i };
        words.extend((0..count).map(|i| bytes.get(swapped(i)).copied().map_or(0, u16::from)));
    } else {
        return Err(
            fail(format!("{} bytes of {}", bytes.len(), dataset::name(tag))).expected(format!("{count} values"))
        );
    }
    Ok(words)
}

/// A palette of colours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Palette([Table; 3]);

impl Palette {
    pub(super) fn read(root: View<'_>) -> Result<Self> {
        let one = |described, data, segmented| {
            if root.has(data) || !root.has(segmented) {
                return Table::of(root, root, [described, data]);
            }
            segmented_table(root, described, segmented)
        };
        Ok(Self([
            one(
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            )?,
            one(
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            )?,
            one(
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tags::SEGMENTED_BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
            )?,
        ]))
    }

    /// Red, green and blue of a stored value, as eight bits: the highest of those that the table has.
    pub(super) fn colour(&self, stored: i64) -> [u8; 3] {
        let Self(tables) = self;
        [0, 1, 2].map(|i| {
            tables.get(i).map_or(0, |table| {
                let value = table.value(stored);
                if table.bits > 8 { (value >> (table.bits - 8)) as u8 } else { value as u8 }
            })
        })
    }
}

/// A table in segments (PS3.3, C.7.9.2): values, lines from the last value to another, and repetitions of segments.
fn segmented_table(root: View<'_>, described: Tag, data: Tag) -> Result<Table> {
    let Some([count, first, bits]) = root.exactly::<3>(described)? else {
        return Err(fail(format!("{} is missing", dataset::name(described))));
    };
    let count = match count as i64 & 0xFFFF {
        0 => 1 << 16,
        count => count as usize,
    };
    if bits != 16.0 && bits != 8.0 {
        return Err(fail(format!("{} of {bits} bits", dataset::name(described))).expected("8 or 16"));
    }
    let Some((bytes, _, big)) = root.raw(data) else { return Err(fail(format!("{} is empty", dataset::name(data)))) };
    let words: Vec<u16> = if bits == 16.0 {
        let pairs = bytes.as_chunks::<2>().0.iter();
        pairs.map(|&pair| if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }).collect()
    } else {
        bytes.iter().map(|&byte| byte.into()).collect()
    };
    let mut values = room_for::<u16>("dicom", count)?;
    expand(&words, &mut values, count)
        .filter(|()| values.len() == count)
        .ok_or_else(|| fail(format!("{} doesn't make the {count} values that are announced", dataset::name(data))))?;
    Ok(Table { first: first as i64 & 0xFFFF, values, bits: bits as u32 })
}

/// Expands segments until there are `count` values; `None` if they are damaged.
fn expand(words: &[u16], values: &mut Vec<u16>, count: usize) -> Option<()> {
    let mut at = 0usize;
    let mut starts = Vec::new();
    while values.len() < count && at < words.len() {
        starts.push(at);
        at = if words.get(at) == Some(&2) {
            // Again: so many segments from this place on.
            let (&again, &low, &high) =
                (words.get(at.checked_add(1)?)?, words.get(at.checked_add(2)?)?, words.get(at.checked_add(3)?)?);
            let mut from = usize::from(low) | usize::from(high) << 16;
            for _ in 0..again {
                // A repetition within a repetition isn't allowed.
                if words.get(from) == Some(&2) || !starts.contains(&from) {
                    return None;
                }
                from = segment(words, from, values, count)?;
            }
            at.checked_add(4)?
        } else {
            segment(words, at, values, count)?
        };
    }
    Some(())
}

/// One segment of values or of a line; returns where the next begins.
fn segment(words: &[u16], at: usize, values: &mut Vec<u16>, count: usize) -> Option<usize> {
    let (&kind, &length) = (words.get(at)?, words.get(at.checked_add(1)?)?);
    let left = count.saturating_sub(values.len());
    let start = at.checked_add(2)?;
    match kind {
        0 => {
            let end = start.checked_add(length.into())?;
            values.extend(words.get(start..end)?.iter().take(left));
            Some(end)
        }
        1 => {
            let (from, &to) = (f64::from(*values.last()?), words.get(start)?);
            let step = (f64::from(to) - from) / f64::from(length.max(1));
            values.extend((1..=length).take(left).map(|i| (from + step * f64::from(i)).round() as u16));
            Some(start.checked_add(1)?)
        }
        _ => None,
    }
}
