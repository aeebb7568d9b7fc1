//! The width of text in the usual sans-serif fonts, and the lines of a block.

use super::diagram::{Block, Kind};

/// The width of a text in pixels, in Helvetica, Arial or a font like them, rounded up.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let of = |letter: char| match letter {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' => 0.26,
        ' ' | 'f' | 't' | 'r' | '(' | ')' | '-' | '/' | '²' | '³' => 0.34,
        'm' | 'w' | 'M' | 'W' | '…' => 0.9,
        'A'..='Z' => 0.7,
        _ => 0.57,
    };
    text.chars().map(of).sum::<f64>() * size * 1.03
}

/// The sizes of the lines of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Style {
    Title,
    Plain,
    Detail,
    Shape,
}

impl Style {
    /// The width of a text in this style.
    pub(super) fn width(self, text: &str) -> f64 {
        width(text, self.size()) * if self == Self::Title { 1.12 } else { 1.0 }
    }

    pub(super) fn size(self) -> f64 {
        match self {
            Self::Title => 12.0,
            Self::Plain | Self::Shape => 11.0,
            Self::Detail => 10.0,
        }
    }
}

/// The widest line that isn't broken.
const WIDEST: f64 = 150.0;

/// The lines of a block.
pub(super) fn lines(block: &Block) -> Vec<(Style, String)> {
    if block.kind == Kind::End {
        return vec![(Style::Title, title(block)), (Style::Shape, block.shape.clone())];
    }
    let mut lines = vec![(Style::Title, title(block))];
    for (place, line) in block.contents.lines.iter().enumerate() {
        let counted = if place == 0 && block.count > 1 { times(block.count, line) } else { line.clone() };
        lines.extend(broken(&counted, Style::Plain));
    }
    lines.extend(broken(&block.contents.details, Style::Detail));
    lines.push((Style::Shape, block.shape.clone()));
    lines.retain(|(_, text)| !text.is_empty());
    lines
}

/// `3 × conv 3²`, also of what is counted already.
fn times(count: usize, line: &str) -> String {
    if let Some((inner, rest)) = line.split_once(" × ")
        && let Ok(inner) = inner.parse::<usize>()
    {
        return format!("{} × {rest}", count * inner);
    }
    format!("{count} × {line}")
}

/// The path of the block's layers, shortened from the front.
fn title(block: &Block) -> String {
    let whole = block.path.join(".");
    let title = match &block.until {
        Some(last) => {
            let same = last.iter().zip(&block.path).take_while(|(a, b)| a == b).count();
            let rest = last[same.min(last.len().saturating_sub(1))..].join(".");
            format!("{whole} – {rest}")
        }
        None => whole,
    };
    let mut letters: Vec<char> = title.chars().collect();
    while Style::Title.width(&letters.iter().collect::<String>()) > WIDEST && letters.len() > 4 {
        letters.drain(..2);
        letters[0] = '…';
    }
    letters.into_iter().collect()
}

/// A text in lines that aren't too wide, broken after commas, and between words where a part is wider.
fn broken(text: &str, style: Style) -> Vec<(Style, String)> {
    let fits = |line: &str| style.width(line) <= WIDEST;
    let mut lines: Vec<String> = Vec::new();
    for part in text.split_inclusive(", ") {
        match lines.last_mut() {
            Some(line) if fits(format!("{line}{part}").trim_end()) => line.push_str(part),
            _ if fits(part.trim_end()) => lines.push(part.to_owned()),
            _ => {
                for word in part.split_inclusive(' ') {
                    match lines.last_mut() {
                        Some(line) if fits(format!("{line}{word}").trim_end()) => line.push_str(word),
                        _ => lines.push(word.to_owned()),
                    }
                }
            }
        }
    }
    lines.into_iter().map(|line| (style, line.trim_end().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_after_commas() {
        let lines = |text: &str| broken(text, Style::Plain).into_iter().map(|(_, line)| line).collect::<Vec<_>>();
        assert_eq!(lines("conv 1², 3², 1²"), ["conv 1², 3², 1²"]);
        assert_eq!(lines("transposed conv 2³, 2 × conv 5³"), ["transposed conv 2³,", "2 × conv 5³"]);
        for line in lines("some words of a line that is too wide for a block, and a few more of them") {
            assert!(Style::Plain.width(&line) <= WIDEST, "{line}");
        }
        assert_eq!(times(3, "2 × conv 3²"), "6 × conv 3²");
        assert_eq!(times(3, "conv 3²"), "3 × conv 3²");
    }
}
