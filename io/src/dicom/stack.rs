//! Stacks: the frames of a series that are one volume.

use std::sync::Arc;

use tomograd_core::{DType, Result, Tensor};

use super::{
    fail,
    frame::{Detail, Frame},
    gaps::{describe_gaps, interpolated, usual_gap},
    geometry::{dot, length, minus, moved, normal},
    image::{Image, Photometric},
};
use crate::{
    Volume,
    geometry::{self, Affine},
    volume::Format as VolumeFormat,
    voxels::{Coding, Stored},
};

/// What to do with slices whose distances differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gaps {
    /// An error that says where the gaps are.
    #[default]
    Refuse,
    /// Slices at even distances, the most frequent one, between the two nearest by linear interpolation. The voxels are f32.
    Interpolate,
}

/// Frames of a series that are one volume: of one size, orientation, spacing and kind, each at a place of its own, in the
/// order of their places along the normal.
#[derive(Debug, Clone)]
pub struct Stack {
    slices: Vec<Slice>,
    affine: Affine,
    label: String,
    notes: Vec<String>,
    /// Where slices are along the normal, if their distances differ.
    uneven: Option<Vec<f64>>,
}

/// A frame of a file.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    pub(super) image: Arc<Image>,
    pub(super) frame: usize,
}

impl Slice {
    pub(super) fn frame(&self) -> Option<&Frame> {
        self.image.frames.get(self.frame)
    }

    pub(super) fn detail(&self) -> Option<&Detail> {
        self.frame().map(|frame| &*frame.detail)
    }

    pub(super) fn position(&self) -> Option<[f64; 3]> {
        self.frame()?.position
    }
}

/// The distance within which two slices are at one place, in millimetres.
pub(super) const ONE_PLACE: f64 = 1e-3;

impl Stack {
    /// A stack of these slices, in the order of their places if they have any.
    pub(super) fn new(slices: Vec<Slice>, mut notes: Vec<String>) -> Result<Self> {
        let first = slices.first().ok_or_else(|| fail("a stack without slices"))?;
        let detail = first.detail().ok_or_else(|| fail("a frame that isn't there"))?;
        let spacing = detail.spacing.unwrap_or_else(|| {
            notes.push("no pixel spacing: 1 mm is assumed".to_owned());
            [1.0; 2]
        });
        let orientation = detail.orientation.unwrap_or_else(|| {
            notes.push("no orientation: rows are taken to go to the left, columns to the back".to_owned());
            [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        });
        let origin = first.position().unwrap_or_else(|| {
            notes.push("no position: the first pixel is taken as the origin".to_owned());
            [0.0; 3]
        });
        let across = normal(&orientation);
        let positions: Option<Vec<[f64; 3]>> = slices.iter().map(Slice::position).collect();
        let (mut step, mut uneven) = (None, None);
        if let (Some(positions), true) = (&positions, slices.len() > 1) {
            let last = positions.last().copied().unwrap_or(origin);
            let mean = minus(last, origin).map(|x| x / (slices.len() - 1) as f64);
            let allowed = 0.01 * length(mean) + 0.01;
            let off = |(i, place): (usize, &[f64; 3])| length(minus(*place, moved(origin, mean, i as f64)));
            if positions.iter().enumerate().map(off).any(|off| off > allowed) {
                let places: Vec<f64> = positions.iter().map(|&place| dot(minus(place, origin), across)).collect();
                notes.push(describe_gaps(&places));
                // If it is interpolated, slices are along the normal.
                step = Some(across.map(|x| x * usual_gap(&places)));
                uneven = Some(places);
            } else {
                let cosine = (dot(mean, across) / length(mean)).clamp(-1.0, 1.0);
                let tilt = cosine.acos().to_degrees();
                if tilt > 0.1 {
                    notes.push(format!(
                        "slices are displaced by {tilt:.2}° (gantry tilt): the affine is sheared as they are"
                    ));
                }
                step = Some(mean);
            }
        }
        let step = step.unwrap_or_else(|| {
            let distance = match (detail.between, detail.thickness) {
                (Some(between), _) => between,
                (None, Some(thickness)) => {
                    notes.push("one slice: its thickness is taken as the spacing".to_owned());
                    thickness
                }
                (None, None) => {
                    notes.push("no distance between slices: 1 mm is assumed".to_owned());
                    1.0
                }
            };
            across.map(|x| x * distance)
        });
        let [rows, columns] = spacing;
        let [a, b, c, d, e, f] = orientation;
        let column = |x: f64, y: f64, step: f64, origin: f64| [x * columns, y * rows, step, origin];
        let [sx, sy, sz] = step;
        let [ox, oy, oz] = origin;
        // From DICOM's axes, to the left and posterior, to those of the world here, to the right and anterior.
        let affine = [
            column(a, d, sx, ox).map(|x| 0.0 - x),
            column(b, e, sy, oy).map(|x| 0.0 - x),
            column(c, f, sz, oz),
            [0.0, 0.0, 0.0, 1.0],
        ];
        geometry::inverse(&affine)?;
        match first.image.format.photometric {
            Photometric::Monochrome1 => {
                notes.push("MONOCHROME1: larger values are darker; values are as stored".to_owned())
            }
            Photometric::YbrFull | Photometric::YbrFull422 => notes.push("YCbCr colours become RGB".to_owned()),
            Photometric::Palette => notes.push("colours of a palette become RGB".to_owned()),
            _ => {}
        }
        if let Some(padding) = first.image.padding {
            notes.push(format!("pixels of the stored value {padding} are padding, no part of the image"));
        }
        for slice in &slices {
            for note in &slice.image.notes {
                if !notes.contains(note) && notes.len() < 50 {
                    notes.push(note.clone());
                }
            }
        }
        Ok(Self { slices, affine, label: String::new(), notes, uneven })
    }

    pub(super) fn labelled(mut self, label: String) -> Self {
        self.label = label;
        self
    }

    pub(super) fn slices(&self) -> &[Slice] {
        &self.slices
    }

    pub(super) fn image(&self) -> Result<&Image> {
        self.slices.first().map(|slice| &*slice.image).ok_or_else(|| fail("a stack without slices"))
    }

    /// What tells this stack from the others of its series, such as `echo 2`; empty if it is the only one.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The numbers of columns, rows and slices.
    pub fn size(&self) -> [usize; 3] {
        let format = self.slices.first().map(|slice| &slice.image.format);
        [format.map_or(0, |format| format.columns), format.map_or(0, |format| format.rows), self.slices.len()]
    }

    /// From indices of columns, rows and slices to world coordinates (RAS+, millimetres). Of slices at differing distances it
    /// is that of [`Gaps::Interpolate`].
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// What is odd about it, and what was done.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether slices are at differing distances, so that reading them needs [`Gaps::Interpolate`].
    pub fn is_uneven(&self) -> bool {
        self.uneven.is_some()
    }

    /// The windows for display that the first slice names: centre and width in the units of the voxels.
    pub fn windows(&self) -> &[[f64; 2]] {
        self.slices.first().and_then(Slice::detail).map_or(&[], |detail| &detail.windows)
    }

    /// The name of the transfer syntax of the first slice, such as `JPEG 2000 Lossless`.
    pub fn transfer_syntax(&self) -> &'static str {
        self.slices.first().map_or("", |slice| slice.image.syntax.name)
    }

