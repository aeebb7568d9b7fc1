//! `tomograd convert IN OUT [--orientation RAS] [--spacing X,Y,Z] [--force] ...`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tomograd::{
    io::{Format, Interpolation, Slide, WriteOptions},
    pipeline::progress::{self, ProgressBar},
    prelude::*,
};

use crate::{
    Failure,
    inputs::{Job, Results},
    parallel, plain,
    print::print_line,
    series::Choice,
};

/// From one format to another, by the name of the output.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd convert scan.nrrd scan.nii.gz
  tomograd convert scan.nii.gz scan.mha --orientation RAS --spacing 1,1,1
  tomograd convert dicom_folder scan.nii.gz --series 1.2.840.113619
  tomograd convert mask.nii.gz fine.nii.gz --spacing 0.5,0.5,0.5 --interpolation nearest
  tomograd convert slice.tif slice.png --force
  tomograd convert scans/ resampled/ --format nii.gz --spacing 1,1,1
  tomograd convert dicom_folder volumes/ --format nrrd
  tomograd convert biopsy.svs part.png --level 1 --region 2000,3000,512,512")]
pub(crate) struct Convert {
    /// NIfTI, NRRD, MetaImage, TIFF, PNG, JPEG or DICOM, whatever its name, a DICOM folder or a DICOMDIR
    input: PathBuf,
    /// .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .tif, .png or .jpg; with --format a folder
    output: PathBuf,
    /// Converts all volumes of a folder, and all of a DICOM folder, into files with this ending in the folder OUTPUT: nii.gz, mha, ...
    #[arg(long, value_name = "ENDING")]
    format: Option<String>,
    /// Turns the axes to this orientation, without interpolation
    #[arg(long, value_name = "RAS")]
    orientation: Option<String>,
    /// Resamples to this voxel spacing in millimetres along the axes of the output
    #[arg(long, value_name = "X,Y,Z", value_delimiter = ',')]
    spacing: Option<Vec<f64>>,
    /// How values between voxels are made; nearest for masks
    #[arg(long, value_enum, default_value_t = Between::Linear, requires = "spacing")]
    interpolation: Between,
    #[command(flatten)]
    choice: Choice,
    /// The level of a whole-slide image (tiled TIFF, OME-TIFF, SVS), 0 the largest; `info` lists them
    #[arg(long, value_name = "NUMBER")]
    level: Option<usize>,
    /// A part of a level of a whole-slide image, in its pixels
    #[arg(long, value_name = "X,Y,WIDTH,HEIGHT", value_delimiter = ',')]
    region: Option<Vec<usize>>,
    /// Doesn't compress NRRD, MetaImage and TIFF
    #[arg(long)]
    uncompressed: bool,
    /// Replaces an existing output, but never the input
    #[arg(long)]
    force: bool,
    /// Prints what was written as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Between {
    /// Trilinear
    Linear,
    /// The nearest voxel's value
    Nearest,
}

