//! Blocks and arrows: what is drawn, before it has a place.

use std::collections::BTreeSet;

use super::{
    super::shapes,
    describe::{Contents, describe},
    fold,
    group::Groups,
    label,
    record::{Operation, Role},
};

/// The blocks in an order in which each follows those that feed it, and the arrows between them.
pub(super) struct Diagram {
    pub(super) blocks: Vec<Block>,
    pub(super) arrows: Vec<Arrow>,
}

/// How a block is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An input or an output.
    End,
    /// Layers before the coarsest resolution on their way.
    Down,
    /// Layers after a coarser resolution.
    Up,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    /// The path of the layers, or the name of the input or output.
    pub(super) path: Vec<String>,
    /// The last of several paths that were folded into one block.
    pub(super) until: Option<Vec<String>>,
    pub(super) contents: Contents,
    /// How many equal blocks follow each other here.
    pub(super) count: usize,
    /// The output's shape without the batch, such as `64 × 256²`.
    pub(super) shape: String,
    pub(super) level: i32,
    /// Whether only auxiliary outputs depend on it.
    pub(super) side: bool,
}

/// An arrow between two blocks, given by their places in the list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// What happens on the way, if anything: `max pool 2²`, `concatenation`.
    pub(super) label: Option<String>,
}

/// How often the paths of layers are divided at most.
const DEEPEST: usize = 12;

impl Diagram {
    pub(super) fn new(operations: &[Operation]) -> Self {
        // As deep into the paths of layers as there is room.
        let mut diagrams = (1..=DEEPEST).rev().map(|deepest| Self::of(operations, deepest));
        let mut diagram = diagrams.find(|diagram| diagram.blocks.len() <= fold::MOST_BLOCKS).unwrap_or_else(|| {
            let mut diagram = Self::of(operations, 1);
            fold::fold_to_few(&mut diagram);
            diagram
        });
        diagram.strip_common_path();
        diagram.set_kinds();
        diagram
    }

    fn of(operations: &[Operation], deepest: usize) -> Self {
        let groups = Groups::new(operations, deepest);
        let arrows = arrows(operations, &groups);
        let order = order(&groups, &arrows);
        let mut place_of = vec![0; groups.paths.len()];
        order.iter().enumerate().for_each(|(place, &group)| place_of[group] = place);
        let blocks = order.iter().map(|&group| block(operations, &groups, group)).collect();
        let arrows = arrows
            .into_iter()
            .map(|arrow| Arrow { from: place_of[arrow.from], to: place_of[arrow.to], ..arrow })
            .collect();
        let mut diagram = Self { blocks, arrows };
        fold::fold_equal(&mut diagram);
        diagram
    }

    /// The blocks that feed a block, and those that it feeds.
    pub(super) fn fed_by(&self, block: usize) -> impl Iterator<Item = &Arrow> {
        self.arrows.iter().filter(move |arrow| arrow.to == block)
    }

    /// Removes the first parts that the paths of all layers have in common, such as `model`.
    fn strip_common_path(&mut self) {
        let layers = || self.blocks.iter().filter(|block| block.kind != Kind::End && !block.path.is_empty());
        let Some(first) = layers().next() else { return };
        let common = |path: &[String]| path.iter().zip(&first.path).take_while(|(a, b)| a == b).count();
        let most = layers().map(|block| block.path.len() - 1).min().unwrap_or(0);
        let shared = layers().map(|block| common(&block.path)).min().unwrap_or(0).min(most);
        for block in self.blocks.iter_mut().filter(|block| block.kind != Kind::End && block.path.len() > shared) {
            block.path.drain(..shared);
            block.until.iter_mut().filter(|path| path.len() > shared).for_each(|path| drop(path.drain(..shared)));
        }
    }

    /// Finds what lies behind a coarser resolution, and what leads to auxiliary outputs alone.
    fn set_kinds(&mut self) {
        let mut deepest: Vec<i32> = Vec::new();
        for place in 0..self.blocks.len() {
            let before = self.fed_by(place).map(|arrow| deepest[arrow.from]).max();
            let level = self.blocks[place].level;
            if self.blocks[place].kind != Kind::End && before.is_some_and(|before| before > level) {
                self.blocks[place].kind = Kind::Up;
            }
            deepest.push(before.map_or(level, |before| before.max(level)));
        }
        let is_end = |place: &usize| self.blocks[*place].kind == Kind::End && self.fed_by(*place).next().is_some();
        let Some(main) = (0..self.blocks.len()).filter(is_end).min_by_key(|&place| self.blocks[place].count) else {
            return;
        };
        let mut leads: BTreeSet<usize> = BTreeSet::from([main]);
        for place in (0..self.blocks.len()).rev() {
            if self.arrows.iter().any(|arrow| arrow.from == place && leads.contains(&arrow.to)) {
                leads.insert(place);
            }
        }
        for (place, block) in self.blocks.iter_mut().enumerate() {
            block.side = !leads.contains(&place);
            if block.kind == Kind::End {
                block.count = 1;
            }
        }
    }
}

