//! Masks into structure sets.

use std::path::Path;

use dicom_dictionary_std::{tags, uids};
use tomograd_core::{Error, Result, Tensor};

use super::{
    super::{
        OPERATION, fail,
        object::{self, Object, check_shape, check_text},
        stack::{Slice, Stack},
        write::Elements,
    },
    trace::{self, Corner},
};
use crate::write_atomically;

/// How holes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Holes {
    /// A contour goes to the hole, around it, and back by the same way (`CLOSED_PLANAR`): what every program reads.
    #[default]
    Keyhole,
    /// A contour of its own, and what is in an odd number of contours is the structure (`CLOSEDPLANAR_XOR`).
    Xor,
}

/// Colours that are told apart easily.
const COLOURS: [[u8; 3]; 8] = [
    [230, 25, 75],
    [60, 180, 75],
    [255, 225, 25],
    [0, 130, 200],
    [245, 130, 48],
    [145, 30, 180],
    [70, 240, 240],
    [240, 50, 230],
];

impl Stack {
    /// Writes masks (D, H, W) of this stack, with their names, as a structure set (RTSTRUCT). Contours go along the edges of voxels, so that
    /// they hold exactly the centres of the voxels that aren't 0. Structures may overlap. The set has the patient, study and
    /// frame of reference of the stack's first file, and each contour refers to its slice. Nothing is said of what a structure is but
    /// its name.
    ///
    /// ```no_run
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::dicom::{Holes, Listing};
    /// let listing = Listing::open("study")?;
    /// let stack = listing.only()?.stack()?;
    /// let [width, height, depth] = stack.size();
    /// let mask = Tensor::ones(&[depth, height, width], DType::U8, Device::Cpu)?;
    /// stack.write_structures("structures.dcm", &[("Body", &mask)], Holes::Keyhole)?;
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a mask isn't of the stack's size, a name is too long or given twice, slices have no place, or the file can't be
    /// written.
    pub fn write_structures(&self, path: impl AsRef<Path>, structures: &[(&str, &Tensor)], holes: Holes) -> Result<()> {
        let bytes = self.structure_set(structures, holes)?;
        write_atomically(path.as_ref(), |writer| crate::atomic::write_all(writer, &bytes))
    }

    fn structure_set(&self, structures: &[(&str, &Tensor)], holes: Holes) -> Result<Vec<u8>> {
        if structures.is_empty() || structures.len() > 65535 {
            return Err(Error::argument(OPERATION, format!("{} structures", structures.len())).expected("1 to 65535"));
        }
        let mut content = Vec::new();
        let (mut regions, mut contours, mut observations) = (Vec::new(), Vec::new(), Vec::new());
        for (i, &(name, mask)) in structures.iter().enumerate() {
            check_text("name", name, 64)?;
            check_shape(self, mask)?;
            if structures.iter().take(i).any(|(other, _)| *other == name) {
                return Err(Error::argument(OPERATION, format!("two structures called {name:?}")));
            }
            let inside: Vec<bool> = mask.to_vec_f64()?.into_iter().map(|value| value != 0.0).collect();
            content.extend(name.as_bytes());
            content.extend(inside.iter().map(|&inside| u8::from(inside)));
            let number = (i + 1).to_string();
            contours.push(self.contours(&inside, &number, i, holes)?);
            let mut region = Elements::default();
            region.text(tags::ROI_NUMBER, b"IS", &number).text(tags::ROI_NAME, b"LO", name).text(
                tags::ROI_GENERATION_ALGORITHM,
                b"CS",
                "AUTOMATIC",
            );
            regions.push(region);
            let mut observation = Elements::default();
            observation
                .text(tags::OBSERVATION_NUMBER, b"IS", &number)
                .text(tags::REFERENCED_ROI_NUMBER, b"IS", &number)
                .text(tags::RTROI_INTERPRETED_TYPE, b"CS", "")
                .text(tags::ROI_INTERPRETER, b"PN", "");
            observations.push(observation);
        }
        let mut object =
            Object::of(self, uids::RT_STRUCTURE_SET_STORAGE, "RTSTRUCT", "Structures", &[&content, &[holes as u8]])?;
        for region in &mut regions {
            region.text(tags::REFERENCED_FRAME_OF_REFERENCE_UID, b"UI", &object.frame_of_reference);
        }
        object.frame_of_reference();
        let date = object.dated(tags::CONTENT_DATE, tags::STUDY_DATE, "");
        let time = object.dated(tags::CONTENT_TIME, tags::STUDY_TIME, "");
        let frame = self.referenced_frame(&object)?;
        object
            .elements
            .text(tags::STRUCTURE_SET_LABEL, b"SH", "tomograd")
            .text(tags::STRUCTURE_SET_DATE, b"DA", &date)
            .text(tags::STRUCTURE_SET_TIME, b"TM", &time)
            .text(tags::OPERATORS_NAME, b"PN", "")
            .text(tags::APPROVAL_STATUS, b"CS", "UNAPPROVED")
            .sequence(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE, vec![frame])
            .sequence(tags::STRUCTURE_SET_ROI_SEQUENCE, regions)
            .sequence(tags::ROI_CONTOUR_SEQUENCE, contours)
            .sequence(tags::RTROI_OBSERVATIONS_SEQUENCE, observations);
        // Of explicit ones, a contour's numbers take 64 KiB at most.
        Ok(object.implicit_file())
    }

