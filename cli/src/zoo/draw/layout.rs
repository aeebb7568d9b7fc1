//! Places of blocks: a row for each resolution, and within a row from left to right in time.

use super::{
    diagram::{Diagram, Kind},
    text::{self, Style},
};

/// The distance of neighbours in a row.
const GAP: f64 = 34.0;
/// The part of its width by which a block stands to the right of one that feeds it from another row.
const SHIFT: f64 = 0.55;
/// A chain of blocks of one resolution is broken into lines of this width.
const WIDEST_LINE: f64 = 1000.0;
/// The height of a line of text.
pub(super) const LINE: f64 = 15.0;

/// A block with its place.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) x: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) row: usize,
    pub(super) lines: Vec<(Style, String)>,
}

impl Placed {
    pub(super) fn right(&self) -> f64 {
        self.x + self.width
    }

    pub(super) fn centre(&self) -> f64 {
        self.x + self.width / 2.0
    }
}

/// The places of all blocks, except for the heights of rows, which depend on the arrows between them.
pub(super) fn place(diagram: &Diagram) -> Vec<Placed> {
    let mut placed: Vec<Placed> = diagram
        .blocks
        .iter()
        .map(|block| {
            let lines = text::lines(block);
            let widths = lines.iter().map(|(style, text)| style.width(text));
            let room = if block.kind == Kind::End { 26.0 } else { 18.0 };
            let width = (widths.fold(30.0, f64::max) + room).ceil();
            Placed { x: 0.0, width, height: 12.0 + LINE * lines.len() as f64, row: 0, lines }
        })
        .collect();
    let is_end = |place: usize| diagram.blocks[place].kind == Kind::End;
    let widest = |(place, block): (usize, &Placed)| if is_end(place) { 0.0 } else { block.width };
    let width = placed.iter().enumerate().map(widest).fold(0.0, f64::max);
    placed.iter_mut().enumerate().filter(|(place, _)| !is_end(*place)).for_each(|(_, block)| block.width = width);
    set_rows(diagram, &mut placed);
    if placed.iter().all(|block| block.row == 0) {
        in_lines(&mut placed);
    } else {
        in_rows(diagram, &mut placed);
    }
    placed
}

/// A row for each level that a block has; inputs and outputs stand in the row of their neighbour.
fn set_rows(diagram: &Diagram, placed: &mut [Placed]) {
    let level = |place: usize| {
        let neighbour = diagram.arrows.iter().find_map(|arrow| match arrow {
            arrow if arrow.from == place => Some(arrow.to),
            arrow if arrow.to == place => Some(arrow.from),
            _ => None,
        });
        let of = if diagram.blocks[place].kind == Kind::End { neighbour.unwrap_or(place) } else { place };
        diagram.blocks[of].level
    };
    let mut levels: Vec<i32> = (0..placed.len()).map(level).collect();
    let of = levels.clone();
    levels.sort_unstable();
    levels.dedup();
    for (block, level) in placed.iter_mut().zip(of) {
        block.row = levels.binary_search(&level).unwrap_or(0);
    }
}

/// One line after the other.
fn in_lines(placed: &mut [Placed]) {
    let whole: f64 = placed.iter().map(|block| block.width + GAP).sum();
    // Lines of about the same width.
    let widest = whole / (whole / WIDEST_LINE).ceil().max(1.0)
        + placed.iter().map(|block| block.width / 2.0).fold(0.0, f64::max);
    let (mut x, mut row) = (0.0, 0);
    for block in placed {
        if x + block.width > widest && x > 0.0 {
            (x, row) = (0.0, row + 1);
        }
        (block.x, block.row) = (x, row);
        x = block.right() + GAP;
    }
}

/// Each block to the right of those that feed it and of its row, as near as that allows.
fn in_rows(diagram: &Diagram, placed: &mut [Placed]) {
    let rows = placed.iter().map(|block| block.row + 1).max().unwrap_or(0);
    let mut ends = vec![0.0f64; rows];
    for place in 0..placed.len() {
        let row = placed[place].row;
        let after = |from: &Placed| {
            if from.row == row { from.right() + GAP } else { from.x + SHIFT * from.width }
        };
        let fed = diagram.fed_by(place).map(|arrow| after(&placed[arrow.from]));
        let x = fed.fold(ends[row], f64::max);
        placed[place].x = x.round();
        ends[row] = placed[place].right() + GAP;
    }
}
