//! Applies an import to a store.

use std::collections::HashMap;

use tomograd_core::{Error, ErrorKind, Result, Tensor};

use super::{
    Head, Import, ImportReport, Imported, Named, OPERATION,
    adapt::{self, Adapted},
    nearest::nearest,
};
use crate::{Params, params::bits};

/// The number of names of each kind that an error lists.
const SHOWN: usize = 5;

/// The new value of an entry of the store.
struct Taken {
    name: String,
    from: String,
    value: Tensor,
    changes: Vec<String>,
    reshaped: bool,
}

impl Params {
    /// Replaces values by those of a file, according to `import`, and reports what was loaded.
    ///
    /// # Errors
    /// When a name is missing or unexpected (unless the import is partial) or given twice, a tensor doesn't fit or can't be
    /// read, or nothing would be loaded; then nothing is changed.
    pub fn import(&mut self, import: &Import<'_>) -> Result<ImportReport> {
        if let Some(wrong) = &import.wrong {
            return Err(Error::new(ErrorKind::Name, OPERATION, wrong.clone()).expected("a part that the file has"));
        }
        self.check_steps(import)?;
        let mut taken: Vec<Option<Taken>> = Vec::new();
        taken.resize_with(self.entries.len(), || None);
        let mut report = ImportReport {
            skipped: import.skipped.iter().map(|left| (left.name.clone(), left.why.clone())).collect(),
            ..ImportReport::default()
        };
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut found = Vec::new();
        for (i, named) in import.named.iter().enumerate() {
            if let Some(first) = places.insert(&named.name, i) {
                let [first, second] = [first, i].map(|i| import.named[i].stored.name());
                return Err(Error::new(
                    ErrorKind::Name,
                    OPERATION,
                    format!("{first} and {second} are both {}", named.name),
                )
                .expected("one tensor for each name"));
            }
            match self.by_name.get(&named.name) {
                Some(&index) => found.push((index, named)),
                None if import.heads.iter().any(|head| head.rows.is_none() && head.has(&named.name)) => {
                    report.skipped.push((named.name.clone(), "of other classes".to_owned()));
                }
                None => report.unexpected.push(named.name.clone()),
            }
        }
        report.missing = self.missing(import, &found).iter().map(|&index| self.entries[index].name.clone()).collect();
        let all = report.missing.is_empty() && report.unexpected.is_empty();
        if !all && !import.partial {
            return Err(refusal(&report));
        }
        for (index, named) in found {
            match self.adapted(import, index, named).map_err(|error| error.within(named.name.clone()))? {
                Some((value, changes)) => {
                    let reshaped = named.stored.shape() != value.shape() && import.adapts(&named.name).is_none();
                    let from = named.stored.name().to_owned();
                    take(
                        &mut taken[index],
                        Taken { name: named.name.clone(), from, value, changes, reshaped },
                        &mut report,
                    )?;
                }
                None => report.skipped.push((named.name.clone(), "of other classes".to_owned())),
            }
        }
        let kept = |name: &str| import.heads.iter().any(|head| head.rows.is_none() && head.has(name));
        let entries = || self.entries.iter().zip(&taken);
        let left = entries().filter(|(entry, taken)| taken.is_none() && kept(&entry.name));
        report.kept = left.map(|(entry, _)| entry.name.clone()).collect();
        if taken.iter().all(Option::is_none) {
            let names: Vec<&str> = import.named.iter().take(SHOWN).map(|named| &named.name[..]).collect();
            return Err(Error::new(ErrorKind::Name, OPERATION, format!("nothing fits among {}", names.join(", ")))
                .expected(format!("names of the network, as {}", self.some_names())));
        }
        // Everything has been read and checked; only now is the store changed.
        for (entry, taken) in self.entries.iter_mut().zip(taken) {
            if let Some(Taken { name, from, value, changes, reshaped }) = taken {
                entry.value = value;
                report.reshaped.extend(reshaped.then(|| name.clone()));
                report.loaded.push(Imported { name, from, changes });
            }
        }
        self.unfold();
        Ok(report)
    }

