//! NIfTI-1 and NIfTI-2 (nifti.nimh.nih.gov), `.nii` and `.nii.gz`, both byte orders.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::Path,
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use tomograd_core::{DType, Device, Element, Error, Result, Tensor, TensorBuilder};

use crate::{
    Geometry, Volume,
    atomic::write_all,
    geometry::{Affine, from_quaternion},
    write_atomically,
};

const OPERATION: &str = "nifti";
/// Memory grows by at most this much before the bytes that it is for have arrived.
const STEP: usize = 1 << 20;

fn fail(what: impl Into<String>) -> Error {
    Error::format(OPERATION, what)
}

/// The bytes of a header, read as the byte order says.
struct Header {
    bytes: Vec<u8>,
    big: bool,
}

impl Header {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let part = self.bytes.get(at..at.saturating_add(N)).and_then(|part| <[u8; N]>::try_from(part).ok());
        let mut part = part.ok_or_else(|| fail("the header is cut off"))?;
        if self.big {
            part.reverse();
        }
        Ok(part)
    }

    fn i16(&self, at: usize) -> Result<i16> {
        self.array(at).map(i16::from_le_bytes)
    }

    fn i32(&self, at: usize) -> Result<i32> {
        self.array(at).map(i32::from_le_bytes)
    }

    fn i64(&self, at: usize) -> Result<i64> {
        self.array(at).map(i64::from_le_bytes)
    }

    /// `N` floating-point numbers, 4 or 8 bytes each.
    fn floats<const N: usize>(&self, at: usize, size: usize) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        for (i, value) in values.iter_mut().enumerate() {
            let place = at.saturating_add(i.saturating_mul(size));
            *value = match size {
                4 => f64::from(self.array(place).map(f32::from_le_bytes)?),
                _ => self.array(place).map(f64::from_le_bytes)?,
            };
        }
        Ok(values)
    }
}

/// What is taken from a header of either version.
struct Fields {
    dim: [i64; 8],
    datatype: i16,
    offset: u64,
    slope: f64,
    intercept: f64,
    geometry: Geometry,
    big: bool,
}

fn fields(reader: &mut dyn Read) -> Result<(Fields, u64)> {
    let mut first = [0; 4];
    reader.read_exact(&mut first).map_err(|error| Error::io(OPERATION, "the header", error))?;
    let (size, big) = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
        (size @ (348 | 540), _) => (size, false),
        (_, size @ (348 | 540)) => (size, true),
        (size, _) => return Err(fail(format!("a header of {size} bytes")).expected("348 (NIfTI-1) or 540 (NIfTI-2)")),
    };
    let length = if size == 348 { 348usize } else { 540 };
    let mut bytes = first.to_vec();
    bytes.resize(length, 0);
    if let Some(rest) = bytes.get_mut(4..) {
        reader.read_exact(rest).map_err(|error| Error::io(OPERATION, "the header", error))?;
    }
    let header = Header { bytes, big };
    let magic_at = if length == 348 { 344usize } else { 4 };
    let magic = header.bytes.get(magic_at..magic_at.saturating_add(3)).unwrap_or_default();
    if magic != b"n+1" && magic != b"n+2" {
        return Err(fail(format!("the magic {:?}", String::from_utf8_lossy(magic)))
            .expected("n+1 or n+2: header and voxels in one file"));
    }
    let mut dim = [0; 8];
    let (datatype, offset, slope, pixdim, codes, quaternion, sform, units): (i16, f64, [f64; 2], _, _, _, _, u8);
    if length == 348 {
        for (i, size) in dim.iter_mut().enumerate() {
            *size = i64::from(header.i16(40usize.saturating_add(i.saturating_mul(2)))?);
        }
        datatype = header.i16(70)?;
        [offset] = header.floats::<1>(108, 4)?;
        slope = header.floats::<2>(112, 4)?;
        pixdim = header.floats::<8>(76, 4)?;
        codes = [i32::from(header.i16(252)?), i32::from(header.i16(254)?)];
        quaternion = header.floats::<6>(256, 4)?;
        sform = header.floats::<12>(280, 4)?;
        units = header.bytes.get(123).copied().unwrap_or(0);
    } else {
        for (i, size) in dim.iter_mut().enumerate() {
            *size = header.i64(16usize.saturating_add(i.saturating_mul(8)))?;
        }
        datatype = header.i16(12)?;
        offset = header.i64(168)? as f64;
        slope = header.floats::<2>(176, 8)?;
        pixdim = header.floats::<8>(104, 8)?;
        codes = [header.i32(344)?, header.i32(348)?];
        quaternion = header.floats::<6>(352, 8)?;
        sform = header.floats::<12>(400, 8)?;
        units = header.i32(500)?.to_le_bytes()[0];
    }
    if !(offset >= length as f64 && offset < 9e15) {
        return Err(
            fail(format!("voxels at byte {offset}")).expected(format!("a place after the {length} bytes of header"))
        );
    }
    let geometry = geometry(dim, pixdim, codes, quaternion, sform, units)?;
    let [slope, intercept] = slope;
    Ok((Fields { dim, datatype, offset: offset as u64, slope, intercept, geometry, big }, length as u64))
}

