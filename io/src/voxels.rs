//! Conversion between the voxels of a file and tensors.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    any::Any,
    io::{Read, Write},
};

use tomograd_core::{DType, Device, Element, Error, Result, Tensor, TensorBuilder, pieces};

use crate::{Volume, atomic::write_all, element::with_element, stream::io_error};

const OPERATION: &str = "volume";

/// A scalar datatype of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    U8,
    I16,
    I32,
    F32,
    F64,
    I8,
    U16,
    U32,
    I64,
    U64,
}

/// The coding of voxels: each stored number x has the value `slope · x + intercept`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Coding {
    pub(crate) stored: Stored,
    /// Numbers per voxel: 1; 2 for real and imaginary part; 3 or 4 for red, green, blue and alpha. If there are several, they
    /// are the first axis of the tensor.
    pub(crate) channels: usize,
    pub(crate) scaling: Option<[f64; 2]>,
}

impl Coding {
    /// Datatypes with several numbers per voxel that have a name: element type, count and name.
    const COMPOSED: [(Stored, usize, &'static str); 4] = [
        (Stored::U8, 3, "rgb24"),
        (Stored::U8, 4, "rgba32"),
        (Stored::F32, 2, "complex64"),
        (Stored::F64, 2, "complex128"),
    ];

    /// One number per voxel, without scaling.
    pub(crate) fn plain(stored: Stored) -> Self {
        Self { stored, channels: 1, scaling: None }
    }

    /// `channels` numbers per voxel, without scaling.
    pub(crate) fn several(stored: Stored, channels: usize) -> Self {
        Self { stored, channels, scaling: None }
    }

    /// The name of a datatype with several numbers per voxel, or that of one of its numbers.
    pub(crate) fn name(self) -> &'static str {
        let entry = Self::COMPOSED.into_iter().find(|entry| (entry.0, entry.1) == (self.stored, self.channels));
        entry.map_or(self.stored.name(), |entry| entry.2)
    }

    /// Bytes per voxel.
    pub(crate) fn size(self) -> usize {
        self.stored.size().saturating_mul(self.channels)
    }
}

/// The number of voxels converted at a time.
const BLOCK: usize = 1 << 12;
/// Voxels that are encoded before they are written.
const PART: usize = 1 << 20;

impl Stored {
    const ALL: [(Stored, usize, &'static str); 10] = [
        (Stored::U8, 1, "uint8"),
        (Stored::I16, 2, "int16"),
        (Stored::I32, 4, "int32"),
        (Stored::F32, 4, "float32"),
        (Stored::F64, 8, "float64"),
        (Stored::I8, 1, "int8"),
        (Stored::U16, 2, "uint16"),
        (Stored::U32, 4, "uint32"),
        (Stored::I64, 8, "int64"),
        (Stored::U64, 8, "uint64"),
    ];

    fn entry(self) -> (usize, &'static str) {
        let entry = Self::ALL.into_iter().find(|entry| entry.0 == self);
        entry.map_or((0, ""), |(_, size, name)| (size, name))
    }

    pub(crate) fn size(self) -> usize {
        self.entry().0
    }

    fn name(self) -> &'static str {
        self.entry().1
    }

    /// The little-endian bytes of a decimal number, padded by zeros; `None` if the type doesn't hold it.
    pub(crate) fn parse(self, text: &str) -> Option<[u8; 8]> {
        Some(match self {
            Stored::U8 => padded(text.parse::<u8>().ok()?.to_le_bytes()),
            Stored::I8 => padded(text.parse::<i8>().ok()?.to_le_bytes()),
            Stored::I16 => padded(text.parse::<i16>().ok()?.to_le_bytes()),
            Stored::U16 => padded(text.parse::<u16>().ok()?.to_le_bytes()),
            Stored::I32 => padded(text.parse::<i32>().ok()?.to_le_bytes()),
            Stored::U32 => padded(text.parse::<u32>().ok()?.to_le_bytes()),
            Stored::I64 => text.parse::<i64>().ok()?.to_le_bytes(),
            Stored::U64 => text.parse::<u64>().ok()?.to_le_bytes(),
            Stored::F32 => padded(text.parse::<f32>().ok()?.to_le_bytes()),
            Stored::F64 => text.parse::<f64>().ok()?.to_le_bytes(),
        })
    }