impl Convert {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let options = self.options();
        if let Some(ending) = &self.format {
            return self.all(ending, options);
        }
        let files = self.check(options).map_err(Failure::CommandLine)?;
        let volume = match (self.level, self.region()?) {
            (None, None) => self.choice.read(&self.input)?,
            (level, region) => Slide::open(&self.input)?.read(level.unwrap_or(0), region)?,
        };
        let notes = volume.notes().to_vec();
        let volume = self.changed(volume)?;
        // It may have been created in the meantime.
        refuse_existing(&files, self.force).map_err(Failure::CommandLine)?;
        volume.write_with(&self.output, options)?;
        let lost = lost(&self.output);
        if self.json {
            print_line!("{}", described(&self.input, &self.output, &volume, &files, &notes, &lost));
        } else {
            report(&self.input, &self.output, &volume, &notes, &lost);
        }
        Ok(())
    }

    /// Converts all volumes of a folder, as many at once as there are processors.
    fn all(&self, ending: &str, options: WriteOptions) -> Result<(), Failure> {
        let ending = ending.strip_prefix('.').unwrap_or(ending);
        let name = |name: &str| format!("{}.{ending}", Format::stem(name));
        let results = Results {
            command: "convert",
            option: "OUTPUT",
            folder: &self.output,
            name: &name,
            replace: ("--force", self.force),
            series: false,
        };
        let jobs = self.check_all(&results, options).map_err(Failure::CommandLine)?;
        fs::create_dir_all(&self.output).map_err(|error| Error::io("create", self.output.display(), error))?;
        let bar = if self.json { ProgressBar::hidden() } else { progress::bar(jobs.len() as u64, "convert") };
        let of = jobs.len();
        let done = parallel::in_order(jobs, |job| {
            let done = self.job(&job, options, &bar);
            if let Err(error) = &done {
                bar.suspend(|| eprintln!("tomograd: {}", plain(&error.to_string())));
            }
            bar.inc(1);
            done.map_err(|_| job.input.display().to_string())
        });
        bar.finish_and_clear();
        let (mut converted, mut failed) = (Vec::new(), Vec::new());
        for done in done {
            match done {
                Ok(said) => converted.push(said),
                Err(input) => failed.push(input),
            }
        }
        if self.json {
            print_line!("{}", json!({"converted": converted, "failed": failed}));
        }
        if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of }) }
    }

    /// Converts one of several; what JSON says of it.
    fn job(&self, job: &Job, options: WriteOptions, bar: &ProgressBar) -> Result<Value> {
        let within = |error: Error| error.within(job.input.display().to_string());
        let volume = match job.stack() {
            Some(stack) => stack.read_with(self.choice.gaps()).map_err(within)?,
            None if job.input.is_dir() => self.choice.read(&job.input)?,
            None => Volume::read(&job.input)?,
        };
        let notes = volume.notes().to_vec();
        let volume = self.changed(volume).map_err(within)?;
        let files = Volume::files(&job.output, options)?;
        refuse_existing(&files, self.force)?;
        volume.write_with(&job.output, options)?;
        let lost = lost(&job.output);
        if !self.json {
            bar.suspend(|| report(&job.input, &job.output, &volume, &notes, &lost));
        }
        Ok(described(&job.input, &job.output, &volume, &files, &notes, &lost))
    }

    fn options(&self) -> WriteOptions {
        let name =
            self.format.as_deref().map_or_else(|| self.output.clone(), |ending| PathBuf::from(format!("a.{ending}")));
        let nifti = Format::of_path(name).ok() == Some(Format::Nifti);
        if self.uncompressed && !nifti { WriteOptions::default().compressed(false) } else { WriteOptions::default() }
    }

    /// The volume with the orientation and spacing that were asked for.
    fn changed(&self, mut volume: Volume) -> Result<Volume> {
        if let Some(orientation) = &self.orientation {
            volume = volume.reorient(orientation)?;
        }
        if let Some(spacing) = self.spacing()? {
            let interpolation = match self.interpolation {
                Between::Linear => Interpolation::Linear,
                Between::Nearest => Interpolation::Nearest,
            };
            volume = volume.resample(spacing, interpolation)?;
        }
        Ok(volume)
    }

    fn spacing(&self) -> Result<Option<[f64; 3]>> {
        let Some(spacing) = &self.spacing else { return Ok(None) };
        let three =
            <[f64; 3]>::try_from(&spacing[..]).ok().filter(|three| three.iter().all(|x| x.is_finite() && *x > 0.0));
        three.map(Some).ok_or_else(|| {
            Error::argument("convert", format!("--spacing {spacing:?}")).expected("x, y and z in millimetres")
        })
    }

    fn region(&self) -> Result<Option<[usize; 4]>> {
        let Some(region) = &self.region else { return Ok(None) };
        <[usize; 4]>::try_from(&region[..]).map(Some).map_err(|_| {
            Error::argument("convert", format!("--region {region:?}")).expected("x, y, width and height in pixels")
        })
    }

    /// Checks what can be checked before anything is read; the files that will be written.
    fn check(&self, options: WriteOptions) -> Result<Vec<PathBuf>> {
        let files = Volume::files(&self.output, options)?;
        self.check_grid()?;
        self.region()?;
        for file in &files {
            if same(file, &self.input) {
                return Err(Error::argument("convert", format!("{} is the input", file.display()))
                    .expected("another name for the output"));
            }
        }
        refuse_existing(&files, self.force)?;
        Ok(files)
    }

    /// As `check`, for all volumes of a folder.
    fn check_all(&self, results: &Results<'_>, options: WriteOptions) -> Result<Vec<Job>> {
        self.check_grid()?;
        if !self.input.is_dir() {
            return Err(Error::argument(
                "convert",
                format!("--format for {}, which isn't a folder", self.input.display()),
            )
            .expected("a folder, or a call without it"));
        }
        if self.choice.is_one() || self.level.is_some() || self.region.is_some() {
            return Err(Error::argument("convert", "--format with a series, a stack, a level or a region")
                .expected("--format alone, or the choice of one volume"));
        }
        let jobs = results.plan(std::slice::from_ref(&self.input), &[])?;
        for job in &jobs {
            refuse_existing(&Volume::files(&job.output, options)?, self.force)?;
        }
        Ok(jobs)
    }

    fn check_grid(&self) -> Result<()> {
        if let Some(orientation) = &self.orientation {
            tomograd::io::geometry::from_orientation(orientation)?;
        }
        self.spacing().map(|_| ())
    }
}

