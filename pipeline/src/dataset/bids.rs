//! The Brain Imaging Data Structure (BIDS 1.10, bids-specification.readthedocs.io): a folder a subject, and names made of
//! entities.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use tomograd_core::{Error, ErrorKind, Result};

use super::{Case, Dataset, Source};
use crate::{Field, names, sample::check_classes};

/// What is taken from a BIDS folder: which files are the image, which the label, and which columns of `participants.tsv` become
/// fields.
///
/// ```
/// use tomograd_pipeline::Bids;
/// // sub-01/anat/sub-01_acq-mprage_T1w.nii.gz and sub-01_FLAIR.nii.gz as channels, the mask from derivatives/manual
/// let bids = Bids::new(["T1w", "FLAIR"]).label("derivatives/manual", "dseg", 3).number("age").class("sex", ["F", "M"]);
/// ```
#[derive(Clone, Debug)]
pub struct Bids {
    datatype: String,
    suffixes: Vec<String>,
    entities: Vec<(String, String)>,
    label: Option<Label>,
    columns: Vec<(String, Option<Vec<String>>)>,
    skip_incomplete: bool,
}

#[derive(Clone, Debug)]
struct Label {
    folder: String,
    suffix: String,
    classes: usize,
    entities: Vec<(String, String)>,
}

impl Bids {
    /// Images of these suffixes (`T1w`, `FLAIR`, …), a channel each, in folders of anatomical images (`anat`).
    pub fn new(suffixes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            datatype: "anat".to_owned(),
            suffixes: suffixes.into_iter().map(Into::into).collect(),
            entities: Vec::new(),
            label: None,
            columns: Vec::new(),
            skip_incomplete: false,
        }
    }

    /// The data type of the images, the name of the folder in which they are: `anat`, `dwi`, `pet`, …
    #[must_use]
    pub fn datatype(self, datatype: impl Into<String>) -> Self {
        Self { datatype: datatype.into(), ..self }
    }

    /// Takes images alone whose names have this entity (`run`, `1`), where a session has several of one suffix.
    #[must_use]
    pub fn entity(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.entities.push((key.into(), value.into()));
        self
    }

    /// Masks of this suffix (`dseg`, `mask`, …) with `classes` classes (1 to 256, with the background), in a folder below the
    /// root that has a folder a subject (`derivatives/manual`).
    #[must_use]
    pub fn label(self, folder: impl Into<String>, suffix: impl Into<String>, classes: usize) -> Self {
        let label = Label { folder: folder.into(), suffix: suffix.into(), classes, entities: Vec::new() };
        Self { label: Some(label), ..self }
    }

    /// Takes masks alone whose names have this entity (`desc`, `lesion`).
    #[must_use]
    pub fn label_entity(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        if let Some(label) = &mut self.label {
            label.entities.push((key.into(), value.into()));
        }
        self
    }

    /// A column of `participants.tsv` with numbers, as a field of its name.
    #[must_use]
    pub fn number(mut self, column: impl Into<String>) -> Self {
        self.columns.push((column.into(), None));
        self
    }

    /// A column of `participants.tsv` with names of classes, as a field of its name: the place of the value in the list.
    #[must_use]
    pub fn class(mut self, column: impl Into<String>, classes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.columns.push((column.into(), Some(classes.into_iter().map(Into::into).collect())));
        self
    }

    /// Leaves out sessions that lack an image or the mask, which are an error otherwise.
    #[must_use]
    pub fn skip_incomplete(self) -> Self {
        Self { skip_incomplete: true, ..self }
    }
}

