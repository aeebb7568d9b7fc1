//! The rules of the basic application level confidentiality profile (PS3.15, table E.1-1).

use std::{collections::BTreeMap, sync::OnceLock};

use dicom_core::Tag;

/// What the basic profile does with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// X: removed.
    Remove,
    /// Z, and X/Z, where removing could break the object: emptied.
    Empty,
    /// D, and Z/D, X/D and X/Z/D, where removing or emptying could: replaced by a dummy.
    Replace,
    /// U: another UID, the same for the same.
    Uid,
    /// X/Z/U of sequences of references: kept, with other UIDs inside.
    References,
}

/// What the profile's options do with an attribute.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) uids: bool,
    pub(super) device: bool,
    /// Kept with the device's identity, but cleaned.
    pub(super) device_cleaned: bool,
    pub(super) institution: bool,
    pub(super) patient: bool,
    pub(super) patient_cleaned: bool,
    pub(super) dates: bool,
    pub(super) descriptions: bool,
    pub(super) structured: bool,
}

/// The rule of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) action: Action,
    pub(super) options: Options,
}

/// The lines of `profile.txt`: group, action, options (u UIDs, v device, i institution, p patient characteristics, t dates and
/// times, d descriptions, s structured content; V and P: kept cleaned), elements. Actions of edition 2026c, options of 2024e.
const TABLE: &str = include_str!("profile.txt");

/// The rule of an attribute; `None` if the profile leaves it alone.
pub(super) fn rule(tag: Tag) -> Option<Rule> {
    // Curves and overlays, whose groups repeat.
    if matches!(tag.0 & 0xFF01, 0x5000 | 0x6000) {
        return Some(Rule { action: Action::Remove, options: Options::default() });
    }
    static RULES: OnceLock<BTreeMap<Tag, Rule>> = OnceLock::new();
    RULES.get_or_init(|| rules(TABLE)).get(&tag).copied()
}

fn rules(table: &str) -> BTreeMap<Tag, Rule> {
    let mut rules = BTreeMap::new();
    for line in table.lines() {
        let mut parts = line.split(' ');
        let hexadecimal = |text: &str| u16::from_str_radix(text, 16).ok();
        let (Some(group), Some(action), Some(options)) =
            (parts.next().and_then(hexadecimal), parts.next(), parts.next())
        else {
            continue;
        };
        let action = match action {
            "X" => Action::Remove,
            "Z" | "X/Z" => Action::Empty,
            "U" => Action::Uid,
            "X/Z/U" => Action::References,
            _ => Action::Replace,
        };
        let has = |letter: char| options.contains(letter);
        let options = Options {
            uids: has('u'),
            device: has('v'),
            device_cleaned: has('V'),
            institution: has('i'),
            patient: has('p'),
            patient_cleaned: has('P'),
            dates: has('t'),
            descriptions: has('d'),
            structured: has('s'),
        };
        rules.extend(parts.filter_map(hexadecimal).map(|element| (Tag(group, element), Rule { action, options })));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_rule() {
        let words: usize = TABLE.lines().map(|line| line.split(' ').count() - 3).sum();
        assert_eq!((rules(TABLE).len(), words), (652, 652));
        assert!(TABLE.lines().all(|line| {
            let parts: Vec<&str> = line.split(' ').collect();
            ["X", "Z", "D", "U", "X/Z", "X/D", "Z/D", "X/Z/D", "X/Z/U"].contains(&parts[1])
                && parts[2].chars().all(|letter| "-uvVipPtds".contains(letter))
        }));
        let name = rule(Tag(0x10, 0x10)).unwrap();
        assert!(name.action == Action::Empty && !name.options.patient);
        let date = rule(Tag(8, 0x20)).unwrap();
        assert!(date.action == Action::Empty && date.options.dates);
        assert!(rule(Tag(0x6002, 0x3000)).is_some() && rule(Tag(0x28, 0x10)).is_none());
    }
}
