//! Parts of volumes that are read from disk when they are asked for.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use tomograd_core::{DType, Device, Error, Result, Tensor, element_count};

use super::{Format, Volume, format};
use crate::{
    geometry::Affine,
    metaimage, nifti, nrrd,
    stream::{self, Input, io_error},
    voxels::{self, Coding},
};

const OPERATION: &str = "slabs";

/// Where the voxels of a file are, in the order z, y, x with x the fastest, and what else its header says.
pub(crate) struct Placed {
    /// The file that holds the voxels, and the byte of the first.
    pub(crate) path: PathBuf,
    pub(crate) start: u64,
    /// The sizes of x, y and z.
    pub(crate) sizes: [usize; 3],
    pub(crate) coding: Coding,
    pub(crate) big: bool,
    /// A volume of one voxel with the geometry and the header of the file.
    pub(crate) template: Volume,
}

/// An uncompressed volume whose parts are read when they are asked for: `.nii`, and NRRD and MetaImage with raw data, in one
/// file or with a detached header. So a volume may be larger than memory. Values are those of [`Volume::read`].
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_io::{Slabs, Volume, geometry};
/// # let path = std::env::temp_dir().join(format!("tomograd-slabs-doc-{}.nii", std::process::id()));
/// let voxels = Tensor::arange(60, DType::F32, Device::Cpu)?.reshape(&[3, 4, 5])?;
/// Volume::new(voxels, geometry::from_spacing([1.0; 3])?)?.write(&path)?;
/// let mut slabs = Slabs::open(&path)?;
/// assert_eq!(slabs.shape(), [3, 4, 5]);
/// assert_eq!(slabs.planes(1, 2)?.shape(), [1, 4, 5]); // (z, y, x)
/// assert_eq!(slabs.region([2, 1, 0], [1, 1, 2])?.to_vec::<f32>()?, [45.0, 46.0]);
/// # std::fs::remove_file(&path).ok();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Slabs {
    file: BufReader<File>,
    start: u64,
    /// The sizes of z, y and x.
    shape: [usize; 3],
    coding: Coding,
    big: bool,
    template: Volume,
}

