//! Divides the operations of a network among blocks: by the paths of their layers, as deep as resolutions differ.

use std::collections::BTreeSet;

use super::{
    label::{self, is_main},
    record::{Operation, Role},
};

/// The operations in groups, one for each block.
pub(super) struct Groups {
    /// The group of each operation.
    pub(super) of: Vec<usize>,
    /// Whether an operation stands on the way into its group, such as the pooling before an encoder's level.
    pub(super) entry: Vec<bool>,
    /// The path of each group's layers.
    pub(super) paths: Vec<Vec<String>>,
    /// The operations that read each operation's output.
    pub(super) readers: Vec<Vec<usize>>,
}

impl Groups {
    /// Groups from at most `deepest` levels of branching paths.
    pub(super) fn new(operations: &[Operation], deepest: usize) -> Self {
        let mut readers = vec![Vec::new(); operations.len()];
        for (place, operation) in operations.iter().enumerate() {
            operation.inputs.iter().for_each(|&from| readers[from].push(place));
        }
        let mut cut =
            Cut { deepest, operations, readers: &readers, of: vec![None; operations.len()], paths: Vec::new() };
        let (inner, ends): (Vec<usize>, Vec<usize>) =
            (0..operations.len()).partition(|&place| operations[place].role == Role::Operation);
        cut.divide([0; 3], inner);
        for place in ends {
            cut.close(vec![place], Vec::new());
        }
        let (of, paths) = (cut.assigned(), cut.paths);
        let mut groups = Self { of, entry: vec![false; operations.len()], paths, readers };
        groups.absorb_details(operations);
        groups.move_to_entries(operations);
        groups.split_cycles(operations);
        groups
    }

    /// The operations of a group, without its entries.
    fn members(&self, group: usize) -> Vec<usize> {
        (0..self.of.len()).filter(|&place| self.of[place] == group && !self.entry[place]).collect()
    }

    /// Gives groups without a main operation (a norm, a scale) to the group that feeds them.
    fn absorb_details(&mut self, operations: &[Operation]) {
        for group in 0..self.paths.len() {
            let members = self.members(group);
            let is_detail = |&place: &usize| operations[place].role == Role::Operation && !is_main(&operations[place]);
            if members.is_empty() || !members.iter().all(is_detail) {
                continue;
            }
            let is_block = |place: usize| operations[place].role == Role::Operation && self.of[place] != group;
            let fed = members.iter().flat_map(|&place| &operations[place].inputs).copied();
            let before = fed.filter(|&from| is_block(from)).max();
            let after = members.iter().flat_map(|&place| &self.readers[place]).copied().find(|&to| is_block(to));
            if let Some(other) = before.or(after) {
                let other = self.of[other];
                members.into_iter().for_each(|place| self.of[place] = other);
            }
        }
    }

    /// Moves what stands between two blocks (pooling, upsampling, joins of skip connections) into the entry of the second.
    fn move_to_entries(&mut self, operations: &[Operation]) {
        let upsampling: BTreeSet<usize> =
            (0..self.paths.len()).filter(|&group| self.is_upsampling(operations, group)).collect();
        for place in (0..operations.len()).rev() {
            let (operation, group) = (&operations[place], self.of[place]);
            let Some(&reader) = self.readers[place].first() else { continue };
            let target = self.of[reader];
            let one_reader = self.readers[place].iter().all(|&reader| self.of[reader] == target);
            if operation.role != Role::Operation || target == group || !one_reader {
                continue;
            }
            let from = operation.inputs.first().map_or(&[][..], |&from| &operations[from].shape);
            let moves = if upsampling.contains(&group) {
                true
            } else if label::joins(operation).is_some() {
                !is_main(operation) && self.joins_blocks(operations, place)
            } else {
                label::is_silent(operation) || (!is_main(operation) && label::between(operation, from).is_some())
            };
            if moves {
                (self.of[place], self.entry[place]) = (target, true);
            }
        }
    }

    /// Whether a group is a transposed convolution alone, with one reader.
    fn is_upsampling(&self, operations: &[Operation], group: usize) -> bool {
        let members = self.members(group);
        let mut mains = members.iter().filter(|&&place| is_main(&operations[place]));
        let one = mains.next().is_some_and(|&main| operations[main].name() == "conv_transpose");
        let readers = members.iter().flat_map(|&place| &self.readers[place]);
        let outside: BTreeSet<usize> = readers.map(|&reader| self.of[reader]).filter(|&of| of != group).collect();
        // What it leads to must be a block that isn't itself an upsampling alone.
        let is_block = |&other: &usize| {
            let mains = self.members(other).into_iter().filter(|&place| is_main(&operations[place]));
            mains.filter(|&place| operations[place].name() != "conv_transpose").count() > 0
        };
        one && mains.next().is_none() && outside.len() == 1 && outside.iter().all(is_block)
    }

    /// Whether an operation joins its block with another one that doesn't feed the block otherwise: a skip connection, and
    /// not the end of a residual block.
    fn joins_blocks(&self, operations: &[Operation], place: usize) -> bool {
        let group = self.of[place];
        let outside: Vec<usize> =
            operations[place].inputs.iter().copied().filter(|&from| self.of[from] != group).collect();
        let feeds_block =
            |&from: &usize| self.readers[from].iter().any(|&other| other != place && self.of[other] == group);
        !outside.is_empty() && (operations[place].name() == "concat" || !outside.iter().any(feeds_block))
    }

