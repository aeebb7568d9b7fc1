//! Pictures in a terminal of 24-bit colours: a half block is two pixels, one above the other.

use std::fmt::Write;

use super::picture::Picture;
use crate::print::print_line;

pub(super) fn draw(picture: &Picture) {
    for row in (0..picture.height).step_by(2) {
        let mut line = String::new();
        let mut last = None;
        for column in 0..picture.width {
            let (upper, lower) = (picture.get(column, row), picture.get(column, row + 1));
            // The colours stay until others are set.
            if last != Some((upper, lower)) {
                let ([a, b, c], [d, e, f]) = (upper, lower);
                write!(line, "\x1b[38;2;{a};{b};{c};48;2;{d};{e};{f}m").ok();
                last = Some((upper, lower));
            }
            line.push('▀');
        }
        print_line!("{line}\x1b[0m");
    }
}