/// The affine as nibabel takes it: the sform if its code is set, else the qform, else the spacing with the first axis turned
/// to the left and the origin in the middle.
fn geometry(
    dim: [i64; 8],
    pixdim: [f64; 8],
    [qform_code, sform_code]: [i32; 2],
    quaternion: [f64; 6],
    sform: [f64; 12],
    units: u8,
) -> Result<Geometry> {
    let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = sform;
    let sform = [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]];
    let [qfac, x, y, z, ..] = pixdim;
    let [b, c, d, offset_x, offset_y, offset_z] = quaternion;
    let affine: Affine = if sform_code > 0 {
        let [r0, r1, r2] = sform;
        [r0, r1, r2, [0.0, 0.0, 0.0, 1.0]]
    } else if qform_code > 0 {
        let qfac = if qfac < 0.0 { -1.0 } else { 1.0 };
        from_quaternion([b, c, d], [offset_x, offset_y, offset_z], [x, y, z], qfac)
    } else {
        let [_, sizes_x, sizes_y, sizes_z, ..] = dim;
        let middle = |size: i64, spacing: f64| (size.max(1) as f64 - 1.0) / 2.0 * spacing;
        [
            [-x, 0.0, 0.0, middle(sizes_x, x)],
            [0.0, y, 0.0, -middle(sizes_y, y)],
            [0.0, 0.0, z, -middle(sizes_z, z)],
            [0.0, 0.0, 0.0, 1.0],
        ]
    };
    if affine.iter().flatten().any(|value| !value.is_finite()) {
        return Err(fail("the affine has a value that isn't finite"));
    }
    Ok(Geometry { affine, pixdim, qform_code, quaternion, sform_code, sform, units })
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Volume> {
    let open = || -> Result<Volume> {
        let io = |error| Error::io(OPERATION, "the file", error);
        let mut reader = BufReader::new(File::open(path).map_err(io)?);
        let mut magic = [0; 2];
        let compressed = reader.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
        let reader = BufReader::new(File::open(path).map_err(io)?);
        if compressed { read_from(&mut MultiGzDecoder::new(reader)) } else { read_from(&mut { reader }) }
    };
    open().map_err(|error| error.within(path.display().to_string()))
}

/// Reads an uncompressed stream. Memory grows as bytes arrive: a header that lies takes at most 1 MiB beyond what is there.
pub(crate) fn read_from(reader: &mut dyn Read) -> Result<Volume> {
    let (fields, header_length) = fields(reader)?;
    let [axes, sizes @ ..] = fields.dim;
    let used = usize::try_from(axes).ok().and_then(|axes| sizes.get(..axes)).filter(|used| !used.is_empty());
    let used = used.ok_or_else(|| fail(format!("{axes} axes")).expected("1 to 7"))?;
    let mut shape = Vec::with_capacity(7);
    for &size in used {
        let size = usize::try_from(size).ok().filter(|&size| size > 0);
        shape.push(size.ok_or_else(|| fail(format!("an axis of the size {:?}", fields.dim)).expected("at least 1"))?);
    }
    while shape.len() > 3 && shape.last() == Some(&1) {
        shape.pop();
    }
    while shape.len() < 3 {
        shape.push(1);
    }
    shape.reverse();
    let count = tomograd_core::element_count(OPERATION, &shape)?;
    let stored = Stored::from_code(fields.datatype)?;
    let skipped = fields.offset.saturating_sub(header_length);
    let passed = std::io::copy(&mut (&mut *reader).take(skipped), &mut std::io::sink())
        .map_err(|error| Error::io(OPERATION, "the file", error))?;
    if passed < skipped {
        return Err(fail(format!("the file ends before the voxels at byte {}", fields.offset)));
    }
    let wanted = count.saturating_mul(stored.size());
    let mut bytes = Vec::new();
    while bytes.len() < wanted {
        let step = STEP.min(wanted.saturating_sub(bytes.len())) as u64;
        let got = (&mut *reader)
            .take(step)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(OPERATION, "the voxels", error))?;
        if got == 0 {
            return Err(fail(format!("the file ends after {} of {wanted} bytes of voxels", bytes.len())));
        }
    }
    let (slope, intercept) = (fields.slope, fields.intercept);
    let scaled = slope != 0.0 && slope.is_finite() && intercept.is_finite() && (slope, intercept) != (1.0, 0.0);
    let voxels = stored.decode(&bytes, &shape, fields.big)?;
    let voxels = if scaled { scale(&voxels, slope, intercept)? } else { voxels };
    Volume::with_geometry(voxels, fields.geometry, (!scaled).then_some(fields.datatype))
}

