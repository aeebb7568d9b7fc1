//! Secondary captures: pictures of a study.

use std::path::Path;

use dicom_dictionary_std::{tags, uids};
use tomograd_core::{DType, Error, Result, Tensor};

use super::{
    OPERATION,
    object::{self, Object, check_text},
    stack::Stack,
};
use crate::write_atomically;

impl Stack {
    /// Writes a picture, u8 of shape (3, H, W) or (1, H, W), as a secondary capture: a sheet of slices with outlines for
    /// instance. It belongs to the patient and study of the stack, refers to its images, and has no place in the patient.
    ///
    /// ```no_run
    /// use tomograd_core::DType;
    /// use tomograd_io::{dicom::Listing, read_png};
    /// let listing = Listing::open("study")?;
    /// listing.only()?.stack()?.write_capture("sheet.dcm", &read_png("sheet.png")?, "Liver, outlines")?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the picture isn't one, is larger than 65535 pixels along an axis, or the file can't be written.
    pub fn write_capture(&self, path: impl AsRef<Path>, picture: &Tensor, description: &str) -> Result<()> {
        let bytes = self.capture(picture, description)?;
        write_atomically(path.as_ref(), |writer| crate::atomic::write_all(writer, &bytes))
    }

    fn capture(&self, picture: &Tensor, description: &str) -> Result<Vec<u8>> {
        check_text("description", description, 64)?;
        let size = |length: usize| u16::try_from(length).ok().filter(|&length| length > 0);
        let sizes = match *picture.shape() {
            [channels @ (1 | 3), height, width] if picture.dtype() == DType::U8 => {
                size(height).zip(size(width)).map(|(height, width)| (channels, height, width))
            }
            _ => None,
        };
        let (channels, height, width) = sizes.ok_or_else(|| {
            Error::shape(OPERATION, format!("a picture of {}", picture.dtype()))
                .expected("u8 of shape (3, H, W) or (1, H, W), at most 65535 along an axis")
                .shapes([picture.shape()])
        })?;
        let values = picture.to_vec::<u8>()?;
        let plane = usize::from(height) * usize::from(width);
        // The colours of a pixel side by side.
        let at = |pixel: usize, channel: usize| values.get(channel * plane + pixel).copied().unwrap_or(0);
        let pixels: Vec<u8> =
            (0..plane).flat_map(|pixel| (0..channels).map(move |channel| at(pixel, channel))).collect();
        let class = uids::SECONDARY_CAPTURE_IMAGE_STORAGE;
        let mut object =
            Object::of(self, class, "OT", description, &[&pixels, &width.to_le_bytes(), description.as_bytes()])?;
        let sources = object::references(self.slices());
        // Empty if the source doesn't say it: it isn't known.
        let laterality = object.source().text(tags::LATERALITY).unwrap_or_default();
        object
            .content_date()
            .elements
            .text(tags::CONVERSION_TYPE, b"CS", "WSD")
            .text(tags::IMAGE_TYPE, b"CS", "DERIVED\\SECONDARY")
            .text(tags::PATIENT_ORIENTATION, b"CS", "")
            .text(tags::LATERALITY, b"CS", &laterality)
            .text(tags::DERIVATION_DESCRIPTION, b"ST", "Picture of slices")
            .sequence(tags::SOURCE_IMAGE_SEQUENCE, sources)
            .text(tags::BURNED_IN_ANNOTATION, b"CS", "NO")
            .text(tags::LOSSY_IMAGE_COMPRESSION, b"CS", "00")
            .short(tags::SAMPLES_PER_PIXEL, channels as u16)
            .text(tags::PHOTOMETRIC_INTERPRETATION, b"CS", if channels == 3 { "RGB" } else { "MONOCHROME2" })
            .short(tags::ROWS, height)
            .short(tags::COLUMNS, width)
            .short(tags::BITS_ALLOCATED, 8)
            .short(tags::BITS_STORED, 8)
            .short(tags::HIGH_BIT, 7)
            .short(tags::PIXEL_REPRESENTATION, 0)
            .bytes(tags::PIXEL_DATA, &pixels);
        if channels == 3 {
            object.elements.short(tags::PLANAR_CONFIGURATION, 0);
        }
        Ok(object.file())
    }
}
