//! Folds chains of blocks, so that a deep network has few.

use super::{
    describe::Contents,
    diagram::{Arrow, Block, Diagram, Kind},
};

/// The largest number of blocks that are drawn.
pub(super) const MOST_BLOCKS: usize = 60;

/// Folds equal blocks that follow each other.
pub(super) fn fold_equal(diagram: &mut Diagram) {
    while let Some((from, to)) = pair(diagram, |a, b| a.contents == b.contents && a.shape == b.shape) {
        let count = diagram.blocks[from].count + diagram.blocks[to].count;
        join(diagram, from, to);
        diagram.blocks[from].count = count;
    }
}

/// Folds blocks that follow each other, whatever they hold, until there are few enough.
pub(super) fn fold_to_few(diagram: &mut Diagram) {
    while diagram.blocks.len() > MOST_BLOCKS {
        let Some((from, to)) = pair(diagram, |a, b| a.level == b.level).or_else(|| pair(diagram, |_, _| true)) else {
            break;
        };
        let lines = vec!["several layers".to_owned()];
        let contents = Contents { lines, details: diagram.blocks[to].contents.details.clone() };
        let (shape, level) = (diagram.blocks[to].shape.clone(), diagram.blocks[to].level);
        join(diagram, from, to);
        diagram.blocks[from] = Block { contents, shape, level, count: 1, ..diagram.blocks[from].clone() };
    }
}

/// The first two blocks of which one only leads to the other, with nothing on the way, and that fit each other.
fn pair(diagram: &Diagram, fit: impl Fn(&Block, &Block) -> bool) -> Option<(usize, usize)> {
    diagram.arrows.iter().find_map(|arrow| {
        let Arrow { from, to, label } = arrow;
        let (a, b) = (&diagram.blocks[*from], &diagram.blocks[*to]);
        let alone = diagram.arrows.iter().all(|other| other == arrow || (other.from != *from && other.to != *to));
        let inner = a.kind != Kind::End && b.kind != Kind::End && label.is_none();
        (alone && inner && fit(a, b)).then_some((*from, *to))
    })
}

/// Makes block `to` a part of block `from`.
fn join(diagram: &mut Diagram, from: usize, to: usize) {
    let last = diagram.blocks.remove(to);
    diagram.blocks[from].until = Some(last.until.unwrap_or(last.path));
    diagram.arrows.retain(|arrow| (arrow.from, arrow.to) != (from, to));
    let place = |block: usize| match block {
        block if block == to => from,
        block if block > to => block - 1,
        block => block,
    };
    for arrow in &mut diagram.arrows {
        (arrow.from, arrow.to) = (place(arrow.from), place(arrow.to));
    }
}