fn block(operations: &[Operation], groups: &Groups, group: usize) -> Block {
    let members: Vec<usize> =
        (0..operations.len()).filter(|&place| groups.of[place] == group && !groups.entry[place]).collect();
    let leaves = |place: &&usize| groups.readers[**place].iter().any(|&reader| groups.of[reader] != group);
    let last = members.iter().rev().find(leaves).or(members.last()).map(|&place| &operations[place]);
    let shape = last.map_or(String::new(), |operation| features(&operation.shape));
    let level = last.map_or(0, |operation| operation.level);
    let path = groups.paths[group].clone();
    let (name, count) = match last.map(|operation| &operation.role) {
        Some(Role::Input(name)) => (Some(name), 1),
        // Until the auxiliary ones are known: the main output is the first.
        Some(Role::Output(name)) => (Some(name), members[0]),
        _ => (None, 1),
    };
    let (kind, path, contents) = match name {
        Some(name) => (Kind::End, vec![name.clone()], Contents::default()),
        None => (Kind::Down, path, describe(operations, &members, groups.paths[group].len())),
    };
    Block { kind, path, until: None, contents, count, shape, level, side: false }
}

/// A shape without its batch.
fn features(shape: &[usize]) -> String {
    match shape {
        // Channels last.
        [_, spatial @ .., channels]
            if spatial.len() > 1 && spatial.iter().all(|s| *s == spatial[0] && s != channels) =>
        {
            format!("{channels} × {}", shapes::power(spatial[0], spatial.len()))
        }
        [_, rest @ ..] if rest.len() > 1 => {
            shapes::text(shape).split_once(" × ").map_or(String::new(), |(_, rest)| rest.to_owned())
        }
        [_, one] => one.to_string(),
        _ => String::new(),
    }
}

/// The arrows between groups: one for each pair.
fn arrows(operations: &[Operation], groups: &Groups) -> Vec<Arrow> {
    let mut arrows: Vec<Arrow> = Vec::new();
    for (place, operation) in operations.iter().enumerate() {
        for &from in &operation.inputs {
            let (source, target) = (groups.of[from], groups.of[place]);
            if source == target {
                continue;
            }
            let label = way(operations, groups, from, place);
            match arrows.iter_mut().find(|arrow| (arrow.from, arrow.to) == (source, target)) {
                Some(known) => known.label = known.label.take().or(label),
                None => arrows.push(Arrow { from: source, to: target, label }),
            }
        }
    }
    arrows
}

/// What happens to the output of `from` on its way into the block of `place`.
fn way(operations: &[Operation], groups: &Groups, mut from: usize, mut place: usize) -> Option<String> {
    let target = groups.of[place];
    let mut labels: Vec<String> = Vec::new();
    loop {
        let operation = &operations[place];
        let sources: BTreeSet<usize> =
            operation.inputs.iter().flat_map(|&input| origins(operations, groups, input, target)).collect();
        // What feeds the block elsewhere too is added at the end of a residual block.
        let elsewhere = groups.readers[from].iter().any(|&reader| reader != place && groups.of[reader] == target);
        let residual = sources.contains(&target) && elsewhere;
        let joins = label::joins(operation).filter(|_| sources.len() > 1 && !residual);
        match joins {
            // Of the blocks that are joined, the latest is the main one.
            Some(joins) if operation.inputs.last() != Some(&from) => labels.push(joins.to_owned()),
            None if groups.entry[place] => labels.extend(label::between(operation, &operations[from].shape)),
            None => labels.extend(label::stride(operation)),
            _ => {}
        }
        let Some(&next) = groups.readers[place].first().filter(|_| groups.entry[place]) else { break };
        (from, place) = (place, next);
    }
    labels.dedup();
    (!labels.is_empty()).then(|| labels.join(", "))
}

/// The groups, other than `target`, that feed an input directly or through entries of `target`.
fn origins(operations: &[Operation], groups: &Groups, input: usize, target: usize) -> Vec<usize> {
    if groups.of[input] != target {
        return vec![groups.of[input]];
    }
    if !groups.entry[input] {
        return vec![target];
    }
    operations[input].inputs.iter().flat_map(|&from| origins(operations, groups, from, target)).collect()
}

/// The groups that have members, in an order in which each follows those that feed it, otherwise in the order of the run.
fn order(groups: &Groups, arrows: &[Arrow]) -> Vec<usize> {
    let mut first = vec![None; groups.paths.len()];
    for (place, &group) in groups.of.iter().enumerate() {
        if !groups.entry[place] && first[group].is_none() {
            first[group] = Some(place);
        }
    }
    let mut waiting: BTreeSet<(usize, usize)> =
        first.iter().enumerate().filter_map(|(group, first)| Some(((*first)?, group))).collect();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let is_free = |group: usize| arrows.iter().all(|arrow| arrow.to != group || order.contains(&arrow.from));
        let next = waiting.iter().copied().find(|&(_, group)| is_free(group)).or(waiting.first().copied());
        let Some(next) = next else { break };
        waiting.remove(&next);
        order.push(next.1);
    }
    order
}
