//! TIFF pictures, and stacks of pages of one size, as volumes: 8 to 64 bits, integers and floating-point numbers, grey, RGB and
//! several channels, in strips or tiles; uncompressed, LZW, deflate, PackBits.
//!
//! The size of a pixel is that of the resolution tags; the distance of pages is that of ImageJ's description, if there is one.
//!
//! Memory is bounded by 13000 bytes for each byte of the file, whatever it claims: LZW unfolds at most 1400 times, and a page
//! is held once more, and in the wider type of a tensor.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{collections::HashSet, io::Cursor};

use ::tiff::{
    ColorType, TiffError,
    decoder::{Decoder, DecodingResult, Limits, ifd::Value},
    encoder::{
        Compression, DeflateLevel, Rational, TiffEncoder, TiffKind, TiffKindBig, TiffKindStandard, TiffValue, colortype,
    },
    tags::{ResolutionUnit, Tag},
};
use tomograd_core::{Error, Result};

use crate::{
    Volume, picture,
    volume::Format,
    voxels::{self, Coding, Stored},
};

const OPERATION: &str = "tiff";
/// The most bytes that LZW makes of one.
const MOST_RATIO: u64 = 1400;

fn fail(error: TiffError) -> Error {
    Error::format(OPERATION, error.to_string())
}

/// What the pages of a stack have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Page {
    width: u32,
    height: u32,
    colour: ColorType,
}

/// Reads a picture, or a stack, as a volume.
pub(crate) fn read_volume(bytes: Vec<u8>) -> Result<Volume> {
    let length = bytes.len() as u64;
    check_entries(&bytes)?;
    let most = usize::try_from(length.saturating_mul(MOST_RATIO)).unwrap_or(usize::MAX);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = most;
    limits.intermediate_buffer_size = most;
    limits.ifd_value_size = bytes.len();
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(fail)?.with_limits(limits);
    let spacing = spacing(&mut decoder);
    let mut notes = Vec::new();
    let (mut first, mut depth, mut all) = (None, 0usize, Vec::new());
    let mut stored_of_all = None;
    let mut skipped = 0usize;
    loop {
        // Bit 0: a page of lower resolution, a preview.
        let kind = decoder.find_tag_unsigned::<u32>(Tag::NewSubfileType).map_err(fail)?.unwrap_or(0);
        if kind & 1 != 0 {
            skipped = skipped.saturating_add(1);
        } else {
            let (width, height) = decoder.dimensions().map_err(fail)?;
            let page = Page { width, height, colour: decoder.colortype().map_err(fail)? };
            let first = *first.get_or_insert(page);
            if page != first {
                return Err(Error::format(OPERATION, format!("pages {first:?} and {page:?}")).expected(
                    "pages of one size and type; a slide's levels are read one by one (`Slide`, `convert --level`)",
                ));
            }
            let bytes = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(page_bytes(page.colour)?);
            if bytes == 0 || bytes.saturating_add(all.len() as u64) > most as u64 {
                return Err(Error::format(OPERATION, format!("{width} × {height} pixels in a file of {length} bytes"))
                    .expected("as many as the file can hold"));
            }
            let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(fail)?.unwrap_or(1);
            if planar != 1 && page.colour.num_samples() > 1 {
                return Err(Error::format(OPERATION, "channels in separate planes")
                    .expected("the channels of a pixel together"));
            }
            check_chunks(&mut decoder, page, most as u64)?;
            let pixels = decoder.read_image().map_err(fail)?;
            let stored = append(&mut all, pixels);
            if *stored_of_all.get_or_insert(stored) != stored {
                return Err(Error::format(OPERATION, "pages of several types").expected("pages of one size and type"));
            }
            depth = depth.saturating_add(1);
        }
        if !decoder.more_images() {
            break;
        }
        decoder.next_image().map_err(fail)?;
    }
    let (Some(page), Some(stored)) = (first, stored_of_all) else {
        return Err(Error::format(OPERATION, "no page but previews").expected("a picture"));
    };
    if skipped > 0 {
        notes.push(format!("{skipped} pages of lower resolution are left out"));
    }
    let channels = usize::from(page.colour.num_samples());
    let (height, width) = (page.height as usize, page.width as usize);
    let voxels = voxels::decode(&mut &all[..], Coding::several(stored, channels), &[depth, height, width], false)?;
    // `picture::volume` takes the channels' axis away if there is one only.
    let planes = if channels > 1 { voxels } else { voxels.reshape(&[1, depth, height, width])? };
    if depth > 1 && spacing.is_none_or(|[.., z]| z.is_none()) {
        notes.push("the file doesn't say how far its pages are apart: taken as 1 mm".to_owned());
    }
    let spacing = spacing.map(|[x, y, z]| [x.unwrap_or(1.0), y.unwrap_or(1.0), z.unwrap_or(1.0)]);
    picture::volume(planes, stored, spacing, Format::Tiff, notes)
}

