//! What a block holds, in a few words: `3 × residual block`, `conv 1², 3², 1²`, `batch norm, ReLU`.

use std::collections::BTreeSet;

use super::{
    label::{self, convolution, is_main},
    record::Operation,
};

/// The contents of a block.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Contents {
    /// One or two lines.
    pub(super) lines: Vec<String>,
    /// The norms and activations.
    pub(super) details: String,
}

/// Describes `members`, whose paths agree in the first `depth` parts.
pub(super) fn describe(operations: &[Operation], members: &[usize], depth: usize) -> Contents {
    let (count, unit) = repeated(operations, members, depth);
    let times = |count: usize| if count > 1 { format!("{count} × ") } else { String::new() };
    let lines = match &unit {
        Unit { kind: Some(kind), parts } => vec![format!("{}{kind}", times(count)), joined(parts, 3)],
        Unit { kind: None, parts } if count == 1 => vec![joined(parts, 2)],
        Unit { kind: None, parts } if parts.len() == 1 => vec![format!("{}{}", times(count), parts[0])],
        Unit { kind: None, parts } => vec![format!("{}({})", times(count), joined(parts, 2))],
    };
    let mut details: Vec<&str> = Vec::new();
    let all = members.iter().map(|&place| &operations[place]);
    for detail in all.clone().filter_map(label::norm).chain(all.filter_map(label::activation)) {
        if !details.contains(&detail) {
            details.push(detail);
        }
    }
    if members.iter().any(|&place| is_main(&operations[place]) && is_gate(operations, place)) {
        details.push("squeeze-excitation");
    }
    let lines = lines.into_iter().filter(|line| !line.is_empty()).collect();
    Contents { lines, details: details.join(", ") }
}

/// A part of a block that may be repeated.
#[derive(Debug, Clone, PartialEq)]
struct Unit {
    /// `residual block`, `transformer block`; `None` for a plain sequence.
    kind: Option<&'static str>,
    /// The names of its main operations, with the number of equal ones that follow each other.
    parts: Vec<String>,
}

/// How often which unit follows in a block; if its parts differ, the whole block once.
fn repeated(operations: &[Operation], members: &[usize], depth: usize) -> (usize, Unit) {
    let mut children: Vec<(Option<&str>, Vec<usize>)> = Vec::new();
    for &place in members {
        let name = operations[place].path.get(depth).map(String::as_str);
        match children.iter_mut().find(|(other, _)| *other == name) {
            Some((_, places)) => places.push(place),
            None => children.push((name, vec![place])),
        }
    }
    children.retain(|(_, places)| places.iter().any(|&place| is_main(&operations[place])));
    match &children[..] {
        [(Some(_), only)] if members.iter().any(|&place| operations[place].path.len() > depth + 1) => {
            return repeated(operations, only, depth + 1);
        }
        [_, _, ..] => {
            let units: Vec<Unit> = children.iter().map(|(_, places)| unit(operations, places)).collect();
            // A block that is itself residual isn't a sequence of its parts.
            let whole = unit(operations, members);
            // Where channels or sizes change, a block may lack the sum that the others have.
            let kinds = || units.iter().filter_map(|unit| unit.kind);
            let kind = kinds().next();
            let same_parts = units.iter().all(|unit| unit.parts == units[0].parts);
            let same_kind = kinds().all(|other| Some(other) == kind) && 2 * kinds().count() >= units.len();
            if same_parts && (kind.is_none() || same_kind) && (whole.kind.is_none() || kind.is_some()) {
                let inner: Vec<(usize, Unit)> =
                    children.iter().map(|(_, places)| repeated(operations, places, depth + 1)).collect();
                let first = inner[0].clone();
                let same = inner.iter().all(|other| *other == first) && first.1.kind.is_some();
                let unit = Unit { kind, parts: units[0].parts.clone() };
                return if same { (first.0 * units.len(), first.1) } else { (units.len(), unit) };
            }
        }
        _ => {}
    }
    (1, unit(operations, members))
}

