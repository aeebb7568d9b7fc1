//! Strided views of tensor data in a file, and their conversion to tensors.

use tomograd_core::{Device, Element, Error, ErrorKind, Result, Tensor, TensorBuilder, bf16, element_count, f16};

use super::StoredDType;
use crate::blob::Blob;

const OPERATION: &str = "weights";

/// A strided view of the elements of a blob.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) blob: Blob,
    pub(crate) stored: StoredDType,
    pub(crate) big_endian: bool,
    /// The offset of the first element, in elements.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<usize>,
    /// The strides in elements.
    pub(crate) strides: Vec<u64>,
}

impl View {
    /// Reads the tensor into host memory, with the dtype [`StoredDType::dtype`].
    pub(crate) fn read(&self) -> Result<Tensor> {
        match self.stored {
            StoredDType::F64 => self.elements(|x| Some(f64::from_le_bytes(x))),
            StoredDType::F32 => self.elements(|x| Some(f32::from_le_bytes(x))),
            StoredDType::F16 => self.elements(|x| Some(f16::from_le_bytes(x))),
            StoredDType::BF16 => self.elements(|x| Some(bf16::from_le_bytes(x))),
            // E5M2 is the upper byte of an f16.
            StoredDType::F8E5M2 => self.elements(|[x]| Some(f16::from_bits(u16::from(x) << 8))),
            StoredDType::F8E4M3 => {
                self.elements(|[x]| Some(f16::from_f32(if x & 0x7F == 0x7F { f32::NAN } else { small_float(x, 4, 7) })))
            }
            StoredDType::F8E4M3Fnuz => self.elements(|[x]| Some(f16::from_f32(unsigned_zero(x, 4, 8)))),
            StoredDType::F8E5M2Fnuz => self.elements(|[x]| Some(f16::from_f32(unsigned_zero(x, 5, 16)))),
            StoredDType::F8E8M0 => {
                self.elements(|[x]| Some(if x == 255 { f32::NAN } else { 2f64.powi(i32::from(x) - 127) as f32 }))
            }
            StoredDType::I64 => self.elements(|x| Some(i64::from_le_bytes(x))),
            StoredDType::I32 => self.elements(|x| Some(i32::from_le_bytes(x))),
            StoredDType::I16 => self.elements(|x| Some(i32::from(i16::from_le_bytes(x)))),
            StoredDType::I8 => self.elements(|x| Some(i32::from(i8::from_le_bytes(x)))),
            StoredDType::U64 => self.elements(|x| i64::try_from(u64::from_le_bytes(x)).ok()),
            StoredDType::U32 => self.elements(|x| Some(i64::from(u32::from_le_bytes(x)))),
            StoredDType::U16 => self.elements(|x| Some(i32::from(u16::from_le_bytes(x)))),
            StoredDType::U8 => self.elements(|[x]| Some(x)),
            StoredDType::Bool => self.elements(|[x]| (x < 2).then_some(x == 1)),
            _ => Err(Error::new(ErrorKind::DType, OPERATION, format!("elements of the type {}", self.stored))
                .expected("a type that a tensor can hold")),
        }
    }

    /// Checks that all elements are inside the blob, and that the tensor takes no more memory than the blob.
    pub(crate) fn check(&self) -> Result<()> {
        let bytes = self.stored.bytes().unwrap_or(1);
        self.extent(bytes).map(|_| ())
    }

    /// The shape without repetition along axes of stride 0, its number of elements, and the number of elements from the first
    /// to the last.
    fn extent(&self, bytes: usize) -> Result<(Vec<usize>, usize, u64)> {
        element_count(OPERATION, &self.shape)?;
        let axes = || self.shape.iter().zip(&self.strides);
        let shape: Vec<usize> = axes().map(|(&size, &stride)| if stride == 0 { size.min(1) } else { size }).collect();
        let count = element_count(OPERATION, &shape)?;
        if count == 0 {
            return Ok((shape, 0, 0));
        }
        let reach =
            axes().try_fold(0u64, |reach, (&size, &stride)| reach.checked_add((size as u64 - 1).checked_mul(stride)?));
        let span = reach.and_then(|reach| reach.checked_add(1));
        let inside = span
            .and_then(|span| self.offset.checked_add(span)?.checked_mul(bytes as u64))
            .is_some_and(|end| end <= self.blob.size());
        let Some(span) = span.filter(|_| inside) else {
            return Err(Error::format(
                OPERATION,
                format!("a tensor from element {} on with strides {:?}", self.offset, self.strides),
            )
            .expected(format!("one inside of its {} bytes", self.blob.size()))
            .shapes([&self.shape[..]]));
        };
        if count as u64 > span {
            return Err(Error::format(OPERATION, format!("overlapping elements: strides {:?}", self.strides))
                .expected("elements of their own, or repeated along whole axes")
                .shapes([&self.shape[..]]));
        }
        Ok((shape, count, span))
    }

