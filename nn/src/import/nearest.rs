//! Suggestions for misspelt names.

/// Only this many characters of a name are compared.
const MOST: usize = 120;
/// Only this many candidates are compared.
const CANDIDATES: usize = 2000;

/// The candidate most similar to `name`, if any is similar enough.
pub(super) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let inside = |other: &str| other.ends_with(name) || name.ends_with(other);
    let like = candidates.iter().take(CANDIDATES).map(|&other| (!inside(other), distance(name, other), other));
    let (inside, distance, found) = like.min_by_key(|&(inside, distance, _)| (inside, distance))?;
    (!inside || 2 * distance <= name.len().max(found.len()).min(MOST)).then_some(found)
}

/// The edit distance: insertions, deletions and replacements of characters (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(MOST).collect(), b.chars().take(MOST).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        let names = ["module.conv.weight", "conv.bias", "fc.weight"];
        assert_eq!(nearest("conv.weight", &names), Some("module.conv.weight"));
        assert_eq!(nearest("conv.bia", &names), Some("conv.bias"));
        assert_eq!(nearest("zzz", &names), None);
        assert_eq!(nearest("a", &[]), None);
    }
}
