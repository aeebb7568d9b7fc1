//! DICOM: series of images from folders, DICOMDIRs and files, as volumes.
//!
//! [`Listing::open`] reads what files say and leaves their pixels alone. The images of one SeriesInstanceUID are a [`Series`], whose
//! frames become [`Stack`]s: a stack is a volume, its slices in the order of their places along the normal. Frames of different
//! size, orientation, image type, echo, temporal position or b-value never share a stack, and where two are at one place, they are
//! told apart by echo time, gradient direction, cardiac phase, acquisition and times. What is odd (gantry tilt, missing slices,
//! doubles, values that had to be assumed) is in the notes of series and stacks; nothing is assumed without one.
//!
//! Voxels are rescaled, colours are RGB, and the affine is RAS+ in millimetres, as in every [`Volume`]. Read are implicit and
//! explicit little endian, explicit big endian, deflated, RLE, JPEG (baseline, extended with 8 and 12 bits, lossless), JPEG-LS and
//! JPEG 2000. Other transfer syntaxes are errors that name them.
//!
//! Siemens' mosaics are cut into slices. [`Series::diffusion`] has a diffusion series with its b-values and directions,
//! [`Stack::read_suv`] the standardized uptake values of PET.
//!
//! [`Stack::write_segmentation`] writes a mask of a stack as a DICOM segmentation, [`Stack::write_structures`] as contours;
//! [`Segmentation`] and [`StructureSet`] read them. [`Stack::write_capture`] writes pictures, [`Stack::write_report`] measurements.
//! [`Anonymizer`] de-identifies files.
//!
//! Tags, dictionary and character sets are those of `dicom-rs` (`dicom-core`, `dicom-dictionary-std`, `dicom-encoding`). The elements
//! are walked here, since `dicom-parser` takes as much memory as a length claims. Memory: reading n bytes takes at most 64·n + 16
//! MiB where pixels aren't compressed; of compressed ones, at most 4096 samples a byte are believed (or 2²⁰ in all), at about 32
//! bytes each.

mod anonymize;
mod capture;
mod code;
mod codec;
mod csa;
mod dataset;
mod diffusion;
mod file;
mod folder;
mod frame;
mod gaps;
mod geometry;
mod image;
mod lut;
mod mosaic;
mod object;
mod pixels;
mod report;
mod segmentation;
mod series;
mod stack;
mod structures;
mod suv;
mod syntax;
mod uid;
mod view;
mod voxels;
mod write;

use std::{path::Path, sync::Arc};

use tomograd_core::{Error, Result};

pub use anonymize::{Anonymized, Anonymizer, BurnedIn, Keep};
pub use code::Code;
pub use diffusion::{Diffusion, DiffusionSeries};
pub use folder::{Listing, files, looks_like_dicom};
pub use report::Measurements;
pub use segmentation::{Segment, Segmentation, SegmentationType};
pub use series::Series;
pub use stack::{Gaps, Stack};
pub use structures::{Holes, Structure, StructureSet};
pub use suv::SuvFactor;

use crate::Volume;

const OPERATION: &str = "dicom";

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

/// Reads the only volume of a folder, a DICOMDIR or a file.
///
/// # Errors
/// When there are several series or stacks (the error lists them; take one from a [`Listing`]), or files can't be read.
pub fn read_file(path: impl AsRef<Path>) -> Result<Volume> {
    let path = path.as_ref();
    let listing = Listing::open(path)?;
    let stack = listing.only().and_then(Series::stack).map_err(|error| error.within(path.display().to_string()))?;
    stack.read()
}

/// Reads the bytes of a file.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(bytes: &[u8]) -> Result<Volume> {
    let image = image::Image::read(file::Source::Memory(Arc::from(bytes)))?;
    Series::new(vec![Arc::new(image)])?.stack()?.read()
}

/// The samples of a JPEG 2000 stream of this size, the channels of each pixel together, and whether they are RGB by the stream's own
/// transform: for tiles of slides.
#[cfg(feature = "tiff")]
pub(crate) fn decode_jpeg2000(bytes: &[u8], [width, height]: [usize; 2], channels: usize) -> Result<(Vec<i32>, bool)> {
    let expected = codec::Expected { width, height, channels };
    let picture = codec::decode(syntax::Compression::Jpeg2000, bytes, expected)?;
    Ok((picture.samples, picture.rgb))
}
