//! What the elements of a file say of its pixels, and of each frame.

use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use tomograd_core::Result;

use super::{
    dataset::{self, PixelElement},
    fail,
    file::{Header, Source},
    frame::{Frame, frames},
    lut::Palette,
    mosaic::{self, Tiles},
    syntax::Syntax,
    view::View,
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
    /// How a mosaic of slices is cut; the format is then that of a slice.
    pub(super) tiles: Option<Tiles>,
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
        let mut format = format(view, &pixels, header.syntax, &mut notes)?;
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
        let (tiles, frames) = if mosaic {
            let (tiles, frames) = mosaic::frames(view, &mut format, &frames, &mut notes)?;
            (Some(tiles), frames)
        } else {
            (None, frames)
        };
        let padding = view.maybe(tags::PIXEL_PADDING_VALUE);
        Ok(Self { source, syntax: header.syntax, pixels, format, frames, about, padding, tiles, notes })
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

/// Whether a file is the directory of a file set.
pub(super) fn is_directory(view: View<'_>) -> bool {
    view.has(tags::DIRECTORY_RECORD_SEQUENCE)
        || view.text(tags::MEDIA_STORAGE_SOP_CLASS_UID).as_deref() == Some(uids::MEDIA_STORAGE_DIRECTORY_STORAGE)
}
