//! Writes data sets: objects made here in explicit little endian with texts in UTF-8, others as they are encoded.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::syntax::{self, Encoding};

/// A data set in the making; elements may come in any order.
#[derive(Default)]
pub(super) struct Elements(Vec<(Tag, [u8; 2], Content)>);

/// The value of an element.
enum Content {
    Bytes(Vec<u8>),
    Items(Vec<Elements>),
    /// Encapsulated pixels with their delimiter.
    Fragments(Vec<u8>),
}

/// Value representations whose length has 32 bits.
const LONG: [[u8; 2]; 13] =
    [*b"OB", *b"OD", *b"OF", *b"OL", *b"OV", *b"OW", *b"SQ", *b"SV", *b"UC", *b"UN", *b"UR", *b"UT", *b"UV"];

impl Elements {
    /// An element of these bytes, which are padded to an even number.
    pub(super) fn put(&mut self, tag: Tag, vr: &[u8; 2], value: &[u8]) -> &mut Self {
        let padding = if [b"UI", b"OB", b"UN"].contains(&vr) { 0 } else { b' ' };
        let mut bytes = value.to_vec();
        bytes.extend(std::iter::repeat_n(padding, value.len() % 2));
        self.0.push((tag, *vr, Content::Bytes(bytes)));
        self
    }

    /// An element of these bytes as they are.
    pub(super) fn raw(&mut self, tag: Tag, vr: &[u8; 2], value: &[u8]) {
        self.0.push((tag, *vr, Content::Bytes(value.to_vec())));
    }

    /// Encapsulated pixels: their fragments with the delimiter.
    pub(super) fn fragments(&mut self, tag: Tag, vr: &[u8; 2], value: Vec<u8>) {
        self.0.push((tag, *vr, Content::Fragments(value)));
    }

    /// A text.
    pub(super) fn text(&mut self, tag: Tag, vr: &[u8; 2], value: &str) -> &mut Self {
        self.put(tag, vr, value.as_bytes())
    }

    /// Numbers of 16 bits.
    pub(super) fn short(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.put(tag, b"US", &value.to_le_bytes())
    }

    /// Numbers of 32 bits.
    pub(super) fn long(&mut self, tag: Tag, values: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.put(tag, b"UL", &bytes)
    }

    /// The tag of another element.
    pub(super) fn pointer(&mut self, tag: Tag, to: Tag) -> &mut Self {
        self.put(tag, b"AT", &[to.0.to_le_bytes(), to.1.to_le_bytes()].concat())
    }

    /// Decimal numbers of at most 16 letters each.
    pub(super) fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let values: Vec<String> = values.iter().map(|&value| decimal(value)).collect();
        self.text(tag, b"DS", &values.join("\\"))
    }

    pub(super) fn bytes(&mut self, tag: Tag, value: &[u8]) -> &mut Self {
        self.put(tag, b"OB", value)
    }

    pub(super) fn sequence(&mut self, tag: Tag, items: Vec<Elements>) -> &mut Self {
        self.0.push((tag, *b"SQ", Content::Items(items)));
        self
    }

    /// The bytes of the elements, in the order of their tags.
    pub(super) fn encoded(mut self, encoding: Encoding) -> Vec<u8> {
        self.0.sort_by_key(|(tag, ..)| *tag);
        let mut bytes = Vec::new();
        for (tag, vr, content) in self.0 {
            match content {
                Content::Bytes(value) => {
                    header(&mut bytes, tag, &vr, u32::try_from(value.len()).unwrap_or(u32::MAX), encoding);
                    bytes.extend(value);
                }
                Content::Items(items) => {
                    let mut inside = Vec::new();
                    for item in items {
                        let item = item.encoded(encoding);
                        numbers(&mut inside, &[0xFFFE, 0xE000], encoding);
                        length(&mut inside, item.len() as u32, encoding);
                        inside.extend(item);
                    }
                    header(&mut bytes, tag, &vr, inside.len() as u32, encoding);
                    bytes.extend(inside);
                }
                Content::Fragments(value) => {
                    header(&mut bytes, tag, &vr, u32::MAX, encoding);
                    bytes.extend(value);
                }
            }
        }
        bytes
    }

    /// The bytes of a file of this object in explicit little endian.
    pub(super) fn file(self, class: &str, instance: &str) -> Vec<u8> {
        let set = self.encoded(syntax::EXPLICIT);
        [start(class, instance, "1.2.840.10008.1.2.1"), set].concat()
    }

    /// As [`Elements::file`], in implicit little endian, where a value of any representation may have any length.
    pub(super) fn implicit_file(self, class: &str, instance: &str) -> Vec<u8> {
        let set = self.encoded(syntax::IMPLICIT);
        [start(class, instance, "1.2.840.10008.1.2"), set].concat()
    }
}