    fn elements<T: Element, const N: usize>(&self, value: fn([u8; N]) -> Option<T>) -> Result<Tensor> {
        let (shape, count, span) = self.extent(N)?;
        // First, because it checks the declared size.
        let blob = self.blob.plain()?;
        let builder = TensorBuilder::<T>::new(OPERATION, &shape, Device::Cpu)?;
        let mut wrong = None;
        let mut decode = |mut bytes: [u8; N]| {
            if self.big_endian {
                bytes.reverse();
            }
            value(bytes).unwrap_or_else(|| {
                wrong.get_or_insert(bytes);
                T::default()
            })
        };
        let (first, length) = if count == 0 { (0, 0) } else { (self.offset * N as u64, span * N as u64) };
        let tensor = if self.is_row_major(&shape) {
            let mut pieces = blob.pieces(first, length)?;
            let tensor = builder.fill_with(|_| decode(pieces.next()))?;
            pieces.finish()?;
            tensor
        } else {
            let bytes = blob.part(first, length)?;
            let mut places = Places::new(&shape, &self.strides);
            // `extent` has checked that every index is inside the span.
            let element = |place: usize| bytes.get(place * N..).and_then(|rest| rest.first_chunk()).copied();
            builder.fill_with(|_| decode(element(places.next() as usize).unwrap_or([0; N])))?
        };
        if let Some(bytes) = wrong {
            // A boolean of 2 is damage; an integer beyond the range of i64 is a valid value without a dtype.
            let kind = if self.stored == StoredDType::U64 { ErrorKind::DType } else { ErrorKind::Format };
            return Err(Error::new(kind, OPERATION, format!("an element of {} with the bytes {bytes:?}", self.stored))
                .expected(format!("a value of {}", T::DTYPE)));
        }
        if shape == self.shape { Ok(tensor) } else { tensor.expand(&self.shape) }
    }

    /// Whether the elements of `shape` are contiguous in row-major order.
    fn is_row_major(&self, shape: &[usize]) -> bool {
        let mut expected = 1u64;
        shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let plain = size <= 1 || stride == expected;
            expected = expected.saturating_mul(size as u64);
            plain
        })
    }
}

/// An iterator of the element indices of a strided tensor in row-major order.
struct Places<'a> {
    shape: &'a [usize],
    strides: &'a [u64],
    index: Vec<usize>,
    place: u64,
}

impl<'a> Places<'a> {
    fn new(shape: &'a [usize], strides: &'a [u64]) -> Self {
        Self { shape, strides, index: vec![0; shape.len()], place: 0 }
    }

    /// The index of the current element; advances to the next one.
    fn next(&mut self) -> u64 {
        let place = self.place;
        for ((index, &size), &stride) in self.index.iter_mut().zip(self.shape).zip(self.strides).rev() {
            *index += 1;
            self.place += stride;
            if *index < size {
                break;
            }
            self.place -= stride * *index as u64;
            *index = 0;
        }
        place
    }
}

/// The value of an 8-bit float with a sign bit, `exponent` exponent bits with `bias`, and a mantissa, without infinities and
/// NaN.
fn small_float(bits: u8, exponent: u32, bias: i32) -> f32 {
    let mantissa_bits = 7 - exponent;
    let mantissa = f32::from(bits & ((1 << mantissa_bits) - 1));
    let power = i32::from((bits & 0x7F) >> mantissa_bits);
    let unit = 2f32.powi(power.max(1) - bias - mantissa_bits as i32);
    let magnitude = if power == 0 { mantissa * unit } else { (mantissa + (1 << mantissa_bits) as f32) * unit };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

/// As [`small_float`], except that the bits of −0 are NaN.
fn unsigned_zero(bits: u8, exponent: u32, bias: i32) -> f32 {
    if bits == 0x80 { f32::NAN } else { small_float(bits, exponent, bias) }
}