impl Dataset {
    /// The sessions of a BIDS folder as cases, named `sub-01` or `sub-01_ses-2`, with the fields `image`, `label` (where
    /// [`Bids::label`] says so) and those of `participants.tsv`.
    ///
    /// ```
    /// use tomograd_pipeline::{Bids, Cases, Dataset, Field};
    /// # use tomograd_core::{DType, Device, Tensor};
    /// # use tomograd_io::{Volume, geometry};
    /// # let folder = std::env::temp_dir().join(format!("tomograd-bids-doc-{}", std::process::id()));
    /// # for part in ["sub-01/anat/sub-01_T1w.nii.gz", "derivatives/manual/sub-01/anat/sub-01_dseg.nii.gz"] {
    /// #     std::fs::create_dir_all(folder.join(part).parent().unwrap()).unwrap();
    /// #     let voxels = Tensor::zeros(&[4, 5, 6], DType::U8, Device::Cpu)?;
    /// #     Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(folder.join(part))?;
    /// # }
    /// std::fs::write(folder.join("participants.tsv"), "participant_id\tage\nsub-01\t34\n").unwrap();
    /// let cases = Dataset::bids(&folder, &Bids::new(["T1w"]).label("derivatives/manual", "dseg", 2).number("age"))?;
    /// assert_eq!(cases.names(), ["sub-01"]);
    /// assert!(matches!(cases.sample(0)?.get("age")?, Field::Numbers(age) if age[..] == [34.0]));
    /// # std::fs::remove_dir_all(&folder).ok();
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When there are no subjects, a session has no image or mask, or several that fit, `participants.tsv` can't be read or has no
    /// row or no value for a subject.
    pub fn bids(folder: impl AsRef<Path>, bids: &Bids) -> Result<Self> {
        let folder = folder.as_ref();
        if bids.suffixes.is_empty() {
            return Err(Error::argument("bids", "no suffix of images").expected("one at least, such as T1w"));
        }
        let label_root = match &bids.label {
            None => None,
            Some(label) => {
                check_classes("bids", label.classes)?;
                Some((label, super::msd::inside(folder, &label.folder)?))
            }
        };
        let participants = Participants::read(folder, bids)?;
        let mut cases = Vec::new();
        for (subject, path) in subfolders(folder, "sub-")? {
            let sessions = subfolders(&path, "ses-")?;
            let sessions = if sessions.is_empty() {
                vec![(String::new(), path)]
            } else {
                sessions.into_iter().map(|(session, path)| (format!("_{session}"), path)).collect()
            };
            for (session, path) in sessions {
                let name = format!("{subject}{session}");
                let images = bids
                    .suffixes
                    .iter()
                    .map(|suffix| one(&path.join(&bids.datatype), &name, suffix, &bids.entities, bids.skip_incomplete));
                let Some(images) = images.collect::<Result<Option<Vec<_>>>>()? else { continue };
                let mut fields = vec![("image".to_owned(), Source::Image(images))];
                if let Some((label, root)) = &label_root {
                    let below = root.join(
                        session
                            .trim_start_matches('_')
                            .split_terminator('/')
                            .fold(PathBuf::from(&subject), |path, session| path.join(session)),
                    );
                    let place = below.join(&bids.datatype);
                    let Some(path) = one(&place, &name, &label.suffix, &label.entities, bids.skip_incomplete)? else {
                        continue;
                    };
                    fields.push(("label".to_owned(), Source::Label { path, classes: label.classes }));
                }
                fields.extend(participants.fields(&subject)?);
                cases.push(Case::new(name, fields));
            }
        }
        if cases.is_empty() {
            return Err(Error::argument("bids", format!("no sessions in {}", folder.display()))
                .expected("folders sub-*, with ses-* in them or not, and images in anat/"));
        }
        Ok(Self::of(cases, bids.label.as_ref().map_or(0, |label| label.classes)))
    }
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Name, "bids", what)
}

/// The folders in a folder whose names begin with `start`, by name.
fn subfolders(folder: &Path, start: &str) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error| Error::io("read folder", folder.display(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with(start));
        if let Some(name) = name.filter(|_| path.is_dir()) {
            found.push((name.to_owned(), path));
        }
    }
    found.sort();
    Ok(found)
}

/// The parts of a file name after the subject and the session, `key-value`, and its suffix.
fn entities<'a>(file: &'a str, name: &str) -> Option<(HashMap<&'a str, &'a str>, &'a str)> {
    let stem = file.strip_suffix(".gz").unwrap_or(file).strip_suffix(".nii")?;
    let (first, suffix) =
        stem.strip_prefix(name)?.strip_prefix('_').map(|rest| rest.rsplit_once('_').unwrap_or(("", rest)))?;
    let parts = first.split_terminator('_').map(|part| part.split_once('-')).collect::<Option<_>>()?;
    Some((parts, suffix))
}