/// Checks that no entry of a directory claims more values than the file has bytes for: the decoder takes memory for those of
/// the first page before it can be given a limit.
fn check_entries(bytes: &[u8]) -> Result<()> {
    let cut = || Error::format(OPERATION, "the file ends inside of its directory");
    let little = bytes.first() == Some(&b'I');
    let number = |at: u64, size: usize| -> Result<u64> {
        let start = usize::try_from(at).map_err(|_| cut())?;
        let part = bytes.get(start..start.saturating_add(size)).ok_or_else(cut)?;
        let append = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Ok(if little { part.iter().rev().fold(0, append) } else { part.iter().fold(0, append) })
    };
    // BigTIFF has wider numbers: of entries, of values and of places.
    let big = number(2, 2)? == 43;
    let (entries, place, entry) = if big { (8, 8, 20) } else { (2, 4, 12) };
    let mut at = number(if big { 8 } else { 4 }, place)?;
    let mut seen = HashSet::new();
    while at != 0 && seen.insert(at) {
        let count = number(at, entries)?;
        let first = at.saturating_add(entries as u64);
        let end = first.saturating_add(count.saturating_mul(entry));
        if end > bytes.len() as u64 {
            return Err(cut());
        }
        for index in 0..count {
            let here = first.saturating_add(index.saturating_mul(entry));
            let size = match number(here.saturating_add(2), 2)? {
                1 | 2 | 6 | 7 => 1,
                3 | 8 => 2,
                5 | 10 | 12 | 16..=18 => 8,
                _ => 4u64,
            };
            let values = number(here.saturating_add(4), place)?;
            if values.saturating_mul(size) > bytes.len() as u64 {
                let what = format!("an entry of {values} values in a file of {} bytes", bytes.len());
                return Err(Error::format(OPERATION, what).expected("values that the file holds"));
            }
        }
        at = number(end, place)?;
    }
    Ok(())
}

/// Bytes per pixel.
fn page_bytes(colour: ColorType) -> Result<u64> {
    let (bits, samples) = match colour {
        ColorType::Gray(bits) | ColorType::RGB(bits) | ColorType::RGBA(bits) | ColorType::GrayA(bits) => {
            (bits, u64::from(colour.num_samples()))
        }
        ColorType::Multiband { bit_depth, num_samples } => (bit_depth, u64::from(num_samples)),
        _ => (0, 0),
    };
    if !matches!(bits, 8 | 16 | 32 | 64) {
        return Err(Error::format(OPERATION, format!("pixels of the kind {colour:?}"))
            .expected("grey, RGB or several channels, of 8, 16, 32 or 64 bits"));
    }
    Ok(u64::from(bits / 8).saturating_mul(samples))
}

/// Checks the size of strips or tiles, of which the decoder holds one.
fn check_chunks(decoder: &mut Decoder<Cursor<Vec<u8>>>, page: Page, most: u64) -> Result<()> {
    let mut size = |tag, or: u64| decoder.find_tag_unsigned::<u64>(tag).map(|size| size.unwrap_or(or)).map_err(fail);
    let tile = [size(Tag::TileWidth, 1)?, size(Tag::TileLength, 1)?];
    let rows = size(Tag::RowsPerStrip, u64::from(page.height))?;
    let bytes = tile.iter().try_fold(page_bytes(page.colour)?, |all, side| all.checked_mul(*side));
    if rows == 0 || tile.contains(&0) || bytes.is_none_or(|bytes| bytes > most) {
        return Err(Error::format(OPERATION, format!("tiles of {tile:?} pixels, or strips of {rows} rows"))
            .expected("as many as the file can hold"));
    }
    Ok(())
}

