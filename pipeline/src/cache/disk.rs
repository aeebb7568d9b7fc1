//! The disk cache of cases.

use std::{
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};

use tomograd_core::{Error, Result};
use tomograd_io::{
    digest::{Sha256, hexadecimal},
    write_atomically,
};

use super::{Statistics, content::Contents, failed, format, locked};
use crate::Sample;

/// A part of every key: another value invalidates all files.
const FORMAT: &str = "1";
/// The extension of cache files.
const ENDING: &str = "case";
/// The lock file; it contains an upper bound of the total bytes of the cache files.
const LOCK: &str = ".sizes";

/// Everything that determines a cached case.
pub(crate) struct Key {
    parts: Vec<Part>,
    /// A custom component whose version isn't known, if any.
    unknown: Option<&'static str>,
}

enum Part {
    Text(&'static str, String),
    File(PathBuf),
}

impl Key {
    pub(crate) fn new() -> Self {
        Self { parts: Vec::new(), unknown: None }
    }

    pub(crate) fn text(&mut self, what: &'static str, text: impl Display) -> &mut Self {
        self.parts.push(Part::Text(what, text.to_string()));
        self
    }

    /// Numbers, by their digest.
    pub(crate) fn numbers(&mut self, what: &'static str, numbers: &[f64]) {
        let mut digest = Sha256::new();
        numbers.chunks(512).for_each(|part| {
            digest.update(&part.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
        });
        self.text(what, hexadecimal(&digest.finish()));
    }

    pub(crate) fn files(&mut self, paths: Vec<PathBuf>) {
        self.parts.extend(paths.into_iter().map(Part::File));
    }

    /// Records that the case depends on a custom component, which needs a version.
    pub(crate) fn unknown(&mut self, what: &'static str) {
        self.unknown = Some(what);
    }
}

pub(crate) struct Disk {
    folder: PathBuf,
    budget: u64,
    version: Option<String>,
    statistics: Mutex<Statistics>,
    contents: Contents,
}

impl Disk {
    /// Creates the folder, and removes cases beyond the budget.
    pub(super) fn open(folder: PathBuf, budget: u64, version: Option<String>) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(failed(folder.display()))?;
        let contents = Contents::open(&folder);
        let disk = Self { folder, budget, version, statistics: Mutex::default(), contents };
        let mut size_file = disk.lock()?;
        let bytes = disk.make_room(budget)?;
        disk.note(&mut size_file, bytes)?;
        drop(size_file);
        Ok(disk)
    }

    pub(super) fn statistics(&self) -> Statistics {
        *locked(&self.statistics)
    }

    pub(super) fn get(&self, key: &Key, load: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
        let name = self.name(key)?;
        let path = self.folder.join(format!("{name}.{ENDING}"));
        if let Some(sample) = kept(&path) {
            locked(&self.statistics).hits += 1;
            return Ok(sample);
        }
        locked(&self.statistics).misses += 1;
        let sample = load()?;
        // A file that changed since its digest was taken has been read in one state and named in another.
        if self.name(key)? == name {
            self.keep(&path, &sample)?;
        }
        Ok(sample)
    }

    /// The file name: the digest of everything that determines a case.
    fn name(&self, key: &Key) -> Result<String> {
        if let (Some(what), None) = (key.unknown, &self.version) {
            return Err(Error::argument("cache", format!("what {what} does isn't known to a cache on disk"))
                .expected("Cache::version with a text that says it, and changes when it does"));
        }
        let mut digest = Sha256::new();
        // With the length before each part, keys are equal only if all their parts are.
        let mut feed = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        let order = if cfg!(target_endian = "little") { "little" } else { "big" };
        for text in [FORMAT, env!("CARGO_PKG_VERSION"), order, self.version.as_deref().unwrap_or_default()] {
            feed(text.as_bytes());
        }
        for part in &key.parts {
            match part {
                Part::Text(what, text) => {
                    feed(what.as_bytes());
                    feed(text.as_bytes());
                }
                Part::File(path) => feed(self.contents.digest(path)?.as_bytes()),
            }
        }
        Ok(hexadecimal(&digest.finish()))
    }

    /// Locks the folder against other threads and processes until the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.folder.join(LOCK);
        let fail = || failed(path.display());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail())?;
        file.lock().map_err(fail())?;
        Ok(file)
    }

    /// The cases in the folder with the time of the last use and the size; needs the lock. Temporary files that an
    /// interrupted process has left are removed.
    fn cases(&self) -> Result<Vec<(SystemTime, PathBuf, u64)>> {
        let fail = || failed(self.folder.display());
        let mut cases = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(fail())? {
            let entry = entry.map_err(fail())?;
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "tmp") {
                // No other process can be writing, because this one holds the lock.
                remove(&path)?;
            } else if path.extension().is_some_and(|ending| ending == ENDING)
                && let Ok(about) = entry.metadata()
            {
                cases.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), path, about.len()));
            }
        }
        Ok(cases)
    }

    /// Writes a case, if the budget suffices after evicting the least recently used ones.
    fn keep(&self, path: &Path, sample: &Sample) -> Result<()> {
        let bytes = format::length(sample)?;
        if bytes > self.budget {
            return Ok(());
        }
        let mut size_file = self.lock()?;
        // Another process may have written it in the meantime; a damaged file is removed first.
        if kept(path).is_some() {
            return Ok(());
        }
        remove(path)?;
        let room = self.budget - bytes;
        let mut text = String::new();
        let noted = size_file.read_to_string(&mut text).ok().and_then(|_| text.parse::<u64>().ok());
        let total = match noted.filter(|noted| *noted <= room) {
            Some(noted) => noted,
            None => self.make_room(room)?,
        };
        // Recorded before the file exists: if the process ends in between, the total is too large, and the next full count
        // corrects it.
        self.note(&mut size_file, total + bytes)?;
        write_atomically(path, |writer| format::write(sample, writer))
            .map_err(|error| error.within(format!("cache of {} bytes in {}", self.budget, self.folder.display())))
    }

    /// Evicts the least recently used cases until the others take at most `most` bytes; returns their total size.
    fn make_room(&self, most: u64) -> Result<u64> {
        let mut cases = self.cases()?;
        cases.sort();
        let mut total = cases.iter().map(|(_, _, bytes)| bytes).sum::<u64>();
        for (_, path, bytes) in cases {
            if total <= most {
                break;
            }
            remove(&path)?;
            total -= bytes;
        }
        Ok(total)
    }

    /// Records the total size of the cases.
    fn note(&self, size_file: &mut File, bytes: u64) -> Result<()> {
        let write = |size_file: &mut File| {
            size_file.set_len(0)?;
            size_file.seek(SeekFrom::Start(0))?;
            size_file.write_all(bytes.to_string().as_bytes())
        };
        write(size_file).map_err(failed(LOCK))?;
        let mut statistics = locked(&self.statistics);
        statistics.bytes = bytes;
        statistics.most = statistics.most.max(bytes);
        Ok(())
    }
}

/// Reads the case of a file, if it exists and is intact, and marks it as used.
fn kept(path: &Path) -> Option<Sample> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // If the time can't be set, the case is only evicted earlier.
    _ = file.set_modified(SystemTime::now());
    format::read(&mut BufReader::with_capacity(1 << 16, file), length).ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path.display())(error)),
        _ => Ok(()),
    }
}
