//! The digests of files' contents, which are kept as long as the files stay as they are.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tomograd_core::Result;

use super::{
    digest::{Sha256, hexadecimal},
    failed,
};

/// The file in a cache's folder that keeps digests for processes to come: in each line one, its file's mark, and its path.
const KEPT: &str = ".digests";
/// A file that was changed less long ago could change again within the same tick of its clock: its digest isn't kept. (FAT's
/// clock ticks every two seconds.)
const SETTLED: Duration = Duration::from_secs(3);

pub(super) struct Contents {
    kept: PathBuf,
    settled: Duration,
    known: Mutex<HashMap<PathBuf, (Mark, String)>>,
}

/// What changes whenever a file does: its length, when it was changed, and on Unix which file it is and when that was noted, which
/// no program can set back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark(String);

impl Mark {
    /// None for a file that was changed just now.
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
    /// With the digests that a folder keeps.
    pub(super) fn open(folder: &Path) -> Self {
        Self::settled(folder, SETTLED)
    }

    fn settled(folder: &Path, settled: Duration) -> Self {
        let kept = folder.join(KEPT);
        let text = fs::read(&kept).unwrap_or_default();
        let mut known = HashMap::new();
        // A line that isn't whole is of a process that ended while it wrote.
        for line in String::from_utf8_lossy(&text).lines() {
            if let [digest, mark, path, "."] = line.split('\t').collect::<Vec<_>>()[..]
                && digest.len() == 64
            {
                known.insert(PathBuf::from(path), (Mark(mark.to_owned()), digest.to_owned()));
            }
        }
        Self { kept, settled, known: Mutex::new(known) }
    }

    /// The digest of a file's bytes, in hexadecimal digits.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn digest(&self, path: &Path) -> Result<String> {
        let fail = || failed(path.display());
        let path = fs::canonicalize(path).map_err(fail())?;
        let mut file = File::open(&path).map_err(fail())?;
        let mark = |file: &File| Ok::<_, std::io::Error>(Mark::of(&file.metadata()?, self.settled));
        let before = mark(&file).map_err(fail())?;
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
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
        // A file that was changed while it was read has another mark now, or is too young for one.
        if let (Some(before), Some(after)) = (before, mark(&file).map_err(fail())?)
            && before == after
        {
            self.keep(&path, &after, &digest);
            known().insert(path, (after, digest.clone()));
        }
        Ok(digest)
    }

    /// Adds a digest to those that are kept. Without it, the next process computes it anew: a failure is none.
    fn keep(&self, path: &Path, mark: &Mark, digest: &str) {
        let Some(path) = path.to_str().filter(|path| !path.contains(['\t', '\n', '\r'])) else { return };
        // One write at the end of a file isn't mixed with those of other processes.
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
    fn a_digest_holds_as_long_as_the_file_stays() {
        let folder = std::env::temp_dir().join(format!("tomograd-content-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let lines = || fs::read_to_string(folder.join(KEPT)).unwrap_or_default();

        // A young file's isn't kept.
        assert_eq!(Contents::open(&folder).digest(&path).unwrap(), abc);
        assert_eq!(lines(), "");
        std::thread::sleep(Duration::from_millis(30));
        let contents = Contents::settled(&folder, Duration::from_millis(20));
        assert_eq!(contents.digest(&path).unwrap(), abc);
        assert_eq!(lines().lines().count(), 1);
        // Those to come believe what is kept, as a digest that isn't the file's shows.
        let false_one = "0".repeat(64);
        fs::write(folder.join(KEPT), lines().replace(abc, &false_one)).unwrap();
        let next = Contents::settled(&folder, Duration::from_millis(20));
        assert_eq!(next.digest(&path).unwrap(), false_one);
        // Until the file changes: its content, or the file of that name.
        fs::write(&path, "abd").unwrap();
        let other = next.digest(&path).unwrap();
        assert!(other != false_one && other != abc);
        fs::write(folder.join("b"), "abc").unwrap();
        fs::rename(folder.join("b"), &path).unwrap();
        assert_eq!(next.digest(&path).unwrap(), abc);
        // A line without its end is nobody's.
        fs::write(folder.join(KEPT), lines().replace("\t.\n", "")).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(Contents::settled(&folder, Duration::from_millis(20)).digest(&path).unwrap(), abc);
        assert!(next.digest(&folder.join("none")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