    /// The datatype that holds every value of `dtype`.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::U8 | DType::Bool => Stored::U8,
            DType::I32 => Stored::I32,
            DType::I64 => Stored::I64,
            DType::F64 => Stored::F64,
            DType::F32 | DType::F16 | DType::BF16 => Stored::F32,
        }
    }
}

fn padded<const N: usize>(bytes: [u8; N]) -> [u8; 8] {
    let mut padded = [0; 8];
    padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    padded
}

/// Whether f32 distinguishes the scaled values of neighbouring integers over the whole range of `stored`.
fn scales_in_f32(stored: Stored, [slope, intercept]: [f64; 2]) -> bool {
    let most = match stored {
        Stored::U8 => 255.0,
        Stored::I8 => 128.0,
        Stored::I16 => 32768.0,
        Stored::U16 => 65535.0,
        // Scaling keeps the relative precision of floating-point numbers.
        Stored::F32 => return true,
        Stored::I32 | Stored::U32 | Stored::I64 | Stored::U64 | Stored::F64 => return false,
    };
    let largest = slope.abs() * most + intercept.abs();
    largest <= f64::from(f32::MAX) && largest * f64::from(f32::EPSILON) <= slope.abs()
}

/// Reads a tensor of `shape`, with a leading channel axis if voxels have several numbers. Without scaling, the dtype is the
/// smallest that holds every value of the stored type. With scaling, it is f32 for f32 and for 8-bit and 16-bit integers, and
/// f64 for all others and where f32 wouldn't distinguish neighbouring integers.
pub(crate) fn decode(reader: &mut impl Read, coding: Coding, shape: &[usize], big: bool) -> Result<Tensor> {
    if coding.channels == 1 {
        return decode_numbers(reader, coding, shape, big);
    }
    // The file interleaves the channels of a voxel.
    let together = decode_numbers(reader, coding, &[shape, &[coding.channels]].concat(), big)?;
    let order: Vec<usize> = std::iter::once(shape.len()).chain(0..shape.len()).collect();
    together.permute(&order)?.contiguous()
}

fn decode_numbers(reader: &mut impl Read, coding: Coding, shape: &[usize], big: bool) -> Result<Tensor> {
    fn all<const N: usize, T: Element>(
        reader: &mut impl Read,
        shape: &[usize],
        big: bool,
        value: impl Fn([u8; N]) -> Option<T>,
    ) -> Result<Tensor> {
        let mut buffer = [[0; N]; BLOCK];
        TensorBuilder::<T>::new(OPERATION, shape, Device::Cpu)?.fill_in_order(BLOCK, |_, block| {
            let parts = buffer.get_mut(..block.len()).unwrap_or_default();
            reader.read_exact(parts.as_flattened_mut()).map_err(io_error("the voxels"))?;
            if big {
                parts.iter_mut().for_each(|part| part.reverse());
            }
            for (voxel, part) in block.iter_mut().zip(parts) {
                *voxel = value(*part).ok_or_else(|| {
                    Error::format(OPERATION, format!("a voxel that {} can't hold", T::DTYPE))
                        .expected("integers below 2⁶³, and scaled f32 below 3.4·10³⁸")
                })?;
            }
            Ok(())
        })
    }
    macro_rules! plain {
        ($n:literal, $stored:ty => $holder:ty) => {
            all::<$n, $holder>(reader, shape, big, |part| <$holder>::try_from(<$stored>::from_le_bytes(part)).ok())
        };
    }
    macro_rules! scaled {
        ($n:literal, $stored:ty => $holder:ty, $slope:ident, $intercept:ident) => {
            all::<$n, $holder>(reader, shape, big, |part| {
                let raw = <$stored>::from_le_bytes(part) as f64;
                let value = ($slope * raw + $intercept) as $holder;
                (value.is_finite() || !raw.is_finite()).then_some(value)
            })
        };
    }
    let small = coding.scaling.is_some_and(|scaling| scales_in_f32(coding.stored, scaling));
    match (coding.stored, coding.scaling) {
        (Stored::U8, None) => plain!(1, u8 => u8),
        (Stored::I8, None) => plain!(1, i8 => i32),
        (Stored::I16, None) => plain!(2, i16 => i32),
        (Stored::U16, None) => plain!(2, u16 => i32),
        (Stored::I32, None) => plain!(4, i32 => i32),
        (Stored::U32, None) => plain!(4, u32 => i64),
        (Stored::I64, None) => plain!(8, i64 => i64),
        (Stored::U64, None) => plain!(8, u64 => i64),
        (Stored::F32, None) => plain!(4, f32 => f32),
        (Stored::F64, None) => plain!(8, f64 => f64),
        (Stored::F32, Some([a, b])) => scaled!(4, f32 => f32, a, b),
        (Stored::U8, Some([a, b])) if small => scaled!(1, u8 => f32, a, b),
        (Stored::I8, Some([a, b])) if small => scaled!(1, i8 => f32, a, b),
        (Stored::I16, Some([a, b])) if small => scaled!(2, i16 => f32, a, b),
        (Stored::U16, Some([a, b])) if small => scaled!(2, u16 => f32, a, b),
        (Stored::U8, Some([a, b])) => scaled!(1, u8 => f64, a, b),
        (Stored::I8, Some([a, b])) => scaled!(1, i8 => f64, a, b),
        (Stored::I16, Some([a, b])) => scaled!(2, i16 => f64, a, b),
        (Stored::U16, Some([a, b])) => scaled!(2, u16 => f64, a, b),
        (Stored::I32, Some([a, b])) => scaled!(4, i32 => f64, a, b),
        (Stored::U32, Some([a, b])) => scaled!(4, u32 => f64, a, b),
        (Stored::I64, Some([a, b])) => scaled!(8, i64 => f64, a, b),
        (Stored::U64, Some([a, b])) => scaled!(8, u64 => f64, a, b),
        (Stored::F64, Some([a, b])) => scaled!(8, f64 => f64, a, b),
    }
}

