//! Frames: the place, scale and marks of each, of classic files from the data set, of enhanced ones from functional groups.

use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use tomograd_core::Result;

use super::{diffusion::Diffusion, fail, geometry, lut::Table, view::View};

/// From stored values to those of the modality, such as Hounsfield units.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scale {
    Linear { slope: f64, intercept: f64 },
    Table(Arc<Table>),
}

/// What tells the frames of a series apart, besides their place. The first [`APART`] never belong to one volume; the others
/// are asked only where two frames are at one place.
pub(super) const MARKS: [&str; 14] = [
    "image type",
    "echo",
    "temporal position",
    "b-value",
    "stack",
    "segment",
    "echo time",
    "gradient direction",
    "cardiac phase",
    "acquisition",
    "inversion time",
    "trigger time",
    "acquisition time",
    "content time",
];
pub(super) const APART: usize = 6;
const SEGMENT: usize = 5;
pub(super) const ACQUISITION_TIME: usize = 12;

/// A frame of a file.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The centre of the first pixel, in DICOM's patient coordinates (to the left, posterior and head, in millimetres).
    pub(super) position: Option<[f64; 3]>,
    /// What frames may share.
    pub(super) detail: Arc<Detail>,
}

impl Frame {
    /// The number of the segment that the frame is of.
    pub(super) fn segment(&self) -> Option<&str> {
        self.detail.marks.get(SEGMENT)?.as_deref()
    }
}

/// What is known of a frame besides its place.
#[derive(Debug)]
pub(super) struct Detail {
    /// The directions of rows and columns.
    pub(super) orientation: Option<[f64; 6]>,
    /// The distances between rows and between columns in millimetres.
    pub(super) spacing: Option<[f64; 2]>,
    pub(super) thickness: Option<f64>,
    /// The distance to the next slice, as the file says.
    pub(super) between: Option<f64>,
    pub(super) scale: Scale,
    /// Centre and width.
    pub(super) windows: Vec<[f64; 2]>,
    /// As [`MARKS`].
    pub(super) marks: [Option<String>; MARKS.len()],
    /// The number of the image in its series.
    pub(super) number: Option<f64>,
    pub(super) diffusion: Option<Diffusion>,
}

/// Groups of attributes that an enhanced image has for each frame, or for all of them.
const MACROS: [Tag; 16] = [
    tags::PIXEL_MEASURES_SEQUENCE,
    tags::PLANE_POSITION_SEQUENCE,
    tags::PLANE_ORIENTATION_SEQUENCE,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::FRAME_VOILUT_SEQUENCE,
    tags::FRAME_CONTENT_SEQUENCE,
    tags::MR_ECHO_SEQUENCE,
    tags::MR_DIFFUSION_SEQUENCE,
    tags::MR_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::CT_IMAGE_FRAME_TYPE_SEQUENCE,
    tags::PET_FRAME_TYPE_SEQUENCE,
    tags::CARDIAC_SYNCHRONIZATION_SEQUENCE,
    tags::TEMPORAL_POSITION_SEQUENCE,
    tags::SEGMENT_IDENTIFICATION_SEQUENCE,
    tags::MR_MODIFIER_SEQUENCE,
    tags::DETECTOR_INFORMATION_SEQUENCE,
];

/// Where the attributes of a frame are looked for, in order.
struct Levels<'a>(Vec<View<'a>>);

impl<'a> Levels<'a> {
    fn of_frame(root: View<'a>, frame: Option<View<'a>>, shared: Option<View<'a>>) -> Self {
        let mut levels = Vec::new();
        for group in [frame, shared, Some(root)].into_iter().flatten() {
            levels.extend(MACROS.iter().filter_map(|&tag| group.first(tag)));
        }
        levels.push(root);
        Self(levels)
    }

