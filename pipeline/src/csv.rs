//! A strict parser of comma-separated values (RFC 4180).

use std::collections::HashSet;

use tomograd_core::{Error, Result};

/// The rows of a text. Fields are separated by commas, rows by line feeds with or without a carriage return. A quoted field
/// may contain all of these, and doubled quotes. The names in the first row must be unique.
///
/// # Errors
/// When a row has a different number of fields than the first, a name is repeated, a quote is inside an unquoted field, a
/// quoted field isn't closed, or something follows its closing quote. The error has the row and the column, both starting at
/// 1.
pub(crate) fn parse(text: &str) -> Result<Vec<Vec<String>>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows: Vec<Vec<String>> = Vec::new();
    while !rest.is_empty() {
        let mut row = Vec::new();
        loop {
            let wrong = |what: &str, expected: &str| {
                let place = format!("row {}, column {}", rows.len() + 1, row.len() + 1);
                Error::format("csv", what).expected(expected).within(place)
            };
            let (field, after) = match rest.strip_prefix('"') {
                Some(quoted) => {
                    quoted_field(quoted).ok_or_else(|| wrong("a quote without an end", "a second quote"))?
                }
                None => {
                    let end = rest.find([',', '\n', '\r']).unwrap_or(rest.len());
                    let (field, after) = rest.split_at(end);
                    if field.contains('"') {
                        return Err(wrong("a quote within a field", "the whole field within quotes, its own doubled"));
                    }
                    (field.to_owned(), after)
                }
            };
            let (end, after) = match (after.strip_prefix(','), after.strip_prefix("\r\n").or(after.strip_prefix('\n')))
            {
                (Some(after), _) => (false, after),
                (_, Some(after)) => (true, after),
                _ if after.is_empty() => (true, after),
                _ => return Err(wrong("something behind the field", "a comma or the end of the row")),
            };
            row.push(field);
            rest = after;
            if end {
                break;
            }
        }
        let expected = rows.first().map_or(row.len(), Vec::len);
        if row.len() != expected {
            return Err(Error::format("csv", format!("{} fields", row.len()))
                .expected(format!("{expected}, as the first row has"))
                .within(format!("row {}", rows.len() + 1)));
        }
        let mut names = HashSet::new();
        if rows.is_empty()
            && let Some(at) = (0..row.len()).find(|&at| !names.insert(&row[at]))
        {
            return Err(Error::format("csv", format!("a second column {:?}", row[at]))
                .expected("different names")
                .within(format!("row 1, column {}", at + 1)));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A quoted field up to its closing quote, and the rest of the text.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_quoted_is_read(rows in proptest::collection::vec(proptest::collection::vec("[a,\"\r\n é]{0,6}", 3), 0..5)) {
            let header = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
            let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
            let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let line = |row: &Vec<String>| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n";
            prop_assert_eq!(parse(&rows.iter().map(line).collect::<String>()).unwrap(), rows);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ab,\"\r\n\u{feff}é]{0,40}") {
            if let Ok(rows) = parse(&text) {
                prop_assert!(rows.iter().all(|row| row.len() == rows[0].len()));
            }
        }
    }

    #[test]
    fn fields_are_read_as_they_are_meant() {
        let rows = parse("\u{feff}a,\"b \"\"c\"\"\",\r\n1,\"x,\ny\",3\n,,").unwrap();
        assert_eq!(rows, [vec!["a", "b \"c\"", ""], vec!["1", "x,\ny", "3"], vec!["", "", ""]]);
        assert!(parse("").unwrap().is_empty());
        assert_eq!(parse("a\n\n1").unwrap(), [["a"], [""], ["1"]]);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        for (text, part) in [
            ("a,b\n1\n", "row 2: csv: 1 fields; expected 2"),
            ("a,b\n1,2,3", "row 2: csv: 3 fields"),
            ("a,b\n\n", "row 2: csv: 1 fields"),
            ("a,b\n1,\"2", "row 2, column 2: csv: a quote without an end"),
            ("a,b\n1\"2,3", "row 2, column 1: csv: a quote within a field"),
            ("a,b\n\"1\"2,3", "row 2, column 1: csv: something behind the field"),
            ("a,b\r1,2", "row 1, column 2: csv: something behind the field"),
            ("a,b,a\n", "row 1, column 3: csv: a second column \"a\""),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(part), "{text:?}: {error}");
        }
    }
}