/// The only file of a session with this suffix and these entities; `None` if there is none and that is allowed.
fn one(
    folder: &Path,
    name: &str,
    suffix: &str,
    wanted: &[(String, String)],
    may_lack: bool,
) -> Result<Option<PathBuf>> {
    let mut found = Vec::new();
    if folder.is_dir() {
        let failed = |error| Error::io("read folder", folder.display(), error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
            let fits = entities(file, name).is_some_and(|(entities, own)| {
                let has = |(key, value): &(String, String)| entities.get(key.as_str()) == Some(&value.as_str());
                own == suffix && wanted.iter().all(has)
            });
            if fits {
                found.push(path);
            }
        }
    }
    found.sort();
    let list: Vec<String> = wanted.iter().map(|(key, value)| format!("_{key}-{value}")).collect();
    let what = format!("{name}…{}_{suffix}.nii.gz", list.concat());
    match &found[..] {
        [path] => Ok(Some(path.clone())),
        [] if may_lack => Ok(None),
        [] => Err(wrong(format!("no {what} in {}", folder.display()))
            .expected("one in every session, or Bids::skip_incomplete")),
        [first, second, ..] => Err(wrong(format!("{} and {} are both {what}", first.display(), second.display()))
            .expected("one, or Bids::entity to choose")),
    }
}

/// The rows of `participants.tsv`.
struct Participants<'a> {
    columns: &'a [(String, Option<Vec<String>>)],
    /// By subject: the values of the columns.
    rows: BTreeMap<String, Vec<String>>,
    path: PathBuf,
}

impl<'a> Participants<'a> {
    fn read(folder: &Path, bids: &'a Bids) -> Result<Self> {
        let path = folder.join("participants.tsv");
        let mut participants = Self { columns: &bids.columns, rows: BTreeMap::new(), path };
        if bids.columns.is_empty() {
            return Ok(participants);
        }
        let path = &participants.path;
        let text = fs::read_to_string(path).map_err(|error| Error::io("read", path.display(), error))?;
        let within = |error: Error| error.within(path.display().to_string());
        // Values don't contain tabs; there is no quoting.
        let mut lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate();
        let header: Vec<&str> = lines.next().map(|(_, line)| line.split('\t').collect()).unwrap_or_default();
        let place = |column: &str| {
            let at = header.iter().position(|known| *known == column);
            at.ok_or_else(|| within(names::unknown("bids", "column", column, header.iter().copied())))
        };
        let id = place("participant_id")?;
        let places = bids.columns.iter().map(|(column, _)| place(column)).collect::<Result<Vec<_>>>()?;
        for (number, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields.len() != header.len() {
                return Err(within(
                    Error::format("bids", format!("{} fields in line {}", fields.len(), number + 1))
                        .expected(format!("{}, as the first line has", header.len())),
                ));
            }
            let values = places.iter().map(|place| fields[*place].to_owned()).collect();
            if participants.rows.insert(fields[id].to_owned(), values).is_some() {
                return Err(within(wrong(format!("two rows of {:?}", fields[id])).expected("one a participant")));
            }
        }
        Ok(participants)
    }

    /// The fields of a subject.
    fn fields(&self, subject: &str) -> Result<Vec<(String, Source)>> {
        if self.columns.is_empty() {
            return Ok(Vec::new());
        }
        let within = |error: Error| error.within(self.path.display().to_string());
        let row = self.rows.get(subject).ok_or_else(|| within(wrong(format!("no row of {subject:?}"))))?;
        let field = |((column, classes), value): (&(String, Option<Vec<String>>), &String)| {
            let bad = |expected: String| {
                within(Error::format("bids", format!("{column} {value:?} of {subject}")).expected(expected))
            };
            let field = match classes {
                Some(classes) => {
                    let at = classes.iter().position(|class| class == value);
                    Field::Class(at.ok_or_else(|| bad(format!("one of {}", classes.join(", "))))? as i64)
                }
                None => {
                    let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
                    Field::Numbers(vec![number.ok_or_else(|| bad("a finite number".to_owned()))?])
                }
            };
            Ok((column.clone(), Source::Value(field)))
        };
        self.columns.iter().zip(row).map(field).collect()
    }
}
