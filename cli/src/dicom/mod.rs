//! `tomograd dicom masks|seg|rtstruct|capture|report|diffusion|suv`: masks from and into DICOM objects, pictures and measurements of a series.

mod masks;
mod objects;
mod pictures;
mod series;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tomograd::{
    io::{dicom, geometry},
    prelude::*,
};

use crate::Failure;

/// What is done with DICOM objects.
#[derive(Subcommand)]
pub(crate) enum Dicom {
    /// The masks of a DICOM segmentation or structure set, in the voxels of the series that it is of
    #[command(after_help = "Examples:
  tomograd dicom masks seg.dcm --series study --out labels.nii.gz
  tomograd dicom masks rtstruct.dcm --series study --out masks --each")]
    Masks(masks::Masks),
    /// Masks into a DICOM segmentation
    #[command(after_help = "Examples:
  tomograd dicom seg labels.nii.gz --series study --out seg.dcm --segments segments.json
  tomograd dicom seg liver.nii.gz tumour.nii.gz --series study --out seg.dcm
  tomograd dicom seg probability.nii.gz --series study --out seg.dcm --type probability

segments.json names and codes the labels:
  [{\"value\": 1, \"label\": \"Liver\", \"category\": [\"123037004\", \"SCT\", \"Anatomical Structure\"],
    \"type\": [\"10200004\", \"SCT\", \"Liver\"], \"algorithm\": \"liver network 2\"}]")]
    Seg(objects::Seg),
    /// Masks into a structure set (RTSTRUCT), by contours along the edges of voxels
    #[command(after_help = "Examples:
  tomograd dicom rtstruct labels.nii.gz --series study --out rtstruct.dcm --segments segments.json
  tomograd dicom rtstruct liver.nii.gz --series study --out rtstruct.dcm --holes xor")]
    Rtstruct(objects::Rtstruct),
    /// A PNG picture into a secondary capture of the series' study
    #[command(after_help = "Examples:
  tomograd view scan.nii.gz --mask mask.nii.gz --out sheet.png
  tomograd dicom capture sheet.png --series study --out sheet.dcm --description \"Liver, outlines\"")]
    Capture(pictures::Capture),
    /// Measures the segments of a DICOM segmentation and writes a structured report (TID 1500)
    #[command(after_help = "Examples:
  tomograd dicom report seg.dcm --series study --out report.dcm
  tomograd dicom report seg.dcm --series study --out report.dcm --json")]
    Report(pictures::Report),
    /// A diffusion series into a 4D NIfTI file with .bval and .bvec
    #[command(after_help = "Example:
  tomograd dicom diffusion --series study --out dwi.nii.gz")]
    Diffusion(series::Diffusion),
    /// A PET series into standardized uptake values by body weight
    #[command(after_help = "Example:
  tomograd dicom suv --series study --out suv.nii.gz")]
    Suv(series::Suv),
}

impl Dicom {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Masks(masks) => masks.run(),
            Self::Seg(seg) => seg.run(),
            Self::Rtstruct(rtstruct) => rtstruct.run(),
            Self::Capture(capture) => capture.run(),
            Self::Report(report) => report.run(),
            Self::Diffusion(diffusion) => diffusion.run(),
            Self::Suv(suv) => suv.run(),
        }
    }
}

/// The series that an object is of, and where the result goes.
#[derive(Args)]
pub(crate) struct Places {
    /// The DICOM series: a folder, a DICOMDIR or a file
    #[arg(long, value_name = "FOLDER")]
    series: PathBuf,
    /// The series among several in the folder: its UID, or the beginning of it
    #[arg(long, value_name = "UID")]
    uid: Option<String>,
    /// The result
    #[arg(long)]
    out: PathBuf,
    /// Replaces existing files
    #[arg(long)]
    force: bool,
}

impl Places {
    /// The stack of the series: that of `--uid`, else the first of `wanted` that is there, else the only one.
    fn stack(&self, wanted: &[String]) -> Result<dicom::Stack> {
        let listing = dicom::Listing::open(&self.series)?;
        let within = |error: Error| error.within(self.series.display().to_string());
        let series = match &self.uid {
            Some(uid) => listing.find(uid),
            None => match wanted.iter().find_map(|uid| listing.find(uid).ok()) {
                Some(series) => Ok(series),
                None => listing.only(),
            },
        };
        series.and_then(dicom::Series::stack).cloned().map_err(within)
    }
}

/// A volume in the voxels of a stack, turned if its axes are in another order.
fn on_grid(path: &Path, stack: &dicom::Stack) -> Result<Volume> {
    let within = |error: Error| error.within(path.display().to_string());
    let volume = Volume::read(path)?;
    let volume = volume.reorient(&geometry::orientation(stack.affine())).map_err(within)?;
    let [width, height, depth] = stack.size();
    let same = volume.voxels().shape() == [depth, height, width]
        && [[0.0; 3], [width as f64, height as f64, depth as f64]].into_iter().all(|corner| {
            let [a, b] = [volume.affine(), stack.affine()].map(|affine| geometry::apply(affine, corner));
            let off = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            off <= 0.1 * volume.spacing().into_iter().fold(f64::INFINITY, f64::min)
        });
    if same {
        return Ok(volume);
    }
    Err(within(
        Error::argument(
            "dicom",
            format!("a mask of shape {:?} and affine {:?}", volume.voxels().shape(), volume.affine()),
        )
        .expected(format!("({depth}, {height}, {width}) and {:?}, the grid of the series", stack.affine())),
    ))
}
