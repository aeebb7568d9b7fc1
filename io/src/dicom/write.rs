//! Writes data sets: explicit little endian, texts in UTF-8.

use dicom_core::Tag;
use dicom_dictionary_std::tags;

/// A data set in the making; elements may come in any order.
#[derive(Default)]
pub(super) struct Elements(Vec<(Tag, Vec<u8>)>);

impl Elements {
    /// An element of these bytes, which are padded to an even number.
    fn put(&mut self, tag: Tag, vr: &[u8; 2], value: &[u8]) {
        let padding = if vr == b"UI" || vr == b"OB" { 0 } else { b' ' };
        let odd = value.len() % 2;
        let length = value.len().saturating_add(odd);
        let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        bytes.extend(vr);
        if [b"OB", b"OW", b"SQ", b"UT"].contains(&vr) {
            bytes.extend([0, 0]);
            bytes.extend((length as u32).to_le_bytes());
        } else {
            bytes.extend((length as u16).to_le_bytes());
        }
        bytes.extend(value);
        bytes.extend(std::iter::repeat_n(padding, odd));
        self.0.push((tag, bytes));
    }

    /// A text.
    pub(super) fn text(&mut self, tag: Tag, vr: &[u8; 2], value: &str) -> &mut Self {
        self.put(tag, vr, value.as_bytes());
        self
    }

    /// Numbers of 16 bits.
    pub(super) fn short(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.put(tag, b"US", &value.to_le_bytes());
        self
    }

    /// Numbers of 32 bits.
    pub(super) fn long(&mut self, tag: Tag, values: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.put(tag, b"UL", &bytes);
        self
    }

    /// The tag of another element.
    pub(super) fn pointer(&mut self, tag: Tag, to: Tag) -> &mut Self {
        self.put(tag, b"AT", &[to.0.to_le_bytes(), to.1.to_le_bytes()].concat());
        self
    }

    /// Decimal numbers of at most 16 letters each.
    pub(super) fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let values: Vec<String> = values.iter().map(|&value| decimal(value)).collect();
        self.text(tag, b"DS", &values.join("\\"))
    }

    pub(super) fn bytes(&mut self, tag: Tag, value: &[u8]) -> &mut Self {
        self.put(tag, b"OB", value);
        self
    }

    pub(super) fn sequence(&mut self, tag: Tag, items: Vec<Elements>) -> &mut Self {
        let mut inside = Vec::new();
        for item in items {
            let item = item.encoded();
            inside.extend([0xFE, 0xFF, 0x00, 0xE0]);
            inside.extend((item.len() as u32).to_le_bytes());
            inside.extend(item);
        }
        self.put(tag, b"SQ", &inside);
        self
    }

    fn encoded(mut self) -> Vec<u8> {
        self.0.sort_by_key(|(tag, _)| *tag);
        self.0.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    /// The bytes of a file of this object.
    pub(super) fn file(self, class: &str, instance: &str) -> Vec<u8> {
        let mut meta = Self::default();
        meta.bytes(tags::FILE_META_INFORMATION_VERSION, &[0, 1])
            .text(tags::MEDIA_STORAGE_SOP_CLASS_UID, b"UI", class)
            .text(tags::MEDIA_STORAGE_SOP_INSTANCE_UID, b"UI", instance)
            .text(tags::TRANSFER_SYNTAX_UID, b"UI", "1.2.840.10008.1.2.1")
            .text(tags::IMPLEMENTATION_CLASS_UID, b"UI", "2.25.205866098425917303124816420381973265211")
            .text(tags::IMPLEMENTATION_VERSION_NAME, b"SH", "TOMOGRAD");
        let meta = meta.encoded();
        let mut length = Self::default();
        length.long(tags::FILE_META_INFORMATION_GROUP_LENGTH, &[meta.len() as u32]);
        [&[0; 128][..], b"DICM", &length.encoded(), &meta, &self.encoded()].concat()
    }
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
