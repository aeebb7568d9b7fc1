//! Errors for unknown names of fields, columns and cases.

use tomograd_core::{Error, ErrorKind};

/// The error for an unknown `name`; it lists the known ones and the most similar one.
pub(crate) fn unknown<'a>(operation: &str, what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    const SHOWN: usize = 20;
    let known: Vec<&str> = known.into_iter().collect();
    let error = Error::new(ErrorKind::Name, operation, format!("no {what} is called {name:?}"));
    let Some(nearest) = known.iter().min_by_key(|other| distance(name, other)) else {
        return error.expected(format!("there is no {what} at all"));
    };
    let mut list = known.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN {
        list += &format!(" and {} more", known.len() - SHOWN);
    }
    error.expected(format!("one of {list} (nearest: {nearest})"))
}

/// The edit distance (Levenshtein): the number of characters to change, insert or delete.
fn distance(a: &str, b: &str) -> usize {
    // Only the first 64 characters are compared.
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_said() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!((distance("", "abc"), distance("abc", ""), distance("a", "a")), (3, 3, 0));
        let error = unknown("sample", "field", "lable", ["image", "label"]).to_string();
        assert!(
            error.contains("no field is called \"lable\"") && error.contains("one of image, label (nearest: label)")
        );
        assert!(unknown("sample", "field", "a", []).to_string().contains("no field at all"));
        let many: Vec<String> = (0..30).map(|i| format!("case_{i}")).collect();
        let error = unknown("dataset", "case", "case_299", many.iter().map(String::as_str)).to_string();
        assert!(error.contains("and 10 more (nearest: case_29)"), "{error}");
    }
}
