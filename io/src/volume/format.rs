//! Formats of volumes: found by content when a file is read, and by name when one is written.

use std::{
    io::{BufRead, Cursor, Read},
    path::{Path, PathBuf},
};

use tomograd_core::{Error, Result};

use super::Volume;
use crate::{
    gzip, metaimage, nifti, nrrd, png,
    stream::{self, Input, Stream, io_error},
    write_atomically,
};

const OPERATION: &str = "volume";

/// A format of volumes or pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// NIfTI-1 and NIfTI-2: `.nii`, `.nii.gz`, pairs of `.hdr` and `.img`.
    Nifti,
    /// `.nrrd`, and `.nhdr` with its data in other files.
    Nrrd,
    /// `.mha`, and `.mhd` with its data in other files.
    MetaImage,
    /// TIFF pictures and stacks of them (feature `tiff`).
    Tiff,
    /// PNG pictures.
    Png,
    /// JPEG pictures (feature `jpeg`).
    Jpeg,
    /// DICOM files, DICOMDIRs, and folders with one series (feature `dicom`), which are read only.
    Dicom,
}

/// The most bytes that tell a format.
const PEEK: usize = 132;

impl Format {
    /// The name of the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nifti => "NIfTI",
            Self::Nrrd => "NRRD",
            Self::MetaImage => "MetaImage",
            Self::Tiff => "TIFF",
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Dicom => "DICOM",
        }
    }

    /// The format in which a volume is written under a name.
    ///
    /// ```
    /// use tomograd_io::Format;
    /// assert_eq!(Format::of_path("mask.nii.gz")?, Format::Nifti);
    /// assert!(Format::of_path("mask.dat").is_err());
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When volumes aren't written under such a name.
    pub fn of_path(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_name(path.as_ref()).map(|(format, _)| format)
    }

    /// The name of a file without the ending of a format (`.nii.gz`, `.MHA`, `.dcm`, ...), as cases and masks are called; the whole
    /// name if it has no such ending.
    ///
    /// ```
    /// use tomograd_io::Format;
    /// let names = ["liver.1.nii.gz", "liver.NRRD", "liver", ".nii"];
    /// assert_eq!(names.map(Format::stem), ["liver.1", "liver", "liver", ".nii"]);
    /// ```
    pub fn stem(name: &str) -> &str {
        split_ending(name).map_or(name, |(stem, _)| stem)
    }

    /// Whether a file of a folder is a volume or a picture, as its name says. Hidden files aren't, nor are the voxels of a header
    /// (`.img`, `.raw`) and slices (`.dcm`).
    ///
    /// ```
    /// use tomograd_io::Format;
    /// assert!(Format::is_volume_name("scan.nii.gz") && Format::is_volume_name("scan.hdr"));
    /// assert!(!Format::is_volume_name("scan.img") && !Format::is_volume_name("notes.txt"));
    /// ```
    pub fn is_volume_name(name: &str) -> bool {
        !name.starts_with('.') && split_ending(name).is_some_and(|(_, alone)| alone)
    }

    /// The format of a file that begins with these bytes.
    fn of_bytes(first: &[u8]) -> Option<Self> {
        let header = first.first_chunk::<4>().map(|first| (i32::from_le_bytes(*first), i32::from_be_bytes(*first)));
        Some(match first {
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [0xFF, 0xD8, 0xFF, ..] => Self::Jpeg,
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Self::Tiff,
            _ if first.starts_with(nrrd::MAGIC) => Self::Nrrd,
            _ if metaimage::begins(first) => Self::MetaImage,
            // Only NIfTI files are compressed as a whole.
            _ if gzip::is_compressed(first) => Self::Nifti,
            // Before it anything may stand: Siemens writes 348, with which NIfTI files begin.
            _ if first.get(128..132) == Some(b"DICM") => Self::Dicom,
            _ if matches!(header, Some((348 | 540, _) | (_, 348 | 540))) => Self::Nifti,
            _ => return None,
        })
    }

    /// The format of a file of this name, and whether it is compressed, if the name says so.
    ///
    /// # Errors
    /// When volumes aren't written under such a name.
    fn of_name(path: &Path) -> Result<(Self, Option<bool>)> {
        let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let ends = |ending: &str| name.ends_with(ending) && name.len() > ending.len();
        if ends(".nii") || ends(".nii.gz") {
            return Ok((Self::Nifti, Some(ends(".nii.gz"))));
        }
        let known = [
            (".nrrd", Self::Nrrd),
            (".nhdr", Self::Nrrd),
            (".mha", Self::MetaImage),
            (".mhd", Self::MetaImage),
            (".png", Self::Png),
            (".tif", Self::Tiff),
            (".tiff", Self::Tiff),
            (".jpg", Self::Jpeg),
            (".jpeg", Self::Jpeg),
        ];
        let known = known.into_iter().find(|(ending, _)| ends(ending)).map(|(_, format)| (format, None));
        known.ok_or_else(|| {
            Error::argument(OPERATION, format!("{} isn't named as a format that is written", path.display())).expected(
                "a name that ends in .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .tif, .tiff, .png, .jpg or .jpeg (pairs \
                 .hdr/.img are read, not written)",
            )
        })
    }
}

