//! Loading a case: from files to a sample.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_core::{DType, Device, Error, Result, Seed, Tensor};
use tomograd_io::Volume;

use super::{Case, Dataset, Source, folders::parts};
use crate::{Field, Sample, Scan, alignment, cache::Key, loader::missing, sample::class_numbers, transforms::nth_use};

type Reader = dyn Fn(&Path) -> Result<Scan> + Send + Sync;

/// The readers of files.
#[derive(Clone)]
pub(super) struct Readers {
    image: Arc<Reader>,
    label: Arc<Reader>,
    /// Whether they are custom, so that a disk cache can't know their version.
    own: bool,
}

impl Default for Readers {
    fn default() -> Self {
        Self { image: Arc::new(Scan::read_image), label: Arc::new(Scan::read_label), own: false }
    }
}

impl Readers {
    /// One reader for both images and labels.
    pub(super) fn new(reader: impl Fn(&Path) -> Result<Scan> + Send + Sync + 'static) -> Self {
        let reader: Arc<Reader> = Arc::new(reader);
        Self { image: reader.clone(), label: reader, own: true }
    }
}

impl Dataset {
    /// Reads and prepares a case.
    pub(super) fn load(&self, case: &Case) -> Result<Sample> {
        // The first image, unprepared: all other fields of the case must be on its grid.
        let first = case.fields.iter().position(|(_, source)| source.is_image());
        let mut grid = first.map(|first| self.image(case, first)).transpose()?;
        let mut place_of_grid = None;
        let mut fields: Vec<Option<Field>> = vec![None; case.fields.len()];
        // The first image is prepared last, since it is needed unprepared until then, and its memory is reused.
        let order = (0..case.fields.len()).filter(|place| Some(*place) != first).chain(first);
        for place in order {
            fields[place] = Some(match &case.fields[place].1 {
                Source::Value(field) => field.clone(),
                Source::Label { path, classes } => {
                    let label = self.label(grid.as_ref(), path, *classes);
                    Field::Label(label.map_err(|error| error.within(path.display().to_string()))?)
                }
                source => {
                    let (name, within) = (&case.fields[place].0, |error: Error| error.within(place_of(source, case)));
                    let scan = match grid.take() {
                        Some(scan) if Some(place) == first => scan,
                        other => {
                            let scan = self.image(case, place)?;
                            if let Some(on) = &other {
                                let name = format!("image of field {}", case.fields[first.unwrap_or(place)].0);
                                alignment::same_grid(on, &name, &scan, self.tolerance).map_err(within)?;
                            }
                            grid = other;
                            scan
                        }
                    };
                    let scan = match &self.preparation {
                        Some(preparation) => preparation.image_scan(scan).map_err(within)?,
                        None => scan,
                    };
                    // Checked here, so that the error names the file.
                    let image = Sample::empty(&case.name).with(name, Field::Image(scan.values)).map_err(within)?;
                    let image = image.with_spacing(&scan.spacing).map_err(within)?;
                    place_of_grid = Some((scan.spacing, scan.affine));
                    image.get(name)?.clone()
                }
            });
        }
        let names = case.fields.iter().map(|(name, _)| name.clone());
        let fields = names.zip(fields).filter_map(|(name, field)| Some((name, field?)));
        let mut sample = Sample::empty(&case.name).with_fields(fields)?;
        if let Some((spacing, affine)) = place_of_grid {
            sample = sample.with_spacing(&spacing)?;
            sample = affine.iter().try_fold(sample, |sample, affine| sample.with_affine(affine))?;
        }
        self.prepare.apply(sample, nth_use(Seed::new(0).named(&case.name), case.before))
    }

    /// An image as in its files, with the channels of several files concatenated.
    fn image(&self, case: &Case, place: usize) -> Result<Scan> {
        let paths = match &case.fields[place].1 {
            Source::Row(rows, row) => return rows.scan(*row),
            #[cfg(feature = "dicom")]
            Source::Stack(place) => return place.scan(),
            Source::Image(paths) => paths,
            _ => return Err(Error::argument("dataset", "a field that is no image")),
        };
        let [path] = paths.as_slice() else { return self.channels(paths) };
        (self.readers.image)(path)
    }

    fn channels(&self, paths: &[PathBuf]) -> Result<Scan> {
        let mut whole: Option<(Scan, Vec<Tensor>)> = None;
        for path in paths {
            let scan = (self.readers.image)(path)?;
            match &mut whole {
                None => whole = Some((scan.clone(), vec![scan.values])),
                Some((first, channels)) => {
                    let within = |error: Error| error.within(path.display().to_string());
                    alignment::same_grid(first, "first channel", &scan, self.tolerance).map_err(within)?;
                    channels.push(scan.values);
                }
            }
        }
        let (first, channels) = whole.ok_or_else(|| Error::argument("dataset", "an image of no files"))?;
        Ok(Scan { values: stacked(&channels)?, ..first })
    }