    fn find(&self, tag: Tag) -> Option<View<'a>> {
        self.0.iter().copied().find(|view| view.raw(tag).is_some())
    }

    fn maybe(&self, tag: Tag) -> Option<f64> {
        self.find(tag)?.maybe(tag)
    }

    fn text(&self, tag: Tag) -> Option<String> {
        self.find(tag)?.text(tag)
    }

    fn exactly<const N: usize>(&self, tag: Tag) -> Result<Option<[f64; N]>> {
        self.find(tag).map_or(Ok(None), |view| view.exactly(tag))
    }

    /// The first of these numbers as text.
    fn number_text(&self, candidates: &[Tag]) -> Option<String> {
        candidates.iter().find_map(|&tag| self.maybe(tag)).map(|number| number.to_string())
    }
}

/// The `count` frames of a file.
pub(super) fn frames(root: View<'_>, count: usize, notes: &mut Vec<String>) -> Result<Vec<Frame>> {
    let shared = root.first(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let each: Vec<View<'_>> = root.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).collect();
    if !each.is_empty() && each.len() < count {
        return Err(fail(format!("attributes of {} frames", each.len())).expected(format!("of {count}")));
    }
    if each.len() > count {
        notes.push(format!("attributes of {} frames, though there are {count}: the first are taken", each.len()));
    }
    let offsets = offsets(root, count, notes)?;
    let mut frames: Vec<Frame> = Vec::new();
    for index in 0..count {
        // Frames without groups of their own differ by their offset alone.
        let mut frame = match frames.last() {
            Some(last) if each.is_empty() => last.clone(),
            _ => frame(&Levels::of_frame(root, each.get(index).copied(), shared), root, notes)?,
        };
        if each.is_empty() && count > 1 {
            frame.position = match (frames.first().unwrap_or(&frame), &offsets) {
                (Frame { position: Some(position), detail, .. }, Some(offsets)) if detail.orientation.is_some() => {
                    let normal = geometry::normal(&detail.orientation.unwrap_or_default());
                    let offset = offsets.get(index).copied().unwrap_or(0.0);
                    let first = if index == 0 { 0.0 } else { offsets.first().copied().unwrap_or(0.0) };
                    Some(geometry::moved(*position, normal, offset - first))
                }
                _ => None,
            };
        }
        frames.push(frame);
    }
    if each.is_empty() && count > 1 && offsets.is_none() {
        notes.push(format!("{count} frames without positions: in the order of the file"));
    }
    Ok(frames)
}

/// The offsets of frames along the normal, where one attribute says them for all frames.
fn offsets(root: View<'_>, count: usize, notes: &mut Vec<String>) -> Result<Option<Vec<f64>>> {
    let offsets = root.numbers(tags::GRID_FRAME_OFFSET_VECTOR)?;
    if offsets.is_empty() {
        return Ok(None);
    }
    if offsets.len() < count {
        return Err(fail(format!("{} frame offsets", offsets.len())).expected(format!("{count}")));
    }
    if offsets.len() > count {
        notes.push(format!("{} frame offsets, though there are {count} frames: the first are taken", offsets.len()));
    }
    // Relative to the position if the first is 0, else places along the normal themselves: the differences are the same.
    let first = offsets.first().copied().unwrap_or(0.0);
    Ok(Some(offsets.into_iter().map(|offset| offset - first).collect()))
}

fn frame(levels: &Levels<'_>, root: View<'_>, notes: &mut Vec<String>) -> Result<Frame> {
    let mut note = |text: String| {
        if !notes.contains(&text) && notes.len() < 50 {
            notes.push(text);
        }
    };
    let orientation = match levels.exactly::<6>(tags::IMAGE_ORIENTATION_PATIENT)? {
        Some(orientation) if geometry::normal(&orientation) == [0.0; 3] => {
            note(format!("orientation {orientation:?} isn't one: left out"));
            None
        }
        other => other,
    };
    let mut spacing = levels.exactly::<2>(tags::PIXEL_SPACING)?;
    if spacing.is_none() {
        for (tag, name) in
            [(tags::IMAGER_PIXEL_SPACING, "the detector"), (tags::NOMINAL_SCANNED_PIXEL_SPACING, "the scanner's film")]
        {
            if let Some(found) = levels.exactly::<2>(tag)? {
                note(format!("the pixel spacing is that of {name}"));
                spacing = Some(found);
                break;
            }
        }
    }
    if spacing.is_some_and(|spacing| spacing.iter().any(|step| *step <= 0.0)) {
        note(format!("a pixel spacing of {:?}: left out", spacing.unwrap_or_default()));
        spacing = None;
    }
    let scale = match levels.find(tags::RESCALE_SLOPE).or_else(|| levels.find(tags::RESCALE_INTERCEPT)) {
        Some(view) => Scale::Linear {
            slope: view.number(tags::RESCALE_SLOPE)?.unwrap_or(1.0),
            intercept: view.number(tags::RESCALE_INTERCEPT)?.unwrap_or(0.0),
        },
        None => match (root.first(tags::MODALITY_LUT_SEQUENCE), root.number(tags::DOSE_GRID_SCALING)?) {
            (Some(table), _) => Scale::Table(Arc::new(Table::read(table, root)?)),
            (_, Some(slope)) => Scale::Linear { slope, intercept: 0.0 },
            _ => Scale::Linear { slope: 1.0, intercept: 0.0 },
        },
    };
    if let Scale::Linear { slope, intercept } = scale
        && !(slope.is_finite() && intercept.is_finite() && slope != 0.0)
    {
        return Err(fail(format!("a rescale slope of {slope} and intercept of {intercept}"))
            .expected("finite numbers, and a slope other than 0"));
    }
    let window = levels.find(tags::WINDOW_CENTER).map(|view| {
        let [centres, widths] =
            [tags::WINDOW_CENTER, tags::WINDOW_WIDTH].map(|tag| view.numbers(tag).unwrap_or_default());
        centres.into_iter().zip(widths).map(|(centre, width)| [centre, width]).collect()
    });
    let types = levels.text(tags::FRAME_TYPE).or_else(|| levels.text(tags::IMAGE_TYPE));
    let time = |tag| levels.text(tag);
    let gradient = levels.exactly::<3>(tags::DIFFUSION_GRADIENT_ORIENTATION).ok().flatten();
    let diffusion = Diffusion::of((levels.maybe(tags::DIFFUSION_B_VALUE), gradient), root);
    let direction = levels
        .find(tags::DIFFUSION_GRADIENT_ORIENTATION)
        .map(|view| format!("{:?}", view.numbers(tags::DIFFUSION_GRADIENT_ORIENTATION).unwrap_or_default()))
        .or_else(|| Some(format!("{:?}", diffusion?.direction?)));
    let position = levels.exactly::<3>(tags::IMAGE_POSITION_PATIENT)?;
    let detail = Arc::new(Detail {
        orientation,
        spacing,
        thickness: levels.maybe(tags::SLICE_THICKNESS).filter(|step| *step > 0.0),
        between: levels.maybe(tags::SPACING_BETWEEN_SLICES).map(f64::abs).filter(|step| *step > 0.0),
        scale,
        windows: window.unwrap_or_default(),
        marks: [
            types,
            levels.number_text(&[tags::ECHO_NUMBERS]),
            levels.number_text(&[tags::TEMPORAL_POSITION_INDEX, tags::TEMPORAL_POSITION_IDENTIFIER]),
            levels
                .number_text(&[tags::DIFFUSION_B_VALUE, Tag(0x0043, 0x1039)])
                .or_else(|| Some(diffusion?.b_value.to_string())),
            levels.text(tags::STACK_ID),
            levels.number_text(&[tags::REFERENCED_SEGMENT_NUMBER]),
            levels.number_text(&[tags::EFFECTIVE_ECHO_TIME, tags::ECHO_TIME]),
            direction,
            levels.number_text(&[tags::NOMINAL_CARDIAC_TRIGGER_DELAY_TIME, tags::NOMINAL_PERCENTAGE_OF_CARDIAC_PHASE]),
            levels.number_text(&[tags::ACQUISITION_NUMBER, tags::FRAME_ACQUISITION_NUMBER]),
            levels.number_text(&[tags::INVERSION_TIME]),
            levels.number_text(&[tags::TRIGGER_TIME]),
            time(tags::ACQUISITION_TIME).or_else(|| time(tags::FRAME_ACQUISITION_DATE_TIME)),
            time(tags::CONTENT_TIME),
        ],
        number: root.maybe(tags::INSTANCE_NUMBER),
        diffusion,
    });
    Ok(Frame { position, detail })
}
