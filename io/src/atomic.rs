//! Files that are either whole or not there.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use tomograd_core::{Error, Result};

/// Writes a file by `write`, to a temporary name beside `path`, and renames it when all of it is on the disk. On any failure
/// the temporary file is removed, and what was at `path` before is untouched.
///
/// # Errors
/// When `write` fails, or the operating system does.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| Error::argument("write", format!("{} isn't a file", path.display())))?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{}.{}.{number}.tmp", name.to_string_lossy(), process::id()));
    let result = write_and_sync(&temporary, write).and_then(|()| {
        fs::rename(&temporary, path).map_err(|error| Error::io("write", path.display(), error))?;
        sync_folder(path);
        Ok(())
    });
    if result.is_err() {
        // The file may not exist; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn write_and_sync(path: &PathBuf, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let io = |error| Error::io("write", path.display(), error);
    let mut writer = BufWriter::new(File::create(path).map_err(io)?);
    write(&mut writer)?;
    writer.flush().map_err(io)?;
    writer.get_ref().sync_all().map_err(io)
}

/// Makes the new name itself durable, where the system can.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}

/// Turns a failed write into our error.
pub(crate) fn write_all(writer: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(|error| Error::io("write", "a file", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_previous_file_whole() {
        let folder = std::env::temp_dir().join(format!("tomograd-atomic-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        write_atomically(&path, |writer| write_all(writer, b"first")).unwrap();
        let content = b"the second version";
        for stop in 0..content.len() {
            let error = write_atomically(&path, |writer| {
                write_all(writer, &content[..stop])?;
                Err(Error::format("test", "the disk is full"))
            });
            assert!(error.is_err());
            assert_eq!(fs::read(&path).unwrap(), b"first");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        }
        write_atomically(&path, |writer| write_all(writer, content)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        fs::remove_dir_all(&folder).unwrap();
    }
}
