//! The values of elements: texts, numbers and sequences.

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};
use tomograd_core::Result;

use super::{
    dataset::{DataSet, Element, Value, name},
    fail,
};

/// A data set with the bytes that its values are in.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) set: &'a DataSet,
}

impl<'a> View<'a> {
    /// The bytes of a value, its representation, and whether numbers are big endian; `None` if it isn't there or is empty.
    pub(super) fn raw(self, tag: Tag) -> Option<(&'a [u8], [u8; 2], bool)> {
        let element = self.set.elements.get(&tag)?;
        let Value::Bytes(place) = &element.value else { return None };
        let bytes = self.bytes.get(place.clone())?;
        (!bytes.is_empty()).then_some((bytes, element.vr, self.set.big))
    }

    pub(super) fn has(self, tag: Tag) -> bool {
        self.set.elements.contains_key(&tag)
    }

    /// The items of a sequence.
    pub(super) fn items(self, tag: Tag) -> impl Iterator<Item = View<'a>> {
        let items: &[DataSet] = match self.set.elements.get(&tag) {
            Some(Element { value: Value::Items(items), .. }) => items,
            _ => &[],
        };
        items.iter().map(move |set| View { set, ..self })
    }

    /// The first item of a sequence.
    pub(super) fn first(self, tag: Tag) -> Option<View<'a>> {
        self.items(tag).next()
    }

    /// A text without padding, in the data set's character set; `None` if it isn't there or is blank. What can't be decoded
    /// becomes U+FFFD.
    pub(super) fn text(self, tag: Tag) -> Option<String> {
        let (bytes, ..) = self.raw(tag)?;
        let code = self.raw(tags::SPECIFIC_CHARACTER_SET).map(|(code, ..)| String::from_utf8_lossy(code).into_owned());
        let code = code.unwrap_or_default();
        // The first of several, without code extensions.
        let code = code.split('\\').next().unwrap_or_default().trim_matches([' ', '\0']);
        let set = SpecificCharacterSet::from_code(code).unwrap_or_default();
        let text = set.decode(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned());
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// The values of a text with several.
    pub(super) fn texts(self, tag: Tag) -> Vec<String> {
        self.text(tag).map_or(Vec::new(), |text| text.split('\\').map(|part| part.trim().to_owned()).collect())
    }

    /// The numbers of a value, whatever their representation; none if it isn't there or is blank.
    ///
    /// # Errors
    /// When they aren't numbers.
    pub(super) fn numbers(self, tag: Tag) -> Result<Vec<f64>> {
        fn all<const N: usize>(bytes: &[u8], big: bool, number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let turned = |part: &[u8; N]| {
                let mut part = *part;
                if big {
                    part.reverse();
                }
                number(part)
            };
            bytes.as_chunks::<N>().0.iter().map(turned).collect()
        }
        let Some((bytes, vr, big)) = self.raw(tag) else { return Ok(Vec::new()) };
        Ok(match &vr {
            b"US" | b"OW" => all(bytes, big, |part| u16::from_le_bytes(part).into()),
            b"SS" => all(bytes, big, |part| i16::from_le_bytes(part).into()),
            b"UL" | b"OL" => all(bytes, big, |part| u32::from_le_bytes(part).into()),
            b"SL" => all(bytes, big, |part| i32::from_le_bytes(part).into()),
            b"FL" | b"OF" => all(bytes, big, |part| f32::from_le_bytes(part).into()),
            b"FD" | b"OD" => all(bytes, big, f64::from_le_bytes),
            b"UV" | b"OV" => all(bytes, big, |part| u64::from_le_bytes(part) as f64),
            b"SV" => all(bytes, big, |part| i64::from_le_bytes(part) as f64),
            _ => {
                let text = String::from_utf8_lossy(bytes);
                let text = text.trim_matches([' ', '\0']);
                if text.is_empty() {
                    return Ok(Vec::new());
                }
                let number = |part: &str| {
                    let part = part.trim_matches([' ', '\0']);
                    part.parse::<f64>().ok().filter(|number| number.is_finite())
                };
                let parsed: Option<Vec<f64>> = text.split('\\').map(number).collect();
                parsed.ok_or_else(|| {
                    let text: String = text.chars().take(40).collect();
                    fail(format!("{} is {text:?}", name(tag))).expected("numbers")
                })?
            }
        })
    }

    /// The first number of a value.
    ///
    /// # Errors
    /// When it isn't one.
    pub(super) fn number(self, tag: Tag) -> Result<Option<f64>> {
        Ok(self.numbers(tag)?.first().copied())
    }

    /// The first number, where one that isn't there or isn't a number doesn't matter.
    pub(super) fn maybe(self, tag: Tag) -> Option<f64> {
        self.number(tag).ok().flatten()
    }

    /// A whole number from 0 to `most`.
    ///
    /// # Errors
    /// When it is another number.
    pub(super) fn count(self, tag: Tag, most: usize) -> Result<Option<usize>> {
        let Some(number) = self.number(tag)? else { return Ok(None) };
        if number.fract() != 0.0 || !(0.0..=most as f64).contains(&number) {
            return Err(fail(format!("{} is {number}", name(tag))).expected(format!("a whole number up to {most}")));
        }
        Ok(Some(number as usize))
    }

    /// Exactly `N` numbers, all finite.
    ///
    /// # Errors
    /// When there are some, but not as many.
    pub(super) fn exactly<const N: usize>(self, tag: Tag) -> Result<Option<[f64; N]>> {
        let numbers = self.numbers(tag)?;
        if numbers.is_empty() {
            return Ok(None);
        }
        match <[f64; N]>::try_from(numbers.as_slice()) {
            Ok(numbers) if numbers.iter().all(|number| number.is_finite()) => Ok(Some(numbers)),
            _ => Err(fail(format!("{} is {numbers:?}", name(tag))).expected(format!("{N} finite numbers"))),
        }
    }
}
