//! `tomograd convert IN OUT [--orientation RAS] [--spacing X,Y,Z] [--force] ...`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;
use tomograd::{
    io::{Format, Interpolation, WriteOptions},
    prelude::*,
};

use crate::{Failure, plain, print::print_line, series::Choice};

/// From one format to another, by the name of the output.
#[derive(Args)]
#[command(after_help = "Examples:
  tomograd convert scan.nrrd scan.nii.gz
  tomograd convert scan.nii.gz scan.mha --orientation RAS --spacing 1,1,1
  tomograd convert dicom_folder scan.nii.gz --series 1.2.840.113619
  tomograd convert mask.nii.gz fine.nii.gz --spacing 0.5,0.5,0.5 --interpolation nearest
  tomograd convert slice.tif slice.png --force")]
pub(crate) struct Convert {
    /// NIfTI, NRRD, MetaImage, TIFF, PNG, JPEG or DICOM, whatever its name, a DICOM folder or a DICOMDIR
    input: PathBuf,
    /// .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .tif or .png
    output: PathBuf,
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
        let options = if self.uncompressed && !self.is_nifti() {
            WriteOptions::default().compressed(false)
        } else {
            WriteOptions::default()
        };
        let files = self.check(options).map_err(Failure::CommandLine)?;
        let mut volume = self.choice.read(&self.input)?;
        let notes = volume.notes().to_vec();
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
        // It may have been created in the meantime.
        refuse_existing(&files, self.force).map_err(Failure::CommandLine)?;
        volume.write_with(&self.output, options)?;
        self.report(&volume, &files, &notes);
        Ok(())
    }

    fn is_nifti(&self) -> bool {
        let name = self.output.to_string_lossy().to_lowercase();
        name.ends_with(".nii") || name.ends_with(".nii.gz")
    }

    fn spacing(&self) -> Result<Option<[f64; 3]>> {
        let Some(spacing) = &self.spacing else { return Ok(None) };
        let three =
            <[f64; 3]>::try_from(&spacing[..]).ok().filter(|three| three.iter().all(|x| x.is_finite() && *x > 0.0));
        three.map(Some).ok_or_else(|| {
            Error::argument("convert", format!("--spacing {spacing:?}")).expected("x, y and z in millimetres")
        })
    }

    /// Checks what can be checked before anything is read; the files that will be written.
    fn check(&self, options: WriteOptions) -> Result<Vec<PathBuf>> {
        let files = Volume::files(&self.output, options)?;
        if let Some(orientation) = &self.orientation {
            tomograd::io::geometry::from_orientation(orientation)?;
        }
        self.spacing()?;
        for file in &files {
            if same(file, &self.input) {
                return Err(Error::argument("convert", format!("{} is the input", file.display()))
                    .expected("another name for the output"));
            }
        }
        refuse_existing(&files, self.force)?;
        Ok(files)
    }

    fn report(&self, volume: &Volume, files: &[PathBuf], notes: &[String]) {
        let format = Format::of_path(&self.output).map_or("", Format::name);
        let mut lost = Vec::new();
        if matches!(Format::of_path(&self.output), Ok(Format::Tiff | Format::Png)) {
            lost.push(format!("{format} doesn't hold orientation and origin"));
        }
        if self.json {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            print_line!(
                "{}",
                json!({
                    "input": self.input.display().to_string(), "files": files, "format": format,
                    "shape": volume.file_shape(), "spacing": volume.spacing(), "orientation": volume.orientation(),
                    "affine": volume.affine(), "notes": notes, "lost": lost,
                })
            );
            return;
        }
        for note in notes.iter().chain(&lost) {
            eprintln!("tomograd: {}: {}", self.input.display(), plain(note));
        }
        let shape: Vec<String> = volume.file_shape().iter().map(usize::to_string).collect();
        let spacing = volume.spacing().map(|step| format!("{step:.4}"));
        print_line!(
            "{}  {format}, {}, {} mm, {}",
            self.output.display(),
            shape.join(" × "),
            spacing.join(" × "),
            volume.orientation()
        );
    }
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
