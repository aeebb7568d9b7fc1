//! Names that nobody knows, and the one that was meant.

use crate::{Error, ErrorKind};

/// Names in a list of an error; the others are counted.
const MOST_LISTED: usize = 12;
/// Longer names are not compared: the comparison's time is the product of the lengths.
const LONGEST: usize = 200;

/// The error that there is no `what` called `name`, with the nearest of the `known` names and a list of these.
///
/// ```
/// use tomograd_core::unknown_name;
/// let error = unknown_name("features", "stage", "layr4", ["layer3", "layer4"]);
/// assert_eq!(
///     error.to_string(),
///     "features: no stage is called layr4, did you mean layer4?; expected one of layer3, layer4"
/// );
/// ```
#[cold]
pub fn unknown_name<'a>(
    operation: &str,
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> Error {
    let hint = nearest_name(name, known.clone()).map_or(String::new(), |near| format!(", did you mean {near}?"));
    let mut known = known.into_iter();
    let listed: Vec<&str> = known.by_ref().take(MOST_LISTED).collect();
    let expected = match (listed.len(), known.count()) {
        (0, _) => format!("none: there is no {what}"),
        (_, 0) => format!("one of {}", listed.join(", ")),
        (_, more) => format!("one of {} and {more} more", listed.join(", ")),
    };
    Error::new(ErrorKind::Name, operation, format!("no {what} is called {name}{hint}")).expected(expected)
}

/// The one of the `known` names that `name` was probably meant to be: at most a third of its characters must be inserted, left
/// out, replaced, or swapped with their neighbours (Damerau and Levenshtein's distance), capitals aside. The first of equally
/// near ones.
///
/// ```
/// use tomograd_core::nearest_name;
/// assert_eq!(nearest_name("width", ["in_channels", "widths"]), Some("widths"));
/// assert_eq!(nearest_name("dropout", ["in_channels", "widths"]), None);
/// ```
pub fn nearest_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = |text: &str| text.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect::<Vec<char>>();
    let name = letters(name);
    let most = (name.len() / 3).max(1);
    let distances = known.into_iter().map(|known| (distance(&name, &letters(known)), known));
    let fitting = distances.filter(|&(distance, _)| name.len() <= LONGEST && distance <= most);
    fitting.min_by_key(|&(distance, _)| distance).map(|(_, known)| known)
}

/// How many characters must be inserted, left out, replaced, or swapped with their neighbours to make one of the other (Damerau and
/// Levenshtein's distance). Time and memory are the product of the lengths.
///
/// ```
/// assert_eq!(tomograd_core::edit_distance("kitten", "sitting"), 3);
/// ```
pub fn edit_distance(a: &str, b: &str) -> usize {
    let [a, b] = [a, b].map(|text| text.chars().collect::<Vec<char>>());
    distance(&a, &b)
}

fn distance(a: &[char], b: &[char]) -> usize {
    // Row i has the distances of the first i characters of a from the first j of b.
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            row.push(if swapped { least.min(rows[i - 2][j - 2] + 1) } else { least });
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_the_least_changes() {
        for (a, b, expected) in
            [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0), ("imgae", "image", 1)]
        {
            let [a, b] = [a, b].map(|text| text.chars().collect::<Vec<char>>());
            assert_eq!((distance(&a, &b), distance(&b, &a)), (expected, expected));
        }
    }

    #[test]
    fn long_lists_and_names_stay_short() {
        let known: Vec<String> = (0..40).map(|k| format!("stage{k}")).collect();
        let text = unknown_name("x", "stage", &"y".repeat(100_000), known.iter().map(String::as_str)).to_string();
        assert!(text.ends_with("stage11 and 28 more"), "{}", &text[text.len() - 100..]);
        assert_eq!(
            unknown_name("x", "stage", "a", []).to_string(),
            "x: no stage is called a; expected none: there is no stage"
        );
    }
}
