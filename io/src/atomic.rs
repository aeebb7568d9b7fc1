//! Atomic file writes: a reader always finds either the complete old file or the complete new one.
//!
//! The bytes are written to a temporary file in the same folder, flushed to disk (`fsync`), and renamed to the final name
//! (`rename`); then the folder is flushed too. On any error, the temporary file is removed and the previous file stays
//! untouched. If the process is killed, a file `.NAME.PID.N.tmp` may remain; a program that ends itself at a signal calls
//! [`abandon_writes`] before.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    mem,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tomograd_core::{Error, Result};

/// The destination of the bytes: a [`File`], or in tests a writer that fails at a chosen byte.
pub trait Target: Write {
    /// Flushes everything written so far to disk.
    ///
    /// # Errors
    /// When the operating system reports an error.
    fn sync(&mut self) -> io::Result<()>;
}

impl Target for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Writes the file at `path` through `body`. The file appears, or replaces the previous one, only if everything succeeded.
///
/// Symbolic links are followed. The permissions of a previous file are kept.
///
/// ```
/// use tomograd_core::Error;
/// use tomograd_io::write_atomically;
/// # let path = std::env::temp_dir().join(format!("tomograd-atomic-doc-{}", std::process::id()));
/// write_atomically(&path, |file| file.write_all(b"whole").map_err(|error| Error::io("write", "notes", error)))?;
/// write_atomically(&path, |_| Err(Error::argument("write", "no idea"))).unwrap_err();
/// assert_eq!(std::fs::read(&path).unwrap(), b"whole");
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When `body` fails, the operating system reports an error, or `path` exists and isn't a regular file or a link to one.
pub fn write_atomically(path: &Path, body: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    write_atomically_through(path, |file| file, body)
}

/// As [`write_atomically`], through a custom target that `wrap` makes from the temporary file.
///
/// # Errors
/// As [`write_atomically`], and when the target fails.
pub fn write_atomically_through<W: Target>(
    path: &Path,
    wrap: impl FnOnce(File) -> W,
    body: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let given = path;
    let fail = |source| Error::io("write", given.display(), source);
    // The target of a link must be replaced, not the link itself.
    let path = match fs::canonicalize(given) {
        Ok(path) => path,
        Err(error) if fs::symlink_metadata(given).is_ok_and(|about| about.is_symlink()) => {
            return Err(Error::io("write", format!("{} is a link that leads nowhere", given.display()), error));
        }
        Err(_) => given.to_path_buf(),
    };
    let previous = fs::metadata(&path).ok();
    if previous.as_ref().is_some_and(|previous| !previous.is_file()) {
        // A rename would replace a device or a pipe by a regular file.
        return Err(
            Error::argument("write", format!("{} isn't a plain file", given.display())).expected("the path of a file")
        );
    }
    let name = path.file_name().ok_or_else(|| {
        Error::argument("write", format!("{} has no file name", given.display())).expected("the path of a file")
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    };

    let (file, temporary) = create_beside(&folder, &name.to_string_lossy()).map_err(fail)?;
    if let Some(previous) = previous {
        file.set_permissions(previous.permissions()).map_err(fail)?;
    }
    let mut writer = BufWriter::with_capacity(1 << 16, wrap(file));
    let written = body(&mut writer).and_then(|()| writer.flush().map_err(fail));
    // Dropping a BufWriter would try to write its buffer, which is pointless after a failure.
    let (mut target, _) = writer.into_parts();
    written?;
    target.sync().map_err(fail)?;
    drop(target);
    temporary.rename(&path).map_err(fail)?;
    sync_folder(&folder).map_err(fail)
}

/// Removes the temporary files of all writes that are under way, for a program that ends itself right after: at Ctrl-C, for
/// instance. What was written before is whole. From this call on the process writes no file: whoever begins or finishes one
/// waits for the end.
pub fn abandon_writes() {
    let mut temporaries = temporaries();
    for path in mem::take(&mut *temporaries) {
        // The others are removed all the same.
        fs::remove_file(path).ok();
    }
    // Nobody makes or renames another one.
    mem::forget(temporaries);
}

/// The temporary files of this process. They are made, renamed and removed under this lock.
fn temporaries() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes all bytes, with the error of this crate.
pub(crate) fn write_all(writer: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(|error| Error::io("write", "a file", error))
}

/// A file that is removed on drop unless it has been renamed.
struct Temporary {
    path: Option<PathBuf>,
}

impl Temporary {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(path) = &self.path {
            let mut temporaries = temporaries();
            fs::rename(path, to)?;
            temporaries.remove(path);
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let mut temporaries = temporaries();
            // The error that caused the drop is the one to report.
            fs::remove_file(path).ok();
            temporaries.remove(path);
        }
    }
}

/// Creates a new file in `folder` with a name that no other process or thread uses.
fn create_beside(folder: &Path, name: &str) -> io::Result<(File, Temporary)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Leaves room for the suffix if the name is close to the system's limit.
    let stem: String = name.chars().take(60).collect();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".{stem}.{}.{number}.tmp", std::process::id()));
        let mut temporaries = temporaries();
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => {
                temporaries.insert(path.clone());
                return Ok((file, Temporary { path: Some(path) }));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Flushes a rename to disk; only Unix allows opening a folder for this.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tomograd_atomic_{}_{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_failing_body_leaves_the_previous_file_and_nothing_else() {
        let folder = folder("failing");
        let path = folder.join("a.bin");
        fs::write(&path, b"previous").unwrap();
        let failed = write_atomically(&path, |writer| {
            writer.write_all(&[7; 100_000]).unwrap();
            Err(Error::argument("test", "no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"previous");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        write_atomically(&path, |writer| writer.write_all(b"new").map_err(|e| Error::io("test", "a", e))).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed_and_a_device_refused() {
        let folder = folder("link");
        let (target, link) = (folder.join("target"), folder.join("link"));
        fs::write(&target, b"old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomically(&link, |writer| writer.write_all(b"new").map_err(|e| Error::io("test", "a", e))).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(write_atomically(Path::new("/dev/null"), |_| Ok(())).is_err());
        assert!(write_atomically(&folder, |_| Ok(())).is_err());
        // A dangling link isn't replaced by a file.
        let nowhere = folder.join("nowhere");
        std::os::unix::fs::symlink(folder.join("absent"), &nowhere).unwrap();
        assert!(write_atomically(&nowhere, |_| Ok(())).is_err());
        assert!(fs::symlink_metadata(&nowhere).unwrap().is_symlink());
        fs::remove_dir_all(&folder).unwrap();
    }
}