    /// The frame of reference with the study, series and images of the slices.
    fn referenced_frame(&self, object: &Object) -> Result<Elements> {
        let about = &self.image()?.about;
        let (mut series, mut study, mut frame) = (Elements::default(), Elements::default(), Elements::default());
        series
            .text(tags::SERIES_INSTANCE_UID, b"UI", &about.series)
            .sequence(tags::CONTOUR_IMAGE_SEQUENCE, object::references(self.slices()));
        study
            // The class of studies, which is retired, but of which this attribute is.
            .text(tags::REFERENCED_SOP_CLASS_UID, b"UI", "1.2.840.10008.3.1.2.3.1")
            .text(tags::REFERENCED_SOP_INSTANCE_UID, b"UI", &about.study)
            .sequence(tags::RT_REFERENCED_SERIES_SEQUENCE, vec![series]);
        frame
            .text(tags::FRAME_OF_REFERENCE_UID, b"UI", &object.frame_of_reference)
            .sequence(tags::RT_REFERENCED_STUDY_SEQUENCE, vec![study]);
        Ok(frame)
    }

    fn contours(&self, inside: &[bool], number: &str, index: usize, holes: Holes) -> Result<Elements> {
        let [width, height, _] = self.size();
        let mut contours = Vec::new();
        let slices = inside.chunks_exact(width.saturating_mul(height).max(1));
        for (slice, pixels) in self.slices().iter().zip(slices) {
            if !pixels.contains(&true) {
                continue;
            }
            for ring in trace::rings(pixels, width, height, holes == Holes::Keyhole) {
                contours.push(contour(slice, &ring, holes)?);
            }
        }
        let [red, green, blue] = COLOURS.get(index % COLOURS.len()).copied().unwrap_or_default();
        let mut elements = Elements::default();
        elements.text(tags::ROI_DISPLAY_COLOR, b"IS", &format!("{red}\\{green}\\{blue}")).text(
            tags::REFERENCED_ROI_NUMBER,
            b"IS",
            number,
        );
        if !contours.is_empty() {
            elements.sequence(tags::CONTOUR_SEQUENCE, contours);
        }
        Ok(elements)
    }
}

/// A ring of corners of pixels in a slice.
fn contour(slice: &Slice, ring: &[Corner], holes: Holes) -> Result<Elements> {
    let detail = slice.detail();
    let (Some([ox, oy, oz]), Some([a, b, c, d, e, f]), Some([rows, columns])) =
        (slice.position(), detail.and_then(|detail| detail.orientation), detail.and_then(|detail| detail.spacing))
    else {
        return Err(fail("contours in slices without position, orientation and spacing"));
    };
    let point = |&[x, y]: &Corner| {
        // The position of a slice is the centre of its first pixel.
        let (x, y) = ((f64::from(x) - 0.5) * columns, (f64::from(y) - 0.5) * rows);
        [ox + x * a + y * d, oy + x * b + y * e, oz + x * c + y * f]
    };
    let points: Vec<f64> = ring.iter().flat_map(point).collect();
    let mut contour = Elements::default();
    contour
        .sequence(tags::CONTOUR_IMAGE_SEQUENCE, vec![object::frame_reference(slice)])
        .text(
            tags::CONTOUR_GEOMETRIC_TYPE,
            b"CS",
            if holes == Holes::Xor { "CLOSEDPLANAR_XOR" } else { "CLOSED_PLANAR" },
        )
        .text(tags::NUMBER_OF_CONTOUR_POINTS, b"IS", &ring.len().to_string())
        .decimals(tags::CONTOUR_DATA, &points);
    Ok(contour)
}