/// The value of a voxel; an integer if the dtype is one.
#[derive(Clone, Copy)]
enum Number {
    Whole(i64),
    Real(f64),
}

impl Number {
    fn of<T: Element>(value: T) -> Self {
        // f64 would round a large i64.
        let any = &value as &dyn Any;
        if let Some(whole) =
            any.downcast_ref::<i64>().copied().or_else(|| any.downcast_ref().map(|&whole: &i32| whole.into()))
        {
            return Number::Whole(whole);
        }
        let real = value.to_f64();
        if T::DTYPE.is_float() { Number::Real(real) } else { Number::Whole(real as i64) }
    }

    /// The stored number whose scaled value this is; `None` if reading wouldn't restore it exactly.
    fn unscaled<T: Element>(self, stored: Stored, [slope, intercept]: [f64; 2]) -> Option<Self> {
        let value = self.real();
        let raw = (value - intercept) / slope;
        let raw = match stored {
            Stored::F32 => f64::from(raw as f32),
            Stored::F64 => raw,
            _ => raw.round(),
        };
        // Reading must restore the value bit for bit.
        let back = T::from_f64(slope * raw + intercept).to_f64();
        (back.to_bits() == value.to_bits() || (back == 0.0 && value == 0.0)).then_some(Number::Real(raw))
    }

    /// As an integer, if it is one with −2⁶³ ≤ value < 2⁶³.
    #[inline(always)]
    fn whole(self) -> Option<i64> {
        match self {
            Number::Whole(value) => Some(value),
            Number::Real(value) => {
                (value as i64 as f64 == value && value < 9_223_372_036_854_775_808.0).then_some(value as i64)
            }
        }
    }

    #[inline(always)]
    fn real(self) -> f64 {
        match self {
            Number::Whole(value) => value as f64,
            Number::Real(value) => value,
        }
    }

    /// Whether a floating-point number of a file is this one.
    #[inline(always)]
    fn is(self, stored: f64) -> bool {
        match self {
            Number::Whole(value) => stored.abs() < 9e18 && stored as i64 == value,
            Number::Real(value) => stored == value || value.is_nan(),
        }
    }
}

