//! `tomograd dicom capture|report`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tomograd::{
    io::{dicom::Segmentation, read_png},
    prelude::*,
};

use super::Places;
use crate::{Failure, convert::refuse_existing, plain, print::print_line};

/// A picture into a secondary capture.
#[derive(Args)]
pub(crate) struct Capture {
    /// A PNG file, as `tomograd view` writes it
    picture: PathBuf,
    #[command(flatten)]
    places: Places,
    /// What the picture is, in at most 64 letters
    #[arg(long, default_value = "tomograd")]
    description: String,
}

/// Measurements into a structured report.
#[derive(Args)]
pub(crate) struct Report {
    /// A DICOM segmentation of the series
    segmentation: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Prints the measurements as JSON
    #[arg(long)]
    json: bool,
}

impl Capture {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        refuse_existing(std::slice::from_ref(&self.places.out), self.places.force).map_err(Failure::CommandLine)?;
        let picture = read_png(&self.picture)?;
        self.places.stack(&[])?.write_capture(&self.places.out, &picture, &self.description)?;
        print_line!("{}", self.places.out.display());
        Ok(())
    }
}

impl Report {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        refuse_existing(std::slice::from_ref(&self.places.out), self.places.force).map_err(Failure::CommandLine)?;
        let segmentation = Segmentation::open(&self.segmentation)?;
        let stack = self.places.stack(segmentation.series())?;
        let found = stack.write_report(&self.places.out, &segmentation)?;
        if self.json {
            let segments: Vec<_> = found
                .iter()
                .map(|(name, found)| {
                    json!({
                        "segment": name, "voxels": found.voxels, "volume_mm3": found.volume,
                        "diameter_mm": found.diameter, "mean": found.mean, "standard_deviation": found.deviation,
                        "minimum": found.minimum, "maximum": found.maximum,
                    })
                })
                .collect();
            print_line!("{}", json!({ "file": self.places.out.display().to_string(), "segments": segments }));
            return Ok(());
        }
        for (name, found) in &found {
            print_line!(
                "{}: {:.3} ml, longest diameter {:.1} mm, mean {:.2} ± {:.2} ({} to {})",
                plain(name),
                found.volume / 1000.0,
                found.diameter,
                found.mean,
                found.deviation,
                found.minimum,
                found.maximum
            );
        }
        print_line!("{}", self.places.out.display());
        Ok(())
    }
}