/// slope · x + intercept: f64 for f64 and integers of more than 24 bits, which f32 would round, else f32.
fn scale(voxels: &Tensor, slope: f64, intercept: f64) -> Result<Tensor> {
    let values = voxels.to_vec_f64()?.into_iter().map(|x| slope * x + intercept);
    if matches!(voxels.dtype(), DType::F64 | DType::I64) {
        return Tensor::from_slice(&values.collect::<Vec<f64>>(), voxels.shape(), Device::Cpu);
    }
    Tensor::from_slice(&values.map(|x| x as f32).collect::<Vec<f32>>(), voxels.shape(), Device::Cpu)
}

/// A datatype of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
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

impl Stored {
    fn from_code(code: i16) -> Result<Self> {
        Ok(match code {
            2 => Stored::U8,
            4 => Stored::I16,
            8 => Stored::I32,
            16 => Stored::F32,
            64 => Stored::F64,
            256 => Stored::I8,
            512 => Stored::U16,
            768 => Stored::U32,
            1024 => Stored::I64,
            1280 => Stored::U64,
            _ => {
                return Err(fail(format!("voxels of datatype {code}"))
                    .expected("an integer or floating-point type (2, 4, 8, 16, 64, 256, 512, 768, 1024 or 1280)"));
            }
        })
    }

    fn code(self) -> i16 {
        match self {
            Stored::U8 => 2,
            Stored::I16 => 4,
            Stored::I32 => 8,
            Stored::F32 => 16,
            Stored::F64 => 64,
            Stored::I8 => 256,
            Stored::U16 => 512,
            Stored::U32 => 768,
            Stored::I64 => 1024,
            Stored::U64 => 1280,
        }
    }

    fn size(self) -> usize {
        match self {
            Stored::U8 | Stored::I8 => 1,
            Stored::I16 | Stored::U16 => 2,
            Stored::I32 | Stored::F32 | Stored::U32 => 4,
            Stored::F64 | Stored::I64 | Stored::U64 => 8,
        }
    }

    /// The voxels in the smallest dtype of ours that holds every value of the stored one.
    fn decode(self, bytes: &[u8], shape: &[usize], big: bool) -> Result<Tensor> {
        fn all<const N: usize, T: Element>(
            bytes: &[u8],
            shape: &[usize],
            big: bool,
            value: fn([u8; N]) -> T,
        ) -> Result<Tensor> {
            let mut parts = bytes.chunks_exact(N);
            TensorBuilder::<T>::new(OPERATION, shape, Device::Cpu)?.fill_with(|_| {
                let mut part = [0; N];
                if let Some(bytes) = parts.next() {
                    part.copy_from_slice(bytes);
                }
                if big {
                    part.reverse();
                }
                value(part)
            })
        }
        match self {
            Stored::U8 => all::<1, u8>(bytes, shape, big, |[x]| x),
            Stored::I8 => all::<1, i32>(bytes, shape, big, |x| i32::from(i8::from_le_bytes(x))),
            Stored::I16 => all::<2, i32>(bytes, shape, big, |x| i32::from(i16::from_le_bytes(x))),
            Stored::U16 => all::<2, i32>(bytes, shape, big, |x| i32::from(u16::from_le_bytes(x))),
            Stored::I32 => all::<4, i32>(bytes, shape, big, i32::from_le_bytes),
            Stored::U32 => all::<4, i64>(bytes, shape, big, |x| i64::from(u32::from_le_bytes(x))),
            Stored::I64 => all::<8, i64>(bytes, shape, big, i64::from_le_bytes),
            Stored::F32 => all::<4, f32>(bytes, shape, big, f32::from_le_bytes),
            Stored::F64 => all::<8, f64>(bytes, shape, big, f64::from_le_bytes),
            Stored::U64 => {
                let value = |part: &[u8]| {
                    let part = <[u8; 8]>::try_from(part).unwrap_or_default();
                    if big { u64::from_be_bytes(part) } else { u64::from_le_bytes(part) }
                };
                if bytes.chunks_exact(8).map(value).any(|x| x > i64::MAX as u64) {
                    return Err(fail("a voxel beyond 2⁶³ − 1").expected("values that a 64-bit signed integer holds"));
                }
                all::<8, i64>(bytes, shape, big, i64::from_le_bytes)
            }
        }
    }

