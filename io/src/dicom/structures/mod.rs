//! Structure sets (RTSTRUCT): contours of structures in the slices of a series, from masks and into masks.

mod raster;
mod trace;
mod write;

use std::path::Path;

use dicom_dictionary_std::{tags, uids};
use tomograd_core::Result;

pub use write::Holes;

use super::{
    fail,
    file::{Header, Source},
    view::View,
};

/// The outline of a structure in a plane.
#[derive(Debug, Clone, PartialEq)]
struct Contour {
    /// `CLOSED_PLANAR` and the like.
    kind: String,
    /// In DICOM's patient coordinates: to the left, posterior and head, in millimetres.
    points: Vec<[f64; 3]>,
}

/// A structure of a structure set: a region of interest with its contours.
#[derive(Debug, Clone, PartialEq)]
pub struct Structure {
    number: i64,
    name: String,
    interpreted: Option<String>,
    contours: Vec<Contour>,
}

impl Structure {
    /// The number of the region (ROINumber).
    pub fn number(&self) -> i64 {
        self.number
    }

    /// The name of the region; empty if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the region is taken for, such as `ORGAN` or `PTV`, if the file says it.
    pub fn interpreted_type(&self) -> Option<&str> {
        self.interpreted.as_deref()
    }

    /// The number of contours.
    pub fn contours(&self) -> usize {
        self.contours.len()
    }
}

/// A structure set.
///
/// ```no_run
/// use tomograd_io::dicom::{Listing, StructureSet};
/// let set = StructureSet::open("structures.dcm")?;
/// let listing = Listing::open("study")?;
/// let stack = listing.find(&set.series()[0])?.stack()?; // the series on which it was drawn
/// for structure in set.structures() {
///     let (mask, notes) = set.mask(structure, stack)?;
///     println!("{} {:?} {notes:?}", structure.name(), mask.voxels().shape());
/// }
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StructureSet {
    label: String,
    frames_of_reference: Vec<String>,
    series: Vec<String>,
    structures: Vec<Structure>,
}

impl StructureSet {
    /// Reads a file.
    ///
    /// # Errors
    /// When it isn't a structure set, is damaged, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let source = Source::File(path.as_ref().into());
        Header::read(&source).and_then(|header| Self::of(header.view())).map_err(|error| source.name(error))
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// As [`StructureSet::open`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::of(Header::read(&Source::Memory(bytes.into()))?.view())
    }

    fn of(view: View<'_>) -> Result<Self> {
        let class = view.text(tags::SOP_CLASS_UID).unwrap_or_default();
        if class != uids::RT_STRUCTURE_SET_STORAGE {
            return Err(fail(format!("an object of class {class:?}")).expected("an RT structure set"));
        }
        let number = |item: View<'_>, tag| item.number(tag).map(|number| number.map(|number| number as i64));
        let mut structures = Vec::new();
        for item in view.items(tags::STRUCTURE_SET_ROI_SEQUENCE) {
            let number = number(item, tags::ROI_NUMBER)?.ok_or_else(|| fail("a structure without a number"))?;
            if structures.iter().any(|other: &Structure| other.number == number) {
                return Err(fail(format!("two structures of number {number}")));
            }
            let name = item.text(tags::ROI_NAME).unwrap_or_default();
            structures.push(Structure { number, name, interpreted: None, contours: Vec::new() });
        }
        for item in view.items(tags::ROI_CONTOUR_SEQUENCE) {
            let number = number(item, tags::REFERENCED_ROI_NUMBER)?;
            let structure = structures.iter_mut().find(|structure| Some(structure.number) == number);
            let structure = structure
                .ok_or_else(|| fail(format!("contours of structure {number:?}, which the file doesn't list")))?;
            for contour in item.items(tags::CONTOUR_SEQUENCE) {
                structure.contours.push(self::contour(contour)?);
            }
        }
        for item in view.items(tags::RTROI_OBSERVATIONS_SEQUENCE) {
            let number = number(item, tags::REFERENCED_ROI_NUMBER)?;
            if let Some(structure) = structures.iter_mut().find(|structure| Some(structure.number) == number) {
                structure.interpreted = item.text(tags::RTROI_INTERPRETED_TYPE);
            }
        }
        let (mut frames_of_reference, mut series) = (Vec::new(), Vec::new());
        for frame in view.items(tags::REFERENCED_FRAME_OF_REFERENCE_SEQUENCE) {
            frames_of_reference.extend(frame.text(tags::FRAME_OF_REFERENCE_UID));
            for study in frame.items(tags::RT_REFERENCED_STUDY_SEQUENCE) {
                let all = study.items(tags::RT_REFERENCED_SERIES_SEQUENCE);
                series.extend(all.filter_map(|series| series.text(tags::SERIES_INSTANCE_UID)));
            }
        }
        let label = view.text(tags::STRUCTURE_SET_LABEL).unwrap_or_default();
        Ok(Self { label, frames_of_reference, series, structures })
    }

    /// The label of the set.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The UIDs of the series on which it was drawn, as the file says.
    pub fn series(&self) -> &[String] {
        &self.series
    }

    /// The structures, in the order of the file.
    pub fn structures(&self) -> &[Structure] {
        &self.structures
    }

    /// The structure of this name.
    ///
    /// # Errors
    /// When there is none, or several; the error lists the names.
    pub fn find(&self, name: &str) -> Result<&Structure> {
        let mut found = self.structures.iter().filter(|structure| structure.name == name);
        match (found.next(), found.next()) {
            (Some(structure), None) => Ok(structure),
            (first, _) => {
                let names: Vec<&str> = self.structures.iter().take(50).map(|structure| &*structure.name).collect();
                let count = if first.is_some() { "several structures are" } else { "no structure is" };
                Err(fail(format!("{count} called {name:?}")).expected(format!("one of {}", names.join(", "))))
            }
        }
    }
}

fn contour(item: View<'_>) -> Result<Contour> {
    let numbers = item.numbers(tags::CONTOUR_DATA)?;
    let (points, rest) = numbers.as_chunks::<3>();
    if !rest.is_empty() {
        return Err(fail(format!("a contour of {} numbers", numbers.len())).expected("three for each point"));
    }
    let said = item.number(tags::NUMBER_OF_CONTOUR_POINTS)?;
    if said.is_some_and(|said| said != points.len() as f64) {
        return Err(fail(format!("a contour of {} points", points.len()))
            .expected(format!("{}, as the file says", said.unwrap_or_default())));
    }
    Ok(Contour { kind: item.text(tags::CONTOUR_GEOMETRIC_TYPE).unwrap_or_default(), points: points.to_vec() })
}
