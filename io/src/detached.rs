//! Data files that a header names.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use tomograd_core::{Error, Result};

/// The path of the file `name`, which a header in `folder` names.
///
/// # Errors
/// When it would be outside of the folder (`..`, an absolute path, a link that leads away), or isn't a plain file.
pub(crate) fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let wrong = || {
        Error::format("volume", format!("a header whose data is in {name:?}"))
            .expected("a file in the header's folder or below it; a header isn't followed elsewhere")
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let relative = Path::new(name);
    let goes_down = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !goes_down || name.is_empty() {
        return Err(wrong());
    }
    let path = folder.join(relative);
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| Error::io("volume", path.display(), error));
    if !real(&path)?.starts_with(real(folder)?) {
        return Err(wrong());
    }
    if !path.is_file() {
        return Err(Error::format("volume", format!("{} isn't a plain file", path.display())).expected("voxels"));
    }
    Ok(path)
}

/// The data files that a header names: `NAME`; `PATTERN FIRST LAST [STEP [AXES]]`; or `LIST [AXES]`, with the names in `list`.
/// `AXES` is how many of the `sizes`, from the first, a file holds; all but the last, unless it is said.
///
/// # Errors
/// When there are more files than the sizes say, or fewer.
pub(crate) fn files(field: &str, list: Vec<String>, sizes: &[usize]) -> Result<Vec<String>> {
    let wrong = |what: String, expected: String| Error::format("volume", what).expected(expected);
    let wanted = |axes: Option<&&str>| {
        let rank = sizes.len();
        // `2` or, in MetaImage, `2D`.
        let axes = axes.map_or(Some(rank.saturating_sub(1)), |axes| axes.trim_end_matches(['D', 'd']).parse().ok());
        let outer = axes.filter(|axes| (1..=rank).contains(axes)).and_then(|axes| sizes.get(axes..));
        let count = outer.and_then(|outer| outer.iter().try_fold(1usize, |all, &size| all.checked_mul(size)));
        count.ok_or_else(|| wrong(format!("data in {field:?}"), format!("files of 1 to {rank} axes")))
    };
    let words: Vec<&str> = field.split_whitespace().collect();
    let (wanted, names) = match words[..] {
        ["LIST", ref rest @ ..] => (wanted(rest.first())?, list),
        [pattern, first, last, ref rest @ ..] if pattern.contains('%') => {
            let wanted = wanted(rest.get(1))?;
            let step = rest.first().copied().unwrap_or("1");
            let [Some(first), Some(last), Some(step)] = [first, last, step].map(|number| number.parse::<i64>().ok())
            else {
                return Err(wrong(format!("data in {field:?}"), "PATTERN FIRST LAST STEP".to_owned()));
            };
            (wanted, numbered(pattern, first, last, step, wanted)?)
        }
        _ => return Ok(vec![field.to_owned()]),
    };
    if names.len() != wanted {
        return Err(wrong(format!("{} data files", names.len()), format!("{wanted}, as the sizes say")));
    }
    Ok(names)
}

/// The name of a data file, as a header can say it.
///
/// # Errors
/// When it would be read as something else.
pub(crate) fn name(data: &Path) -> Result<&str> {
    let name = data.file_name().and_then(|name| name.to_str()).filter(|name| name.trim() == *name);
    let name = name.filter(|name| !name.contains(char::is_control) && !name.contains('%') && !name.starts_with("LIST"));
    name.ok_or_else(|| {
        Error::argument("volume", format!("{} can't be named in a header", data.display()))
            .expected("a name of plain letters")
    })
}

/// The names that a pattern with one `%d` (`slice%03d.raw`) gives for `first`, `first + step`, ... up to `last`; at most
/// `most`.
///
/// # Errors
/// When the pattern has another form, or there are none, or more.
fn numbered(pattern: &str, first: i64, last: i64, step: i64, most: usize) -> Result<Vec<String>> {
    let wrong = |what: String, expected: &str| Error::format("volume", what).expected(expected);
    let parts = pattern.split_once('%').and_then(|(before, rest)| {
        let (width, after) = rest.split_once('d')?;
        let zeros = width.starts_with('0');
        let width = if width.is_empty() { 0 } else { width.parse::<usize>().ok().filter(|&width| width <= 32)? };
        (!after.contains('%')).then_some((before, zeros, width, after))
    });
    let (before, zeros, width, after) = parts
        .ok_or_else(|| wrong(format!("the pattern {pattern:?} of file names"), "one %d, with a width or without"))?;
    let upward = if step >= 0 { last >= first } else { last <= first };
    let count = last.abs_diff(first).checked_div(step.unsigned_abs()).and_then(|steps| steps.checked_add(1));
    let count = count.filter(|&count| upward && count <= most as u64).ok_or_else(|| {
        let what = format!("file names numbered from {first} to {last} in steps of {step}");
        wrong(what, &format!("1 to {most}, as the sizes say"))
    })?;
    Ok((0..count)
        .map(|i| {
            // Between `first` and `last`, so that nothing overflows.
            let number = first.saturating_add(step.saturating_mul(i64::try_from(i).unwrap_or(i64::MAX)));
            let number = if zeros { format!("{number:0width$}") } else { format!("{number:width$}") };
            format!("{before}{number}{after}")
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        let names = |pattern, first, last, step| numbered(pattern, first, last, step, 4);
        assert_eq!(names("a%03d.raw", 8, 10, 1).unwrap(), ["a008.raw", "a009.raw", "a010.raw"]);
        assert_eq!(names("%d", 3, -1, -2).unwrap(), ["3", "1", "-1"]);
        for (pattern, first, last, step) in [
            ("a", 1, 2, 1),
            ("%d%d", 1, 2, 1),
            ("%s", 1, 2, 1),
            ("%999d", 1, 2, 1),
            ("%d", 1, 5, 1),
            ("%d", 1, 2, 0),
            ("%d", 2, 1, 1),
            ("%d", i64::MIN, i64::MAX, 1),
            ("%d", 1, 2, i64::MIN),
        ] {
            assert!(names(pattern, first, last, step).is_err(), "{pattern} {first} {last} {step}");
        }
    }

    #[test]
    fn a_header_leads_only_into_its_own_folder() {
        let folder = std::env::temp_dir().join(format!("tomograd-detached-{}", std::process::id()));
        let (own, below) = (folder.join("own"), folder.join("own/below"));
        fs::create_dir_all(&below).unwrap();
        for path in [folder.join("secret"), own.join("a.raw"), below.join("b.raw")] {
            fs::write(path, b"data").unwrap();
        }
        assert_eq!(inside(&own, "a.raw").unwrap(), own.join("a.raw"));
        assert_eq!(inside(&own, "./below/b.raw").unwrap(), own.join("below/b.raw"));
        let absolute = own.join("a.raw");
        for name in ["", ".", "below", "absent", "../secret", "below/../../secret", "/etc/passwd", "a\0", "/"] {
            assert!(inside(&own, name).is_err(), "{name}");
        }
        assert!(inside(&own, absolute.to_str().unwrap()).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.join("secret"), own.join("link")).unwrap();
            assert!(inside(&own, "link").unwrap_err().to_string().contains("isn't followed"));
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
