//! Cases of `tomograd-io`.

use std::collections::BTreeMap;

use tomograd::{
    core::{DType, Device, Error, Result, Tensor},
    io::{
        Interpolation, Slabs, Slide, Volume, dicom,
        digest::{Sha256, hexadecimal, keyed},
        encode_jpeg, encode_png,
        geometry::{self, Affine},
        pytorch, read_png, safetensors, write_gray, write_rgb,
    },
};

use crate::walk::{cases, made};

fn volume() -> Result<Volume> {
    let voxels = Tensor::arange(24, DType::F32, Device::Cpu)?.reshape(&[2, 3, 4])?;
    Volume::new(voxels, made::<Affine>(geometry::from_spacing([1.0, 2.0, 3.0]))?)
}

fn finite(affine: &Affine) -> bool {
    affine.iter().flatten().all(|x| x.is_finite())
}

/// The bytes of a small NIfTI file.
fn bytes() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    volume()?.write_to(&mut bytes, false)?;
    Ok(bytes)
}

/// Whether a volume survives writing and reading.
fn round_trip(volume: &Volume) -> Result<bool> {
    let mut bytes = Vec::new();
    let written = volume.write_to(&mut bytes, false).and_then(|()| Volume::from_bytes(&bytes));
    Ok(written.is_ok_and(|read| read.voxels().shape() == volume.voxels().shape()))
}

fn picture(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("tomograd-arguments-{name}-{}.png", std::process::id()))
}

/// A DICOM file of 2 × 2 pixels, explicit little endian without meta information.
fn dicom_file() -> Vec<u8> {
    let mut bytes = b"\x08\0\x16\0UI\x02\0\x31\0\x08\0\x18\0UI\x02\0\x32\0\x08\0\x60\0CS\x02\0CT".to_vec();
    for (element, value) in [(0x02u16, 1u16), (0x10, 2), (0x11, 2), (0x100, 16), (0x101, 12), (0x102, 11), (0x103, 0)] {
        bytes.extend([0x28, 0]);
        bytes.extend(element.to_le_bytes());
        bytes.extend(b"US\x02\0");
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(b"\xE0\x7F\x10\0OW\0\0\x08\0\0\0\x01\0\x02\0\x03\0\x04\0");
    bytes
}

/// A folder `patient`, in one of its own, with a series of one file.
pub(crate) fn series() -> Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("tomograd-arguments-dicom-{}/patient", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| Error::io("create", folder.display(), error))?;
    let position = b"\x20\0\x32\0DS\x06\x000\\0\\0 \x20\0\x37\0DS\x0C\x001\\0\\0\\0\\1\\0 \x28\0\x30\0DS\x04\x001\\1 ";
    let bytes = dicom_file();
    let at = bytes.windows(4).position(|part| part == b"\x28\0\x02\0").unwrap_or(0);
    let bytes = [&bytes[..at], position, &bytes[at..]].concat();
    let path = folder.join("slice");
    std::fs::write(&path, bytes).map_err(|error| Error::io("write", path.display(), error))?;
    Ok(folder)
}

fn stack() -> Result<dicom::Stack> {
    Ok(dicom::Listing::open(series()?.join("slice"))?.only()?.stack()?.clone())
}

/// [`volume`] as a file that is read in parts.
fn slabs() -> Result<Slabs> {
    let path = picture("slabs").with_extension("nii");
    std::fs::write(&path, bytes()?).map_err(|error| Error::io("write", path.display(), error))?;
    Slabs::open(path)
}

/// A segmentation of [`stack`] with one segment.
fn segmentation() -> Result<(dicom::Stack, Vec<u8>)> {
    let (stack, path) = (stack()?, picture("segmentation"));
    let mask = Tensor::ones(&[1, 2, 2], DType::U8, Device::Cpu)?;
    stack.write_segmentation(&path, &mask, &[dicom::Segment::new("a", "b")])?;
    Ok((stack, std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))?))
}

