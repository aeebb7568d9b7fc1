//! DICOM files: preamble, file meta information, and the data set up to its pixels.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::Arc,
};

use dicom_dictionary_std::tags;
use flate2::read::DeflateDecoder;
use tomograd_core::{Error, Result, room_for};

use super::{
    OPERATION,
    dataset::{self, DataSet, PixelElement, Stop},
    fail,
    syntax::{self, Encoding, Syntax},
    view::View,
};

/// The first bytes that are read of a file: more than the elements before the pixels mostly take.
const FIRST: u64 = 1 << 15;
/// How many bytes a deflated byte may become, and how many more there may be in all. A text of one letter is 1032:1.
const MOST_INFLATED: u64 = 128;
const INFLATED_ANYWAY: u64 = 1 << 20;

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(Arc<Path>),
    Memory(Arc<[u8]>),
}

impl Source {
    /// Says in an error which file it is about.
    pub(super) fn name(&self, error: Error) -> Error {
        match self {
            Self::File(path) => error.within(path.display().to_string()),
            Self::Memory(_) => error,
        }
    }

    /// The bytes of `place`, which must be there.
    pub(super) fn part(&self, place: Range<u64>) -> Result<Vec<u8>> {
        let length = place.end.saturating_sub(place.start);
        let mut bytes;
        match self {
            Self::File(path) => {
                let mut file = File::open(path).map_err(io)?;
                // What the file really has, not what an element claims.
                let there = file.metadata().map_err(io)?.len().saturating_sub(place.start).min(length);
                bytes = room_for::<u8>(OPERATION, there as usize)?;
                file.seek(SeekFrom::Start(place.start)).map_err(io)?;
                file.take(there).read_to_end(&mut bytes).map_err(io)?;
            }
            Self::Memory(all) => {
                let end = (place.end as usize).min(all.len());
                let part = all.get(place.start as usize..end).unwrap_or_default();
                bytes = room_for::<u8>(OPERATION, part.len())?;
                bytes.extend_from_slice(part);
            }
        }
        if (bytes.len() as u64) < length {
            return Err(fail(format!("the file ends inside of the pixels: {} of {length} bytes", bytes.len())));
        }
        Ok(bytes)
    }

    pub(super) fn length(&self) -> Result<u64> {
        match self {
            Self::File(path) => {
                let about = std::fs::metadata(path).map_err(io)?;
                if !about.is_file() {
                    return Err(fail("not a file"));
                }
                Ok(about.len())
            }
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }
}

fn io(error: std::io::Error) -> Error {
    Error::io(OPERATION, "the file", error)
}

/// The elements of a file.
pub(super) struct Header {
    pub(super) syntax: Syntax,
    /// What was assumed to read it.
    pub(super) notes: Vec<String>,
    /// Where the pixels are, in the file, or in what a deflated file becomes.
    pub(super) pixels: Option<PixelElement>,
    bytes: Vec<u8>,
    set: DataSet,
}

impl Header {
    pub(super) fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, set: &self.set }
    }

    /// Reads the elements of a file up to its pixels.
    ///
    /// # Errors
    /// When it isn't DICOM, or is damaged.
    pub(super) fn read(source: &Source) -> Result<Self> {
        let length = source.length()?;
        let mut end = FIRST.min(length);
        loop {
            match Self::parse(source.part(0..end)?) {
                // The elements go on behind what was read, perhaps from its very end.
                Err(Stop::Short(_)) | Ok(Self { pixels: None, .. }) if end < length => {
                    end = end.saturating_mul(8).min(length);
                }
                result => return result.map_err(Stop::error),
            }
        }
    }

    fn parse(bytes: Vec<u8>) -> std::result::Result<Self, Stop> {
        let mut notes = Vec::new();
        let (syntax, at) = start(&bytes, &mut notes)?;
        let (bytes, at) =
            if syntax.deflated { (inflate(bytes.get(at..).unwrap_or_default())?, 0) } else { (bytes, at) };
        let (set, pixels) = dataset::read(&bytes, at, syntax.encoding)?;
        Ok(Self { syntax, notes, pixels, bytes, set })
    }
}

/// All elements of a file, pixels and what is behind them among them.
pub(super) struct Whole {
    /// The UID of the transfer syntax.
    pub(super) syntax: String,
    pub(super) encoding: Encoding,
    pub(super) deflated: bool,
    pub(super) notes: Vec<String>,
    bytes: Vec<u8>,
    set: DataSet,
}

impl Whole {
    pub(super) fn view(&self) -> View<'_> {
        View { bytes: &self.bytes, set: &self.set }
    }

    /// Reads a file of any transfer syntax whose elements can be walked, also where its pixels couldn't be decoded.
    ///
    /// # Errors
    /// When it isn't DICOM, or is damaged.
    pub(super) fn read(bytes: Vec<u8>) -> Result<Self> {
        let mut notes = Vec::new();
        let (syntax, at) = said(&bytes).map_err(Stop::error)?;
        let (syntax, encoding, deflated) = match syntax {
            Some(uid) => {
                let (encoding, deflated) = syntax::elements(&uid)?;
                (uid, encoding, deflated)
            }
            None => {
                let found = guess(&bytes, at, &mut notes, "no transfer syntax")?;
                (syntax::uid(found.encoding)?.to_owned(), found.encoding, false)
            }
        };
        let (bytes, at) = if deflated {
            (inflate(bytes.get(at..).unwrap_or_default()).map_err(Stop::error)?, 0)
        } else {
            (bytes, at)
        };
        let set = dataset::read_whole(&bytes, at, encoding).map_err(Stop::error)?;
        Ok(Self { syntax, encoding, deflated, notes, bytes, set })
    }
}