fn unit(operations: &[Operation], members: &[usize]) -> Unit {
    let inside: BTreeSet<usize> = members.iter().copied().collect();
    let has = |name: &str| members.iter().any(|&place| operations[place].name() == name);
    let sums = members.iter().filter(|&&place| label::joins(&operations[place]) == Some("sum"));
    let residual = sums.filter(|&&sum| is_residual(operations, &inside, sum)).count() > 0;
    let kind = if has("attention") || (has("softmax") && has("matmul")) {
        Some("transformer block")
    } else if has("selective_scan") {
        Some("scan block")
    } else if residual {
        Some("residual block")
    } else {
        None
    };
    let mains = members.iter().filter(|&&place| {
        is_main(&operations[place]) && !is_shortcut(operations, &inside, place) && !is_gate(operations, place)
    });
    let mut parts: Vec<(String, usize)> = Vec::new();
    for &place in mains {
        let name = label::main(&operations[place]);
        match parts.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => parts.push((name, 1)),
        }
    }
    let part = |(name, count): (String, usize)| if count > 1 { format!("{count} × {name}") } else { name };
    Unit { kind, parts: parts.into_iter().map(part).collect() }
}

/// Whether an operation works on one position of what has been pooled inside of a convolutional block: squeeze and excitation.
fn is_gate(operations: &[Operation], place: usize) -> bool {
    let one = |shape: &[usize]| shape.len() < 3 || shape[2..].iter().all(|&size| size == 1);
    let operation = &operations[place];
    let pooled = |from: &usize| {
        let from = &operations[*from];
        from.op.is_some() && one(&from.shape)
    };
    one(&operation.shape) && operation.inputs.iter().all(pooled) && operation.level > 0 && gates(operations, place)
}

/// Whether what comes of an operation multiplies something larger.
fn gates(operations: &[Operation], place: usize) -> bool {
    let mut from = place;
    // The next layers of the gate, its activations and views.
    for (next, operation) in operations.iter().enumerate().skip(place + 1).take(12) {
        if operation.inputs.contains(&from) {
            if operation.name() == "mul"
                && operation.shape.iter().product::<usize>() > operations[from].shape.iter().product()
            {
                return true;
            }
            from = next;
        }
    }
    false
}

/// Whether a sum adds something that has come past a main operation.
fn is_residual(operations: &[Operation], inside: &BTreeSet<usize>, sum: usize) -> bool {
    let inputs = &operations[sum].inputs;
    let within = |from: &usize| inside.contains(from) && !is_shortcut(operations, inside, *from);
    inputs.iter().any(within)
}

/// Whether an operation is the projection on the short way of a residual block: a convolution of 1 on what enters the block,
/// next to a longer way.
fn is_shortcut(operations: &[Operation], inside: &BTreeSet<usize>, place: usize) -> bool {
    let operation = &operations[place];
    let one = convolution(operation).is_some()
        && operation.weight.get(2..).is_some_and(|kernel| kernel.iter().all(|&size| size == 1));
    let enters = |from: &usize| !inside.contains(from);
    let rivals = inside.iter().filter(|&&other| {
        other != place
            && is_main(&operations[other])
            && operations[other].inputs.iter().any(|from| operation.inputs.contains(from))
    });
    let sums = inside.iter().any(|&sum| {
        label::joins(&operations[sum]) == Some("sum")
            && operations[sum].inputs.iter().any(|&from| from == place || operations[from].inputs == [place])
    });
    one && operation.inputs.iter().all(enters) && sums && rivals.count() > 0
}

/// The parts, as far as there is room; the repeated word of convolutions is written once.
fn joined(parts: &[String], most: usize) -> String {
    let mut text = String::new();
    let mut last = "";
    for (place, part) in parts.iter().enumerate() {
        if place == most + 1 && parts.len() > most + 1 {
            text.push_str(", …");
            break;
        }
        let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
        if place > 0 {
            text.push_str(", ");
        }
        text.push_str(if word == last && word == "conv" { rest } else { part });
        last = word;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn a_repeated_word_is_written_once() {
        let parts = ["conv 1²", "conv 3²", "conv 1²"].map(str::to_owned);
        assert_eq!(joined(&parts, 3), "conv 1², 3², 1²");
        assert_eq!(joined(&parts, 1), "conv 1², 3², …");
        assert_eq!(joined(&["linear".to_owned()], 1), "linear");
    }
}
