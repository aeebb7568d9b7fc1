//! Coded terms.

use dicom_dictionary_std::tags;
use tomograd_core::Result;

use super::{object::check_text, view::View, write::Elements};

/// A coded term, such as `(10200004, SCT, Liver)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// The code, such as `85756007`.
    pub value: String,
    /// The scheme that defines it, such as `SCT` for SNOMED CT.
    pub scheme: String,
    /// What it means, such as `Tissue`.
    pub meaning: String,
}

impl Code {
    /// A coded term.
    pub fn new(value: impl Into<String>, scheme: impl Into<String>, meaning: impl Into<String>) -> Self {
        Self { value: value.into(), scheme: scheme.into(), meaning: meaning.into() }
    }

    pub(super) fn item(&self) -> Elements {
        let mut item = Elements::default();
        item.text(tags::CODE_VALUE, b"SH", &self.value).text(tags::CODING_SCHEME_DESIGNATOR, b"SH", &self.scheme).text(
            tags::CODE_MEANING,
            b"LO",
            &self.meaning,
        );
        item
    }

    /// The code of an item; what isn't there is empty.
    pub(super) fn of(item: View<'_>) -> Self {
        let text = |tag| item.text(tag).unwrap_or_default();
        let value =
            [tags::CODE_VALUE, tags::LONG_CODE_VALUE, tags::URN_CODE_VALUE].into_iter().find_map(|tag| item.text(tag));
        Self::new(value.unwrap_or_default(), text(tags::CODING_SCHEME_DESIGNATOR), text(tags::CODE_MEANING))
    }

    pub(super) fn check(&self) -> Result<()> {
        check_text("code", &self.value, 16)?;
        check_text("coding scheme", &self.scheme, 16)?;
        check_text("meaning", &self.meaning, 64)
    }
}
