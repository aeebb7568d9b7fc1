//! The file format of a cached case: small fields as JSON, then the voxels of images (f32) and labels (u8) in memory layout,
//! then the CRC-32 of everything before it.
//!
//! Files are meant for the machine that wrote them: numbers are in its byte order.

use std::io::{Read, Write};

use bytemuck::{cast_slice, cast_slice_mut};
use flate2::Crc;
use serde::{Deserialize, Serialize};
use tomograd_core::{DType, Device, Error, Result, Tensor, element_count};
use tomograd_io::geometry::Affine;

use super::failed;
use crate::{Boxes, Field, Points, Sample};

const MAGIC: [u8; 8] = *b"TOMOCASE";
/// The maximum size of the JSON header.
const MOST_HEADER: u64 = 1 << 30;
/// The number of bytes that are checksummed at a time, while they are in the CPU cache.
const PART: usize = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    spacing: Vec<f64>,
    affine: Option<Affine>,
    fields: Vec<(String, Kept)>,
}

/// A field without its voxels.
#[derive(Serialize, Deserialize)]
enum Kept {
    Image(Vec<usize>),
    Label(Vec<usize>),
    Class(i64),
    Labels(Vec<bool>),
    Numbers(Vec<f64>),
    Boxes(Boxes),
    Points(Points),
}

impl Kept {
    fn of(field: &Field) -> Self {
        match field {
            Field::Image(image) => Self::Image(image.shape().to_vec()),
            Field::Label(label) => Self::Label(label.shape().to_vec()),
            Field::Class(class) => Self::Class(*class),
            Field::Labels(labels) => Self::Labels(labels.clone()),
            Field::Numbers(numbers) => Self::Numbers(numbers.clone()),
            Field::Boxes(boxes) => Self::Boxes(boxes.clone()),
            Field::Points(points) => Self::Points(points.clone()),
        }
    }

    /// The size of its voxels in bytes.
    fn bytes(&self) -> Result<u64> {
        Ok(match self {
            Self::Image(shape) => 4 * element_count("cache", shape)? as u64,
            Self::Label(shape) => element_count("cache", shape)? as u64,
            _ => 0,
        })
    }
}

fn header(sample: &Sample) -> Result<Vec<u8>> {
    let fields = sample.fields().map(|(name, field)| (name.to_owned(), Kept::of(field))).collect();
    let (name, spacing) = (sample.name.clone(), sample.spacing().to_vec());
    let header = Header { name, spacing, affine: sample.affine().copied(), fields };
    serde_json::to_vec(&header).map_err(|error| Error::argument("cache", "a case without JSON").source(error))
}

/// The size of a sample's file in bytes.
pub(super) fn length(sample: &Sample) -> Result<u64> {
    let voxels = sample.fields().map(|(_, field)| Kept::of(field).bytes()).sum::<Result<u64>>()?;
    Ok(8 + 8 + header(sample)?.len() as u64 + voxels + 4)
}

/// Writes the file of a sample.
pub(super) fn write(sample: &Sample, writer: &mut dyn Write) -> Result<()> {
    let mut crc = Crc::new();
    let mut put = |bytes: &[u8]| {
        bytes.chunks(PART).try_for_each(|part| {
            crc.update(part);
            writer.write_all(part).map_err(failed("write a case"))
        })
    };
    let header = header(sample)?;
    put(&MAGIC)?;
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (_, field) in sample.fields() {
        match field {
            Field::Image(image) => put(cast_slice(image.contiguous()?.as_slice::<f32>()?))?,
            Field::Label(label) => put(label.contiguous()?.as_slice::<u8>()?)?,
            _ => {}
        }
    }
    writer.write_all(&crc.sum().to_le_bytes()).map_err(failed("write a case"))
}

/// Reads a file of `length` bytes.
///
/// # Errors
/// When it isn't a cache file, or is damaged.
pub(super) fn read(reader: &mut dyn Read, length: u64) -> Result<Sample> {
    let damaged = |what: &str| Error::format("cache", what.to_owned());
    let mut crc = Crc::new();
    let mut take = |bytes: &mut [u8]| {
        bytes.chunks_mut(PART).try_for_each(|part| {
            reader.read_exact(part).map_err(failed("read a case"))?;
            crc.update(part);
            Ok::<_, Error>(())
        })
    };
    let (mut magic, mut size) = ([0; 8], [0; 8]);
    take(&mut magic)?;
    take(&mut size)?;
    let size = u64::from_le_bytes(size);
    if magic != MAGIC || size > MOST_HEADER || size > length {
        return Err(damaged("no file of a case"));
    }
    let mut text = vec![0; size as usize];
    take(&mut text)?;
    let header: Header = serde_json::from_slice(&text).map_err(|error| damaged("no header of a case").source(error))?;
    let mut expected = 8 + 8 + size + 4;
    for (_, kept) in &header.fields {
        expected = expected.checked_add(kept.bytes()?).ok_or_else(|| damaged("sizes beyond any file"))?;
    }
    if expected != length {
        return Err(damaged("another length than the header says"));
    }
    let mut fields = Vec::with_capacity(header.fields.len());
    for (name, kept) in header.fields {
        let field = match kept {
            Kept::Image(shape) => {
                let mut image = Tensor::zeros(&shape, DType::F32, Device::Cpu)?;
                take(cast_slice_mut(image.as_mut_slice::<f32>()?))?;
                Field::Image(image)
            }
            Kept::Label(shape) => {
                let mut label = Tensor::zeros(&shape, DType::U8, Device::Cpu)?;
                take(label.as_mut_slice::<u8>()?)?;
                Field::Label(label)
            }
            Kept::Class(class) => Field::Class(class),
            Kept::Labels(labels) => Field::Labels(labels),
            Kept::Numbers(numbers) => Field::Numbers(numbers),
            Kept::Boxes(boxes) => Field::Boxes(boxes.checked()?),
            Kept::Points(points) => Field::Points(points.checked()?),
        };
        fields.push((name, field));
    }
    let mut sum = [0; 4];
    reader.read_exact(&mut sum).map_err(failed("read a case"))?;
    if u32::from_le_bytes(sum) != crc.sum() {
        return Err(damaged("another checksum"));
    }
    let mut sample = Sample::empty(header.name).with_fields(fields)?;
    if !header.spacing.is_empty() {
        sample = sample.with_spacing(&header.spacing)?;
    }
    match header.affine {
        Some(affine) => sample.with_affine(&affine),
        None => Ok(sample),
    }
}