/// A structure set of [`stack`] with one structure.
fn structures() -> Result<Vec<u8>> {
    let path = picture("structures");
    let mask = Tensor::ones(&[1, 2, 2], DType::U8, Device::Cpu)?;
    stack()?.write_structures(&path, &[("a", &mask)], dicom::Holes::Keyhole)?;
    std::fs::read(&path).map_err(|error| Error::io("read", path.display(), error))
}

cases! {
    "io::Slabs::planes": (from: usize = 0, to: usize = 2) => {
        let planes = slabs()?.planes(from, to)?;
        Ok::<_, Error>(planes.shape() == [to - from, 3, 4] && to <= 2)
    };
    "io::Slabs::region": (start: [usize; 3] = [0, 1, 2], size: [usize; 3] = [2, 1, 2]) => {
        Ok::<_, Error>(slabs()?.region(start, size)?.shape() == size)
    };
    "io::digest::Sha256::update": (bytes: [u8; 4] = [1, 2, 3, 4]) => {
        let mut sha = Sha256::new();
        sha.update(&bytes);
        Ok::<_, Error>(hexadecimal(&sha.finish()).len() == 64)
    };
    "io::digest::keyed": (key: [u8; 4] = [1, 2, 3, 4], part: u8 = 7) => {
        Ok::<_, Error>(keyed(&key, &[&[part]]) != keyed(&key, &[&[part], &[part]]))
    };
    "io::digest::hexadecimal": (byte: u8 = 7) => {
        Ok::<_, Error>(hexadecimal(&[byte; 32]).len() == 64)
    };
    "io::dicom::Anonymizer::new": (length: u8 = 16, byte: u8 = 7) => {
        dicom::Anonymizer::new(&vec![byte; length.into()])?;
        Ok::<_, Error>(length >= 16)
    };
    "io::dicom::Anonymizer::anonymize": (place: usize = 0, value: u8 = 0x08) => {
        let mut bytes = dicom_file();
        let size = bytes.len();
        bytes[place % size] = value;
        let done = dicom::Anonymizer::new(&[7; 16])?.anonymize(bytes)?;
        Ok::<_, Error>(done.bytes.len() < 10 * size + 2000)
    };
    "io::dicom::Segmentation::from_bytes": (place: usize = 0, value: u8 = 0x08) => {
        let mut bytes = segmentation()?.1;
        let size = bytes.len();
        bytes[place % size] = value;
        let read = dicom::Segmentation::from_bytes(&bytes)?;
        Ok::<_, Error>(read.segments().len() <= 2)
    };
    "io::dicom::Segmentation::mask": (number: u32 = 1) => {
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let (stack, bytes) = segmentation()?;
        let mask = dicom::Segmentation::from_bytes(&bytes)?.mask(number, &stack)?;
        Ok::<_, Error>(number == 1 && mask.voxels().to_vec::<u8>()? == [1; 4])
    };
    "io::dicom::StructureSet::from_bytes": (place: usize = 0, value: u8 = 0x08) => {
        let mut bytes = structures()?;
        let size = bytes.len();
        bytes[place % size] = value;
        let read = dicom::StructureSet::from_bytes(&bytes)?;
        Ok::<_, Error>(read.structures().len() <= 2)
    };
    "io::dicom::read_bytes": (place: usize = 0, value: u8 = 0x08) => {
        // One byte replaced: tags, representations, lengths, sizes.
        let mut bytes = dicom_file();
        let size = bytes.len();
        bytes[place % size] = value;
        let read = dicom::read_bytes(&bytes)?;
        Ok::<_, Error>(read.voxels().count() <= size)
    };
    "io::Volume::from_bytes": (place: usize = 0, value: u8 = 0x5C) => {
        // One byte replaced: sizes, codes, offsets, scalings. Whatever is accepted must be consistent.
        let mut bytes = bytes()?;
        let size = bytes.len();
        bytes[place % size] = value;
        let read = Volume::from_bytes(&bytes)?;
        Ok::<_, Error>(read.voxels().count() * read.voxels().dtype().size() <= 4 * size)
    };
    "io::Volume::from_bytes": (words: [u8; 8] = [3, 4, 3, 2, 1, 1, 1, 1]) => {
        // The sizes of the axes, dim[0] to dim[7].
        let mut bytes = bytes()?;
        for (axis, word) in words.into_iter().enumerate() {
            bytes[40 + 2 * axis] = word;
            bytes[41 + 2 * axis] = if word == u8::MAX { u8::MAX } else { 0 };
        }
        let read = Volume::from_bytes(&bytes)?;
        Ok::<_, Error>(read.voxels().count() <= bytes.len())
    };
    "io::Volume::from_bytes": (number: f32 = 1.0) => {
        // Floating-point fields: vox_offset, scl_slope, scl_inter, pixdim, a row of the sform.
        for place in [108, 112, 116, 76, 80, 280, 292] {
            let mut bytes = bytes()?;
            bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
            if let Ok(read) = Volume::from_bytes(&bytes)
                && !(finite(read.affine()) && read.spacing().iter().all(|x| *x > 0.0) && round_trip(&read)?)
            {
                return Ok::<_, Error>(false);
            }
        }
        Ok(true)
    };
    "io::Volume::from_pair": (place: usize = 0, value: u8 = 0x5C, length: usize = 96) => {
        // A single file split into a pair: its header with the magic of a pair and offset 0, and its 24 voxels.
        let mut header = bytes()?;
        let mut image = header.split_off(352);
        header.truncate(348);
        header[344..348].copy_from_slice(b"ni1\0");
        header[108..112].copy_from_slice(&[0; 4]);
        header[place % 348] = value;
        image.truncate(length);
        let read = Volume::from_pair(&header, &image)?;
        Ok::<_, Error>(read.voxels().count() * read.voxels().dtype().size() <= 96 && length >= 96)
    };
    "io::Volume::resample": (spacing: [f64; 3] = [2.0, 2.0, 2.0]) => {
        let mut right = true;
        for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
            let resampled = volume()?.resample(spacing, interpolation)?;
            right &= finite(resampled.affine()) && resampled.voxels().to_vec_f64()?.iter().all(|x| x.is_finite());
            right &= round_trip(&resampled)?;
        }
        Ok::<_, Error>(right)
    };
    "io::geometry::apply": (spacing: f64 = 2.0, place: [f64; 3] = [1.0, 2.0, 3.0]) => {
        let affine = [[spacing, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
        let world = geometry::apply(&affine, place);
        // Plain arithmetic, which propagates non-finite values.
        let sound = spacing.abs() < 1e300 && place.iter().all(|x| x.abs() < 1e300) && spacing.is_finite();
        !sound || (world[0] - (spacing * place[0] + 1.0)).abs() <= 1e-9 * world[0].abs() && world[1] == 2.0 * place[1]
    };
    "io::geometry::centred": (sizes: Vec<usize> = vec![4, 3, 2], spacing: [f64; 3] = [1.0, 2.0, 3.0]) => {
        let affine = made::<Affine>(geometry::centred(&sizes, spacing))?;
        Ok::<_, Error>(finite(&affine) && geometry::inverse(&affine).is_ok())
    };
    "io::geometry::from_quaternion": (
        quaternion: [f64; 3] = [0.1, 0.2, 0.3],
        offset: [f64; 3] = [1.0, 2.0, 3.0],
        spacing: [f64; 3] = [1.0, 2.0, 3.0],
        qfac: f64 = 1.0,
    ) => {
        let affine = made::<Affine>(geometry::from_quaternion(quaternion, offset, spacing, qfac))?;
        Ok::<_, Error>(finite(&affine) && geometry::inverse(&affine).is_ok())
    };
    "io::geometry::from_spacing": (spacing: [f64; 3] = [1.0, 2.0, 3.0]) => {
        let affine = made::<Affine>(geometry::from_spacing(spacing))?;
        Ok::<_, Error>(finite(&affine) && geometry::inverse(&affine).is_ok())
    };
    "io::pytorch::from_bytes": (
        bytes: Vec<u8> = include_bytes!("../../../io/tests/pytorch/legacy_4.pth").to_vec(),
    ) => {
        let tensors = pytorch::from_bytes(bytes)?.tensors()?;
        // Another byte may change values or names, but not the number of tensors or their sizes.
        tensors.iter().try_for_each(|tensor| tensor.read().map(|_| ()))?;
        Ok::<_, Error>(tensors.len() <= 4 && tensors.iter().all(|tensor| tensor.count() <= 6))
    };
    "io::safetensors::read": (length: u64 = 0) => {
        let mut bytes = Vec::new();
        let tensors = [("x".to_owned(), Tensor::arange(4, DType::F32, Device::Cpu)?)];
        safetensors::write(&mut bytes, &tensors, &BTreeMap::new())?;
        let length = if length == 0 { bytes.len() as u64 } else { length };
        Ok::<_, Error>(safetensors::read(&mut &bytes[..], length)?.tensors.len() == 1)
    };
    "io::safetensors::read": (header: u64 = 1) => {
        // The length of the header in the file.
        let mut bytes = Vec::new();
        safetensors::write(
            &mut bytes,
            &[("x".to_owned(), Tensor::arange(4, DType::F32, Device::Cpu)?)],
            &BTreeMap::new(),
        )?;
        if header != 1 {
            bytes[..8].copy_from_slice(&header.to_le_bytes());
        }
        let length = bytes.len() as u64;
        Ok::<_, Error>(safetensors::read(&mut &bytes[..], length)?.tensors.len() == 1 && header == 1)
    };
    "io::encode_png": (
        width: u32 = 2,
        height: u32 = 3,
        channels: usize = 1,
        pixels: Vec<u8> = vec![1, 2, 3, 4, 5, 6],
    ) => {
        let png = encode_png(width, height, channels, &pixels)?;
        Ok::<_, Error>(png.starts_with(b"\x89PNG") && pixels.len() == (width * height) as usize * channels)
    };
    "io::encode_jpeg": (
        width: u32 = 2, height: u32 = 1, channels: usize = 3, pixels: Vec<u8> = vec![1, 2, 3, 4, 5, 6]
    ) => {
        let bytes = encode_jpeg(width, height, channels, &pixels)?;
        let read = Volume::from_bytes(&bytes)?;
        Ok::<_, Error>(read.voxels().count() == pixels.len() && (1..1 << 16).contains(&width))
    };
    "io::Slide::read": (level: usize = 1, region: [usize; 4] = [1, 2, 3, 4]) => {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../golden/slides/ome_raw.tif");
        let part = Slide::open(path)?.read(level, Some(region))?;
        let [x, y, width, height] = region;
        Ok::<_, Error>(part.voxels().shape() == [3, 1, height, width] && x + width <= 150 && y + height <= 115)
    };
    "io::write_gray": (width: u32 = 2, height: u32 = 3, pixels: Vec<u8> = vec![1, 2, 3, 4, 5, 6]) => {
        let path = picture("gray");
        write_gray(&path, width, height, &pixels)?;
        let read = read_png(&path);
        let _ = std::fs::remove_file(&path);
        Ok::<_, Error>(read?.to_vec::<u8>()? == pixels)
    };
    "io::write_rgb": (width: u32 = 1, height: u32 = 2, pixels: Vec<u8> = vec![1, 2, 3, 4, 5, 6]) => {
        let path = picture("rgb");
        write_rgb(&path, width, height, &pixels)?;
        let read = read_png(&path);
        let _ = std::fs::remove_file(&path);
        Ok::<_, Error>(read?.count() == pixels.len())
    };
}
