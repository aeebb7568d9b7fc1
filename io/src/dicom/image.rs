//! What the elements of a file say of its pixels, and of each frame.

use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use tomograd_core::Result;

use super::{
    dataset::{self, PixelElement, View},
    fail,
    file::{Header, Source},
    geometry,
    lut::{Palette, Table},
    syntax::Syntax,
};

/// Frames of one file beyond this are refused.
const MOST_FRAMES: usize = 1 << 20;

/// The colours of samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    /// Grey: larger is brighter.
    Monochrome2,
    /// Grey: larger is darker.
    Monochrome1,
    Palette,
    Rgb,
    /// Luminance and colour differences, with as many samples of each.
    YbrFull,
    /// As `YbrFull`, but two pixels in a row share their colour differences where pixels aren't compressed.
    YbrFull422,
    /// RGB, which the stream of JPEG 2000 holds transformed.
    YbrStream,
}

impl Photometric {
    fn of(text: &str) -> Result<Self> {
        Ok(match text {
            "MONOCHROME2" => Self::Monochrome2,
            "MONOCHROME1" => Self::Monochrome1,
            "PALETTE COLOR" => Self::Palette,
            "RGB" => Self::Rgb,
            "YBR_FULL" => Self::YbrFull,
            "YBR_FULL_422" => Self::YbrFull422,
            "YBR_RCT" | "YBR_ICT" => Self::YbrStream,
            other => {
                return Err(fail(format!("photometric interpretation {other:?}")).expected(
                    "MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_RCT or YBR_ICT",
                ));
            }
        })
    }

    pub(super) fn coloured(self) -> bool {
        !matches!(self, Self::Monochrome1 | Self::Monochrome2)
    }
}

/// How samples are stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Format {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Samples of a pixel.
    pub(super) samples: usize,
    /// Bits that a sample takes, that it has, and its highest one.
    pub(super) allocated: usize,
    pub(super) stored: usize,
    pub(super) high: usize,
    pub(super) signed: bool,
    /// The samples of a channel are together.
    pub(super) planar: bool,
    /// Samples are floating-point numbers.
    pub(super) float: bool,
    pub(super) photometric: Photometric,
    pub(super) palette: Option<Arc<Palette>>,
}

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

/// A frame of a file.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// The centre of the first pixel, in DICOM's patient coordinates (to the left, posterior and head, in millimetres).
    pub(super) position: Option<[f64; 3]>,
    /// What frames may share.
    pub(super) detail: Arc<Detail>,
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
}

/// What a series is, as one of its files says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct About {
    pub(super) series: String,
    pub(super) study: String,
    pub(super) frame_of_reference: Option<String>,
    pub(super) number: Option<f64>,
    pub(super) modality: String,
    pub(super) description: String,
    pub(super) class: String,
    pub(super) instance: String,
    pub(super) units: Option<String>,
}

/// The image of a file.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) source: Source,
    pub(super) syntax: Syntax,
    pub(super) pixels: PixelElement,
    pub(super) format: Format,
    pub(super) frames: Vec<Frame>,
    pub(super) about: About,
    /// The value, as stored, of pixels that are no part of the image.
    pub(super) padding: Option<f64>,
    /// Siemens' mosaic of slices.
    pub(super) mosaic: bool,
    /// What was assumed or left out.
    pub(super) notes: Vec<String>,
}

impl Image {
    /// Reads what a file says of its image.
    ///
    /// # Errors
    /// When it isn't a DICOM file, has no pixels, or contradicts itself.
    pub(super) fn read(source: Source) -> Result<Self> {
        let header = Header::read(&source).map_err(|error| source.name(error))?;
        Self::of(source.clone(), &header).map_err(|error| source.name(error))
    }

    pub(super) fn of(source: Source, header: &Header) -> Result<Self> {
        let view = header.view();
        let Some(pixels) = header.pixels.clone() else {
            let class = view.text(tags::SOP_CLASS_UID).unwrap_or_default();
            let modality =
                view.text(tags::MODALITY).map_or(String::new(), |modality| format!(" of modality {modality}"));
            return Err(fail(format!("no pixels, in an object{modality} and class {class:?}")));
        };
        let mut notes = header.notes.clone();
        let format = format(view, &pixels, header.syntax, &mut notes)?;
        let count = view.count(tags::NUMBER_OF_FRAMES, MOST_FRAMES)?.unwrap_or(1).max(1);
        if let Some(length) = pixels.length {
            // Refused before anything is made of frames.
            let needed = bits_of_frame(&format, header.syntax).saturating_mul(count as u128).div_ceil(8);
            if needed > u128::from(length) {
                return Err(fail(format!("{length} bytes of pixels"))
                    .expected(format!("{needed}, for {count} frames of {} × {}", format.columns, format.rows)));
            }
        }
        // A frame takes a byte at least.
        if count as u64 > source.length()? {
            return Err(fail(format!("{count} frames in a file of {} bytes", source.length()?)));
        }
        let frames = frames(view, count, &mut notes)?;
        if view.has(Tag(0x6000, 0x3000)) {
            notes.push("overlays are left out".to_owned());
        }
        let text = |tag| view.text(tag).unwrap_or_default();
        let about = About {
            series: text(tags::SERIES_INSTANCE_UID),
            study: text(tags::STUDY_INSTANCE_UID),
            frame_of_reference: view.text(tags::FRAME_OF_REFERENCE_UID),
            number: view.maybe(tags::SERIES_NUMBER),
            modality: text(tags::MODALITY),
            description: text(tags::SERIES_DESCRIPTION),
            class: text(tags::SOP_CLASS_UID),
            instance: text(tags::SOP_INSTANCE_UID),
            units: view
                .text(tags::RESCALE_TYPE)
                .or_else(|| view.text(tags::UNITS))
                .or_else(|| view.text(tags::DOSE_UNITS)),
        };
        let mosaic = view.texts(tags::IMAGE_TYPE).iter().any(|part| part == "MOSAIC");
        let padding = view.maybe(tags::PIXEL_PADDING_VALUE);
        Ok(Self { source, syntax: header.syntax, pixels, format, frames, about, padding, mosaic, notes })
    }
}

