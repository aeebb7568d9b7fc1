//! File names of a pair: header `NAME.hdr` and voxels `NAME.img`, each optionally with `.gz` appended.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The header file and the voxel file, each as the candidate paths in the order in which they are tried.
#[derive(Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) header: Vec<PathBuf>,
    pub(super) image: Vec<PathBuf>,
}

/// The files of the pair to which `path` belongs; `None` for another extension. Both files are in one folder and differ in
/// the extension only, since neither file names the other.
pub(super) fn files(path: &Path) -> Option<Pair> {
    let gz = path.extension().filter(|ending| ending.eq_ignore_ascii_case("gz")).map(OsString::from);
    let plain = if gz.is_some() { path.with_extension("") } else { path.to_path_buf() };
    let ending = plain.extension()?.to_str()?.to_owned();
    let is_header = ending.eq_ignore_ascii_case("hdr");
    if !is_header && !ending.eq_ignore_ascii_case("img") {
        return None;
    }
    let other = match (is_header, ending == ending.to_ascii_uppercase()) {
        (true, false) => "img",
        (true, true) => "IMG",
        (false, false) => "hdr",
        (false, true) => "HDR",
    };
    let other = plain.with_extension(other);
    let with = |ending: &str| {
        let mut name = other.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    // The candidate with the same compression comes first.
    let others = match gz.as_ref().and_then(|gz| gz.to_str()) {
        Some(gz) => vec![with(&format!(".{gz}")), other.clone()],
        None => vec![other.clone(), with(".gz")],
    };
    let this = vec![path.to_path_buf()];
    Some(if is_header { Pair { header: this, image: others } } else { Pair { header: others, image: this } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pairs() {
        let pair = |path: &str| {
            files(Path::new(path)).map(|pair| {
                let text = |paths: Vec<PathBuf>| {
                    paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
                };
                (text(pair.header), text(pair.image))
            })
        };
        let some = |header: &str, image: &str| Some((header.to_owned(), image.to_owned()));
        assert_eq!(pair("a/b.c.hdr"), some("a/b.c.hdr", "a/b.c.img a/b.c.img.gz"));
        assert_eq!(pair("b.img"), some("b.hdr b.hdr.gz", "b.img"));
        assert_eq!(pair("b.img.gz"), some("b.hdr.gz b.hdr", "b.img.gz"));
        assert_eq!(pair("B.HDR.GZ"), some("B.HDR.GZ", "B.IMG.GZ B.IMG"));
        for name in ["a.nii", "a.nii.gz", "hdr", ".hdr", "a.img.bz2", "a", "", ".."] {
            assert_eq!(pair(name), None, "{name}");
        }
    }
}
