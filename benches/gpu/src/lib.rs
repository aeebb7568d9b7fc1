//! What the program `tomograd-gpu` does on a machine with a GPU: the checks of every operation, trainings that must give equal bits, a
//! training with its Dice, and timings beside PyTorch, as one table.
//!
//! Everything that it needs travels at the end of the program ([`archive`]): machine code of the kernels, the cases to time, scans and
//! PyTorch's side. Each part runs in a process of its own ([`parts`]), so that a kernel that fails or hangs ends that part alone.

#![forbid(unsafe_code)]

pub mod archive;
pub mod bits;
pub mod cases;
pub mod networks;

pub mod parts;
pub mod registry;
pub mod segmentation;
pub mod sources;
pub mod table;
pub mod torch;

use tomograd_core::{Device, Error, ErrorKind, Result};

/// What the jobs of a part need.
#[derive(Debug)]
pub struct Setup {
    /// The device that is tested.
    pub device: Device,
    /// What travels with the program.
    pub archive: archive::Archive,
    /// How much is done.
    pub effort: Effort,
}

/// How much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// What a GPU does in six minutes.
    Whole,
    /// The same jobs at sizes that the emulator can do.
    Small,
}

impl Setup {
    /// `small` or `whole`, by the effort.
    pub fn choose<T>(&self, small: T, whole: T) -> T {
        match self.effort {
            Effort::Small => small,
            Effort::Whole => whole,
        }
    }
}

/// The error of JSON that isn't what it should be.
pub(crate) fn json_error(what: &str, error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Format, "json", format!("{what}: {error}")).source(error)
}

/// What a job found, one object of JSON.
pub type Row = serde_json::Value;

/// Runs `body`; a panic is an error with its message.
pub(crate) fn caught<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Error::new(ErrorKind::Panic, "check", text))
    })
}
