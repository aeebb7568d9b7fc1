//! Progress bars.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `length` steps on stderr, with `what` in front and the time left behind. Nothing is drawn when stderr isn't a
/// terminal.
pub fn bar(length: u64, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what.into());
    // A template that doesn't parse leaves indicatif's own.
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {wide_bar} {pos}/{len} {eta:>4}") {
        bar.set_style(style);
    }
    bar
}
