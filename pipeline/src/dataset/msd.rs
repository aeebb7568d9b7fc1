//! The layout of the Medical Segmentation Decathlon: `dataset.json` names the files.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tomograd_core::{Error, Result};

use super::{Case, Dataset, Source};
use crate::sample::MOST_CLASSES;

const FILE: &str = "dataset.json";

impl Dataset {
    /// The training cases of a folder of the Medical Segmentation Decathlon (Antonelli et al., arXiv:2106.05735): the files that
    /// its `dataset.json` names under `training`, with the fields `image` and `label`. The classes are those of `labels`, by
    /// name in [`Dataset::class_names`]; a number that isn't named is called `class N`. The volumes of a 4D image are its
    /// channels.
    ///
    /// ```
    /// use tomograd_pipeline::{Cases, Dataset};
    /// # use tomograd_core::{DType, Device, Tensor};
    /// # use tomograd_io::{Volume, geometry};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-msd-doc-{}", std::process::id()));
    /// # for part in ["imagesTr", "labelsTr"] {
    /// #     std::fs::create_dir_all(folder.join(part)).unwrap();
    /// #     let voxels = Tensor::zeros(&[4, 5, 6], DType::U8, Device::Cpu)?;
    /// #     Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(folder.join(part).join("liver_1.nii.gz"))?;
    /// # }
    /// let json = r#"{"labels": {"0": "background", "1": "liver"},
    ///     "training": [{"image": "./imagesTr/liver_1.nii.gz", "label": "./labelsTr/liver_1.nii.gz"}]}"#;
    /// std::fs::write(folder.join("dataset.json"), json).unwrap();
    /// let cases = Dataset::msd(&folder)?;
    /// assert_eq!((cases.names(), cases.class_names()), (vec!["liver_1".into()], &["background".into(), "liver".into()][..]));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `dataset.json` can't be read or lacks `labels` or `training`, names a file twice, one that doesn't exist, or one
    /// outside of the folder.
    pub fn msd(folder: impl AsRef<Path>) -> Result<Self> {
        let (path, json) = read(folder.as_ref())?;
        let named = |error: Error| error.within(path.display().to_string());
        let classes = classes(&json).map_err(named)?;
        let list = json.get("training").and_then(Value::as_array).filter(|list| !list.is_empty());
        let list =
            list.ok_or_else(|| named(wrong("no cases under `training`", "[{\"image\": …, \"label\": …}, …]")))?;
        let case = |entry: &Value| {
            let file = |key: &str| file(folder.as_ref(), entry.get(key), key);
            let (image, label) = (file("image")?, file("label")?);
            let label = Source::Label { path: label, classes: classes.len() };
            Ok(Case::new(name(&image), [("image".into(), Source::Image(vec![image])), ("label".into(), label)]))
        };
        let cases = distinct(list.iter().map(case)).map_err(named)?;
        Ok(Self { class_names: Arc::new(classes.clone()), ..Self::of(cases, classes.len()) })
    }

    /// The cases without labels of a folder of the Medical Segmentation Decathlon: the files that `dataset.json` names under
    /// `test`, with the field `image`.
    ///
    /// # Errors
    /// As [`Dataset::msd`].
    pub fn msd_test(folder: impl AsRef<Path>) -> Result<Self> {
        let (path, json) = read(folder.as_ref())?;
        let named = |error: Error| error.within(path.display().to_string());
        let list = json.get("test").and_then(Value::as_array).filter(|list| !list.is_empty());
        let list = list.ok_or_else(|| named(wrong("no cases under `test`", "[\"./imagesTs/…\", …]")))?;
        let case = |entry: &Value| {
            // Some files of the decathlon have objects here, as under `training`.
            let image = file(folder.as_ref(), Some(entry.get("image").unwrap_or(entry)), "image")?;
            Ok(Case::new(name(&image), [("image".into(), Source::Image(vec![image]))]))
        };
        let cases = distinct(list.iter().map(case)).map_err(named)?;
        Ok(Self::of(cases, 0))
    }
}

fn wrong(what: impl Into<String>, expected: &str) -> Error {
    Error::format("msd", what.into()).expected(expected)
}

fn read(folder: &Path) -> Result<(PathBuf, Value)> {
    /// The list of a hundred thousand cases is shorter.
    const MOST: u64 = 64 << 20;
    let path = folder.join(FILE);
    let length = fs::metadata(&path).map_err(|error| Error::io("read", path.display(), error))?.len();
    if length > MOST {
        return Err(wrong(format!("a file of {length} bytes"), "at most 64 MiB").within(path.display().to_string()));
    }
    let bytes = fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?;
    let json = serde_json::from_slice(&bytes);
    let json = json.map_err(|error| wrong(error.to_string(), "JSON").within(path.display().to_string()))?;
    Ok((path, json))
}

/// The names of the classes by number.
fn classes(json: &Value) -> Result<Vec<String>> {
    let expected = "{\"0\": \"background\", \"1\": \"liver\", …}";
    let labels = json.get("labels").and_then(Value::as_object).ok_or_else(|| wrong("no `labels`", expected))?;
    let mut names = BTreeMap::new();
    for (number, name) in labels {
        let number = number.parse::<usize>().ok().filter(|number| *number < MOST_CLASSES);
        let (number, name) = number.zip(name.as_str()).ok_or_else(|| wrong("other `labels`", expected))?;
        names.insert(number, name.to_owned());
    }
    let count = names.keys().last().map_or(0, |last| last + 1);
    if count < 2 {
        return Err(wrong("no class but the background in `labels`", expected));
    }
    Ok((0..count).map(|number| names.remove(&number).unwrap_or_else(|| format!("class {number}"))).collect())
}

/// The path of a file that `dataset.json` names.
fn file(folder: &Path, name: Option<&Value>, key: &str) -> Result<PathBuf> {
    let name = name.and_then(Value::as_str);
    let name = name.ok_or_else(|| wrong(format!("a case without `{key}`"), "the name of a file"))?;
    inside(folder, name)
}

/// The path of a file that a file in `folder` names, which must be in the folder or below it.
pub(super) fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let outside = || wrong(format!("the file {name:?}"), "one in the folder or below it; no name leads elsewhere");
    let goes_down = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !goes_down || name.is_empty() {
        return Err(outside());
    }
    let path = folder.join(name);
    let real = |path: &Path| fs::canonicalize(path).map_err(|error| Error::io("read", path.display(), error));
    if !real(&path)?.starts_with(real(folder)?) {
        return Err(outside());
    }
    Ok(path)
}

/// The name of a case: that of its image, without endings.
fn name(path: &Path) -> String {
    super::folders::case_name(&path.file_name().unwrap_or_default().to_string_lossy()).to_owned()
}

/// The cases, each with a name of its own.
fn distinct(cases: impl Iterator<Item = Result<Case>>) -> Result<Vec<Case>> {
    let mut known = std::collections::HashSet::new();
    cases
        .map(|case| {
            let case = case?;
            if !known.insert(case.name.clone()) {
                return Err(wrong(format!("two cases are called {:?}", case.name), "files of different names"));
            }
            Ok(case)
        })
        .collect()
}
