//! Errors for unknown names of fields, columns and cases.

use tomograd_core::{Error, ErrorKind, edit_distance};

/// The error for an unknown `name`; it lists the known ones and the most similar one.
pub(crate) fn unknown<'a>(operation: &str, what: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    const SHOWN: usize = 20;
    let first = |name: &str| name.chars().take(64).collect::<String>();
    let known: Vec<&str> = known.into_iter().collect();
    let error = Error::new(ErrorKind::Name, operation, format!("no {what} is called {name:?}"));
    let Some(nearest) = known.iter().min_by_key(|other| edit_distance(&first(name), &first(other))) else {
        return error.expected(format!("there is no {what} at all"));
    };
    let mut list = known.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    if known.len() > SHOWN {
        list += &format!(" and {} more", known.len() - SHOWN);
    }
    error.expected(format!("one of {list} (nearest: {nearest})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_said() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!((edit_distance("", "abc"), edit_distance("abc", ""), edit_distance("a", "a")), (3, 3, 0));
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
