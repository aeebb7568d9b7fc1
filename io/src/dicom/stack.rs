//! Stacks: the frames of a series that are one volume.

use std::sync::Arc;

use tomograd_core::{DType, Device, Element, Error, Result, Tensor};

use super::{
    OPERATION, fail,
    geometry::{dot, length, minus, moved, normal},
    image::{Detail, Format, Frame, Image, Photometric, Scale},
    pixels::{Pixels, Values},
    syntax::Compression,
};
use crate::{
    Volume,
    geometry::{self, Affine},
    volume::Format as VolumeFormat,
    voxels::{Coding, Stored},
};

/// Compressed pixels that claim more samples a byte than this are taken for damage, unless they are few.
const MOST_SAMPLES_PER_BYTE: u64 = 4096;
const SAMPLES_ANYWAY: u64 = 1 << 20;

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
        if first.image.mosaic {
            notes.push("a mosaic of Siemens: its slices are tiles of one picture, which isn't taken apart".to_owned());
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

    fn image(&self) -> Result<&Image> {
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
        if image.mosaic {
            return Err(fail("a mosaic of Siemens, whose slices are tiles of one picture")
                .expected("an enhanced image, or one file a slice"));
        }
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

    fn voxels(&self) -> Result<Tensor> {
        self.check_claims()?;
        let [width, height, depth] = self.size();
        let format = &self.image()?.format;
        let channels = if format.photometric.coloured() { 3 } else { 1 };
        let shape = [channels, depth, height, width];
        let shape = shape.get(usize::from(channels == 1)..).unwrap_or_default();
        let details: Vec<&Detail> = self.slices.iter().filter_map(Slice::detail).collect();
        match dtype(format, &details) {
            DType::U8 => self.fill::<u8>(shape),
            DType::I64 => self.fill::<i64>(shape),
            DType::F32 => self.fill::<f32>(shape),
            DType::F64 => self.fill::<f64>(shape),
            _ => self.fill::<i32>(shape),
        }
    }

    /// Refuses compressed pixels that claim far more than their bytes can hold, before memory is taken.
    fn check_claims(&self) -> Result<()> {
        let mut last: Option<&Arc<Image>> = None;
        for slice in &self.slices {
            let image = &slice.image;
            if image.syntax.compression == Compression::None || last.is_some_and(|last| Arc::ptr_eq(last, image)) {
                continue;
            }
            last = Some(image);
            let Format { rows, columns, samples, .. } = image.format;
            let claimed =
                [rows, columns, samples, image.frames.len()].iter().fold(1u64, |n, &m| n.saturating_mul(m as u64));
            let bytes = image.source.length()?;
            if claimed > bytes.saturating_mul(MOST_SAMPLES_PER_BYTE).max(SAMPLES_ANYWAY) {
                return Err(image.source.name(
                    fail(format!("{claimed} samples in a file of {bytes} bytes"))
                        .expected(format!("at most {MOST_SAMPLES_PER_BYTE} a byte")),
                ));
            }
        }
        Ok(())
    }

    fn fill<T: Element>(&self, shape: &[usize]) -> Result<Tensor> {
        let mut voxels = Tensor::zeros(shape, T::DTYPE, Device::Cpu)?;
        let [width, height, depth] = self.size();
        let (plane, volume) = (width.saturating_mul(height), width.saturating_mul(height).saturating_mul(depth));
        let all = voxels.as_mut_slice::<T>()?;
        let mut open: Option<(Arc<Image>, Pixels)> = None;
        for (k, slice) in self.slices.iter().enumerate() {
            let within = |error: Error| slice.image.source.name(error);
            let (_, pixels) = match open.take() {
                Some((image, pixels)) if Arc::ptr_eq(&image, &slice.image) => open.insert((image, pixels)),
                _ => open.insert((slice.image.clone(), Pixels::open(&slice.image).map_err(within)?)),
            };
            let detail = slice.detail().ok_or_else(|| fail("a frame that isn't there"))?;
            let values = pixels.frame(slice.frame).map_err(within)?;
            let coloured = slice.image.format.photometric.coloured();
            if coloured {
                for (channel, part) in all.chunks_exact_mut(volume.max(1)).enumerate() {
                    let part = part.get_mut(k.saturating_mul(plane)..).unwrap_or_default();
                    if let Values::Whole(values) = &values {
                        let of_channel = values.iter().skip(channel).step_by(3);
                        let pairs = part.iter_mut().zip(of_channel).take(plane);
                        pairs.for_each(|(to, &value)| *to = T::from_f64(stored(value, &slice.image.format)));
                    }
                }
                continue;
            }
            let part =
                all.get_mut(k.saturating_mul(plane)..(k.saturating_add(1)).saturating_mul(plane)).unwrap_or_default();
            scaled(part, &values, &slice.image.format, &detail.scale);
        }
        Ok(voxels)
    }
}

/// Whether f32 tells the scaled values of neighbouring integers apart over the range of `bits`.
fn scales_in_f32(bits: usize, slope: f64, intercept: f64) -> bool {
    let largest = slope.abs() * 2f64.powi(bits as i32) + intercept.abs();
    largest <= f64::from(f32::MAX) && largest * f64::from(f32::EPSILON) <= slope.abs()
}

/// The dtype for the values of these frames.
fn dtype(format: &Format, details: &[&Detail]) -> DType {
    if format.photometric == Photometric::Palette {
        return DType::U8;
    }
    if format.photometric.coloured() {
        return if format.stored <= 8 {
            DType::U8
        } else if format.stored < 32 {
            DType::I32
        } else {
            DType::I64
        };
    }
    if format.float {
        return if format.allocated == 64 { DType::F64 } else { DType::F32 };
    }
    let least = if format.signed { -(2f64.powi(format.stored as i32 - 1)) } else { 0.0 };
    let most = 2f64.powi(format.stored as i32 - i32::from(format.signed)) - 1.0;
    let (mut low, mut high, mut whole, mut single) = (f64::INFINITY, f64::NEG_INFINITY, true, true);
    for detail in details {
        let (slope, intercept) = match detail.scale {
            Scale::Linear { slope, intercept } => (slope, intercept),
            Scale::Table(_) => {
                low = low.min(0.0);
                high = high.max(65535.0);
                continue;
            }
        };
        whole &= slope.fract() == 0.0 && intercept.fract() == 0.0;
        single &= scales_in_f32(format.stored, slope, intercept);
        for end in [least * slope + intercept, most * slope + intercept] {
            low = low.min(end);
            high = high.max(end);
        }
    }
    match (whole, single) {
        (true, _) if low >= 0.0 && high <= 255.0 => DType::U8,
        (true, _) if low >= f64::from(i32::MIN) && high <= f64::from(i32::MAX) => DType::I32,
        (true, _) if low > -9e15 && high < 9e15 => DType::I64,
        (_, true) => DType::F32,
        (_, false) => DType::F64,
    }
}

/// The number that the bits of a sample are.
fn stored(value: i32, format: &Format) -> f64 {
    if format.signed { value.into() } else { f64::from(value as u32) }
}

/// Writes the values of a grey frame, scaled.
fn scaled<T: Element>(part: &mut [T], values: &Values, format: &Format, scale: &Scale) {
    let stored = |value: i32| stored(value, format);
    match (values, scale) {
        (Values::Whole(values), Scale::Linear { slope: 1.0, intercept: 0.0 }) => {
            part.iter_mut().zip(values).for_each(|(to, &value)| *to = T::from_f64(stored(value)));
        }
        (Values::Whole(values), Scale::Linear { slope, intercept }) => {
            let value = |value: i32| T::from_f64(slope * stored(value) + intercept);
            part.iter_mut().zip(values).for_each(|(to, &raw)| *to = value(raw));
        }
        (Values::Whole(values), Scale::Table(table)) => {
            let value = |value: i32| T::from_f64(table.value(stored(value) as i64).into());
            part.iter_mut().zip(values).for_each(|(to, &raw)| *to = value(raw));
        }
        // What is floating point is stored as it is meant.
        (Values::F32(values), _) => part.iter_mut().zip(values).for_each(|(to, &x)| *to = T::from_f64(x.into())),
        (Values::F64(values), _) => part.iter_mut().zip(values).for_each(|(to, &x)| *to = T::from_f64(x)),
    }
}

/// The most frequent distance of neighbours: the median.
fn usual_gap(places: &[f64]) -> f64 {
    let mut gaps: Vec<f64> = places.iter().zip(places.iter().skip(1)).map(|(a, b)| b - a).collect();
    gaps.sort_by(f64::total_cmp);
    gaps.get(gaps.len() / 2).copied().filter(|gap| *gap > 0.0).unwrap_or(1.0)
}

/// Says where distances differ from the usual one.
fn describe_gaps(places: &[f64]) -> String {
    let usual = usual_gap(places);
    let gaps = places.iter().zip(places.iter().skip(1)).map(|(a, b)| b - a);
    let odd: Vec<(usize, f64)> =
        gaps.enumerate().filter(|(_, gap)| (gap - usual).abs() > 0.01 * usual + 0.01).collect();
    let missing = odd.iter().all(|(_, gap)| {
        let times = gap / usual;
        times > 1.5 && (times - times.round()).abs() < 0.05
    });
    if odd.is_empty() {
        return "slices are displaced against each other, though their distances are even".to_owned();
    }
    let shown: Vec<String> = odd.iter().take(5).map(|(i, gap)| format!("{gap:.3} mm behind slice {}", i + 1)).collect();
    let more = if odd.len() > 5 { format!(" and {} more", odd.len() - 5) } else { String::new() };
    let what = if missing {
        let count: f64 = odd.iter().map(|(_, gap)| (gap / usual).round() - 1.0).sum();
        format!("{count} slices are missing")
    } else {
        "slices are at differing distances".to_owned()
    };
    format!("{what}: {}{more}, where {usual:.3} mm is usual", shown.join(", "))
}

/// Slices at even distances, by linear interpolation between the two nearest.
fn interpolated(values: &Tensor, places: &[f64]) -> Result<Tensor> {
    let &[depth, height, width] = values.shape() else {
        return Err(Error::shape(OPERATION, "slices to interpolate").shapes([values.shape()]));
    };
    let gap = usual_gap(places);
    let extent = places.last().copied().unwrap_or(0.0);
    let count = (extent / gap + 1e-3).floor() + 1.0;
    // A few slices far away from each other would otherwise become any number.
    if !(count >= 1.0 && count <= 64.0 * depth as f64) {
        return Err(fail(format!("{depth} slices over {extent:.1} mm would become {count}"))
            .expected("at most 64 times as many"));
    }
    let (count, plane) = (count as usize, height.saturating_mul(width));
    let mut even = Tensor::zeros(&[count, height, width], DType::F32, Device::Cpu)?;
    let values = values.as_slice::<f32>()?;
    let slice =
        |k: usize| values.get(k.saturating_mul(plane)..(k.saturating_add(1)).saturating_mul(plane)).unwrap_or_default();
    let mut k = 0;
    for (i, part) in even.as_mut_slice::<f32>()?.chunks_exact_mut(plane.max(1)).enumerate() {
        let place = i as f64 * gap;
        while places.get(k + 1).is_some_and(|&next| next <= place) {
            k += 1;
        }
        let (Some(&before), after) = (places.get(k), places.get(k + 1)) else { continue };
        let share = after.map_or(0.0, |after| ((place - before) / (after - before)).clamp(0.0, 1.0)) as f32;
        let next = if after.is_some() { slice(k + 1) } else { slice(k) };
        for ((to, &a), &b) in part.iter_mut().zip(slice(k)).zip(next) {
            *to = if share == 0.0 { a } else { a + (b - a) * share };
        }
    }
    Ok(even)
}
