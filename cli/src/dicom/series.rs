//! `tomograd dicom diffusion|suv`.

use clap::Args;
use tomograd::{io::dicom::DiffusionSeries, prelude::*};

use super::Places;
use crate::{Failure, convert::refuse_existing, plain, print::print_line};

/// A diffusion series with its b-values and directions.
#[derive(Args)]
pub(crate) struct Diffusion {
    #[command(flatten)]
    places: Places,
}

/// Standardized uptake values.
#[derive(Args)]
pub(crate) struct Suv {
    #[command(flatten)]
    places: Places,
}

impl Diffusion {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let out = &self.places.out;
        let [bval, bvec] = DiffusionSeries::companions(out).map_err(Failure::CommandLine)?;
        refuse_existing(&[out.clone(), bval, bvec], self.places.force).map_err(Failure::CommandLine)?;
        let listing = tomograd::io::dicom::Listing::open(&self.places.series)?;
        let series = match &self.places.uid {
            Some(uid) => listing.find(uid)?,
            None => listing.only()?,
        };
        let read = series.diffusion().map_err(|error| error.within(self.places.series.display().to_string()))?;
        read.write(out)?;
        let values: Vec<String> = read.weights().iter().map(|weight| weight.b_value.to_string()).collect();
        print_line!("{}  {} volumes, b = {}", out.display(), values.len(), values.join(" "));
        Ok(())
    }
}

impl Suv {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let files = Volume::files(&self.places.out, Default::default()).map_err(Failure::CommandLine)?;
        refuse_existing(&files, self.places.force).map_err(Failure::CommandLine)?;
        let (volume, notes) = self.places.stack(&[])?.read_suv()?;
        volume.write(&self.places.out)?;
        print_line!("{}  SUVbw, {}", self.places.out.display(), plain(&notes.join("; ")));
        Ok(())
    }
}
