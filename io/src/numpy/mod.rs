//! NumPy files: `.npy` with one array, and `.npz` with several in a zip archive, stored or deflated.
//!
//! Element types that [`DType`](tomograd_core::DType) lacks become the smallest type that holds them: i8, i16 and u16 are
//! read as I32, u32 as I64, and u64 as I64 if the values fit. Big-endian elements and Fortran order are supported; objects,
//! strings, dates, complex numbers and structured types are rejected.
//!
//! ```
//! use tomograd_io::numpy::{Npz, read_npy};
//! # let [weights, medmnist] = [
//! #     concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/numpy/fortran.npy"),
//! #     concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/numpy/medmnist.npz"),
//! # ];
//! let array = read_npy(weights)?;
//! let archive = Npz::open(medmnist)?;
//! println!("{:?}", archive.names());
//! let images = archive.array("train_images")?;
//! # Ok::<(), tomograd_core::Error>(())
//! ```
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod archive;

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use tomograd_core::{Device, Element, Error, Result, Tensor, element_count, f16};

pub use self::archive::Npz;

const OPERATION: &str = "numpy";
/// The longest header that is accepted; NumPy itself accepts 10,000 characters.
const MOST_HEADER: usize = 1 << 16;

/// The supported element types, each with its size in bytes.
const KINDS: [&str; 12] = ["b1", "u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"];

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

fn failed(error: std::io::Error) -> Error {
    Error::io(OPERATION, "the file", error)
}

/// Reads the array of an `.npy` file.
///
/// ```
/// use tomograd_io::numpy::read_npy;
/// # let path = std::env::temp_dir().join(format!("tomograd-npy-doc-{}.npy", std::process::id()));
/// # let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n";
/// # let start = [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
/// # std::fs::write(&path, [&start[..], &3i32.to_le_bytes(), &4i32.to_le_bytes()].concat()).unwrap();
/// let array = read_npy(&path)?; // written by numpy.save(path, numpy.array([3, 4], "int32"))
/// assert_eq!(array.to_vec::<i32>()?, [3, 4]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When the file can't be read, contradicts its header, or has an unsupported element type.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let read = || {
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        read_array(&mut BufReader::new(file), length)
    };
    read().map_err(|error: Error| error.within(path.display().to_string()))
}