/// The bits of a frame that isn't compressed.
pub(super) fn bits_of_frame(format: &Format, syntax: Syntax) -> u128 {
    let pixels = format.rows as u128 * format.columns as u128;
    let samples = if shares_chroma(format, syntax) { 2 } else { format.samples as u128 };
    pixels * samples * format.allocated as u128
}

/// Whether two pixels in a row share their colour differences in the bytes.
pub(super) fn shares_chroma(format: &Format, syntax: Syntax) -> bool {
    format.photometric == Photometric::YbrFull422 && syntax.compression == super::syntax::Compression::None
}

fn format(view: View<'_>, pixels: &PixelElement, syntax: Syntax, notes: &mut Vec<String>) -> Result<Format> {
    let needed = |tag: Tag, most: usize| {
        let count = view.count(tag, most)?;
        count.ok_or_else(|| fail(format!("{} is missing", dataset::name(tag))))
    };
    let [rows, columns] = [needed(tags::ROWS, 65535)?, needed(tags::COLUMNS, 65535)?];
    if rows == 0 || columns == 0 {
        return Err(fail(format!("an image of {rows} rows and {columns} columns")).expected("at least 1 of each"));
    }
    let samples = view.count(tags::SAMPLES_PER_PIXEL, 65535)?.unwrap_or(1);
    let photometric = match view.text(tags::PHOTOMETRIC_INTERPRETATION) {
        Some(text) => Photometric::of(&text)?,
        None => {
            notes.push("no photometric interpretation: taken as grey".to_owned());
            Photometric::Monochrome2
        }
    };
    let wanted = if photometric.coloured() && photometric != Photometric::Palette { 3 } else { 1 };
    if samples != wanted {
        return Err(fail(format!("{samples} samples per pixel of {photometric:?}")).expected(format!("{wanted}")));
    }
    let allocated = match pixels.tag {
        tags::FLOAT_PIXEL_DATA => 32,
        tags::DOUBLE_FLOAT_PIXEL_DATA => 64,
        _ => needed(tags::BITS_ALLOCATED, 64)?,
    };
    let float = pixels.tag != tags::PIXEL_DATA;
    if !float && !matches!(allocated, 1 | 8 | 16 | 32) {
        return Err(fail(format!("{allocated} bits allocated")).expected("1, 8, 16 or 32"));
    }
    let mut stored = if float { allocated } else { view.count(tags::BITS_STORED, 64)?.unwrap_or(allocated) };
    if stored == 0 || stored > allocated {
        notes.push(format!("{stored} bits stored of {allocated} allocated: all are taken"));
        stored = allocated;
    }
    let mut high = if float { stored - 1 } else { view.count(tags::HIGH_BIT, 64)?.unwrap_or(stored - 1) };
    if high + 1 < stored || high >= allocated {
        notes.push(format!("high bit {high} of {stored} bits stored: taken as {}", stored - 1));
        high = stored - 1;
    }
    let palette = if photometric == Photometric::Palette { Some(Arc::new(Palette::read(view)?)) } else { None };
    Ok(Format {
        rows,
        columns,
        samples,
        allocated,
        stored,
        high,
        signed: view.count(tags::PIXEL_REPRESENTATION, 1)? == Some(1),
        planar: samples > 1 && view.count(tags::PLANAR_CONFIGURATION, 1)? == Some(1),
        float,
        photometric,
        palette,
    })
    .and_then(|format| {
        if format.float && (format.samples > 1 || syntax.compression != super::syntax::Compression::None) {
            return Err(fail("floating-point pixels that are coloured or compressed"));
        }
        Ok(format)
    })
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

fn frames(root: View<'_>, count: usize, notes: &mut Vec<String>) -> Result<Vec<Frame>> {
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
    let direction = levels
        .find(tags::DIFFUSION_GRADIENT_ORIENTATION)
        .map(|view| format!("{:?}", view.numbers(tags::DIFFUSION_GRADIENT_ORIENTATION).unwrap_or_default()));
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
            levels.number_text(&[tags::DIFFUSION_B_VALUE, Tag(0x0043, 0x1039)]),
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
    });
    Ok(Frame { position, detail })
}

/// Whether a file is the directory of a file set.
pub(super) fn is_directory(view: View<'_>) -> bool {
    view.has(tags::DIRECTORY_RECORD_SEQUENCE)
        || view.text(tags::MEDIA_STORAGE_SOP_CLASS_UID).as_deref() == Some(uids::MEDIA_STORAGE_DIRECTORY_STORAGE)
}
