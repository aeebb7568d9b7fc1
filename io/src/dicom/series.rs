//! Series, and how their frames become stacks.

use std::{collections::HashSet, sync::Arc};

use tomograd_core::Result;

use super::{
    fail,
    frame::{APART, MARKS},
    geometry::{dot, normal},
    image::{About, Image},
    stack::{ONE_PLACE, Slice, Stack},
};

/// A series with more stacks than this is refused.
const MOST_STACKS: usize = 1024;

/// The images of one SeriesInstanceUID.
#[derive(Debug, Clone)]
pub struct Series {
    about: About,
    stacks: Vec<Stack>,
    notes: Vec<String>,
    files: usize,
}

impl Series {
    /// The SeriesInstanceUID.
    pub fn uid(&self) -> &str {
        &self.about.series
    }

    /// The StudyInstanceUID.
    pub fn study_uid(&self) -> &str {
        &self.about.study
    }

    /// The modality, such as `CT` or `MR`.
    pub fn modality(&self) -> &str {
        &self.about.modality
    }

    /// The description; empty if there is none.
    pub fn description(&self) -> &str {
        &self.about.description
    }

    /// The number of the series in its study.
    pub fn number(&self) -> Option<f64> {
        self.about.number
    }

    /// The units of the voxels, such as `HU`, if a file names them.
    pub fn units(&self) -> Option<&str> {
        self.about.units.as_deref()
    }

    /// The volumes of the series, the largest first.
    pub fn stacks(&self) -> &[Stack] {
        &self.stacks
    }

    /// The number of files.
    pub fn files(&self) -> usize {
        self.files
    }

    /// What is odd about the series, and what was done.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The only stack.
    ///
    /// # Errors
    /// When there are several; the error lists them.
    pub fn stack(&self) -> Result<&Stack> {
        match self.stacks.as_slice() {
            [stack] => Ok(stack),
            several => {
                let list = several.iter().take(20).enumerate().map(|(i, stack)| {
                    let [x, y, z] = stack.size();
                    format!("{}: {x} × {y} × {z}, {}", i + 1, stack.label())
                });
                let list: Vec<String> = list.collect();
                Err(fail(format!("series {} has {} stacks ({})", self.uid(), several.len(), list.join("; ")))
                    .expected("one stack, or a choice of one"))
            }
        }
    }

    /// Makes stacks of the images of one series.
    pub(super) fn new(images: Vec<Arc<Image>>) -> Result<Self> {
        let about = images.first().map(|image| image.about.clone()).ok_or_else(|| fail("a series without images"))?;
        let (files, mut notes) = (images.len(), Vec::new());
        let mut seen = HashSet::new();
        let mut twice = 0usize;
        let mut slices = Vec::new();
        for image in images {
            let instance = &image.about.instance;
            if !instance.is_empty() && !seen.insert(instance.clone()) {
                twice += 1;
                continue;
            }
            for frame in 0..image.frames.len() {
                slices.push(Slice { image: image.clone(), frame });
            }
        }
        if twice > 0 {
            notes.push(format!("{twice} files hold an image that another file holds too: left out"));
        }
        let mut groups: Vec<(Vec<Slice>, Vec<String>)> = Vec::new();
        for group in grouped(slices)? {
            let placed = group.first().is_some_and(|slice| slice.position().is_some() && orientation(slice).is_some());
            if !placed {
                groups.extend(by_file(group).into_iter().map(|group| (group, Vec::new())));
                continue;
            }
            apart(group, &mut groups);
        }
        if groups.len() > MOST_STACKS {
            return Err(fail(format!("series {:?} has {} stacks", about.series, groups.len()))
                .expected(format!("at most {MOST_STACKS}")));
        }
        let mut stacks =
            groups.into_iter().map(|(group, notes)| Stack::new(group, notes)).collect::<Result<Vec<_>>>()?;
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.slices().len()));
        let labels = labels(&stacks);
        let stacks: Vec<Stack> = stacks.into_iter().zip(labels).map(|(stack, label)| stack.labelled(label)).collect();
        if stacks.len() > 1 {
            notes.push(format!("{} stacks, told apart by what their labels say", stacks.len()));
        }
        Ok(Self { about, stacks, notes, files })
    }
}