    /// What voxels are stored as: what they were read as if they still fit, else what holds the dtype.
    fn choose(volume: &Volume) -> Self {
        let by_dtype = match volume.voxels().dtype() {
            DType::U8 | DType::Bool => Stored::U8,
            DType::I32 => Stored::I32,
            DType::I64 => Stored::I64,
            DType::F64 => Stored::F64,
            DType::F32 | DType::F16 | DType::BF16 => Stored::F32,
        };
        volume.stored().and_then(|code| Stored::from_code(code).ok()).unwrap_or(by_dtype)
    }

    fn encode(self, voxels: &Tensor, writer: &mut dyn Write) -> Result<()> {
        fn all<T: Element, const N: usize>(
            voxels: &Tensor,
            dtype: DType,
            writer: &mut dyn Write,
            bytes: impl Fn(T) -> [u8; N],
        ) -> Result<()> {
            let voxels = voxels.converted(dtype)?.contiguous()?;
            let mut buffer = Vec::with_capacity(1 << 14);
            for part in voxels.as_slice::<T>()?.chunks((1usize << 14) / N) {
                buffer.clear();
                part.iter().for_each(|&voxel| buffer.extend_from_slice(&bytes(voxel)));
                write_all(writer, &buffer)?;
            }
            Ok(())
        }
        match self {
            Stored::U8 => all::<u8, 1>(voxels, DType::U8, writer, |x| [x]),
            Stored::I8 => all::<i32, 1>(voxels, DType::I32, writer, |x| (x as i8).to_le_bytes()),
            Stored::I16 => all::<i32, 2>(voxels, DType::I32, writer, |x| (x as i16).to_le_bytes()),
            Stored::U16 => all::<i32, 2>(voxels, DType::I32, writer, |x| (x as u16).to_le_bytes()),
            Stored::I32 => all::<i32, 4>(voxels, DType::I32, writer, i32::to_le_bytes),
            Stored::U32 => all::<i64, 4>(voxels, DType::I64, writer, |x| (x as u32).to_le_bytes()),
            Stored::I64 => all::<i64, 8>(voxels, DType::I64, writer, i64::to_le_bytes),
            Stored::U64 => all::<i64, 8>(voxels, DType::I64, writer, |x| (x as u64).to_le_bytes()),
            Stored::F32 => all::<f32, 4>(voxels, DType::F32, writer, f32::to_le_bytes),
            Stored::F64 => all::<f64, 8>(voxels, DType::F64, writer, f64::to_le_bytes),
        }
    }
}

/// The name of the type that the voxels are stored as.
pub(crate) fn stored_dtype(volume: &Volume) -> &'static str {
    match Stored::choose(volume) {
        Stored::U8 => "uint8",
        Stored::I8 => "int8",
        Stored::I16 => "int16",
        Stored::U16 => "uint16",
        Stored::I32 => "int32",
        Stored::U32 => "uint32",
        Stored::I64 => "int64",
        Stored::U64 => "uint64",
        Stored::F32 => "float32",
        Stored::F64 => "float64",
    }
}

/// Writes a NIfTI-1 file.
pub(crate) fn write(path: &Path, volume: &Volume) -> Result<()> {
    let header = header(volume)?;
    let body = |writer: &mut dyn Write| {
        write_all(writer, &header)?;
        Stored::choose(volume).encode(volume.voxels(), writer)
    };
    write_atomically(path, |writer| {
        if path.extension().is_some_and(|ending| ending == "gz") {
            let mut encoder = GzEncoder::new(writer, Compression::default());
            body(&mut encoder)?;
            return encoder.finish().map(|_| ()).map_err(|error| Error::io(OPERATION, "the file", error));
        }
        body(writer)
    })
    .map_err(|error| error.within(path.display().to_string()))
}