/// Endings of the names of volumes and pictures, each behind those that end in it, and whether such a file of a folder is a
/// volume by itself: voxels of a pair aren't, and DICOM files are slices, mostly.
const ENDINGS: [(&str, bool); 16] = [
    (".nii.gz", true),
    (".hdr.gz", true),
    (".img.gz", false),
    (".nii", true),
    (".hdr", true),
    (".img", false),
    (".nrrd", true),
    (".nhdr", true),
    (".mha", true),
    (".mhd", true),
    (".tif", true),
    (".tiff", true),
    (".png", true),
    (".jpg", true),
    (".jpeg", true),
    (".dcm", false),
];

/// The name of a volume's file without the ending of its format, and whether such a file is a volume by itself.
fn split_ending(name: &str) -> Option<(&str, bool)> {
    ENDINGS.into_iter().find_map(|(ending, alone)| {
        let at = name.len().checked_sub(ending.len()).filter(|&at| at > 0)?;
        // In the middle of a letter of several bytes no ending begins.
        let (stem, end) = name.split_at_checked(at)?;
        end.eq_ignore_ascii_case(ending).then_some((stem, alone))
    })
}

/// How a volume is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteOptions {
    compressed: Option<bool>,
}

impl WriteOptions {
    /// Whether voxels are compressed: by default, as the name says for NIfTI, and in NRRD, MetaImage and TIFF.
    pub fn compressed(self, compressed: bool) -> Self {
        Self { compressed: Some(compressed) }
    }

    /// The format of a name, and whether to compress.
    fn choose(self, path: &Path) -> Result<(Format, bool)> {
        let (format, by_name) = Format::of_name(path)?;
        match (by_name, self.compressed) {
            (Some(named), Some(wanted)) if named != wanted => {
                let what = format!("{} says {}compressed", path.display(), if named { "" } else { "un" });
                Err(Error::argument(OPERATION, what).expected(".nii.gz for a compressed file, .nii for another"))
            }
            (by_name, wanted) => Ok((format, by_name.or(wanted).unwrap_or(true))),
        }
    }
}

/// The header's own file: `.nhdr`, `.mhd`.
fn is_detached(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("nhdr") || end.eq_ignore_ascii_case("mhd"))
}

pub(super) fn read(path: &Path) -> Result<Volume> {
    #[cfg(feature = "dicom")]
    if path.is_dir() || begins_as_dicom(path) {
        return crate::dicom::read_file(path);
    }
    let volume = match nifti::read_pair_of(path) {
        Some(volume) => volume,
        None => stream::open(path).and_then(|(reader, length)| {
            let folder = path.parent().unwrap_or(Path::new(""));
            read_any(Box::new(reader), length, Some(folder))
        }),
    };
    volume.map_err(|error| error.within(path.display().to_string()))
}