    /// Reads the voxels: (D, H, W), or (3, D, H, W) with colours. Rescaled by slope and intercept (or the modality's table), slice
    /// by slice, to Hounsfield units or what the modality means. The dtype is u8 or i32 (i64 for 32 unsigned bits) where values
    /// are whole, else f32, or f64 where f32 would make two stored values one.
    ///
    /// # Errors
    /// When a file can't be read, or slices are at differing distances.
    pub fn read(&self) -> Result<Volume> {
        self.read_with(Gaps::Refuse)
    }

    /// As [`Stack::read`], with a choice for slices at differing distances.
    ///
    /// # Errors
    /// When a file can't be read; with [`Gaps::Refuse`], when slices are at differing distances.
    pub fn read_with(&self, gaps: Gaps) -> Result<Volume> {
        let image = self.image()?;
        match (&self.uneven, gaps) {
            (Some(places), Gaps::Refuse) => {
                Err(fail(describe_gaps(places)).expected("even distances, or to interpolate"))
            }
            (Some(places), Gaps::Interpolate) => {
                let format = &image.format;
                if format.photometric.coloured() {
                    return Err(fail("colours at slices of differing distances").expected("grey values"));
                }
                let values = self.voxels()?.converted(DType::F32)?;
                self.volume(interpolated(&values, places)?, Coding::plain(Stored::F32))
            }
            (None, _) => {
                let voxels = self.voxels()?;
                let format = &image.format;
                let stored = match voxels.dtype() {
                    // What 16 bits hold is written with 16.
                    DType::I32 if format.stored < 16 || format.signed => Stored::I16,
                    DType::I32 if format.stored == 16 => Stored::U16,
                    dtype => Stored::of(dtype),
                };
                let channels = if format.photometric.coloured() { 3 } else { 1 };
                self.volume(voxels, Coding::several(stored, channels))
            }
        }
    }

    fn volume(&self, voxels: Tensor, coding: Coding) -> Result<Volume> {
        Volume::of_array(voxels, self.affine, None, coding, VolumeFormat::Dicom, self.notes.clone())
    }
}