fn header(volume: &Volume) -> Result<Vec<u8>> {
    let geometry = volume.geometry();
    let stored = Stored::choose(volume);
    let sizes: Vec<usize> = volume.voxels().shape().iter().rev().copied().collect();
    let mut dim = [1i16; 8];
    dim[0] = sizes.len() as i16;
    for (to, &size) in dim.iter_mut().skip(1).zip(&sizes) {
        *to = i16::try_from(size).map_err(|_| {
            Error::shape(OPERATION, format!("an axis of {size} voxels")).expected("at most 32767 for NIfTI-1")
        })?;
    }
    let mut bytes = vec![0u8; 352];
    let mut put = |at: usize, part: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at.saturating_add(part.len())) {
            place.copy_from_slice(part);
        }
    };
    let floats = |values: &[f64]| values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect::<Vec<u8>>();
    put(0, &348i32.to_le_bytes());
    put(38, b"r");
    put(40, &dim.map(i16::to_le_bytes).concat());
    put(70, &stored.code().to_le_bytes());
    put(72, &((stored.size() as i16).saturating_mul(8)).to_le_bytes());
    put(76, &floats(&geometry.pixdim));
    put(108, &floats(&[352.0, 1.0, 0.0]));
    put(123, &[geometry.units]);
    put(252, &(geometry.qform_code as i16).to_le_bytes());
    put(254, &(geometry.sform_code as i16).to_le_bytes());
    put(256, &floats(&geometry.quaternion));
    put(280, &floats(&geometry.sform.concat()));
    put(344, b"n+1\0");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> Volume {
        let voxels = Tensor::arange(24, DType::I32, Device::Cpu).unwrap().reshape(&[2, 3, 4]).unwrap();
        Volume::new(
            voxels,
            [[-1.5, 0.0, 0.0, 10.0], [0.0, 0.0, 2.0, -20.0], [0.0, 0.5, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]],
        )
        .unwrap()
    }

    fn bytes(volume: &Volume) -> Vec<u8> {
        let mut bytes = header(volume).unwrap();
        Stored::choose(volume).encode(volume.voxels(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reads_what_it_writes() {
        let volume = volume();
        let back = read_from(&mut &bytes(&volume)[..]).unwrap();
        assert_eq!(back.geometry(), volume.geometry());
        assert_eq!(back.voxels().to_vec::<i32>().unwrap(), volume.voxels().to_vec::<i32>().unwrap());
        assert_eq!((back.orientation(), back.spacing()), ("LSA".to_owned(), [1.5, 0.5, 2.0]));
        for name in ["a.nii", "a.nii.gz"] {
            let path = std::env::temp_dir().join(format!("tomograd-{}-{name}", std::process::id()));
            volume.write(&path).unwrap();
            assert_eq!(
                Volume::read(&path).unwrap().voxels().to_vec::<i32>().unwrap(),
                volume.voxels().to_vec::<i32>().unwrap()
            );
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn every_datatype_keeps_its_values_in_both_byte_orders() {
        for code in [2i16, 4, 8, 16, 64, 256, 512, 768, 1024, 1280] {
            let stored = Stored::from_code(code).unwrap();
            let voxels = Tensor::arange(24, DType::I32, Device::Cpu).unwrap();
            let mut little = Vec::new();
            let holder = stored.decode(&vec![0; 24 * stored.size()], &[24], false).unwrap().dtype();
            stored.encode(&voxels.converted(holder).unwrap(), &mut little).unwrap();
            let big: Vec<u8> = little.chunks(stored.size()).flat_map(|part| part.iter().rev().copied()).collect();
            for (bytes, order) in [(&little, false), (&big, true)] {
                let back = stored.decode(bytes, &[24], order).unwrap();
                assert_eq!(back.to_vec_f64().unwrap(), voxels.to_vec_f64().unwrap(), "{code}");
            }
        }
    }

    #[test]
    fn truncated_and_mutated_files_never_panic() {
        let good = bytes(&volume());
        for end in 0..good.len() {
            assert!(read_from(&mut &good[..end]).is_err(), "{end}");
        }
        let count = std::env::var("TOMOGRAD_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000u64);
        let mut random = tomograd_core::Seed::new(99).random();
        let mut errors = 0;
        for _ in 0..count {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = match random.below(3) {
                    0 => 0xFF,
                    1 => bytes[at] ^ (1 << random.below(8)),
                    _ => random.next_u32() as u8,
                };
            }
            errors += u64::from(read_from(&mut &bytes[..]).is_err());
        }
        println!("{count} mutated files, {errors} refused, none panicked");
        assert!(errors > 0);
    }

    #[test]
    fn a_header_that_lies_takes_no_memory() {
        let mut bytes = bytes(&volume());
        for axis in 0..3 {
            bytes[42 + 2 * axis..44 + 2 * axis].copy_from_slice(&32767i16.to_le_bytes());
        }
        // 32767³ voxels would be 141 TB.
        let error = read_from(&mut &bytes[..]).unwrap_err();
        assert!(error.to_string().contains("ends after 96 of"), "{error}");
    }
}