fn numbers(bytes: &mut Vec<u8>, values: &[u16], encoding: Encoding) {
    bytes.extend(values.iter().flat_map(|value| if encoding.big { value.to_be_bytes() } else { value.to_le_bytes() }));
}

fn length(bytes: &mut Vec<u8>, value: u32, encoding: Encoding) {
    bytes.extend(if encoding.big { value.to_be_bytes() } else { value.to_le_bytes() });
}

/// The tag, value representation and length of an element.
fn header(bytes: &mut Vec<u8>, tag: Tag, vr: &[u8; 2], value: u32, encoding: Encoding) {
    numbers(bytes, &[tag.0, tag.1], encoding);
    if !encoding.explicit {
        return length(bytes, value, encoding);
    }
    match u16::try_from(value) {
        Ok(value) if !LONG.contains(vr) => {
            bytes.extend(vr);
            numbers(bytes, &[value], encoding);
        }
        _ => {
            // What is too long for its representation stands without one.
            bytes.extend(if LONG.contains(vr) { vr } else { b"UN" });
            numbers(bytes, &[0], encoding);
            length(bytes, value, encoding);
        }
    }
}

/// Preamble and file meta information.
pub(super) fn start(class: &str, instance: &str, transfer: &str) -> Vec<u8> {
    let mut meta = Elements::default();
    meta.bytes(tags::FILE_META_INFORMATION_VERSION, &[0, 1])
        .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, b"UI", class)
        .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", instance)
        .text(tags::TRANSFER_SYNTAX_UID, b"UI", transfer)
        .text(tags::IMPLEMENTATION_CLASS_UID, b"UI", "2.25.205866098425917303124816420381973265211")
        .text(tags::IMPLEMENTATION_VERSION_NAME, b"SH", "TOMOGRAD");
    let meta = meta.encoded(syntax::EXPLICIT);
    let mut length = Elements::default();
    length.long(tags::FILE_META_INFORMATION_GROUP_LENGTH, &[meta.len() as u32]);
    [&[0; 128][..], b"DICM", &length.encoded(syntax::EXPLICIT), &meta].concat()
}

/// A number in at most 16 letters, as precise as they allow.
fn decimal(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() <= 16 {
        return plain;
    }
    let shorter = |text: String| if text.len() <= 16 { Some(text) } else { None };
    // First plain, then with an exponent.
    let plain = (0..15).rev().find_map(|digits| shorter(format!("{value:.digits$}")));
    let precise = |text: &String| text.parse::<f64>().is_ok_and(|read| (read - value).abs() <= 1e-9 * value.abs());
    plain
        .filter(precise)
        .or_else(|| (0..15).rev().find_map(|digits| shorter(format!("{value:.digits$e}"))))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn decimals_are_short_and_precise() {
        for value in
            [0.0, 1.0, -0.5, 1.0 / 3.0, -123456.789_012_345_67, 1e-12 / 3.0, -1e20 / 3.0, 1e308, f64::MIN_POSITIVE]
        {
            let text = decimal(value);
            let read: f64 = text.parse().unwrap();
            assert!(text.len() <= 16 && (read - value).abs() <= 1e-8 * value.abs(), "{value} {text}");
        }
    }
}