    fn label(&self, grid: Option<&Scan>, path: &Path, classes: usize) -> Result<Tensor> {
        let label = (self.readers.label)(path)?;
        let numbers = |values: &Tensor| match &self.preparation {
            Some(preparation) => preparation.class_numbers(values),
            None => class_numbers(values, classes),
        };
        let (on, numbers) = match grid {
            Some(image) => (image, alignment::label_on(image, "image", &label, numbers, self.tolerance)?),
            None => (&label, alignment::label_numbers(&label, numbers)?),
        };
        match &self.preparation {
            Some(preparation) => preparation.label_scan(numbers, on),
            None => Ok(numbers),
        }
    }

    /// The image and the label of a case as in their files, and the tolerance of their alignment. A single file keeps its header,
    /// so that a mask gets the same one.
    pub(crate) fn volumes(&self, index: usize) -> Result<(Volume, Volume, f64)> {
        let case = self.cases.get(index).ok_or_else(|| missing(index, self.cases.len()))?;
        let none = |what: &str| Error::argument("dataset", format!("case {:?} has no {what} in a file", case.name));
        let volume = |scan: Scan| Volume::new(scan.values, scan.affine.ok_or_else(|| none("place"))?);
        let in_files = |source: &Source| source.is_image() && !matches!(source, Source::Row(..));
        let image = case.fields.iter().position(|(_, source)| in_files(source));
        let place = image.ok_or_else(|| none("image"))?;
        let image = match &case.fields[place].1 {
            Source::Image(paths) if !self.readers.own && paths.len() == 1 => Volume::read(&paths[0])?,
            _ => volume(self.image(case, place)?)?,
        };
        let label = case.fields.iter().find_map(|(_, source)| match source {
            Source::Label { path, .. } => Some(path),
            _ => None,
        });
        let label = label.ok_or_else(|| none("label"))?;
        let label = if self.readers.own { volume((self.readers.label)(label)?)? } else { Volume::read(label)? };
        Ok((image, label, self.tolerance))
    }

    /// Everything that determines a case in a disk cache.
    pub(super) fn disk_key(&self, case: &Case) -> Result<Key> {
        let mut key = Key::new();
        key.text("name", &case.name).text("before", case.before).text("tolerance", self.tolerance);
        match &self.preparation {
            Some(preparation) => key.text("preparation", preparation.to_json()?),
            None => &mut key,
        };
        if self.readers.own {
            key.unknown("the reader of this dataset");
        }
        match self.prepare.key() {
            Some(transforms) => transforms.iter().for_each(|text| _ = key.text("transform", text)),
            None => key.unknown("a transform of this dataset's prepare"),
        }
        for (name, source) in &case.fields {
            key.text("field", name);
            match source {
                Source::Value(field) => _ = key.text("value", format!("{field:?}")),
                Source::Label { path, classes } => {
                    key.text("classes", classes);
                    key.files(parts(path)?);
                }
                Source::Image(paths) => {
                    for path in paths {
                        key.files(parts(path)?);
                    }
                }
                // Its files may change without a change of what is known of them here.
                #[cfg(feature = "dicom")]
                Source::Stack(_) => key.unknown("the files of a DICOM tree"),
                Source::Row(rows, row) => {
                    let scan = rows.scan(*row)?;
                    key.text("row", format!("{:?} {:?}", scan.values.shape(), scan.values.dtype()));
                    key.numbers("values", &scan.values.to_vec_f64()?);
                }
            }
        }
        Ok(key)
    }
}

/// The source of an image, for errors.
fn place_of(source: &Source, case: &Case) -> String {
    match source {
        Source::Image(paths) => paths.first().map_or_else(String::new, |path| path.display().to_string()),
        _ => format!("case {}", case.name),
    }
}

/// Concatenates images (C, spatial) of equal spatial shape along channels, as f32.
fn stacked(images: &[Tensor]) -> Result<Tensor> {
    let channels = images.iter().map(|image| image.shape().first().copied().unwrap_or(0)).sum();
    let spatial = images.first().and_then(|image| image.shape().get(1..)).unwrap_or_default();
    let mut whole = Tensor::zeros(&[&[channels], spatial].concat(), DType::F32, Device::Cpu)?;
    let mut rest = whole.as_mut_slice::<f32>()?;
    for image in images {
        let image = image.converted(DType::F32)?.contiguous()?;
        let (part, after) = rest.split_at_mut(image.count().min(rest.len()));
        part.copy_from_slice(image.as_slice::<f32>()?);
        rest = after;
    }
    Ok(whole)
}
