//! Siemens' own header (CSA), as far as it says what isn't in DICOM's attributes.

use dicom_core::Tag;

use super::view::View;

/// Fields that a header may have; more are damage.
const MOST_FIELDS: u32 = 1024;
/// Items that a field may have.
const MOST_ITEMS: u32 = 4096;

/// The texts of a field in the header of the image (0029,xx10), version 2; none if there is no such header or field.
pub(super) fn field(root: View<'_>, name: &str) -> Vec<String> {
    let blocks = (0x10..=0xFFu16).filter(|&block| {
        root.raw(Tag(0x29, block)).is_some_and(|(creator, ..)| creator.starts_with(b"SIEMENS CSA HEADER"))
    });
    let mut headers = blocks.filter_map(|block| root.raw(Tag(0x29, block << 8 | 0x10)));
    headers.next().and_then(|(bytes, ..)| find(bytes, name)).unwrap_or_default()
}

/// The numbers of a field; none if one isn't a number.
pub(super) fn numbers(root: View<'_>, name: &str) -> Vec<f64> {
    let numbers: Option<Vec<f64>> = field(root, name)
        .iter()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse::<f64>().ok().filter(|number| number.is_finite()))
        .collect();
    numbers.unwrap_or_default()
}

/// The items of a field: `SV10`, four bytes, the number of fields, 77, and fields of a name (64 bytes), multiplicity, representation,
/// syngo's type, number of items, and a mark; items of four lengths, of which the second holds, and text padded to four bytes.
fn find(bytes: &[u8], name: &str) -> Option<Vec<String>> {
    let mut at = 8usize;
    if !bytes.starts_with(b"SV10") {
        return None;
    }
    let number = |at: usize| {
        let part = bytes.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*part))
    };
    let fields = number(at).filter(|&fields| fields <= MOST_FIELDS)?;
    at += 8;
    for _ in 0..fields {
        let own = bytes.get(at..at.checked_add(64)?)?;
        let own = own.split(|&byte| byte == 0).next().unwrap_or_default();
        let items = number(at.checked_add(76)?).filter(|&items| items <= MOST_ITEMS)?;
        at = at.checked_add(84)?;
        let mut texts = Vec::new();
        for _ in 0..items {
            let length = number(at.checked_add(4)?)? as usize;
            at = at.checked_add(16)?;
            let text = bytes.get(at..at.checked_add(length)?)?;
            if own == name.as_bytes() {
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                texts.push(String::from_utf8_lossy(text).trim().to_owned());
            }
            at = at.checked_add(length.checked_next_multiple_of(4)?)?;
        }
        if own == name.as_bytes() {
            return Some(texts);
        }
    }
    None
}

/// Whether the group 0019 is that of Siemens' MR header.
pub(super) fn has_mr_header(root: View<'_>) -> bool {
    root.raw(Tag(0x19, 0x10)).is_some_and(|(creator, ..)| creator.starts_with(b"SIEMENS MR HEADER"))
}

#[cfg(test)]
#[path = "../../tests/common/dicom.rs"]
mod files;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_and_damage_is_none() {
        let bytes = files::csa(&[("A", &["1", "22222"]), ("B", &[]), ("B_value", &["1000 "])]);
        assert_eq!(find(&bytes, "A").unwrap(), ["1", "22222"]);
        assert_eq!(find(&bytes, "B").unwrap(), [] as [&str; 0]);
        assert_eq!(find(&bytes, "B_value").unwrap(), ["1000"]);
        assert_eq!(find(&bytes, "C"), None);
        for end in 0..bytes.len() {
            assert_eq!(find(&bytes[..end], "C"), None);
        }
        let mut claims = bytes.clone();
        claims[20 + 76 - 4] = 0xFF;
        claims[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(find(&claims, "A"), None);
    }
}
