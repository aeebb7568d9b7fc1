//! Ctrl-C and the signal that asks a program to end: files are whole or not there.

#[cfg(unix)]
use std::thread;

#[cfg(unix)]
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};
#[cfg(unix)]
use tomograd::io::abandon_writes;

/// From now on SIGINT and SIGTERM remove temporary files and end the program with 128 and the signal's number, as shells count:
/// 130 for Ctrl-C. Where there are no such signals, the system ends the program and temporary files may remain.
pub(crate) fn watch() {
    #[cfg(unix)]
    // If signals can't be watched, they end the program as they always do.
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                abandon_writes();
                // Without destructors: other threads are still at work.
                low_level::exit(128 + signal);
            }
        });
    }
}
