//! The split of cases into training and validation.

use std::{fs, path::Path};

use tomograd_core::{Error, Result};

use crate::report::write_text;

/// The names of the training and validation cases.
///
/// ```
/// use tomograd_pipeline::Split;
/// let names: Vec<String> = (0..10).map(|i| format!("case_{i}")).collect();
/// let split = Split::fixed(&names);
/// assert_eq!((split.train.len(), &split.validation[..]), (8, &["case_4".to_owned(), "case_9".to_owned()][..]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Training cases.
    pub train: Vec<String>,
    /// Validation cases.
    pub validation: Vec<String>,
}

impl Split {
    /// A deterministic split: of the sorted unique names, those with index % 5 == 4 are for validation.
    pub fn fixed(names: &[String]) -> Self {
        let mut sorted = names.to_vec();
        sorted.sort();
        // A duplicate could otherwise be in both parts.
        sorted.dedup();
        let (validation, train) = sorted.into_iter().enumerate().partition::<Vec<_>, _>(|(index, _)| index % 5 == 4);
        let names = |part: Vec<(usize, String)>| part.into_iter().map(|(_, name)| name).collect();
        Self { train: names(train), validation: names(validation) }
    }

    /// Reads a file with lines `train NAME` and `validation NAME`; empty lines and lines that start with `#` are ignored.
    ///
    /// ```
    /// use tomograd_pipeline::Split;
    /// # let path = std::env::temp_dir().join(format!("tomograd-split-doc-{}", std::process::id()));
    /// std::fs::write(&path, "# the official split\ntrain a\ntrain b\nvalidation c\n").unwrap();
    /// let split = Split::read(&path)?;
    /// assert_eq!((split.train, split.validation), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the file can't be read, another line occurs, or a name occurs twice.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| Error::io("read split", path.display(), error))?;
        Self::parse(&text).map_err(|error| error.within(path.display().to_string()))
    }

    /// Reads the split as [`Split::read`]; without that file, returns the [fixed](Split::fixed) split of `names`.
    ///
    /// # Errors
    /// As [`Split::read`], if the file exists.
    pub fn read_or_fixed(path: impl AsRef<Path>, names: &[String]) -> Result<Self> {
        if path.as_ref().exists() { Self::read(path) } else { Ok(Self::fixed(names)) }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut split = Self::default();
        let lines = text.lines().map(str::trim).enumerate();
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |what: &str| Error::format("split", format!("line {}: {what} {line:?}", number + 1));
            let name = match line.split_once(char::is_whitespace) {
                Some((part @ ("train" | "validation"), name)) => (part, name.trim().to_string()),
                _ => return Err(wrong("can't read").expected("`train NAME` or `validation NAME`")),
            };
            if split.train.contains(&name.1) || split.validation.contains(&name.1) {
                return Err(wrong("a name given twice in").expected("each case once"));
            }
            if name.0 == "train" { split.train.push(name.1) } else { split.validation.push(name.1) }
        }
        Ok(split)
    }

    /// Writes the split in the format of [`Split::read`].
    ///
    /// # Errors
    /// When a name occurs twice or can't be written on one line, or the file can't be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let lines = |part: &str, names: &[String]| names.iter().map(|n| format!("{part} {n}\n")).collect::<String>();
        let text = lines("train", &self.train) + &lines("validation", &self.validation);
        if Self::parse(&text)? != *self {
            return Err(Error::argument("split", "a name that would be read as another")
                .expected("names without line breaks, and without spaces at their ends"));
        }
        write_text(path.as_ref(), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_case_validates() {
        let names: Vec<String> = (0..208).map(|i| format!("hippocampus_{i:03}")).collect();
        let split = Split::fixed(&names);
        assert_eq!((split.train.len(), split.validation.len()), (167, 41));
        assert_eq!(split.validation[1], "hippocampus_009");
    }

    #[test]
    fn each_name_is_on_one_side() {
        let names: Vec<String> = "aabbccddee".chars().map(String::from).collect();
        let split = Split::fixed(&names);
        assert_eq!((split.train.concat(), split.validation.concat()), ("abcd".into(), "e".into()));
    }

    #[test]
    fn what_is_written_is_read() {
        let path = std::env::temp_dir().join(format!("tomograd-split-{}.txt", std::process::id()));
        let of = |train: &[&str]| Split { train: train.iter().map(ToString::to_string).collect(), validation: vec![] };
        for names in [&["a", "b c", "#d"][..], &[]] {
            of(names).write(&path).unwrap();
            assert_eq!(Split::read_or_fixed(&path, &["z".into()]).unwrap(), of(names));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Split::read_or_fixed(&path, &["z".into()]).unwrap(), of(&["z"]));
        for names in [&["a", "a"][..], &["a\nb"], &["a\ntrain b"], &[" a"], &[""]] {
            assert!(of(names).write(&path).is_err(), "{names:?}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn bad_lines_are_named() {
        let split = Split::parse("# a comment\ntrain a\n\nvalidation b c\n").unwrap();
        assert_eq!((split.train, split.validation), (vec!["a".to_string()], vec!["b c".to_string()]));
        for (text, part) in [("train", "line 1"), ("train a\ntest b", "line 2"), ("train a\nvalidation a", "twice")] {
            let error = Split::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