fn exact<const N: usize>(reader: &mut dyn Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The bytes starting at `at`, with zeros beyond the end.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Reads an array with its header, together `length` bytes (NumPy's NEP 1).
fn read_array(reader: &mut dyn Read, length: u64) -> Result<Tensor> {
    let start: [u8; 8] = exact(reader)?;
    let [magic @ .., major, _] = start;
    if magic != *b"\x93NUMPY" {
        return Err(fail("no NumPy array").expected("a file that begins with \\x93NUMPY"));
    }
    let (header, before) = match major {
        1 => (usize::from(u16::from_le_bytes(exact(reader)?)), 10),
        2 | 3 => (usize::try_from(u32::from_le_bytes(exact(reader)?)).unwrap_or(usize::MAX), 12),
        _ => return Err(fail(format!("version {major} of the format")).expected("1, 2 or 3")),
    };
    if header > MOST_HEADER {
        return Err(fail(format!("a header of {header} bytes")).expected(format!("at most {MOST_HEADER}")));
    }
    let mut text = vec![0; header];
    reader.read_exact(&mut text).map_err(failed)?;
    let text = String::from_utf8(text).map_err(|_| fail("a header that isn't text"))?;
    let Header { descr, fortran, mut shape } = Header::parse(&text)?;
    if fortran {
        shape.reverse();
    }
    let count = element_count(OPERATION, &shape)?;
    let (order, kind) = descr.split_at_checked(1).unwrap_or_default();
    let big = match order {
        "<" | "|" => false,
        ">" => true,
        _ => return Err(unknown(&descr)),
    };
    let known = KINDS.contains(&kind).then(|| kind.get(1..).and_then(|size| size.parse::<u64>().ok()));
    let size = known.flatten().ok_or_else(|| unknown(&descr))?;
    let expected = (count as u64)
        .checked_mul(size)
        .and_then(|bytes| bytes.checked_add(before))
        .and_then(|n| n.checked_add(header as u64));
    if expected != Some(length) {
        return Err(fail(format!("{length} bytes for {count} elements of {descr}"))
            .expected(expected.map_or("fewer elements".to_owned(), |bytes| format!("{bytes} with the header"))));
    }
    let array = match kind {
        "b1" => decode::<bool, 1>(reader, &shape, big, |[x]| (x <= 1).then_some(x == 1)),
        "u1" => decode::<u8, 1>(reader, &shape, big, |[x]| Some(x)),
        "i1" => decode::<i32, 1>(reader, &shape, big, |x| Some(i8::from_le_bytes(x).into())),
        "i2" => decode::<i32, 2>(reader, &shape, big, |x| Some(i16::from_le_bytes(x).into())),
        "u2" => decode::<i32, 2>(reader, &shape, big, |x| Some(u16::from_le_bytes(x).into())),
        "i4" => decode::<i32, 4>(reader, &shape, big, |x| Some(i32::from_le_bytes(x))),
        "u4" => decode::<i64, 4>(reader, &shape, big, |x| Some(u32::from_le_bytes(x).into())),
        "i8" => decode::<i64, 8>(reader, &shape, big, |x| Some(i64::from_le_bytes(x))),
        "u8" => decode::<i64, 8>(reader, &shape, big, |x| i64::try_from(u64::from_le_bytes(x)).ok()),
        "f2" => decode::<f16, 2>(reader, &shape, big, |x| Some(f16::from_le_bytes(x))),
        "f4" => decode::<f32, 4>(reader, &shape, big, |x| Some(f32::from_le_bytes(x))),
        "f8" => decode::<f64, 8>(reader, &shape, big, |x| Some(f64::from_le_bytes(x))),
        _ => Err(unknown(&descr)),
    }?;
    // The decoder of an archive verifies the checksum only at the end of the entry.
    if reader.read(&mut [0]).map_err(failed)? != 0 {
        return Err(fail("bytes behind the array"));
    }
    if fortran {
        let axes: Vec<usize> = (0..shape.len()).rev().collect();
        return array.permute(&axes)?.contiguous();
    }
    Ok(array)
}

fn unknown(descr: &str) -> Error {
    fail(format!("elements of type {descr:?}")).expected("b1, i1 to i8, u1 to u8, f2, f4 or f8")
}

fn decode<T: Element, const N: usize>(
    reader: &mut dyn Read,
    shape: &[usize],
    big: bool,
    value: fn([u8; N]) -> Option<T>,
) -> Result<Tensor> {
    let mut array = Tensor::zeros(shape, T::DTYPE, Device::Cpu)?;
    let mut buffer = [0u8; 1 << 13];
    for part in array.as_mut_slice::<T>()?.chunks_mut(buffer.len().checked_div(N).unwrap_or(1)) {
        let Some(bytes) = part.len().checked_mul(N).and_then(|count| buffer.get_mut(..count)) else { continue };
        reader.read_exact(bytes).map_err(failed)?;
        for (element, bytes) in part.iter_mut().zip(bytes.chunks_exact(N)) {
            let mut bytes: [u8; N] = bytes_at(bytes, 0);
            if big {
                bytes.reverse();
            }
            *element = value(bytes)
                .ok_or_else(|| fail("an element that no tensor holds").expected("0 or 1, or below 2^63"))?;
        }
    }
    Ok(array)
}

/// The header of an array: a Python dictionary literal.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self> {
        Self::literal(&mut Rest(text.trim())).ok_or_else(|| {
            fail(format!("the header {:?}", text.trim().chars().take(200).collect::<String>()))
                .expected("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}")
        })
    }

    fn literal(rest: &mut Rest) -> Option<Self> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        rest.token("{").then_some(())?;
        while !rest.token("}") {
            let key = rest.quoted()?;
            rest.token(":").then_some(())?;
            match key {
                "descr" if descr.is_none() => descr = Some(rest.quoted()?.to_owned()),
                "fortran_order" if fortran.is_none() => {
                    fortran = Some(rest.token("True") || !rest.token("False").then_some(true)?);
                }
                "shape" if shape.is_none() => shape = Some(rest.tuple()?),
                _ => return None,
            }
            if !rest.token(",") {
                rest.token("}").then_some(())?;
                break;
            }
        }
        rest.0.trim().is_empty().then_some(Self { descr: descr?, fortran: fortran?, shape: shape? })
    }
}

/// The part of a literal that is still to be parsed.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Consumes `token` if it comes next; returns whether it did.
    fn token(&mut self, token: &str) -> bool {
        let after = self.0.trim_start().strip_prefix(token);
        self.0 = after.unwrap_or(self.0);
        after.is_some()
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.token("'") { '\'' } else { self.token("\"").then_some('"')? };
        let (text, after) = self.0.split_once(quote)?;
        self.0 = after;
        Some(text)
    }

    /// `(2, 3)`, `(2,)` or `()`.
    fn tuple(&mut self) -> Option<Vec<usize>> {
        self.token("(").then_some(())?;
        let (text, after) = self.0.split_once(')')?;
        self.0 = after;
        let text = text.trim();
        let text = text.strip_suffix(',').unwrap_or(text);
        if text.is_empty() {
            return Some(Vec::new());
        }
        // Python 2 wrote long integers as 3L.
        text.split(',').map(|size| size.trim().trim_end_matches('L').parse().ok()).collect()
    }
}
