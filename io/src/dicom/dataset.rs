//! The elements of an encoded data set.
//!
//! Values stay where they are in the bytes; an element holds their place. A length is compared with the bytes that are there
//! before anything is done with it, so that what a file claims takes no memory.

use std::{collections::BTreeMap, ops::Range};

use dicom_core::{
    Tag,
    dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr},
};
use dicom_dictionary_std::{StandardDataDictionary, tags};
use tomograd_core::Error;

use super::{fail, syntax::Encoding};

/// Sequences within sequences beyond this are refused. Structured reports have a dozen.
const DEEPEST: usize = 48;
const UNDEFINED: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// A data set: its elements by tag.
#[derive(Debug, Default)]
pub(super) struct DataSet {
    pub(super) elements: BTreeMap<Tag, Element>,
    /// Numbers are big endian.
    pub(super) big: bool,
}

/// An element.
#[derive(Debug)]
pub(super) struct Element {
    /// The value representation; that of the dictionary if the element says none or `UN`.
    pub(super) vr: [u8; 2],
    pub(super) value: Value,
}

/// The value of an element.
#[derive(Debug)]
pub(super) enum Value {
    /// The place of the value.
    Bytes(Range<usize>),
    Items(Vec<DataSet>),
    /// The place of encapsulated pixels: fragments and their delimiter. Kept only where whole files are read.
    Fragments(Range<usize>),
}

/// Where the pixels of the outermost data set are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PixelElement {
    /// `PixelData`, `FloatPixelData` or `DoubleFloatPixelData`.
    pub(super) tag: Tag,
    /// Where the value begins.
    pub(super) start: usize,
    /// Its length; `None` if it is a sequence of fragments.
    pub(super) length: Option<u32>,
    /// Bytes are in words, which are swapped where numbers are big endian.
    pub(super) words: bool,
}

/// Why a walk ended early.
pub(super) enum Stop {
    /// The bytes end within this; perhaps they are the beginning of a longer file.
    Short(String),
    Wrong(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Wrong(error)
    }
}

impl Stop {
    /// The error, if the bytes are all that there is. (`From` would take the inference of errors from other crates.)
    pub(super) fn error(self) -> Error {
        match self {
            Self::Short(what) => fail(format!("the file ends inside of {what}")),
            Self::Wrong(error) => error,
        }
    }
}

/// The value representation of the dictionary.
fn known_vr(tag: Tag) -> [u8; 2] {
    let text = match StandardDataDictionary.by_tag(tag).map(DataDictionaryEntry::vr) {
        Some(VirtualVr::Exact(vr)) => vr.to_string(),
        Some(VirtualVr::Xs) => "US",
        Some(_) => "OW",
        None => "UN",
    };
    let mut vr = [0; 2];
    vr.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    vr
}

/// The name of an element for messages.
pub(super) fn name(tag: Tag) -> String {
    let alias = StandardDataDictionary.by_tag(tag).map_or("private", DataDictionaryEntry::alias);
    format!("({:04X},{:04X}) {alias}", tag.0, tag.1)
}

/// Reads the outermost data set of `bytes` from `at` up to its pixels.
pub(super) fn read(
    bytes: &[u8],
    at: usize,
    encoding: Encoding,
) -> std::result::Result<(DataSet, Option<PixelElement>), Stop> {
    let mut walk = Walk { bytes, at, pixels: None, whole: false };
    let set = walk.data_set(encoding, Some(bytes.len()), 0)?;
    Ok((set, walk.pixels))
}

/// Reads the outermost data set of `bytes` from `at` to its end; the pixels are an element among the others.
pub(super) fn read_whole(bytes: &[u8], at: usize, encoding: Encoding) -> std::result::Result<DataSet, Stop> {
    let mut walk = Walk { bytes, at, pixels: None, whole: true };
    walk.data_set(encoding, Some(bytes.len()), 0)
}

