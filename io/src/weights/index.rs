//! Sharded weights: an index file says in which file each tensor is: `{"weight_map": {"NAME": "FILE", …}}`.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Component, Path},
    sync::Arc,
};

use tomograd_core::{Error, Result};

use super::{OPERATION, Skipped, Weights};
use crate::blob::Source;

/// The maximum size of an index.
const MOST: u64 = 100_000_000;

#[derive(serde::Deserialize)]
struct Index {
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
    weight_map: BTreeMap<String, String>,
}

/// Opens the files of an index. They must be in the same folder, so that a hostile index can't name other files.
pub(super) fn open(source: &Arc<Source>, path: &Path) -> Result<Weights> {
    if source.length() > MOST {
        return Err(Error::format(OPERATION, format!("an index of {} bytes", source.length()))
            .expected(format!("at most {MOST}")));
    }
    let index: Index = serde_json::from_slice(&source.bytes(0, source.length())?).map_err(|error| {
        Error::format(OPERATION, format!("the index can't be read: {error}"))
            .expected("an object with a weight_map from names to files")
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut parts: HashMap<&str, Weights> = HashMap::new();
    for file in index.weight_map.values().map(String::as_str) {
        if parts.contains_key(file) {
            continue;
        }
        let plain = |part| matches!(part, Component::Normal(_));
        if file.is_empty() || file.contains('\\') || !Path::new(file).components().all(plain) {
            return Err(Error::format(OPERATION, format!("the index names the file {file:?}"))
                .expected("a path that stays in the index's folder"));
        }
        let open = || {
            let source = Source::open(&folder.join(file))?;
            let first = source.bytes(0, source.length().min(512))?;
            Weights::of(&source, &first)
        };
        parts.insert(file, open().map_err(|error| error.within(file.to_owned()))?);
    }
    let (mut tensors, mut skipped) = (Vec::new(), Vec::new());
    let unread: HashMap<(&str, &str), &Skipped> = parts
        .iter()
        .flat_map(|(&file, part)| part.skipped.iter().map(move |skipped| ((file, &skipped.name[..]), skipped)))
        .collect();
    for (name, file) in &index.weight_map {
        let Some(part) = parts.get(&file[..]) else { continue };
        match unread.get(&(&file[..], &name[..])) {
            Some(&known) => skipped.push(known.clone()),
            None => tensors.push(part.get(name).map_err(|error| error.within(file.clone()))?.clone()),
        }
    }
    let mut files: Vec<_> = parts.into_iter().collect();
    files.sort_by_key(|(file, _)| *file);
    let mut globals = Vec::new();
    for (file, part) in files {
        let unlisted =
            part.tensors.iter().filter(|tensor| index.weight_map.get(tensor.name()).is_none_or(|at| at != file));
        skipped.extend(unlisted.map(|tensor| Skipped::new(tensor.name(), format!("in {file}, but not in the index"))));
        globals.extend(part.globals);
    }
    globals.sort();
    globals.dedup();
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let metadata = index.metadata.into_iter().map(|(name, value)| (name, text(value))).collect();
    Ok(Weights { skipped, metadata, globals, ..Weights::named(tensors) })
}
