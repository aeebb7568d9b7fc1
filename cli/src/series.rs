//! Which volume of a DICOM folder is meant.

use std::path::Path;

use clap::Args;
use tomograd::{
    io::dicom::{Gaps, Listing},
    prelude::*,
};

/// The choice of a volume in a DICOM folder with several, which `tomograd info` lists.
#[derive(Args)]
pub(crate) struct Choice {
    /// The series of a DICOM folder: its UID, or the beginning of it
    #[arg(long, value_name = "UID")]
    series: Option<String>,
    /// The stack of a DICOM series, from 1
    #[arg(long, value_name = "NUMBER")]
    stack: Option<usize>,
    /// Interpolates between DICOM slices at differing distances, where some are missing for instance
    #[arg(long)]
    interpolate_gaps: bool,
}

impl Choice {
    /// Whether one volume of several is meant.
    pub(crate) fn is_one(&self) -> bool {
        self.series.is_some() || self.stack.is_some()
    }

    /// What becomes of gaps between slices.
    pub(crate) fn gaps(&self) -> Gaps {
        if self.interpolate_gaps { Gaps::Interpolate } else { Gaps::Refuse }
    }

    /// Reads the volume; files of other formats need no choice.
    pub(crate) fn read(&self, path: &Path) -> Result<Volume> {
        if !self.is_one() && !self.interpolate_gaps {
            return Volume::read(path);
        }
        let listing = Listing::open(path)?;
        let within = |error: Error| error.within(path.display().to_string());
        let series = match &self.series {
            Some(uid) => listing.find(uid),
            None => listing.only(),
        }
        .map_err(within)?;
        let stack = match self.stack {
            Some(number) => {
                let stack = number.checked_sub(1).and_then(|at| series.stacks().get(at));
                stack.ok_or_else(|| {
                    Error::argument("dicom", format!("stack {number}"))
                        .expected(format!("1 to {}", series.stacks().len()))
                        .within(path.display().to_string())
                })?
            }
            None => series.stack().map_err(within)?,
        };
        stack.read_with(self.gaps()).map_err(within)
    }
}
