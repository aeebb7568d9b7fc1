//! The cache of compiled kernels: a file for each key, written under a temporary name and then renamed, so that processes which
//! fill it together, or are killed, leave whole files or none. A file holds its key and a checksum, so a name that two keys
//! share, or a file that was damaged, counts as absent. What can't be written isn't kept: the cache never fails.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

const MAGIC: &[u8; 16] = b"tomograd cubin 1";
/// No compiled source is larger; a file that is isn't read.
const LARGEST: u64 = 256 << 20;

/// A folder of compiled kernels.
#[derive(Debug)]
pub(super) struct Cache(PathBuf);

/// FNV-1a with 64 bits.
fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// A digest of some bytes.
pub(super) fn digest(bytes: &[u8]) -> [u64; 2] {
    [hash(START, bytes), hash(!START, bytes)]
}

impl Cache {
    /// The cache of the user who runs the program: the folder `TOMOGRAD_CACHE` if that is set, otherwise `tomograd/cuda` in
    /// the system's folder of caches; `None` if the system names none.
    pub(super) fn of_user() -> Option<Self> {
        let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else {
            folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
        };
        folder("TOMOGRAD_CACHE").or_else(|| base.map(|base| base.join("tomograd/cuda"))).map(Self)
    }

    /// A cache in this folder.
    #[cfg(test)]
    fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn path(&self, key: &[u8]) -> PathBuf {
        let [first, second] = digest(key);
        self.0.join(format!("{first:016x}{second:016x}.cubin"))
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let path = self.path(key);
        if fs::metadata(&path).ok()?.len() > LARGEST {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (key_length, rest) = rest.split_first_chunk::<8>()?;
        let (sum, rest) = rest.split_first_chunk::<8>()?;
        let (its_key, value) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*key_length)).ok()?)?;
        (its_key == key && u64::from_le_bytes(*sum) == hash(START, value)).then(|| value.to_vec())
    }

    /// Keeps the value of `key`.
    pub(super) fn put(&self, key: &[u8], value: &[u8]) {
        let _ = self.write(key, value);
    }

    fn write(&self, key: &[u8], value: &[u8]) -> std::io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.0)?;
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let temporary = self.0.join(format!("{}-{number}.tmp", process::id()));
        let write = |path: &Path| {
            let mut file = fs::File::create_new(path)?;
            for part in [&MAGIC[..], &(key.len() as u64).to_le_bytes(), &hash(START, value).to_le_bytes(), key, value] {
                file.write_all(part)?;
            }
            file.sync_all()
        };
        let done = write(&temporary).and_then(|()| fs::rename(&temporary, self.path(key)));
        if done.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("tomograd-{name}-{}", process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn gives_what_was_put_and_nothing_else() {
        let folder = Folder::new("cache");
        let cache = Cache::at(&folder.0);
        assert_eq!(cache.get(b"a"), None, "no folder");
        cache.put(b"a", b"first");
        cache.put(b"b", b"");
        assert_eq!((cache.get(b"a"), cache.get(b"b")), (Some(b"first".to_vec()), Some(Vec::new())));
        cache.put(b"a", b"second");
        assert_eq!((cache.get(b"a"), cache.get(b"c")), (Some(b"second".to_vec()), None));
        let names: Vec<String> =
            fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.len() == 2 && names.iter().all(|name| name.ends_with(".cubin")), "{names:?}");
    }

    #[test]
    fn a_damaged_file_counts_as_absent() {
        let folder = Folder::new("damaged");
        let cache = Cache::at(&folder.0);
        cache.put(b"key", b"value");
        let path = cache.path(b"key");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(cache.get(b"key"), None, "{length} bytes");
        }
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.get(b"key"), None, "byte {place}");
        }
        // A file of another key with the same name.
        fs::write(&path, fs::read(&path).unwrap()).unwrap();
        cache.put(b"key", b"again");
        fs::copy(cache.path(b"key"), cache.path(b"other")).unwrap();
        assert_eq!((cache.get(b"other"), cache.get(b"key")), (None, Some(b"again".to_vec())));
    }

    #[test]
    fn many_threads_that_fill_it_leave_whole_files() {
        let folder = Folder::new("together");
        let cache = Cache::at(&folder.0);
        let value = |i: usize| vec![i as u8; 10_000];
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let cache = &cache;
                scope.spawn(move || {
                    for i in 0..50 {
                        cache.put(&[(i % 5) as u8], &value(i % 5));
                        let key = (i + thread) % 5;
                        assert!(cache.get(&[key as u8]).is_none_or(|bytes| bytes == value(key)));
                    }
                });
            }
        });
        assert!((0..5).all(|key| cache.get(&[key as u8]) == Some(value(key))));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 5);
    }

    #[test]
    fn a_folder_that_cant_be_written_is_no_error() {
        let folder = Folder::new("file");
        fs::write(&folder.0, b"a file where the folder would be").unwrap();
        let cache = Cache::at(&folder.0);
        cache.put(b"key", b"value");
        assert_eq!(cache.get(b"key"), None);
        fs::remove_file(&folder.0).unwrap();
    }
}