    /// Divides groups that run in turn with each other into parts that run one after the other.
    fn split_cycles(&mut self, operations: &[Operation]) {
        let cyclic = self.cyclic(operations);
        let mut last: Option<(usize, usize)> = None;
        for place in 0..operations.len() {
            let group = self.of[place];
            if self.entry[place] || !cyclic.contains(&group) {
                continue;
            }
            let (_, part) = match last {
                Some((whole, part)) if whole == group => (whole, part),
                _ => {
                    self.paths.push(self.paths[group].clone());
                    (group, self.paths.len() - 1)
                }
            };
            last = Some((group, part));
            self.of[place] = part;
        }
        // Entries follow what they lead to.
        for place in (0..operations.len()).rev().filter(|&place| self.entry[place]).collect::<Vec<_>>() {
            if let Some(&reader) = self.readers[place].first() {
                self.of[place] = self.of[reader];
            }
        }
    }

    /// The groups from which one comes back to them, and those between such groups.
    fn cyclic(&self, operations: &[Operation]) -> BTreeSet<usize> {
        let mut edges = BTreeSet::new();
        for (place, operation) in operations.iter().enumerate() {
            edges.extend(operation.inputs.iter().map(|&from| (self.of[from], self.of[place])));
        }
        edges.retain(|(from, to)| from != to);
        // Groups without predecessors or successors are in no cycle; neither are those that remain without any.
        loop {
            let (from, to): (BTreeSet<usize>, BTreeSet<usize>) = edges.iter().copied().unzip();
            let before = edges.len();
            edges.retain(|(a, b)| to.contains(a) && from.contains(b));
            if edges.len() == before {
                return edges.into_iter().flat_map(|(from, to)| [from, to]).collect();
            }
        }
    }
}

/// The division while it is made.
struct Cut<'a> {
    deepest: usize,
    operations: &'a [Operation],
    readers: &'a [Vec<usize>],
    of: Vec<Option<usize>>,
    paths: Vec<Vec<String>>,
}

impl Cut<'_> {
    fn close(&mut self, members: Vec<usize>, path: Vec<String>) {
        members.into_iter().for_each(|place| self.of[place] = Some(self.paths.len()));
        self.paths.push(path);
    }

    /// Divides operations whose paths agree in the first `depth` parts, and differ from all others' in the first `named` parts
    /// (0 if there are no others), after `branches` divisions.
    fn divide(&mut self, [depth, named, branches]: [usize; 3], members: Vec<usize>) {
        let Some(&first) = members.first() else { return };
        let mut children: Vec<(&str, Vec<usize>)> = Vec::new();
        let mut loose = 0;
        for &place in &members {
            match self.operations[place].path.get(depth) {
                None => loose += 1,
                Some(name) => match children.iter_mut().find(|(other, _)| other == name) {
                    Some((_, places)) => places.push(place),
                    None => children.push((name, vec![place])),
                },
            }
        }
        let one = children.len() == 1 && loose == 0;
        let children: Vec<Vec<usize>> = children.into_iter().map(|(_, places)| places).collect();
        if children.is_empty()
            || (named > 0 && !one && (branches >= self.deepest || !self.several_resolutions(&children)))
        {
            let depth = if named > 0 { named } else { depth };
            let path = self.operations[first].path.iter().take(depth).cloned().collect();
            return self.close(members, path);
        }
        for child in children {
            let next = if one { [depth + 1, named, branches] } else { [depth + 1, depth + 1, branches + 1] };
            self.divide(next, child);
        }
    }

    /// Whether the children are the levels of a pyramid: they hand on tensors of three resolutions, or of two that others
    /// read, or hold coarser ones than they hand on.
    fn several_resolutions(&self, children: &[Vec<usize>]) -> bool {
        let main = |places: &[usize]| -> Vec<i32> {
            let mains = places.iter().filter(|&&place| is_main(&self.operations[place]));
            mains.map(|&place| self.operations[place].level).collect()
        };
        let levels: BTreeSet<i32> = children.iter().filter_map(|child| main(child).last().copied()).collect();
        let all: BTreeSet<usize> = children.iter().flatten().copied().collect();
        let leaves = all.iter().filter(|&&place| self.readers[place].iter().any(|reader| !all.contains(reader)));
        let leaving: BTreeSet<i32> = leaves.map(|&place| self.operations[place].level).collect();
        let inside = children.iter().flat_map(|child| main(child));
        let coarser = inside.filter(|level| levels.last().is_some_and(|coarsest| level > coarsest)).count();
        levels.len() > 2 || (levels.len() > 1 && (leaving.len() > 1 || coarser > 0)) || coarser > 3
    }

    /// The group of each operation: those that belong to no layer are with what feeds them, or else with what reads them.
    fn assigned(&mut self) -> Vec<usize> {
        let is_inner = |place: usize| self.operations[place].role == Role::Operation;
        for place in 0..self.of.len() {
            if self.of[place].is_none() {
                let fed = self.operations[place].inputs.iter().rev().find(|&&from| is_inner(from));
                self.of[place] = fed.and_then(|&from| self.of[from]);
            }
        }
        for place in (0..self.of.len()).rev() {
            if self.of[place].is_none() {
                let read = self.readers[place].iter().find(|&&reader| is_inner(reader));
                self.of[place] = read.and_then(|&reader| self.of[reader]);
            }
        }
        for place in 0..self.of.len() {
            if self.of[place].is_none() {
                self.close(vec![place], self.operations[place].path.clone());
            }
        }
        self.of.iter().map(|of| of.unwrap_or(0)).collect()
    }
}