/// Appends the numbers of a page in little-endian order.
fn append(all: &mut Vec<u8>, pixels: DecodingResult) -> Stored {
    macro_rules! numbers {
        ($stored:ident, $values:expr) => {{
            all.extend($values.iter().flat_map(|value| value.to_le_bytes()));
            Stored::$stored
        }};
    }
    match pixels {
        DecodingResult::U8(values) => numbers!(U8, values),
        DecodingResult::I8(values) => numbers!(I8, values),
        DecodingResult::U16(values) => numbers!(U16, values),
        DecodingResult::I16(values) => numbers!(I16, values),
        DecodingResult::U32(values) => numbers!(U32, values),
        DecodingResult::I32(values) => numbers!(I32, values),
        DecodingResult::U64(values) => numbers!(U64, values),
        DecodingResult::I64(values) => numbers!(I64, values),
        DecodingResult::F32(values) => numbers!(F32, values),
        DecodingResult::F64(values) => numbers!(F64, values),
        DecodingResult::F16(values) => {
            all.extend(values.iter().flat_map(|value| value.to_f32().to_le_bytes()));
            Stored::F32
        }
    }
}

/// Millimetres in a unit of ImageJ's description.
fn millimetres(unit: &str) -> Option<f64> {
    Some(match unit.trim() {
        "mm" => 1.0,
        "cm" => 10.0,
        "inch" => 25.4,
        "um" | "µm" | "μm" | "micron" | "microns" | "\\u00B5m" => 1e-3,
        _ => return None,
    })
}

/// The size of a pixel and the distance of pages in millimetres; `None` if the file doesn't say any.
fn spacing(decoder: &mut Decoder<Cursor<Vec<u8>>>) -> Option<[Option<f64>; 3]> {
    let description = match decoder.find_tag(Tag::ImageDescription) {
        Ok(Some(Value::Ascii(text))) if text.starts_with("ImageJ=") => text,
        _ => String::new(),
    };
    let field = |name: &str| description.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let described = field("unit").and_then(millimetres);
    let unit = match decoder.find_tag_unsigned::<u16>(Tag::ResolutionUnit).ok().flatten() {
        Some(3) => Some(10.0),
        Some(1) => described,
        _ => Some(25.4),
    };
    let mut density = |tag| match decoder.find_tag(tag) {
        Ok(Some(Value::Rational(number, of))) => Some(f64::from(number) / f64::from(of)),
        Ok(Some(Value::Float(value))) => Some(f64::from(value)),
        _ => None,
    };
    let usable = |step: &f64| step.is_finite() && *step > 0.0;
    let [x, y] = [Tag::XResolution, Tag::YResolution]
        .map(|tag| unit.zip(density(tag)).map(|(unit, density)| unit / density).filter(usable));
    let z = described.zip(field("spacing").and_then(|step| step.parse::<f64>().ok()));
    let z = z.map(|(unit, step)| unit * step.abs()).filter(usable);
    (x.is_some() && y.is_some() || z.is_some()).then_some([x, y, z])
}

/// The bytes of a TIFF file with the planes of a volume as its pages, compressed by deflate or not. A file that could exceed
/// 4 GB is BigTIFF.
pub(crate) fn encode_volume(volume: &Volume, compressed: bool) -> Result<Vec<u8>> {
    let voxels = volume.voxels();
    let refused = |what: String| {
        Err(Error::argument(OPERATION, what)
            .expected("(D, H, W) of any type, or RGB of 8 or 16 bits or f32; .nii.gz and .nrrd hold all others"))
    };
    let (channels, depth, height, width) = match *voxels.shape() {
        [depth, height, width] => (1, depth, height, width),
        [3, depth, height, width] => (3, depth, height, width),
        _ => return refused(format!("voxels of shape {:?}", voxels.shape())),
    };
    let coding = if channels == 1 {
        voxels::choose(volume, |coding| coding.scaling.is_none())?
    } else {
        let codings = [Stored::U8, Stored::U16, Stored::F32].map(|stored| Coding::several(stored, channels));
        match voxels::first_that_fits(voxels, &codings)? {
            Some(coding) => coding,
            None => return refused(format!("colours of {}", volume.stored_dtype())),
        }
    };
    let mut numbers = Vec::new();
    voxels::encode(&mut numbers, voxels, coding, false)?;
    let stack = Stack { volume, coding, depth, height, width, numbers: &numbers, compressed };
    let mut file = Cursor::new(Vec::new());
    if numbers.len() > 4_000_000_000 {
        stack.write(TiffEncoder::<_, TiffKindBig>::new_generic(&mut file).map_err(fail)?)?;
    } else {
        stack.write(TiffEncoder::<_, TiffKindStandard>::new_generic(&mut file).map_err(fail)?)?;
    }
    Ok(file.into_inner())
}

