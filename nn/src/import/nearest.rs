//! Suggestions for misspelt names.

use tomograd_core::edit_distance;

/// Only this many characters of a name are compared.
const MOST: usize = 120;
/// Only this many candidates are compared.
const CANDIDATES: usize = 2000;

/// The candidate most similar to `name`, if any is similar enough.
pub(super) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let first = |name: &str| name.chars().take(MOST).collect::<String>();
    let inside = |other: &str| other.ends_with(name) || name.ends_with(other);
    let like = candidates
        .iter()
        .take(CANDIDATES)
        .map(|&other| (!inside(other), edit_distance(&first(name), &first(other)), other));
    let (inside, distance, found) = like.min_by_key(|&(inside, distance, _)| (inside, distance))?;
    (!inside || 2 * distance <= name.len().max(found.len()).min(MOST)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        let names = ["module.conv.weight", "conv.bias", "fc.weight"];
        assert_eq!(nearest("conv.weight", &names), Some("module.conv.weight"));
        assert_eq!(nearest("conv.bia", &names), Some("conv.bias"));
        assert_eq!(nearest("zzz", &names), None);
        assert_eq!(nearest("a", &[]), None);
    }
}