fn orientation(slice: &Slice) -> Option<[f64; 6]> {
    slice.detail()?.orientation
}

/// Whether two slices may be in one volume.
fn alike(a: &Slice, b: &Slice) -> bool {
    let (Some(x), Some(y)) = (a.detail(), b.detail()) else { return false };
    let close = |a: &[f64], b: &[f64], by: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by);
    let same = |a: Option<&[f64]>, b: Option<&[f64]>, by: f64| match (a, b) {
        (Some(a), Some(b)) => close(a, b, by * a.iter().fold(1.0, |most: f64, x| most.max(x.abs()))),
        (None, None) => true,
        _ => false,
    };
    let format = |slice: &Slice| {
        let format = &slice.image.format;
        (format.rows, format.columns, format.samples, format.float, format.photometric.coloured())
    };
    format(a) == format(b)
        && a.position().is_some() == b.position().is_some()
        && same(x.orientation.as_ref().map(|o| &o[..]), y.orientation.as_ref().map(|o| &o[..]), 1e-3)
        && same(x.spacing.as_ref().map(|s| &s[..]), y.spacing.as_ref().map(|s| &s[..]), 1e-3)
        && x.marks.iter().take(APART).eq(y.marks.iter().take(APART))
        && (a.image.format.signed, a.image.format.stored, a.image.format.photometric)
            == (b.image.format.signed, b.image.format.stored, b.image.format.photometric)
}

/// Groups of slices that may be in one volume.
fn grouped(slices: Vec<Slice>) -> Result<Vec<Vec<Slice>>> {
    let mut groups: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        if let Some(group) = groups.iter_mut().find(|group| group.first().is_some_and(|first| alike(first, &slice))) {
            group.push(slice);
            continue;
        }
        if groups.len() == MOST_STACKS {
            return Err(fail(format!("a series of more than {MOST_STACKS} kinds of images")));
        }
        groups.push(vec![slice]);
    }
    Ok(groups)
}

/// Slices without a place: those of a file belong together, in its order.
fn by_file(slices: Vec<Slice>) -> Vec<Vec<Slice>> {
    let mut files: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        match files.last_mut() {
            Some(file) if file.first().is_some_and(|first| Arc::ptr_eq(&first.image, &slice.image)) => file.push(slice),
            _ => files.push(vec![slice]),
        }
    }
    files
}

/// The place of a slice along the normal of `first`.
fn place(slice: &Slice, across: [f64; 3]) -> f64 {
    slice.position().map_or(0.0, |position| dot(position, across))
}

/// Sorts slices by their place, and returns the most that are at one place.
fn sorted(slices: &mut [Slice]) -> usize {
    let across = slices.first().and_then(orientation).map_or([0.0, 0.0, 1.0], |orientation| normal(&orientation));
    let number = |slice: &Slice| slice.detail().and_then(|detail| detail.number).unwrap_or(0.0);
    slices.sort_by(|a, b| {
        let [x, y] = [a, b].map(|slice| place(slice, across));
        if (x - y).abs() <= ONE_PLACE * 0.5 {
            number(a).total_cmp(&number(b)).then(a.frame.cmp(&b.frame))
        } else {
            x.total_cmp(&y)
        }
    });
    let (mut most, mut here, mut last) = (0, 0, f64::NEG_INFINITY);
    for slice in slices.iter() {
        let at = place(slice, across);
        here = if at - last <= ONE_PLACE { here + 1 } else { 1 };
        last = at;
        most = most.max(here);
    }
    most
}

/// Slices by the value of a mark, in the order in which values come.
fn by_mark(slices: &[Slice], mark: usize) -> Vec<Vec<Slice>> {
    let value = |slice: &Slice| slice.detail().and_then(|detail| detail.marks.get(mark).cloned().flatten());
    let mut values: Vec<Option<String>> = Vec::new();
    let mut parts: Vec<Vec<Slice>> = Vec::new();
    for slice in slices {
        let own = value(slice);
        match values.iter().position(|value| *value == own) {
            Some(at) => parts.iter_mut().skip(at).take(1).for_each(|part| part.push(slice.clone())),
            None if values.len() < MOST_STACKS => {
                values.push(own);
                parts.push(vec![slice.clone()]);
            }
            // Too many to be volumes.
            None => return Vec::new(),
        }
    }
    parts
}