/// Whether a file is DICOM, with or without its preamble. A DICOMDIR names others, so that it is read by its path.
#[cfg(feature = "dicom")]
fn begins_as_dicom(path: &Path) -> bool {
    let mut first = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(PEEK as u64).read_to_end(&mut first));
    match Format::of_bytes(&first) {
        // Without a preamble: an element of group 2 or 8, in either byte order.
        None => read.is_ok() && matches!(first[..], [2 | 8, 0, _, _, ..] | [0, 2 | 8, _, _, ..]),
        format => format == Some(Format::Dicom),
    }
}

pub(super) fn read_bytes(bytes: &[u8]) -> Result<Volume> {
    read_any(Box::new(bytes), Some(bytes.len() as u64), None)
}

/// Reads a file of any format; `folder` is where it is.
fn read_any<'a>(mut reader: Box<dyn BufRead + 'a>, length: Option<u64>, folder: Option<&Path>) -> Result<Volume> {
    let mut first = Vec::new();
    reader.by_ref().take(PEEK as u64).read_to_end(&mut first).map_err(io_error("the file"))?;
    let format = Format::of_bytes(&first).ok_or_else(|| {
        let start: Vec<String> = first.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let what = format!(
            "a file that begins with the bytes {}",
            if start.is_empty() { "(none)".into() } else { start.join(" ") }
        );
        Error::format(OPERATION, what).expected("NIfTI, NRRD, MetaImage, TIFF, PNG, JPEG or DICOM")
    })?;
    let reader: Box<dyn BufRead + 'a> = Box::new(Cursor::new(first).chain(reader));
    match format {
        Format::Nifti => nifti::read_stream(Stream::new(reader, length)?),
        Format::Nrrd => nrrd::read(Input::new(reader, length), folder),
        Format::MetaImage => metaimage::read(Input::new(reader, length), folder),
        Format::Png => png::read_volume(whole(reader, length)?),
        #[cfg(feature = "jpeg")]
        Format::Jpeg => crate::jpeg::read_volume(whole(reader, length)?),
        #[cfg(feature = "tiff")]
        Format::Tiff => crate::tiff::read_volume(whole(reader, length)?),
        #[cfg(feature = "dicom")]
        Format::Dicom => crate::dicom::read_bytes(&whole(reader, length)?),
        #[allow(unreachable_patterns, reason = "depends on the features")]
        _ => Err(Error::format(OPERATION, format!("a {} file", format.name()))
            .expected(format!("tomograd-io built with the feature {:?}", format.name().to_lowercase()))),
    }
}

/// The format of a file, by its first bytes, which aren't taken from the reader.
pub(super) fn peek(reader: &mut impl BufRead) -> Result<Option<Format>> {
    let first = reader.fill_buf().map_err(io_error("the file"))?;
    Ok(Format::of_bytes(first.get(..PEEK.min(first.len())).unwrap_or_default()))
}

/// The bytes of a picture's file.
fn whole(reader: Box<dyn BufRead + '_>, length: Option<u64>) -> Result<Vec<u8>> {
    let most = length.unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    reader.take(most).read_to_end(&mut bytes).map_err(io_error("the file"))?;
    Ok(bytes)
}

