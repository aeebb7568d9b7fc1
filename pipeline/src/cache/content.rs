//! Digests of file contents, which are reused as long as the files don't change.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime},
};

use tomograd_core::Result;
use tomograd_io::digest::{Sha256, hexadecimal};

use super::{failed, locked};

/// The file in the cache folder that stores digests for later processes: each line has a digest, the mark of the file, and
/// its path.
const KEPT: &str = ".digests";
/// A file that was modified less than this ago could change again without a change of its timestamp, so that its digest isn't
/// stored. (FAT timestamps have a resolution of two seconds.)
const SETTLED: Duration = Duration::from_secs(3);

pub(super) struct Contents {
    kept: PathBuf,
    settled: Duration,
    known: Mutex<HashMap<PathBuf, (Mark, String)>>,
}

/// Metadata that changes whenever a file does: its length and modification time, and on Unix the device, inode and change
/// time, which no program can set back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark(String);

impl Mark {
    /// `None` for a file that was modified just now.
    fn of(about: &fs::Metadata, settled: Duration) -> Option<Self> {
        let now = SystemTime::now();
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).ok();
        let modified = about.modified().ok()?;
        let mut last = modified;
        let mut mark = format!("{} {}", about.len(), since_1970(modified)?.as_nanos());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let noted = Duration::new(about.ctime().try_into().ok()?, about.ctime_nsec().try_into().ok()?);
            last = last.max(SystemTime::UNIX_EPOCH + noted);
            write!(mark, " {} {} {}", about.dev(), about.ino(), noted.as_nanos()).ok()?;
        }
        (now.duration_since(last).ok()? >= settled).then_some(Self(mark))
    }
}

impl Contents {
    /// Loads the digests that are stored in a folder.
    pub(super) fn open(folder: &Path) -> Self {
        Self::settled(folder, SETTLED)
    }

    fn settled(folder: &Path, settled: Duration) -> Self {
        let kept = folder.join(KEPT);
        let text = fs::read(&kept).unwrap_or_default();
        let mut known = HashMap::new();
        // An incomplete line was written by a process that ended while writing.
        for line in String::from_utf8_lossy(&text).lines() {
            if let [digest, mark, path, "."] = line.split('\t').collect::<Vec<_>>()[..]
                && digest.len() == 64
            {
                known.insert(PathBuf::from(path), (Mark(mark.to_owned()), digest.to_owned()));
            }
        }
        Self { kept, settled, known: Mutex::new(known) }
    }

    /// The digest of a file's bytes in hexadecimal; of a folder (a DICOM series), that of its files' names and digests.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn digest(&self, path: &Path) -> Result<String> {
        let fail = || failed(path.display());
        let path = fs::canonicalize(path).map_err(fail())?;
        if path.is_dir() {
            let mut paths = Vec::new();
            for entry in fs::read_dir(&path).map_err(fail())? {
                paths.push(entry.map_err(fail())?.path());
            }
            paths.sort();
            let mut sha = Sha256::new();
            for path in paths {
                sha.update(path.file_name().unwrap_or_default().as_encoded_bytes());
                sha.update(b"/");
                sha.update(self.digest(&path)?.as_bytes());
            }
            return Ok(hexadecimal(&sha.finish()));
        }
        let mut file = File::open(&path).map_err(fail())?;
        let mark = |file: &File| Ok::<_, std::io::Error>(Mark::of(&file.metadata()?, self.settled));
        let before = mark(&file).map_err(fail())?;
        let known = || locked(&self.known);
        if let Some(mark) = &before
            && let Some((_, digest)) = known().get(&path).filter(|(known, _)| known == mark)
        {
            return Ok(digest.clone());
        }
        let (mut sha, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut buffer).map_err(fail())? {
                0 => break,
                count => sha.update(&buffer[..count]),
            }
        }
        let digest = hexadecimal(&sha.finish());
        // If the file changed while it was read, the marks differ, or it is too recent to have one.
        if let (Some(before), Some(after)) = (before, mark(&file).map_err(fail())?)
            && before == after
        {
            self.keep(&path, &after, &digest);
            known().insert(path, (after, digest.clone()));
        }
        Ok(digest)
    }

    /// Appends a digest to the stored ones. Errors are ignored, since the next process can compute the digest again.
    fn keep(&self, path: &Path, mark: &Mark, digest: &str) {
        let Some(path) = path.to_str().filter(|path| !path.contains(['\t', '\n', '\r'])) else { return };
        // A single append isn't interleaved with those of other processes.
        let line = format!("{digest}\t{}\t{path}\t.\n", mark.0);
        _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.kept)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_its_files() {
        let folder = std::env::temp_dir().join(format!("tomograd-content-folder-{}", std::process::id()));
        let series = folder.join("series");
        fs::create_dir_all(series.join("more")).unwrap();
        let contents = Contents::open(&folder);
        let mut seen = Vec::new();
        for (name, text) in [("b", "1"), ("a", "2"), ("a", "3"), ("more/c", "4"), ("more/c", "5")] {
            fs::write(series.join(name), text).unwrap();
            let digest = contents.digest(&series).unwrap();
            assert_eq!(contents.digest(&series).unwrap(), digest);
            assert!(!seen.contains(&digest), "{name}");
            seen.push(digest);
        }
        fs::rename(series.join("b"), series.join("d")).unwrap();
        assert!(!seen.contains(&contents.digest(&series).unwrap()));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_digest_holds_as_long_as_the_file_stays() {
        let folder = std::env::temp_dir().join(format!("tomograd-content-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let lines = || fs::read_to_string(folder.join(KEPT)).unwrap_or_default();

        // The digest of a file that was modified just now isn't stored.
        assert_eq!(Contents::open(&folder).digest(&path).unwrap(), abc);
        assert_eq!(lines(), "");
        std::thread::sleep(Duration::from_millis(30));
        let contents = Contents::settled(&folder, Duration::from_millis(20));
        assert_eq!(contents.digest(&path).unwrap(), abc);
        assert_eq!(lines().lines().count(), 1);
        // Later processes use the stored digest, as a false one shows.
        let false_one = "0".repeat(64);
        fs::write(folder.join(KEPT), lines().replace(abc, &false_one)).unwrap();
        let next = Contents::settled(&folder, Duration::from_millis(20));
        assert_eq!(next.digest(&path).unwrap(), false_one);
        // Until the file changes: its content, or the file at this path.
        fs::write(&path, "abd").unwrap();
        let other = next.digest(&path).unwrap();
        assert!(other != false_one && other != abc);
        fs::write(folder.join("b"), "abc").unwrap();
        fs::rename(folder.join("b"), &path).unwrap();
        assert_eq!(next.digest(&path).unwrap(), abc);
        // An incomplete line is ignored.
        fs::write(folder.join(KEPT), lines().replace("\t.\n", "")).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(Contents::settled(&folder, Duration::from_millis(20)).digest(&path).unwrap(), abc);
        assert!(next.digest(&folder.join("none")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