/// The pages of a file that is being written.
struct Stack<'a> {
    volume: &'a Volume,
    coding: Coding,
    depth: usize,
    height: usize,
    width: usize,
    /// Little-endian.
    numbers: &'a [u8],
    compressed: bool,
}

impl Stack<'_> {
    fn write<K: TiffKind>(&self, file: TiffEncoder<&mut Cursor<Vec<u8>>, K>) -> Result<()> {
        let how =
            if self.compressed { Compression::Deflate(DeflateLevel::Balanced) } else { Compression::Uncompressed };
        let file = file.with_compression(how);
        match (self.coding.stored, self.coding.channels) {
            (Stored::U8, 3) => self.pages::<colortype::RGB8, K, 1>(file, u8::from_le_bytes),
            (Stored::U16, 3) => self.pages::<colortype::RGB16, K, 2>(file, u16::from_le_bytes),
            (Stored::F32, 3) => self.pages::<colortype::RGB32Float, K, 4>(file, f32::from_le_bytes),
            (Stored::U8, _) => self.pages::<colortype::Gray8, K, 1>(file, u8::from_le_bytes),
            (Stored::I8, _) => self.pages::<colortype::GrayI8, K, 1>(file, i8::from_le_bytes),
            (Stored::U16, _) => self.pages::<colortype::Gray16, K, 2>(file, u16::from_le_bytes),
            (Stored::I16, _) => self.pages::<colortype::GrayI16, K, 2>(file, i16::from_le_bytes),
            (Stored::U32, _) => self.pages::<colortype::Gray32, K, 4>(file, u32::from_le_bytes),
            (Stored::I32, _) => self.pages::<colortype::GrayI32, K, 4>(file, i32::from_le_bytes),
            (Stored::U64, _) => self.pages::<colortype::Gray64, K, 8>(file, u64::from_le_bytes),
            (Stored::I64, _) => self.pages::<colortype::GrayI64, K, 8>(file, i64::from_le_bytes),
            (Stored::F32, _) => self.pages::<colortype::Gray32Float, K, 4>(file, f32::from_le_bytes),
            (Stored::F64, _) => self.pages::<colortype::Gray64Float, K, 8>(file, f64::from_le_bytes),
        }
    }

    fn pages<C: colortype::ColorType, K: TiffKind, const N: usize>(
        &self,
        mut file: TiffEncoder<&mut Cursor<Vec<u8>>, K>,
        number: impl Fn([u8; N]) -> C::Inner,
    ) -> Result<()>
    where
        [C::Inner]: TiffValue,
    {
        let side =
            |size: usize| u32::try_from(size).map_err(|_| Error::argument(OPERATION, format!("a side of {size}")));
        let [x, y, z] = self.volume.spacing();
        let page = self.numbers.len().checked_div(self.depth).unwrap_or(0);
        for (index, bytes) in self.numbers.chunks(page.max(1)).enumerate() {
            let mut image = file.new_image::<C>(side(self.width)?, side(self.height)?).map_err(fail)?;
            if let (Some(x), Some(y)) = (a_centimetre(x), a_centimetre(y)) {
                image.resolution_unit(ResolutionUnit::Centimeter);
                image.x_resolution(x);
                image.y_resolution(y);
            }
            if index == 0 && self.depth > 1 {
                // ImageJ takes the unit of the resolution for that of the spacing.
                let text =
                    format!("ImageJ=1.54f\nimages={0}\nslices={0}\nunit=cm\nspacing={1}\n", self.depth, z / 10.0);
                image.encoder().write_tag(Tag::ImageDescription, &text[..]).map_err(fail)?;
            }
            let (parts, _) = bytes.as_chunks::<N>();
            let values: Vec<C::Inner> = parts.iter().map(|part| number(*part)).collect();
            image.write_data(&values).map_err(fail)?;
        }
        Ok(())
    }
}

/// Pixels a centimetre, to nine digits.
fn a_centimetre(step: f64) -> Option<Rational> {
    let density = 10.0 / step;
    if !(1e-6..4e9).contains(&density) {
        return None;
    }
    // The largest denominator that is a power of ten.
    let d = (0..9).rev().map(|digits| 10u32.pow(digits)).find(|d| density * f64::from(*d) < 4e9)?;
    Some(Rational { n: (density * f64::from(d)).round() as u32, d })
}