/// Reads the file meta information (group 2), which is explicit little endian; returns where it ends.
pub(super) fn read_meta(bytes: &[u8], at: usize) -> std::result::Result<(DataSet, usize), Stop> {
    let mut walk = Walk { bytes, at, pixels: None, whole: false };
    let mut set = DataSet::default();
    while walk.bytes.get(walk.at..walk.at.saturating_add(2)) == Some(&[2, 0]) {
        walk.element(&mut set, super::syntax::EXPLICIT, 0)?;
    }
    Ok((set, walk.at))
}

/// The fragments of encapsulated pixels that begin at `at`: the basic offset table first.
pub(super) fn fragments(bytes: &[u8], at: usize, big: bool) -> std::result::Result<Vec<Range<usize>>, Stop> {
    let mut walk = Walk { bytes, at, pixels: None, whole: false };
    let mut found = Vec::new();
    loop {
        // Some files end without the delimiter.
        if walk.at == bytes.len() && !found.is_empty() {
            return Ok(found);
        }
        let (tag, length) = (walk.tag(big)?, walk.u32(big)?);
        match tag {
            ITEM if length != UNDEFINED => found.push(walk.skip(length, "a fragment of the pixels")?),
            SEQUENCE_END => return Ok(found),
            _ => return Err(fail(format!("{} between fragments of pixels", name(tag))).into()),
        }
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    pixels: Option<PixelElement>,
    /// The walk goes on behind the pixels, and fragments are kept.
    whole: bool,
}

impl Walk<'_> {
    fn take<const N: usize>(&mut self) -> std::result::Result<[u8; N], Stop> {
        let part = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        let part = *part.ok_or_else(|| Stop::Short("an element's header".to_owned()))?;
        self.at = self.at.saturating_add(N);
        Ok(part)
    }

    fn u16(&mut self, big: bool) -> std::result::Result<u16, Stop> {
        let part = self.take()?;
        Ok(if big { u16::from_be_bytes(part) } else { u16::from_le_bytes(part) })
    }

    fn u32(&mut self, big: bool) -> std::result::Result<u32, Stop> {
        let part = self.take()?;
        Ok(if big { u32::from_be_bytes(part) } else { u32::from_le_bytes(part) })
    }

    fn tag(&mut self, big: bool) -> std::result::Result<Tag, Stop> {
        Ok(Tag(self.u16(big)?, self.u16(big)?))
    }

    /// The place of the next `length` bytes, which must be there.
    fn skip(&mut self, length: u32, what: &str) -> std::result::Result<Range<usize>, Stop> {
        let end = self.at.saturating_add(length as usize);
        if end > self.bytes.len() {
            return Err(Stop::Short(what.to_owned()));
        }
        let place = self.at..end;
        self.at = end;
        Ok(place)
    }

    /// Elements up to `end`, or to the delimiter of an item; at depth 0, up to the pixels.
    fn data_set(&mut self, encoding: Encoding, end: Option<usize>, depth: usize) -> std::result::Result<DataSet, Stop> {
        if depth > DEEPEST {
            return Err(fail(format!("more than {DEEPEST} sequences within each other")).into());
        }
        let mut set = DataSet { big: encoding.big, ..DataSet::default() };
        loop {
            match end {
                Some(end) if self.at == end => return Ok(set),
                Some(end) if self.at > end => return Err(fail("an element that exceeds its item").into()),
                // Zeros behind the last element, as padding.
                Some(end)
                    if depth == 0 && self.bytes.get(self.at..end).is_some_and(|rest| rest.iter().all(|&b| b == 0)) =>
                {
                    return Ok(set);
                }
                _ => {}
            }
            if !self.element(&mut set, encoding, depth)? {
                return Ok(set);
            }
        }
    }

    /// Reads an element into `set`; `false` if the data set ends instead.
    fn element(&mut self, set: &mut DataSet, encoding: Encoding, depth: usize) -> std::result::Result<bool, Stop> {
        let tag = self.tag(encoding.big)?;
        if tag == ITEM_END {
            self.u32(encoding.big)?;
            return Ok(false);
        }
        if tag.0 == 0xFFFE {
            return Err(fail(format!("a delimiter {} where an element should be", name(tag))).into());
        }
        let (said, length) = self.header(encoding)?;
        let vr = said.filter(|vr| vr != b"UN").unwrap_or_else(|| known_vr(tag));
        let pixels = matches!(tag, tags::PIXEL_DATA | tags::FLOAT_PIXEL_DATA | tags::DOUBLE_FLOAT_PIXEL_DATA);
        if pixels && depth == 0 && !self.whole {
            let length = (length != UNDEFINED).then_some(length);
            self.pixels = Some(PixelElement { tag, start: self.at, length, words: &vr == b"OW" });
            return Ok(false);
        }
        let value = if length == UNDEFINED {
            if pixels {
                // Of an icon, or where all is wanted.
                let start = self.at;
                let fragments = fragments(self.bytes, self.at, encoding.big)?;
                self.at = fragments.last().map_or(self.at, |last| last.end).saturating_add(8).min(self.bytes.len());
                if self.whole {
                    set.elements.insert(tag, Element { vr, value: Value::Fragments(start..self.at) });
                }
                return Ok(true);
            }
            // A sequence of unknown representation is implicit little endian inside.
            let inside = if said.as_ref().is_some_and(|vr| vr == b"UN") { super::syntax::IMPLICIT } else { encoding };
            if said.is_some_and(|vr| &vr != b"UN" && &vr != b"SQ") {
                return Err(fail(format!("{} has no length", name(tag))).expected("a length, or a sequence").into());
            }
            Value::Items(self.items(inside, None, depth.saturating_add(1), tag)?)
        } else {
            let place = self.skip(length, &name(tag))?;
            match (&vr, said) {
                (b"SQ", Some(said)) if &said == b"SQ" => {
                    self.at = place.start;
                    Value::Items(self.items(encoding, Some(place.end), depth.saturating_add(1), tag)?)
                }
                (b"SQ", _) => {
                    // That it is a sequence is the dictionary's word alone.
                    self.at = place.start;
                    let inside =
                        Encoding { explicit: false, ..if said.is_some() { super::syntax::IMPLICIT } else { encoding } };
                    let items = self.items(inside, Some(place.end), depth.saturating_add(1), tag);
                    self.at = place.end;
                    items.map_or(Value::Bytes(place), Value::Items)
                }
                _ => Value::Bytes(place),
            }
        };
        set.elements.insert(tag, Element { vr, value });
        Ok(true)
    }

    /// The value representation that an element says, and its length.
    fn header(&mut self, encoding: Encoding) -> std::result::Result<(Option<[u8; 2]>, u32), Stop> {
        if !encoding.explicit {
            return Ok((None, self.u32(encoding.big)?));
        }
        let start = self.at;
        let vr: [u8; 2] = self.take()?;
        if !vr.iter().all(u8::is_ascii_uppercase) {
            // Some writers change to implicit elements within a file.
            self.at = start;
            return Ok((None, self.u32(encoding.big)?));
        }
        let long = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
        if long.contains(&&vr) {
            self.u16(encoding.big)?;
            return Ok((Some(vr), self.u32(encoding.big)?));
        }
        Ok((Some(vr), u32::from(self.u16(encoding.big)?)))
    }

    /// The items of a sequence, up to `end` or its delimiter.
    fn items(
        &mut self,
        encoding: Encoding,
        end: Option<usize>,
        depth: usize,
        of: Tag,
    ) -> std::result::Result<Vec<DataSet>, Stop> {
        let mut items = Vec::new();
        loop {
            match end {
                Some(end) if self.at == end => return Ok(items),
                Some(end) if self.at > end => return Err(fail(format!("an item that exceeds {}", name(of))).into()),
                _ => {}
            }
            let (tag, length) = (self.tag(encoding.big)?, self.u32(encoding.big)?);
            match tag {
                ITEM if length == UNDEFINED => items.push(self.data_set(encoding, None, depth)?),
                ITEM => {
                    let place = self.skip(length, &name(of))?;
                    self.at = place.start;
                    items.push(self.data_set(encoding, Some(place.end), depth)?);
                    self.at = place.end;
                }
                SEQUENCE_END => return Ok(items),
                _ => return Err(fail(format!("{} among the items of {}", name(tag), name(of))).into()),
            }
        }
    }
}
