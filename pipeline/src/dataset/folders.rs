//! Cases in folders of files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tomograd_core::{Error, ErrorKind, Result};
use tomograd_io::Format;

use super::{Case, Source};

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Name, "dataset", what)
}

/// The cases of `images/` and `labels/`, or of nnU-Net's `imagesTr/` and `labelsTr/`, with `classes` classes.
pub(super) fn pairs(folder: &Path, suffixes: Option<&[String]>, classes: usize) -> Result<Vec<Case>> {
    let named = ["images", "labels"].map(|part| folder.join(part));
    let [images, labels] = match suffixes.is_some() && !named[0].exists() && folder.join("imagesTr").exists() {
        true => ["imagesTr", "labelsTr"].map(|part| folder.join(part)),
        false => named,
    };
    let images: BTreeMap<String, Vec<PathBuf>> = match suffixes {
        None => files(&images)?.into_iter().map(|(name, path)| (name, vec![path])).collect(),
        Some(suffixes) => channels(&images, suffixes)?,
    };
    let mut labels = files(&labels)?;
    let alone = |path: &Path, partner: &str| {
        wrong(format!("{} has no {partner}", path.display()))
            .expected("files of the same names in the folders of images and of labels")
    };
    let pair = |(name, image): (String, Vec<PathBuf>)| match (labels.remove(&name), image.first()) {
        (None, Some(image)) => Err(alone(image, "label")),
        (label, _) => {
            let label = label.map(|path| ("label".to_owned(), Source::Label { path, classes }));
            Ok(Case::new(name, [("image".to_owned(), Source::Image(image))].into_iter().chain(label)))
        }
    };
    let cases = images.into_iter().map(pair).collect::<Result<_>>()?;
    match labels.values().next() {
        Some(label) => Err(alone(label, "image")),
        None => Ok(cases),
    }
}

/// The channel files of each case. Without suffixes, they are numbered as in nnU-Net: `case_0000`, `case_0001`, ...
fn channels(folder: &Path, suffixes: &[String]) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for (name, path) in files(folder)? {
        let numbered = || {
            let (case, number) = name.rsplit_once('_')?;
            (number.len() == 4 && number.bytes().all(|digit| digit.is_ascii_digit())).then_some((case, number))
        };
        let declared =
            || suffixes.iter().find_map(|suffix| Some((name.strip_suffix(suffix.as_str())?, suffix.as_str())));
        let split = if suffixes.is_empty() { numbered() } else { declared() };
        let Some((case, channel)) = split.filter(|(case, _)| !case.is_empty()) else {
            let expected = match suffixes {
                [] => "the name of a case and the number of a channel: case_0000".to_owned(),
                all => format!("the name of a case and one of {}", all.join(", ")),
            };
            return Err(wrong(format!("{} is of no channel", path.display())).expected(expected));
        };
        found.entry(case.to_owned()).or_default().insert(channel.to_owned(), path);
    }
    let wanted: Vec<String> = match suffixes {
        [] => {
            let most = found.values().map(BTreeMap::len).max().unwrap_or(0);
            (0..most).map(|number| format!("{number:04}")).collect()
        }
        all => all.to_vec(),
    };
    let of_case = |(case, mut paths): (String, BTreeMap<String, PathBuf>)| {
        let channel = |suffix: &String| {
            paths.remove(suffix).ok_or_else(|| {
                wrong(format!("case {case:?} has no channel {suffix}")).expected(format!(
                    "one file each in {}: {}",
                    folder.display(),
                    wanted.join(", ")
                ))
            })
        };
        let files = wanted.iter().map(channel).collect::<Result<Vec<_>>>()?;
        match paths.into_values().next() {
            Some(path) => Err(wrong(format!("{} is of no channel", path.display()))
                .expected(format!("the channels {}", wanted.join(", ")))),
            None => Ok((case, files)),
        }
    };
    found.into_iter().map(of_case).collect()
}

/// The cases of a folder with one subfolder per class, and the class names.
pub(super) fn classes(folder: &Path) -> Result<(Vec<Case>, Vec<String>)> {
    let failed = |error| Error::io("read folder", folder.display(), error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            readable(&name, &entry.path())?;
            names.push(name);
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(Error::argument("dataset", format!("no folders in {}", folder.display())).expected("one a class"));
    }
    let mut cases = Vec::new();
    for (class, name) in names.iter().enumerate() {
        for (case, path) in files(&folder.join(name))? {
            let fields = [
                ("image".to_owned(), Source::Image(vec![path])),
                ("class".to_owned(), Source::Value(crate::Field::Class(class as i64))),
            ];
            cases.push(Case::new(format!("{name}/{case}"), fields));
        }
    }
    Ok((cases, names))
}

fn readable(name: &str, path: &Path) -> Result<()> {
    if name.contains(char::REPLACEMENT_CHARACTER) {
        return Err(
            wrong(format!("{} has a name that isn't UTF-8", path.display())).expected("a name that can be read")
        );
    }
    Ok(())
}

/// The files of a folder by case name, without hidden files and without the voxel file (`.img`) of a header (`.hdr`).
pub(super) fn files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let failed = |error| Error::io("read folder", folder.display(), error);
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy()).filter(|name| !name.starts_with('.'))
        else {
            continue;
        };
        readable(&name, &path)?;
        let case = case_name(&name).to_string();
        match files.get(&case).map(|other| (other.clone(), pair(other, &path))) {
            None => _ = files.insert(case, path),
            Some((_, Some(header))) => _ = files.insert(case, header),
            Some((other, None)) => {
                return Err(wrong(format!("two files for case {case:?}")).expected(format!(
                    "one of {} and {}",
                    other.display(),
                    path.display()
                )));
            }
        }
    }
    if files.is_empty() {
        return Err(Error::argument("dataset", format!("no files in {}", folder.display())));
    }
    Ok(files)
}

/// All files of a path: a header (`.hdr`) has its voxels in another file with the same name.
pub(super) fn parts(path: &Path) -> Result<Vec<PathBuf>> {
    if !matches!(ending(path).as_deref(), Some("hdr" | "img")) {
        return Ok(vec![path.to_path_buf()]);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error| Error::io("read folder", folder.display(), error);
    let name = |path: &Path| path.file_name().map(|name| case_name(&name.to_string_lossy()).to_owned());
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let other = entry.map_err(failed)?.path();
        if name(&other) == name(path) && matches!(ending(&other).as_deref(), Some("hdr" | "img")) {
            parts.push(other);
        }
    }
    parts.sort();
    Ok(parts)
}

/// The extension of a file name in lower case, ignoring a trailing `.gz`.
fn ending(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map(|(_, ending)| ending.to_owned())
}

/// The header of two files, if they are a pair of header and voxels.
fn pair(first: &Path, second: &Path) -> Option<PathBuf> {
    match (ending(first)?.as_str(), ending(second)?.as_str()) {
        ("hdr", "img") => Some(first.into()),
        ("img", "hdr") => Some(second.into()),
        _ => None,
    }
}

/// The name of a case: that of a file without the ending of its format, or without its extension if that is another one.
pub(super) fn case_name(file: &str) -> &str {
    match Format::stem(file) {
        stem if stem.len() < file.len() => stem,
        _ => file.rsplit_once('.').map_or(file, |(stem, _)| stem),
    }
}