/// Takes slices apart until no two of a group are at one place.
fn apart(mut slices: Vec<Slice>, groups: &mut Vec<(Vec<Slice>, Vec<String>)>) {
    let most = sorted(&mut slices);
    if most <= 1 {
        groups.push((slices, Vec::new()));
        return;
    }
    // First what explains it alone: as many values as there are slices at a place. Then what does so in part.
    let splits: Vec<Vec<Vec<Slice>>> = (APART..MARKS.len()).map(|mark| by_mark(&slices, mark)).collect();
    let whole =
        splits.iter().position(|parts| parts.len() == most && parts.iter().all(|part| sorted(&mut part.clone()) == 1));
    let partly = || splits.iter().position(|parts| parts.len() > 1 && parts.len() <= most);
    if let Some(parts) = whole.or_else(partly).and_then(|at| splits.into_iter().nth(at)) {
        parts.into_iter().for_each(|part| apart(part, groups));
        return;
    }
    // Nothing in the headers does: in the order of their instance numbers.
    let across = slices.first().and_then(orientation).map_or([0.0, 0.0, 1.0], |orientation| normal(&orientation));
    let mut layers: Vec<Vec<Slice>> = vec![Vec::new(); most];
    let (mut layer, mut last) = (0, f64::NEG_INFINITY);
    for slice in slices {
        let at = place(&slice, across);
        layer = if at - last <= ONE_PLACE { layer + 1 } else { 0 };
        last = at;
        if let Some(layer) = layers.get_mut(layer) {
            layer.push(slice);
        }
    }
    let note = format!(
        "{most} slices are at one place, and nothing but their instance numbers tells them apart: they are layers in that order"
    );
    groups.extend(layers.into_iter().map(|layer| (layer, vec![note.clone()])));
}

/// What tells each stack from the others.
fn labels(stacks: &[Stack]) -> Vec<String> {
    if stacks.len() < 2 {
        return vec![String::new(); stacks.len()];
    }
    // Each property of each stack, as text.
    let describe = |stack: &Stack| -> Vec<String> {
        let [width, height, _] = stack.size();
        let detail = stack.slices().first().and_then(Slice::detail);
        let image = stack.slices().first().map(|slice| &slice.image);
        let across = crate::geometry::orientation(stack.affine());
        let mut properties = vec![format!("{width} × {height}"), format!("axes {across}")];
        if let Some(detail) = detail {
            properties.push(
                detail.spacing.map_or(String::new(), |[rows, columns]| format!("pixels of {columns} × {rows} mm")),
            );
            // A mark that differs within a stack doesn't tell it from others.
            for (mark, name) in MARKS.iter().enumerate() {
                let value = |slice: &Slice| slice.detail().and_then(|detail| detail.marks.get(mark).cloned().flatten());
                let first = stack.slices().first().and_then(value);
                let one = stack.slices().iter().all(|slice| value(slice) == first);
                properties.push(first.filter(|_| one).map_or(String::new(), |value| format!("{name} {value}")));
            }
            properties.push(detail.number.map_or(String::new(), |number| format!("instance {number}")));
        }
        properties.push(image.map_or(String::new(), |image| format!("{:?}", image.format.photometric)));
        properties
    };
    let all: Vec<Vec<String>> = stacks.iter().map(describe).collect();
    let differs =
        |at: usize| all.iter().any(|properties| properties.get(at) != all.first().and_then(|first| first.get(at)));
    let label = |properties: &Vec<String>| {
        let parts = properties.iter().enumerate().filter(|(at, part)| !part.is_empty() && differs(*at));
        let parts: Vec<&str> = parts.map(|(_, part)| part.as_str()).take(4).collect();
        parts.join(", ")
    };
    all.iter().map(label).collect()
}