/// The bytes of the pixels of a file whose header was read.
pub(super) struct PixelBytes {
    bytes: Vec<u8>,
    /// The fragments, the offset table first; `None` if the pixels aren't encapsulated.
    pub(super) fragments: Option<Vec<Range<usize>>>,
}

impl PixelBytes {
    pub(super) fn read(source: &Source, syntax: Syntax, pixels: &PixelElement) -> Result<Self> {
        let start = pixels.start as u64;
        let end = pixels.length.map(|length| start.saturating_add(length.into()));
        let mut bytes = if syntax.deflated {
            let whole = source.part(0..source.length()?)?;
            let (_, at) = self::start(&whole, &mut Vec::new()).map_err(Stop::error)?;
            let inflated = inflate(whole.get(at..).unwrap_or_default()).map_err(Stop::error)?;
            let end = end.unwrap_or(inflated.len() as u64) as usize;
            let part = inflated.get(pixels.start..end).ok_or_else(|| fail("the file ends inside of the pixels"))?;
            part.to_vec()
        } else {
            source.part(start..end.unwrap_or(source.length()?.max(start)))?
        };
        bytes.shrink_to_fit();
        let fragments = match pixels.length {
            Some(_) => None,
            None => Some(dataset::fragments(&bytes, 0, syntax.encoding.big).map_err(Stop::error)?),
        };
        Ok(Self { bytes, fragments })
    }

    /// Turns the bytes of words around.
    pub(super) fn swap_pairs(&mut self) {
        self.bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
    }

    pub(super) fn get(&self, place: Range<usize>) -> Result<&[u8]> {
        let length = self.bytes.len();
        self.bytes.get(place.clone()).ok_or_else(|| {
            fail(format!("{length} bytes of pixels"))
                .expected(format!("at least {}, as rows, columns and frames say", place.end))
        })
    }
}

/// The transfer syntax of a file and where its data set begins.
fn start(bytes: &[u8], notes: &mut Vec<String>) -> std::result::Result<(Syntax, usize), Stop> {
    let (uid, at) = said(bytes)?;
    match uid {
        Some(uid) => Ok((Syntax::of(&uid)?, at)),
        None => {
            let why = if at > 132 { "no transfer syntax" } else { "no file meta information" };
            Ok((guess(bytes, at, notes, why)?, at))
        }
    }
}

/// The UID of the transfer syntax, if the file says it, and where the data set begins.
fn said(bytes: &[u8]) -> std::result::Result<(Option<String>, usize), Stop> {
    let at: usize = if bytes.get(128..132) == Some(b"DICM") { 132 } else { 0 };
    if bytes.get(at..at.saturating_add(2)) != Some(&[2, 0]) {
        return Ok((None, at));
    }
    let (meta, end) = dataset::read_meta(bytes, at)?;
    Ok(((View { bytes, set: &meta }).text(tags::TRANSFER_SYNTAX_UID), end))
}

/// Whether a file begins as DICOM files do.
pub(super) fn looks_like_dicom(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(140).read_to_end(&mut start));
    let claims = start.get(128..132) == Some(b"DICM");
    read.is_ok() && (claims || start.starts_with(&[2, 0]) || guess(&start, 0, &mut Vec::new(), "").is_ok())
}

/// The encoding of a data set whose file doesn't say it, by its first element, which is of a low group.
fn guess(bytes: &[u8], at: usize, notes: &mut Vec<String>, why: &str) -> Result<Syntax> {
    let first = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
    let found = first.and_then(|&[a, b, _, _, c, d, ..]| {
        let explicit = c.is_ascii_uppercase() && d.is_ascii_uppercase();
        let (little, big) = (u16::from_le_bytes([a, b]), u16::from_be_bytes([a, b]));
        let low = |group: u16| (1..=0x0020).contains(&group);
        match (explicit, low(little), low(big)) {
            (true, true, _) => Some(Syntax::plain("Explicit VR Little Endian", syntax::EXPLICIT)),
            (true, _, true) => Some(Syntax::plain("Explicit VR Big Endian", syntax::EXPLICIT_BIG)),
            (false, true, _) => Some(Syntax::plain("Implicit VR Little Endian", syntax::IMPLICIT)),
            (false, _, true) => {
                let encoding = Encoding { explicit: false, big: true };
                Some(Syntax::plain("Implicit VR Big Endian", encoding))
            }
            _ => None,
        }
    });
    let found =
        found.ok_or_else(|| fail("not a DICOM file").expected("\"DICM\" at byte 128, or elements from group 8 on"))?;
    notes.push(format!("{why}: read as {}, which its first element looks like", found.name));
    Ok(found)
}

/// What a deflated data set becomes.
fn inflate(bytes: &[u8]) -> std::result::Result<Vec<u8>, Stop> {
    let most = (bytes.len() as u64).saturating_mul(MOST_INFLATED).saturating_add(INFLATED_ANYWAY);
    let mut inflated = Vec::new();
    let read = DeflateDecoder::new(bytes).take(most.saturating_add(1)).read_to_end(&mut inflated);
    if let Err(error) = read {
        return Err(match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Stop::Short("the deflated elements".to_owned()),
            _ => Stop::Wrong(fail(format!("the deflated elements are damaged: {error}"))),
        });
    }
    if inflated.len() as u64 > most {
        return Err(fail(format!("{} deflated bytes become more than {most}", bytes.len())).into());
    }
    Ok(inflated)
}