    /// Checks that the parameters and layers that the import adapts exist.
    fn check_steps(&self, import: &Import<'_>) -> Result<()> {
        let known = |name: &str| self.by_name.contains_key(name);
        let layer = |head: &&Head| !self.by_name.keys().any(|name| head.has(name));
        let absent = import.channels.iter().map(|(name, _)| name).find(|name| !known(name));
        let absent = absent.or_else(|| import.heads.iter().find(layer).map(|head| &head.name));
        absent.map_or(Ok(()), |name| {
            Err(Error::new(ErrorKind::Name, OPERATION, format!("the network has no {name}"))
                .expected(format!("names of the network, as {}", self.some_names())))
        })
    }

    fn some_names(&self) -> String {
        let names: Vec<&str> = self.entries.iter().take(SHOWN).map(|entry| &entry.name[..]).collect();
        names.join(", ")
    }

    /// Entries without a tensor in the file, except those of layers that keep their values.
    fn missing(&self, import: &Import<'_>, found: &[(usize, &Named<'_>)]) -> Vec<usize> {
        let mut there = vec![false; self.entries.len()];
        found.iter().for_each(|&(index, _)| there[index] = true);
        let keeps = |head: &Head, index: usize| head.rows.is_none() && head.has(&self.entries[index].name);
        let kept = |index: usize| import.heads.iter().any(|head| keeps(head, index));
        (0..there.len()).filter(|&index| !there[index] && !kept(index)).collect()
    }

    /// The new value of an entry; `None` if the entry keeps its own.
    fn adapted(&self, import: &Import<'_>, index: usize, named: &Named<'_>) -> Result<Option<Adapted>> {
        let old = &self.entries[index].value;
        match import.adapts(&named.name) {
            Some(Adaptation::Channels(channels)) => adapt::channels(named.stored, old, channels).map(Some),
            Some(Adaptation::Rows(rows)) => adapt::rows(named.stored, old, rows).map(Some),
            Some(Adaptation::Keep) => Ok(None),
            None => adapt::plain(named.stored, old).map(Some),
        }
    }
}

/// Stores a value; a second name of the same parameter must have the same value.
fn take(place: &mut Option<Taken>, taken: Taken, report: &mut ImportReport) -> Result<()> {
    match place {
        Some(first) if bits(&first.value)? != bits(&taken.value)? => {
            let what = format!("{} and {} have different values", first.from, taken.from);
            return Err(Error::argument(OPERATION, what).expected("one value, since they are names of one parameter"));
        }
        Some(first) => report.aliases.push((taken.from, first.name.clone())),
        None => *place = Some(taken),
    }
    Ok(())
}

/// The error of a strict import with missing or unexpected names.
fn refusal(report: &ImportReport) -> Error {
    let list = |what: &str, names: &[String], candidates: &[String], of: &str| {
        let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
        let shown = names.iter().take(SHOWN).map(|name| {
            let skipped = report.skipped.iter().find(|(skipped, _)| skipped == name);
            match (skipped, nearest(name, &candidates)) {
                (Some((_, why)), _) => format!("{name} (in the file, but: {why})"),
                (None, Some(like)) => format!("{name} ({of} has {like})"),
                (None, None) => name.clone(),
            }
        });
        let shown: Vec<String> = shown.collect();
        let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
        (!names.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
    };
    let missing = list("missing", &report.missing, &report.unexpected, "the file");
    let unexpected = list("unexpected", &report.unexpected, &report.missing, "the network");
    let text: Vec<String> = missing.into_iter().chain(unexpected).collect();
    Error::new(ErrorKind::Name, OPERATION, text.join("; ")).expected(
        "exactly the names of the network (part, strip_prefix, rename and skip change the file's; partial takes what fits)",
    )
}

/// How a tensor is adapted, apart from its dtype.
enum Adaptation<'a> {
    Channels(usize),
    Rows(&'a [Option<usize>]),
    Keep,
}

impl Import<'_> {
    fn adapts(&self, name: &str) -> Option<Adaptation<'_>> {
        let channels = self.channels.iter().find(|(known, _)| known == name);
        channels.map(|&(_, channels)| Adaptation::Channels(channels)).or_else(|| {
            let head = self.heads.iter().find(|head| head.has(name))?;
            Some(head.rows.as_deref().map_or(Adaptation::Keep, Adaptation::Rows))
        })
    }
}