/// Writes a file of the format that its name says.
pub(super) fn write(path: &Path, volume: &Volume, options: WriteOptions) -> Result<()> {
    let (format, compressed) = options.choose(path)?;
    let written = match format {
        Format::Nrrd if is_detached(path) => nrrd::write_detached(path, volume, compressed),
        Format::MetaImage if is_detached(path) => metaimage::write_detached(path, volume, compressed),
        Format::Nifti => write_atomically(path, |writer| nifti::write_to(writer, volume, compressed)),
        Format::Nrrd => write_atomically(path, |writer| nrrd::write(writer, volume, compressed)),
        Format::MetaImage => write_atomically(path, |writer| metaimage::write(writer, volume, compressed)),
        Format::Png => png::encode_volume(volume).and_then(|bytes| write_bytes(path, &bytes)),
        #[cfg(feature = "jpeg")]
        Format::Jpeg => crate::jpeg::encode_volume(volume).and_then(|bytes| write_bytes(path, &bytes)),
        #[cfg(feature = "tiff")]
        Format::Tiff => crate::tiff::encode_volume(volume, compressed).and_then(|bytes| write_bytes(path, &bytes)),
        #[allow(unreachable_patterns, reason = "depends on the features")]
        _ => Err(Error::argument(OPERATION, format!("{} can't be written", format.name()))
            .expected(format!("tomograd-io built with the feature {:?}", format.name().to_lowercase()))),
    };
    written.map_err(|error| error.within(path.display().to_string()))
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |writer| crate::atomic::write_all(writer, bytes))
}

/// The files that are written under a name: the data file of a detached header, and the file of that name.
pub(super) fn files(path: &Path, options: WriteOptions) -> Result<Vec<PathBuf>> {
    let (format, compressed) = options.choose(path)?;
    let data = match format {
        Format::Nrrd if is_detached(path) => Some(nrrd::data_file(path, compressed)),
        Format::MetaImage if is_detached(path) => Some(metaimage::data_file(path, compressed)),
        _ => None,
    };
    Ok(data.into_iter().chain([path.to_path_buf()]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_their_first_bytes() {
        let dicom = [&[0; 128][..], b"DICM"].concat();
        for (first, format) in [
            (&b"\x89PNG\r\n"[..], Some(Format::Png)),
            (b"\xFF\xD8\xFF\xE0", Some(Format::Jpeg)),
            (b"II*\0", Some(Format::Tiff)),
            (b"MM\0+", Some(Format::Tiff)),
            (b"NRRD0004\n", Some(Format::Nrrd)),
            (b"ObjectType = Image\n", Some(Format::MetaImage)),
            (b"NDims=3", Some(Format::MetaImage)),
            (b"\x1F\x8B\x08", Some(Format::Nifti)),
            (b"\x5C\x01\0\0", Some(Format::Nifti)),
            (b"\0\0\x02\x1C", Some(Format::Nifti)),
            (&dicom, Some(Format::Dicom)),
            (b"", None),
            (b"name = \"x\"", None),
            (b"NDims", None),
        ] {
            assert_eq!(Format::of_bytes(first), format, "{first:?}");
        }
    }

    #[test]
    fn names_say_the_format_and_the_files() {
        let files = |name: &str, options: WriteOptions| {
            files(Path::new(name), options)
                .ok()
                .map(|files| files.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "))
        };
        let (default, plain) = (WriteOptions::default(), WriteOptions::default().compressed(false));
        for (name, by_default, uncompressed) in [
            ("a/b.nii", Some("a/b.nii"), Some("a/b.nii")),
            ("b.nii.gz", Some("b.nii.gz"), None),
            ("B.NRRD", Some("B.NRRD"), Some("B.NRRD")),
            ("b.c.nhdr", Some("b.c.raw.gz b.c.nhdr"), Some("b.c.raw b.c.nhdr")),
            ("b.mhd", Some("b.zraw b.mhd"), Some("b.raw b.mhd")),
            ("b.jpg", Some("b.jpg"), Some("b.jpg")),
            ("b.nii.bz2", None, None),
            ("b.hdr", None, None),
            (".nii", None, None),
            ("nii", None, None),
            ("", None, None),
        ] {
            assert_eq!(files(name, default).as_deref(), by_default, "{name}");
            assert_eq!(files(name, plain).as_deref(), uncompressed, "{name}");
        }
        assert!(files("b.nii", default.compressed(true)).is_none());
    }
}
