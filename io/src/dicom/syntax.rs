//! Transfer syntaxes: how the elements of a file and its pixels are encoded.

use tomograd_core::Result;

use super::fail;

/// How elements are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    /// Elements say their value representation.
    pub(super) explicit: bool,
    /// Numbers are big endian.
    pub(super) big: bool,
}

pub(super) const IMPLICIT: Encoding = Encoding { explicit: false, big: false };
pub(super) const EXPLICIT: Encoding = Encoding { explicit: true, big: false };
pub(super) const EXPLICIT_BIG: Encoding = Encoding { explicit: true, big: true };

/// How pixels are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Rle,
    /// Sequential, with 8 or 12 bits, or lossless.
    Jpeg,
    JpegLs,
    Jpeg2000,
}

/// A transfer syntax that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) name: &'static str,
    pub(super) encoding: Encoding,
    /// All after the file meta information is one deflated stream.
    pub(super) deflated: bool,
    pub(super) compression: Compression,
}

impl Syntax {
    pub(super) fn plain(name: &'static str, encoding: Encoding) -> Self {
        Self { name, encoding, deflated: false, compression: Compression::None }
    }

    fn compressed(name: &'static str, compression: Compression) -> Self {
        Self { compression, ..Self::plain(name, EXPLICIT) }
    }

    /// The transfer syntax of this UID.
    ///
    /// # Errors
    /// When it isn't read; the error names it.
    pub(super) fn of(uid: &str) -> Result<Self> {
        Ok(match uid {
            "1.2.840.10008.1.2" => Self::plain("Implicit VR Little Endian", IMPLICIT),
            "1.2.840.10008.1.2.1" => Self::plain("Explicit VR Little Endian", EXPLICIT),
            "1.2.840.10008.1.2.1.99" => {
                Self { deflated: true, ..Self::plain("Deflated Explicit VR Little Endian", EXPLICIT) }
            }
            "1.2.840.10008.1.2.2" => Self::plain("Explicit VR Big Endian", EXPLICIT_BIG),
            "1.2.840.10008.1.2.5" => Self::compressed("RLE Lossless", Compression::Rle),
            "1.2.840.10008.1.2.4.50" => Self::compressed("JPEG Baseline", Compression::Jpeg),
            "1.2.840.10008.1.2.4.51" => Self::compressed("JPEG Extended", Compression::Jpeg),
            "1.2.840.10008.1.2.4.57" => Self::compressed("JPEG Lossless", Compression::Jpeg),
            "1.2.840.10008.1.2.4.70" => Self::compressed("JPEG Lossless, first-order prediction", Compression::Jpeg),
            "1.2.840.10008.1.2.4.80" => Self::compressed("JPEG-LS Lossless", Compression::JpegLs),
            "1.2.840.10008.1.2.4.81" => Self::compressed("JPEG-LS Near-lossless", Compression::JpegLs),
            "1.2.840.10008.1.2.4.90" => Self::compressed("JPEG 2000 Lossless", Compression::Jpeg2000),
            "1.2.840.10008.1.2.4.91" => Self::compressed("JPEG 2000", Compression::Jpeg2000),
            other => {
                let name = match other {
                    "1.2.840.10008.1.2.4.92" | "1.2.840.10008.1.2.4.93" => "JPEG 2000 Part 2",
                    "1.2.840.10008.1.2.4.201" | "1.2.840.10008.1.2.4.202" | "1.2.840.10008.1.2.4.203" => {
                        "High-Throughput JPEG 2000"
                    }
                    _ if other.starts_with("1.2.840.10008.1.2.4.10") => "MPEG video",
                    _ => "unknown",
                };
                return Err(fail(format!("transfer syntax {other:?} ({name})")).expected(
                    "implicit or explicit little endian, explicit big endian, deflated, RLE, JPEG baseline, extended or \
                     lossless, JPEG-LS, or JPEG 2000",
                ));
            }
        })
    }
}

/// How the elements of a transfer syntax are encoded, and whether they are deflated, also where its pixels can't be decoded.
///
/// # Errors
/// When it isn't known.
pub(super) fn elements(uid: &str) -> Result<(Encoding, bool)> {
    match Syntax::of(uid) {
        Ok(syntax) => Ok((syntax.encoding, syntax.deflated)),
        // Referenced pixels with deflated elements.
        Err(_) if uid == "1.2.840.10008.1.2.4.95" || uid == "1.2.840.10008.1.2.4.205" => Ok((EXPLICIT, true)),
        Err(_) if uid.starts_with("1.2.840.10008.1.2.4.") => Ok((EXPLICIT, false)),
        Err(error) => Err(error),
    }
}

/// The UID of the transfer syntax of uncompressed pixels.
///
/// # Errors
/// When there is none.
pub(super) fn uid(encoding: Encoding) -> Result<&'static str> {
    match encoding {
        IMPLICIT => Ok("1.2.840.10008.1.2"),
        EXPLICIT => Ok("1.2.840.10008.1.2.1"),
        EXPLICIT_BIG => Ok("1.2.840.10008.1.2.2"),
        _ => Err(fail("implicit big endian").expected("a transfer syntax of the standard")),
    }
}