impl Slabs {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// When the file can't be read, is compressed or of another format, has several volumes or numbers a voxel, or is shorter
    /// than its header says.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::opened(path).map_err(|error| error.within(path.display().to_string()))
    }

    fn opened(path: &Path) -> Result<Self> {
        let fail = |what: &str| {
            Error::format(OPERATION, what).expected("an uncompressed .nii, or NRRD or MetaImage with raw data")
        };
        if path.is_dir() {
            return Err(fail("a folder"));
        }
        let (mut reader, length) = stream::open(path)?;
        let length = length.ok_or_else(|| fail("a pipe"))?;
        let placed = match format::peek(&mut reader)? {
            Some(Format::Nifti) => nifti::placed(reader, path, length)?,
            Some(Format::Nrrd) => nrrd::placed(Input::new(Box::new(reader), Some(length)), path, length)?,
            Some(Format::MetaImage) => metaimage::placed(Input::new(Box::new(reader), Some(length)), path, length)?,
            Some(other) => return Err(fail(&format!("a {} file", other.name()))),
            None => return Err(fail("a file of no format that is known")),
        };
        let file = File::open(&placed.path).map_err(io_error("the voxels"))?;
        let held = file.metadata().map_err(io_error("the voxels"))?.len();
        let [x, y, z] = placed.sizes;
        if placed.coding.channels != 1 || placed.sizes.contains(&0) {
            return Err(fail(&format!("sizes {:?} of {} numbers a voxel", placed.sizes, placed.coding.channels)));
        }
        let bytes =
            (element_count(OPERATION, &placed.sizes)? as u64).saturating_mul(placed.coding.stored.size() as u64);
        if placed.start.saturating_add(bytes) > held {
            return Err(Error::format(
                OPERATION,
                format!("{bytes} bytes of voxels from byte {}, but the file has {held} bytes", placed.start),
            ));
        }
        Ok(Self {
            file: BufReader::with_capacity(1 << 18, file),
            start: placed.start,
            shape: [z, y, x],
            coding: placed.coding,
            big: placed.big,
            template: placed.template,
        })
    }

    /// The number of voxels along z, y and x.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// As [`Volume::affine`].
    pub fn affine(&self) -> &Affine {
        self.template.affine()
    }

    /// As [`Volume::orientation`].
    pub fn orientation(&self) -> String {
        self.template.orientation()
    }

    /// As [`Volume::notes`].
    pub fn notes(&self) -> &[String] {
        self.template.notes()
    }

    /// The planes `from..to` along z, (to − from, H, W).
    ///
    /// # Errors
    /// When there are no such planes, or the file can't be read.
    pub fn planes(&mut self, from: usize, to: usize) -> Result<Tensor> {
        let [_, height, width] = self.shape;
        self.region([from, 0, 0], [to.saturating_sub(from), height, width])
    }

    /// The voxels of the box that begins at `start` and has this `size`, both along z, y and x.
    ///
    /// # Errors
    /// When the box is empty or not within the volume, or the file can't be read.
    pub fn region(&mut self, start: [usize; 3], size: [usize; 3]) -> Result<Tensor> {
        let fits = |axis: usize| {
            let (start, size, all) = (start.get(axis)?, size.get(axis)?, self.shape.get(axis)?);
            start.checked_add(*size).filter(|end| *size > 0 && end <= all)
        };
        if (0..3).any(|axis| fits(axis).is_none()) {
            return Err(Error::argument(OPERATION, format!("{size:?} voxels from {start:?}"))
                .expected(format!("a box within {:?} voxels along z, y and x", self.shape)));
        }
        let [_, height, width] = self.shape.map(|size| size as u64);
        let ([z, y, x], [planes, rows, columns]) = (start.map(|at| at as u64), size.map(|size| size as u64));
        // What lies together in the file is read in one piece. All products are of parts of the file, so that they fit.
        let voxels =
            |z: u64, y: u64, x: u64| z.saturating_mul(height).saturating_add(y).saturating_mul(width).saturating_add(x);
        let (outer, inner, length) = match (rows == height, columns == width) {
            (true, true) => (1, 1, planes.saturating_mul(rows).saturating_mul(columns)),
            (false, true) => (planes, 1, rows.saturating_mul(columns)),
            _ => (planes, rows, columns),
        };
        let bytes = self.coding.stored.size() as u64;
        let first = self.start;
        let pieces = (0..outer).flat_map(move |plane| {
            let place = move |row: u64| voxels(z.saturating_add(plane), y.saturating_add(row), x);
            (0..inner).map(move |row| first.saturating_add(place(row).saturating_mul(bytes)))
        });
        let mut pieces = Pieces { file: &mut self.file, starts: pieces, length: length.saturating_mul(bytes), left: 0 };
        voxels::decode(&mut pieces, self.coding, &size, self.big)
    }

    /// A volume with the geometry of this one, such as its mask; as [`Volume::with_voxels`].
    ///
    /// # Errors
    /// When the size differs.
    pub fn with_voxels(&self, voxels: Tensor) -> Result<Volume> {
        if voxels.shape() != self.shape {
            return Err(
                Error::shape(OPERATION, "the voxels don't fit the geometry").shapes([voxels.shape(), &self.shape])
            );
        }
        let source = self.template.source.as_ref().map(|source| std::sync::Arc::new(source.emptied()));
        Ok(Volume { source, ..Volume::with_geometry(voxels, self.template.geometry.clone())? })
    }
}

/// The bytes of pieces of a file, one after the other.
struct Pieces<'a, I> {
    file: &'a mut BufReader<File>,
    starts: I,
    /// The bytes of a piece.
    length: u64,
    /// The bytes left of the present one.
    left: u64,
}

impl<I: Iterator<Item = u64>> Read for Pieces<'_, I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some(start) = self.starts.next() else { return Ok(0) };
            // A place within the buffer doesn't empty it.
            let here = self.file.stream_position()?;
            match i64::try_from(i128::from(start).saturating_sub(i128::from(here))) {
                Ok(offset) => self.file.seek_relative(offset)?,
                Err(_) => _ = self.file.seek(SeekFrom::Start(start))?,
            }
            self.left = self.length;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left = self.left.saturating_sub(got as u64);
        Ok(got)
    }
}

/// One voxel, for a template.
pub(crate) fn one_voxel() -> Result<Tensor> {
    Tensor::zeros(&[1, 1, 1], DType::U8, Device::Cpu)
}
