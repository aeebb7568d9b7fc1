//! Segments a DICOM series by thresholds and writes the mask as a DICOM segmentation, for a check by other programs
//! (`tests/golden/dicom_segmentation_check.py`):
//!
//! ```text
//! dicom_segmentation FOLDER OUT.dcm LOW HIGH
//! ```
//!
//! Voxels from LOW on are segment 1, from HIGH on segment 2.

use std::path::PathBuf;

use tomograd_core::{DType, Device, Error, Result, Tensor};
use tomograd_io::dicom::{Code, Listing, Segment};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, out, low, high] = arguments.as_slice() else {
        return Err(Error::argument("dicom_segmentation", "no folder").expected("FOLDER OUT.dcm LOW HIGH"));
    };
    let number = |text: &String| text.parse::<f64>().map_err(|_| Error::argument("dicom_segmentation", text.clone()));
    let (low, high) = (number(low)?, number(high)?);
    let listing = Listing::open(folder)?;
    let stack = listing.only()?.stack()?;
    let volume = stack.read()?;
    let values = volume.voxels().to_vec_f64()?;
    let labels: Vec<u8> = values.iter().map(|&value| u8::from(value >= low) + u8::from(value >= high)).collect();
    let mask = Tensor::from_slice(&labels, volume.voxels().shape(), Device::Cpu)?;
    assert_eq!(mask.dtype(), DType::U8);
    let bright = Segment {
        category: Code::new("123037004", "SCT", "Anatomical Structure"),
        kind: Code::new("12738006", "SCT", "Brain"),
        ..Segment::new("Bright", "threshold")
    };
    stack.write_segmentation(PathBuf::from(out), &mask, &[Segment::new("Middle", "threshold"), bright])
}
