//! TensorBoard event files: scalars, images and texts by training step.
//!
//! A file is a sequence of TFRecords (length, its masked CRC-32C, a message, its masked CRC-32C), each message an `Event` of
//! TensorFlow's `event.proto`. Records are only appended, so that TensorBoard can show a running training.

mod message;
mod record;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use tomograd_core::{DType, Error, Result, Tensor};

use message::{Content, event};

use crate::png;

const OPERATION: &str = "tensorboard";
/// The file name: TensorBoard searches for the prefix; the suffix marks files of this project.
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".tomograd";

/// Writes a TensorBoard event file (`tensorboard --logdir FOLDER` shows it).
///
/// ```
/// use tomograd_io::tensorboard::EventWriter;
/// let folder = std::env::temp_dir().join(format!("tomograd-events-doc-{}", std::process::id()));
/// let mut events = EventWriter::create(&folder)?;
/// for step in 1..=3 {
///     events.scalar("loss", step, 1.0 / step as f64)?;
/// }
/// events.text("remark", 3, "a *short* training")?;
/// events.flush()?;
/// // After a crash: what was written after step 2 is gone, and the training goes on from there.
/// let mut events = EventWriter::resume(&folder, 2)?;
/// events.scalar("loss", 3, 0.3)?;
/// # drop(events);
/// # std::fs::remove_dir_all(&folder).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// Creates a file `events.out.tfevents.SECONDS.tomograd` in `folder`, which is created if necessary.
    ///
    /// # Errors
    /// When the folder or the file can't be created.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| Error::io(OPERATION, folder.display(), error))?;
        let mut seconds = now() as u64;
        let (path, file) = loop {
            let path = folder.join(format!("{PREFIX}{seconds:010}{SUFFIX}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                // There is already a file of this second.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => seconds = seconds.saturating_add(1),
                Err(error) => return Err(Error::io(OPERATION, path.display(), error)),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        writer.record(&event(now(), 0, &Content::Version("brain.Event:2")))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Continues the newest file that an `EventWriter` has created in `folder`: it is truncated after the last complete event
    /// of step `step` or earlier, since events are in the order of their steps. If there is no such file, a new one is
    /// created.
    ///
    /// # Errors
    /// When the folder or the file can't be read or written.
    pub fn resume(folder: impl AsRef<Path>, step: u64) -> Result<Self> {
        let folder = folder.as_ref();
        let Some(path) = files(folder)?.pop() else { return Self::create(folder) };
        let fail = |error| Error::io(OPERATION, path.display(), error);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        let end = record::end_of_step(&mut BufReader::new(&file), size, step)?;
        if end == 0 {
            // Not even the first record, the file version, is complete.
            fs::remove_file(&path).map_err(fail)?;
            return Self::create(folder);
        }
        file.set_len(end).map_err(fail)?;
        file.seek(SeekFrom::Start(end)).map_err(fail)?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Removes the files that `EventWriter`s have created in `folder`, and no others.
    ///
    /// # Errors
    /// When the folder can't be read, or a file can't be removed.
    pub fn remove(folder: impl AsRef<Path>) -> Result<()> {
        for path in files(folder.as_ref())? {
            fs::remove_file(&path).map_err(|error| Error::io(OPERATION, path.display(), error))?;
        }
        Ok(())
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a scalar, which TensorBoard stores as f32.
    ///
    /// # Errors
    /// When the step exceeds the range of i64, or the file can't be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.add(step, &Content::Scalar(tag, value as f32))
    }

    /// Writes a text, which TensorBoard shows as Markdown.
    ///
    /// # Errors
    /// As [`EventWriter::scalar`].
    pub fn text(&mut self, tag: &str, step: u64, text: &str) -> Result<()> {
        self.add(step, &Content::Text(tag, text))
    }

    /// Writes an image as PNG: u8 `(height, width, 3)` for RGB or `(height, width)` for greyscale.
    ///
    /// # Errors
    /// When `pixels` has another shape or dtype, and as [`EventWriter::scalar`].
    pub fn image(&mut self, tag: &str, step: u64, pixels: &Tensor) -> Result<()> {
        let (height, width, channels) = match *pixels.shape() {
            [height, width] => (height, width, 1),
            [height, width, 3] => (height, width, 3),
            _ => (0, 0, 0),
        };
        let side = |size: usize| u32::try_from(size).ok().filter(|size| *size > 0);
        let (Some(high), Some(wide), DType::U8) = (side(height), side(width), pixels.dtype()) else {
            return Err(Error::shape(OPERATION, format!("a picture of {}", pixels.dtype()))
                .expected("u8 (height, width, 3) or (height, width)")
                .shapes([pixels.shape()]));
        };
        let pixels = pixels.contiguous()?;
        let png = png::encode_png(wide, high, channels, pixels.as_slice::<u8>()?)?;
        self.add(step, &Content::Image { tag, height: high, width: wide, channels, png: &png })
    }

    /// Flushes the buffer to the operating system and to disk, so that neither a crash of the process nor of the machine
    /// loses events.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        flushed.map_err(|error| Error::io(OPERATION, self.path.display(), error))
    }

    fn add(&mut self, step: u64, content: &Content<'_>) -> Result<()> {
        if i64::try_from(step).is_err() {
            return Err(Error::argument(OPERATION, format!("step {step}")).expected("at most 2⁶³ − 1"));
        }
        self.record(&event(now(), step, content))
    }

    fn record(&mut self, message: &[u8]) -> Result<()> {
        record::write(&mut self.file, message).map_err(|error| Error::io(OPERATION, self.path.display(), error))
    }
}

/// The files that `EventWriter`s have created in a folder, oldest first; empty if the folder doesn't exist.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| Error::io(OPERATION, folder.display(), error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            found.push(entry.path());
        }
    }
    // The seconds in the names have ten digits, so that names sort by time.
    found.sort();
    Ok(found)
}

/// Seconds since 1970 (Unix time).
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}
