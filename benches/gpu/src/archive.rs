//! Files that travel at the end of the program: for each the length of its name, its name, its length and its bytes, all of this compressed
//! by zlib, and last the length of the compressed bytes and a mark. A program without a mark has none.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Component, Path},
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use tomograd_core::{Error, ErrorKind, Result};

const MARK: &[u8; 16] = b"tomograd archive";
/// The length of what follows the files.
const END: u64 = 8 + MARK.len() as u64;
/// No archive is larger.
const LARGEST: u64 = 256 << 20;

/// Files by name, in the order in which they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive(Vec<(String, Vec<u8>)>);

impl Archive {
    /// Adds a file; names have `/` between folders.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.push((name.to_owned(), bytes));
    }

    /// Adds every file of a folder on disk and of the folders in it, as `NAME/…`.
    ///
    /// # Errors
    /// When a file can't be read, or has a name that isn't text.
    pub fn add_folder(&mut self, name: &str, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).map_err(|error| Error::io("read", folder.display(), error))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(|error| Error::io("read", folder.display(), error)))
            .collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let last = path
                .file_name()
                .and_then(|name| name.to_str())
                .ok_or_else(|| Error::argument("archive", format!("{} has a name that isn't text", path.display())))?;
            let name = format!("{name}/{last}");
            match path.is_dir() {
                true => self.add_folder(&name, &path)?,
                false => self.add(&name, fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?),
            }
        }
        Ok(())
    }

    /// The bytes of a file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, bytes)| &bytes[..])
    }

    /// The files whose names begin with `prefix`, without it.
    pub fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().filter_map(move |(name, bytes)| Some((name.strip_prefix(prefix)?, &bytes[..])))
    }

    /// Writes the files under `prefix` into a folder on disk.
    ///
    /// # Errors
    /// When a name leads out of the folder, or a file can't be written.
    pub fn extract(&self, prefix: &str, folder: &Path) -> Result<()> {
        for (name, bytes) in self.under(prefix) {
            let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            if !plain || name.is_empty() {
                return Err(Error::new(ErrorKind::Format, "archive", format!("a file called {name:?}")));
            }
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(|error| Error::io("write", parent.display(), error))?;
            fs::write(&path, bytes).map_err(|error| Error::io("write", path.display(), error))?;
        }
        Ok(())
    }

    /// Appends the archive to a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn append_to(&self, path: &Path) -> Result<()> {
        let mut body = Vec::new();
        for (name, bytes) in &self.0 {
            body.extend((name.len() as u64).to_le_bytes());
            body.extend(name.as_bytes());
            body.extend((bytes.len() as u64).to_le_bytes());
            body.extend(bytes);
        }
        let append = || {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&body)?;
            let mut packed = encoder.finish()?;
            packed.extend((packed.len() as u64).to_le_bytes());
            packed.extend(MARK);
            fs::OpenOptions::new().append(true).open(path)?.write_all(&packed)
        };
        append().map_err(|error| Error::io("write", path.display(), error))
    }

    /// The archive at the end of a file; an empty one if it has none.
    ///
    /// # Errors
    /// When the file can't be read, or has the mark and no archive before it.
    pub fn at_end_of(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Option<Vec<u8>>> {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            if length < END {
                return Ok(None);
            }
            let (mut size, mut mark) = ([0; 8], [0; MARK.len()]);
            file.seek(SeekFrom::Start(length - END))?;
            file.read_exact(&mut size)?;
            file.read_exact(&mut mark)?;
            let size = u64::from_le_bytes(size);
            if mark != *MARK {
                return Ok(None);
            }
            let start = (length - END).checked_sub(size).filter(|_| size <= LARGEST);
            let start = start.ok_or_else(|| std::io::Error::other(format!("an archive of {size} bytes")))?;
            file.seek(SeekFrom::Start(start))?;
            let mut body = Vec::new();
            // More than that is none of ours.
            ZlibDecoder::new(file.take(size)).take(LARGEST).read_to_end(&mut body)?;
            Ok(Some(body))
        };
        match read().map_err(|error| Error::io("read", path.display(), error))? {
            Some(body) => Self::parse(&body).ok_or_else(|| {
                Error::new(ErrorKind::Format, "archive", format!("the archive of {} is damaged", path.display()))
            }),
            None => Ok(Self::default()),
        }
    }

    fn parse(mut body: &[u8]) -> Option<Self> {
        let part = |body: &mut &[u8]| -> Option<Vec<u8>> {
            let (length, rest) = body.split_first_chunk::<8>()?;
            let (bytes, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            *body = rest;
            Some(bytes.to_vec())
        };
        let mut archive = Self::default();
        while !body.is_empty() {
            let name = String::from_utf8(part(&mut body)?).ok()?;
            archive.0.push((name, part(&mut body)?));
        }
        Some(archive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("tomograd-gpu-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_is_appended_is_found() {
        let path = file("archive");
        let mut archive = Archive::default();
        archive.add("a/b.txt", b"first".to_vec());
        archive.add("empty", Vec::new());
        archive.add("a/ü", vec![0, 1, 255]);
        fs::write(&path, b"a program").unwrap();
        assert_eq!(Archive::at_end_of(&path).unwrap(), Archive::default());
        archive.append_to(&path).unwrap();
        let found = Archive::at_end_of(&path).unwrap();
        assert_eq!(found, archive);
        assert_eq!(found.get("empty"), Some(&[][..]));
        assert_eq!(found.under("a/").map(|(name, _)| name).collect::<Vec<_>>(), ["b.txt", "ü"]);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let path = file("damaged");
        fs::write(&path, b"program").unwrap();
        let mut archive = Archive::default();
        archive.add("name", b"content".to_vec());
        archive.append_to(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut errors = 0;
        for place in 0..whole.len() {
            for bit in [1, 0x80] {
                let mut bytes = whole.clone();
                bytes[place] ^= bit;
                fs::write(&path, &bytes).unwrap();
                match Archive::at_end_of(&path) {
                    // The program's own bytes don't matter, nor do bits that fill up the last byte of the compressed ones; without its mark
                    // it is none.
                    Ok(found) if place >= whole.len() - MARK.len() => {
                        assert_eq!(found, Archive::default(), "byte {place}")
                    }
                    Ok(found) => assert_eq!(found, archive, "byte {place}"),
                    Err(_) => errors += 1,
                }
            }
        }
        assert!(errors > whole.len() / 2, "{errors} errors");
        fs::write(&path, &whole[1..]).unwrap();
        assert_eq!(Archive::at_end_of(&path).unwrap(), archive);
        fs::write(&path, &whole[8..]).unwrap();
        assert!(Archive::at_end_of(&path).is_err());
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn no_file_leaves_the_folder() {
        let folder = file("folder");
        for name in ["../outside", "/absolute", "a/../../b", ""] {
            let mut archive = Archive::default();
            archive.add(&format!("data/{name}"), Vec::new());
            assert!(archive.extract("data/", &folder).is_err(), "{name}");
        }
        let mut archive = Archive::default();
        archive.add("data/a/b", b"x".to_vec());
        archive.extract("data/", &folder).unwrap();
        assert_eq!(fs::read(folder.join("a/b")).unwrap(), b"x");
        let mut again = Archive::default();
        again.add_folder("data", &folder).unwrap();
        assert_eq!(again, archive);
        fs::remove_dir_all(&folder).unwrap();
    }
}
