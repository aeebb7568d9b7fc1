//! Progress bars.

pub use indicatif::ProgressBar;
use indicatif::ProgressStyle;

/// A progress bar of `length` steps on stderr, with the message `what` and the remaining time. Nothing is drawn if stderr
/// isn't a terminal.
pub fn bar(length: u64, what: impl Into<String>) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what.into());
    // If the template can't be parsed, indicatif's default is used.
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {wide_bar} {pos}/{len} {eta:>4}") {
        bar.set_style(style);
    }
    bar
}