/// What the format of an output doesn't hold.
fn lost(output: &Path) -> Vec<String> {
    let Ok(format @ (Format::Tiff | Format::Png | Format::Jpeg)) = Format::of_path(output) else { return Vec::new() };
    let place = format!("{} doesn't hold orientation and origin", format.name());
    let values = (format == Format::Jpeg).then(|| "JPEG changes values a little".to_owned());
    std::iter::once(place).chain(values).collect()
}

/// What JSON says of a volume that was written.
fn described(
    input: &Path,
    output: &Path,
    volume: &Volume,
    files: &[PathBuf],
    notes: &[String],
    lost: &[String],
) -> Value {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    json!({
        "input": input.display().to_string(), "files": files, "format": Format::of_path(output).map_or("", Format::name),
        "shape": volume.file_shape(), "spacing": volume.spacing(), "orientation": volume.orientation(),
        "affine": volume.affine(), "notes": notes, "lost": lost,
    })
}

/// Says what was written.
fn report(input: &Path, output: &Path, volume: &Volume, notes: &[String], lost: &[String]) {
    for note in notes.iter().chain(lost) {
        eprintln!("tomograd: {}: {}", input.display(), plain(note));
    }
    let shape: Vec<String> = volume.file_shape().iter().map(usize::to_string).collect();
    // Pixels of slides are less than a micrometre wide.
    let spacing = volume.spacing().map(|step| if step < 0.1 { format!("{step:.7}") } else { format!("{step:.4}") });
    print_line!(
        "{}  {}, {}, {} mm, {}",
        output.display(),
        Format::of_path(output).map_or("", Format::name),
        shape.join(" × "),
        spacing.join(" × "),
        volume.orientation()
    );
}

/// Whether two paths are one file.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    a == b || fs::canonicalize(a).ok().zip(fs::canonicalize(b).ok()).is_some_and(|(a, b)| a == b)
}

/// An error if one of the files is there and isn't to be replaced.
pub(crate) fn refuse_existing(files: &[PathBuf], force: bool) -> Result<()> {
    match files.iter().find(|file| !force && fs::symlink_metadata(file).is_ok()) {
        None => Ok(()),
        Some(file) => Err(Error::argument("write", format!("{} is there already", file.display()))
            .expected("another name, or --force to replace it")),
    }
}
