//! The volumes that a command is given: files, those of folders, DICOM series; and what the results are called.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd::{
    io::{
        Format,
        dicom::{self, Listing},
    },
    pipeline::Dataset,
    prelude::*,
};

/// A volume and the path of its result.
pub(crate) struct Job {
    pub(crate) input: PathBuf,
    /// The place of a volume among those of a DICOM folder: the numbers of its series and of its stack.
    place: Option<(Arc<Listing>, usize, usize)>,
    pub(crate) output: PathBuf,
}

impl Job {
    /// The stack of a DICOM series, where the input is one of several of a folder.
    pub(crate) fn stack(&self) -> Option<&dicom::Stack> {
        let (listing, series, stack) = self.place.as_ref()?;
        listing.series().get(*series)?.stacks().get(*stack)
    }
}

/// A volume before its result has a name.
struct Found {
    input: PathBuf,
    name: String,
    place: Option<(Arc<Listing>, usize, usize)>,
}

/// A folder of results, one for each volume.
pub(crate) struct Results<'a> {
    /// The name of the command, for errors.
    pub(crate) command: &'static str,
    /// The option that names the folder, for errors.
    pub(crate) option: &'static str,
    pub(crate) folder: &'a Path,
    /// The name of a result, from that of its volume.
    pub(crate) name: &'a (dyn Fn(&str) -> String + Sync),
    /// The option that replaces existing results, and whether it was given.
    pub(crate) replace: (&'static str, bool),
    /// Whether DICOM series alone are meant, in folders with other files too.
    pub(crate) series: bool,
}

impl Results<'_> {
    /// Plans the path of the result of each volume; `others` are files that no result may replace, beside the inputs.
    ///
    /// # Errors
    /// When two results would have the same name (file systems may be case-insensitive), one would replace an input or another file that
    /// is read, or an existing file must not be replaced.
    pub(crate) fn plan(&self, inputs: &[PathBuf], others: &[PathBuf]) -> Result<Vec<Job>> {
        let Self { command, option, folder, .. } = *self;
        if is_there(folder) && !folder.is_dir() {
            return Err(Error::argument(command, format!("{} isn't a folder", folder.display()))
                .expected(format!("a folder for {option}")));
        }
        let mut found = Vec::new();
        for input in inputs {
            found.extend(self.volumes(input)?);
        }
        let mut names: HashMap<String, PathBuf> = HashMap::new();
        let mut jobs = Vec::new();
        for Found { input, name, place } in found {
            let name = (self.name)(&name);
            if let Some(other) = names.insert(name.to_lowercase(), input.clone()) {
                return Err(Error::argument(
                    command,
                    format!("{} and {} give one file, {name}", other.display(), input.display()),
                )
                .expected("files of different names (of a pair of files its header alone), or a call for each"));
            }
            jobs.push(Job { input, place, output: folder.join(name) });
        }
        let read: Vec<PathBuf> =
            jobs.iter().map(|job| &job.input).chain(others).filter_map(|path| real(path)).collect();
        for job in &jobs {
            if real(&job.output).is_some_and(|output| read.contains(&output)) {
                return Err(Error::argument(
                    command,
                    format!("the result would replace {}, which is read", job.output.display()),
                )
                .expected(format!("another folder for {option}")));
            }
            self.check(&job.output)?;
        }
        Ok(jobs)
    }

    /// The volumes of an input: a file; the images that the `dataset.json` of a folder names for testing; the files of a folder;
    /// the DICOM volumes below it.
    fn volumes(&self, input: &Path) -> Result<Vec<Found>> {
        let name = file_name(input);
        if name.is_empty() {
            return Err(Error::argument(self.command, format!("{} isn't a file", input.display())));
        }
        if !input.is_dir() {
            return Ok(vec![Found { input: input.to_owned(), name, place: None }]);
        }
        let file = |path: PathBuf| Found { name: file_name(&path), input: path, place: None };
        if input.join("dataset.json").is_file() {
            let cases = Dataset::msd_test(input)?;
            let path = |name: &String| cases.image_file(name).map(|path| file(path.to_owned()));
            return cases.names().iter().map(path).collect();
        }
        let failed = |error| Error::io("read folder", input.display(), error);
        let mut files = Vec::new();
        for entry in fs::read_dir(input).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if Format::is_volume_name(&file_name(&path)) && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        if !files.is_empty() && !self.series {
            return Ok(files.into_iter().map(file).collect());
        }
        let listing = Arc::new(Listing::open(input)?);
        let places = listing.series().iter().enumerate();
        let places: Vec<(usize, usize)> =
            places.flat_map(|(series, of)| (0..of.stacks().len()).map(move |stack| (series, stack))).collect();
        if places.len() < 2 {
            return Ok(vec![Found { input: input.to_owned(), name, place: None }]);
        }
        let found = places.into_iter().map(|(series, stack)| {
            let uid = listing.series().get(series).map_or("", dicom::Series::uid);
            let place = Some((listing.clone(), series, stack));
            Found { input: input.to_owned(), name: format!("{name}_{uid}_{}", stack + 1), place }
        });
        Ok(found.collect())
    }

    /// An error if there is a file that mustn't be replaced.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let (option, replace) = self.replace;
        if replace || !is_there(path) {
            return Ok(());
        }
        Err(Error::argument(self.command, format!("{} is there already", path.display()))
            .expected(format!("another folder, or {option}")))
    }
}

/// Whether a file or a link of this name exists, even a dangling one.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The path with links resolved, if the file exists.
fn real(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}