/// Stores each voxel in `coding`, little-endian, as many as there is room for. The first one that reading wouldn't restore exactly is
/// the error.
fn store<T: Element>(voxels: &[T], coding: Coding, bytes: &mut [u8]) -> std::result::Result<(), T> {
    // The type is chosen outside of the loop.
    macro_rules! each {
        ($number:ident => $stored:expr) => {
            bytes.as_chunks_mut().0.iter_mut().zip(voxels).try_for_each(|(bytes, &voxel)| {
                let number = match coding.scaling {
                    None => Some(Number::of(voxel)),
                    Some(scaling) => Number::of(voxel).unscaled::<T>(coding.stored, scaling),
                };
                let stored = |$number: Number| $stored;
                *bytes = number.and_then(stored).ok_or(voxel)?.to_le_bytes();
                Ok(())
            })
        };
    }
    match coding.stored {
        Stored::U8 => each!(number => u8::try_from(number.whole()?).ok()),
        Stored::I8 => each!(number => i8::try_from(number.whole()?).ok()),
        Stored::I16 => each!(number => i16::try_from(number.whole()?).ok()),
        Stored::U16 => each!(number => u16::try_from(number.whole()?).ok()),
        Stored::I32 => each!(number => i32::try_from(number.whole()?).ok()),
        Stored::U32 => each!(number => u32::try_from(number.whole()?).ok()),
        Stored::I64 => each!(number => number.whole()),
        Stored::U64 => each!(number => u64::try_from(number.whole()?).ok()),
        Stored::F32 => each!(number => {
            let stored = number.real() as f32;
            number.is(f64::from(stored)).then_some(stored)
        }),
        Stored::F64 => each!(number => number.is(number.real()).then_some(number.real())),
    }
}

fn unstorable<T: Element>(voxel: T, coding: Coding) -> Error {
    Error::argument(OPERATION, format!("{voxel:?} can't be stored as {}", coding.name()))
}

/// The coding for writing: the one of the source, else its element type alone, if the format has it and it reproduces every
/// voxel; else the one that holds the dtype.
pub(crate) fn choose(volume: &Volume, has: impl Fn(Coding) -> bool) -> Result<Coding> {
    let voxels = volume.voxels();
    let plain = Coding::plain(Stored::of(voxels.dtype()));
    let Some(first) = volume.coding() else { return Ok(plain) };
    let candidates = [first, Coding { scaling: None, ..first }, Coding::plain(first.stored), plain];
    let candidates: Vec<Coding> = candidates.into_iter().filter(|&coding| coding == plain || has(coding)).collect();
    Ok(first_that_fits(voxels, &candidates)?.unwrap_or(plain))
}

/// The first of these codings that reproduces every voxel.
pub(crate) fn first_that_fits(voxels: &Tensor, codings: &[Coding]) -> Result<Option<Coding>> {
    let all = Coding::plain(Stored::of(voxels.dtype()));
    let voxels = voxels.contiguous()?;
    for &coding in codings {
        let several = coding.channels > 1;
        if several && (voxels.rank() < 4 || voxels.shape().first() != Some(&coding.channels)) {
            continue;
        }
        let fits = (coding.stored, coding.scaling) == (all.stored, None)
            || with_element!(voxels.dtype(), T => {
                let voxels = voxels.as_slice::<T>()?;
                let stored = pieces::each(&mut vec![(); voxels.len().div_ceil(BLOCK)], 1, |block, _| {
                    let voxels = voxels.chunks(BLOCK).nth(block).unwrap_or_default();
                    store(voxels, coding, &mut [0; 8 * BLOCK]).map_err(|voxel| unstorable(voxel, coding))
                });
                stored.is_ok()
            });
        if fits {
            return Ok(Some(coding));
        }
    }
    Ok(None)
}

/// Writes the elements in the order of the file.
pub(crate) fn encode(writer: &mut dyn Write, voxels: &Tensor, coding: Coding, big: bool) -> Result<()> {
    let order: Vec<usize> = (1..voxels.rank()).chain([0]).collect();
    let voxels = if coding.channels > 1 { voxels.permute(&order)?.contiguous()? } else { voxels.contiguous()? };
    let size = coding.stored.size();
    let mut buffer = Vec::new();
    with_element!(voxels.dtype(), T => {
        for part in voxels.as_slice::<T>()?.chunks(PART) {
            buffer.resize(part.len().saturating_mul(size), 0);
            pieces::each(&mut buffer, BLOCK.saturating_mul(size), |block, bytes| {
                let voxels = part.chunks(BLOCK).nth(block).unwrap_or_default();
                store(voxels, coding, bytes).map_err(|voxel| unstorable(voxel, coding))?;
                if big {
                    bytes.chunks_exact_mut(size).for_each(|number| number.reverse());
                }
                Ok(())
            })?;
            write_all(writer, &buffer)?;
        }
    });
    Ok(())
}
