//! Lines on standard output.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write, stdout},
};

/// As `println!`, but a reader that has gone (`tomograd zoo list | head`) isn't an error; the program goes on, since it may
/// be writing files.
macro_rules! print_line {
    ($($arguments:tt)*) => { $crate::print::line(format_args!($($arguments)*)) };
}
pub(crate) use print_line;

/// Prints a line. Ends the program if it can't be written, to a full disk for instance.
pub(crate) fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        eprintln!("tomograd: standard output: {error}");
        std::process::exit(1);
    }
}

/// Text from a file may contain control characters that a terminal would interpret.
pub(crate) fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{FFFD}")
}
