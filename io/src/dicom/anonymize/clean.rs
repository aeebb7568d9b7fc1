//! Free texts without what identifies somebody.

use std::collections::BTreeSet;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_encoding::text::{SpecificCharacterSet, TextCodec};

use super::{
    super::{dataset::Value, view::View},
    profile,
};

/// Words shorter than this aren't looked for.
const SHORTEST: usize = 3;
/// Digits in a row, from this number on, are a date, a telephone number or an identifier.
const DIGITS: usize = 5;
/// What stands in the place of a word.
const GONE: &str = "*";

/// The words of a data set that identify somebody, in lower case, and how its texts are encoded.
#[derive(Default)]
pub(super) struct Words {
    words: BTreeSet<String>,
    characters: SpecificCharacterSet,
}

impl Words {
    /// The words of all texts that the profile takes out and that aren't descriptions themselves: names, identifiers, addresses.
    pub(super) fn of(view: View<'_>) -> Self {
        let code = view.raw(tags::SPECIFIC_CHARACTER_SET);
        let code = code.map_or(String::new(), |(code, ..)| String::from_utf8_lossy(code).into_owned());
        let code = code.split('\\').next().unwrap_or_default().trim_matches([' ', '\0']);
        let characters = SpecificCharacterSet::from_code(code).unwrap_or_default();
        let mut words = Self { words: BTreeSet::new(), characters };
        words.collect(view);
        words
    }

    fn collect(&mut self, view: View<'_>) {
        for (&tag, element) in &view.set.elements {
            if let Value::Items(_) = element.value {
                view.items(tag).for_each(|item| self.collect(item));
                continue;
            }
            let named = profile::rule(tag)
                .is_some_and(|rule| !rule.options.descriptions && !rule.options.dates && !rule.options.device)
                && [b"AE", b"LO", b"PN", b"SH", b"ST", b"LT", b"UT", b"UC"].contains(&&element.vr);
            if named && let Some(text) = self.decoded(view, tag) {
                let parts = text.split(|letter: char| !letter.is_alphanumeric()).map(str::to_lowercase);
                self.words.extend(parts.filter(|word| word.chars().count() >= SHORTEST));
            }
        }
    }

    fn decoded(&self, view: View<'_>, tag: Tag) -> Option<String> {
        self.characters.decode(view.raw(tag)?.0).ok()
    }

    /// A text without these words, dates and long numbers, as it is encoded; `None` if nothing of it is left.
    pub(super) fn cleaned(&self, view: View<'_>, tag: Tag) -> Option<Vec<u8>> {
        let text = self.decoded(view, tag)?;
        let text = self.clean(text.trim_matches([' ', '\0']));
        let something = text.chars().any(char::is_alphanumeric);
        something.then(|| self.characters.encode(&text).ok()).flatten()
    }

    fn clean(&self, text: &str) -> String {
        let mut clean = String::new();
        for piece in text.split_inclusive(|letter: char| letter.is_whitespace() || "^\\,;()".contains(letter)) {
            let body = piece.trim_end_matches(|letter: char| letter.is_whitespace() || "^\\,;()".contains(letter));
            let end = piece.get(body.len()..).unwrap_or_default();
            let digits = body.bytes().filter(u8::is_ascii_digit).count();
            let dated = digits >= 4 && body.bytes().all(|letter| letter.is_ascii_digit() || b".-/:".contains(&letter));
            if digits >= DIGITS || dated {
                clean.push_str(GONE);
            } else {
                for part in body.split_inclusive(|letter: char| !letter.is_alphanumeric()) {
                    let word = part.trim_end_matches(|letter: char| !letter.is_alphanumeric());
                    let known = self.words.contains(&word.to_lowercase());
                    clean.push_str(if known { GONE } else { word });
                    clean.push_str(part.get(word.len()..).unwrap_or_default());
                }
            }
            clean.push_str(end);
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_dates_and_numbers_go() {
        let words = ["doe", "jane", "meier", "clinic"].map(str::to_owned).into();
        let words = Words { words, ..Words::default() };
        for (before, after) in [
            ("CT abdomen for DOE, Jane", "CT abdomen for *, *"),
            ("Doe^Jane 1970-01-31 T2 3mm", "*^* * T2 3mm"),
            ("seen by Dr.Meier (12.03.98)", "seen by Dr.* (*)"),
            ("MRN4711081, 512 x 512", "*, 512 x 512"),
            ("t1_mprage_sag_p2_iso_1.0", "t1_mprage_sag_p2_iso_1.0"),
        ] {
            assert_eq!(words.clean(before), after);
        }
    }
}
