//! NIfTI headers: their bytes, read and written by field.

use std::io::Read;

use tomograd_core::{Error, Result};

use super::{OPERATION, datatype, fail, io_error, layout::Version};
use crate::{Geometry, geometry, voxels::Coding};

/// The mask of the spatial unit in xyzt_units, and its values.
const SPACE: u8 = 7;
const METRE: u8 = 1;
const MILLIMETRE: u8 = 2;
const MICROMETRE: u8 = 3;

/// The bytes of a header, in the file's byte order.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    bytes: Vec<u8>,
    big: bool,
    version: Version,
}

impl Header {
    /// An empty little-endian header.
    pub(crate) fn new(version: Version) -> Self {
        let places = version.places();
        let mut header = Self { bytes: vec![0; places.length], big: false, version };
        header.put(0, (places.length as i32).to_le_bytes());
        header.put_raw(places.magic, version.magics()[0]);
        if version == Version::Two {
            header.put_raw(places.magic.saturating_add(4), b"\r\n\x1A\n");
        }
        header
    }

    /// Reads a header; its first four bytes determine the version and the byte order.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self> {
        let mut first = [0; 4];
        reader.read_exact(&mut first).map_err(io_error("the header"))?;
        let (version, big) = match (i32::from_le_bytes(first), i32::from_be_bytes(first)) {
            (348, _) => (Version::One, false),
            (_, 348) => (Version::One, true),
            (540, _) => (Version::Two, false),
            (_, 540) => (Version::Two, true),
            (size, _) => {
                return Err(fail(format!("a header of {size} bytes")).expected("348 (NIfTI-1) or 540 (NIfTI-2)"));
            }
        };
        let mut bytes = first.to_vec();
        bytes.resize(version.places().length, 0);
        if let Some(rest) = bytes.get_mut(4..) {
            reader.read_exact(rest).map_err(io_error("the header"))?;
        }
        let header = Self { bytes, big, version };
        header.check_magic()?;
        Ok(header)
    }

    fn check_magic(&self) -> Result<()> {
        let magic = self.array_as_is::<4>(self.version.places().magic)?;
        if magic == [0; 4] && self.version == Version::One {
            return Err(fail("a header of 348 bytes without a magic: Analyze 7.5, which doesn't say left from right")
                .expected("NIfTI; nibabel and ITK convert it, as you know how it was written"));
        }
        let [single, pair] = self.version.magics();
        if magic != *single && magic != *pair {
            return Err(fail(format!("the magic {:?}", String::from_utf8_lossy(&magic))).expected(format!(
                "{:?}, or {:?} for a pair",
                String::from_utf8_lossy(single),
                String::from_utf8_lossy(pair)
            )));
        }
        // As in PNG, these bytes detect a transfer in text mode, which would have damaged the others too.
        if self.version == Version::Two {
            let ends = self.array_as_is::<4>(self.version.places().magic.saturating_add(4))?;
            if ends != *b"\r\n\x1A\n" && ends != [0; 4] {
                return Err(fail("the bytes after the magic are damaged, as if the file had been changed as text"));
            }
        }
        Ok(())
    }

    /// Whether the voxels are in a separate file.
    pub(super) fn of_a_pair(&self) -> bool {
        let [_, pair] = self.version.magics();
        self.array_as_is::<4>(self.version.places().magic).is_ok_and(|magic| magic == *pair)
    }

    /// An empty header with the same version, byte order and sizes.
    pub(crate) fn emptied(&self) -> Self {
        let mut empty = Self { big: self.big, ..Self::new(self.version) };
        empty.put(0, (self.version.places().length as i32).to_le_bytes());
        let places = self.version.places();
        let length = if self.version == Version::One { 16 } else { 64 };
        if let Some(dims) = self.bytes.get(places.dim..places.dim.saturating_add(length)) {
            empty.put_raw(places.dim, dims);
        }
        empty
    }

    /// A version 2 header in the same byte order with this version 1 header's description of the voxels: datatype and
    /// scaling, intent, display range, time offset and texts. Sizes and geometry are left to [`Header::set`].
    pub(super) fn widened(&self) -> Result<Self> {
        let (from, to) = (Version::One.places(), Version::Two.places());
        let mut wide = Self { big: self.big, ..Self::new(Version::Two) };
        wide.put(0, (to.length as i32).to_le_bytes());
        for at in [0, 2] {
            wide.put(to.datatype.saturating_add(at), self.i16(from.datatype.saturating_add(at))?.to_le_bytes());
        }
        wide.put(to.intent, i32::from(self.i16(from.intent)?).to_le_bytes());
        for ((from, count), (to, _)) in from.floats.into_iter().zip(to.floats) {
            let values = self.floats::<3>(from)?;
            wide.put_floats(to, values.get(..count).unwrap_or_default());
        }
        for ((from, length), (to, _)) in from.texts.into_iter().zip(to.texts) {
            wide.put_raw(to, self.bytes.get(from..from.saturating_add(length)).unwrap_or_default());
        }
        Ok(wide)
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn big(&self) -> bool {
        self.big
    }

    pub(super) fn length(&self) -> u64 {
        self.version.places().length as u64
    }

    fn array_as_is<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let part = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
        part.copied().ok_or_else(|| fail("the header is cut off"))
    }

    /// `N` bytes of one number, in little-endian order.
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N]> {
        let mut part = self.array_as_is::<N>(at)?;
        if self.big {
            part.reverse();
        }
        Ok(part)
    }

    fn put_raw(&mut self, at: usize, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at.saturating_add(part.len())) {
            place.copy_from_slice(part);
        }
    }

    /// Sets one number, given in little-endian order.
    fn put<const N: usize>(&mut self, at: usize, mut part: [u8; N]) {
        if self.big {
            part.reverse();
        }
        self.put_raw(at, &part);
    }

    fn i16(&self, at: usize) -> Result<i16> {
        self.array(at).map(i16::from_le_bytes)
    }

    /// `N` floating-point numbers: 32-bit in version 1, 64-bit in version 2.
    fn floats<const N: usize>(&self, at: usize) -> Result<[f64; N]> {
        let mut values = [0.0; N];
        for (i, value) in values.iter_mut().enumerate() {
            *value = match self.version {
                Version::One => f64::from(self.array(at.saturating_add(i.saturating_mul(4))).map(f32::from_le_bytes)?),
                Version::Two => self.array(at.saturating_add(i.saturating_mul(8))).map(f64::from_le_bytes)?,
            };
        }
        Ok(values)
    }

    fn put_floats(&mut self, at: usize, values: &[f64]) {
        for (i, &value) in values.iter().enumerate() {
            match self.version {
                Version::One => self.put(at.saturating_add(i.saturating_mul(4)), (value as f32).to_le_bytes()),
                Version::Two => self.put(at.saturating_add(i.saturating_mul(8)), value.to_le_bytes()),
            }
        }
    }

    /// The number of voxels along x, y, z, t, ...: one to seven axes, each of size 1 or more.
    pub(super) fn sizes(&self) -> Result<Vec<usize>> {
        let dim = self.version.places().dim;
        let entry = |i: usize| -> Result<i64> {
            match self.version {
                Version::One => self.i16(dim.saturating_add(i.saturating_mul(2))).map(i64::from),
                Version::Two => self.array(dim.saturating_add(i.saturating_mul(8))).map(i64::from_le_bytes),
            }
        };
        let axes = entry(0)?;
        let count = usize::try_from(axes).ok().filter(|count| (1..=7).contains(count));
        let count = count.ok_or_else(|| fail(format!("{axes} axes")).expected("1 to 7"))?;
        let size = |i| {
            let size = entry(i)?;
            let count = usize::try_from(size).ok().filter(|&count| count > 0);
            count.ok_or_else(|| fail(format!("axis {i} has {size} voxels")).expected("at least 1"))
        };
        (1..=count).map(size).collect()
    }

    /// Datatype and scaling of the voxels. A slope that is 0 or not finite means no scaling.
    pub(super) fn coding(&self) -> Result<Coding> {
        let places = self.version.places();
        let plain = datatype::coding(self.i16(places.datatype)?)?;
        let bits = self.i16(places.datatype.saturating_add(2))?;
        // Some writers leave bitpix 0; any other contradiction means that the header can't be trusted.
        if bits != 0 && i64::from(bits) != (plain.size() as i64).saturating_mul(8) {
            return Err(fail(format!("{bits} bits a voxel of datatype {}", plain.name()))
                .expected(format!("{}", plain.size().saturating_mul(8))));
        }
        let [slope, intercept] = self.floats::<2>(places.slope)?;
        // According to the format, RGB values aren't scaled.
        if plain.channels > 2 || slope == 0.0 || !slope.is_finite() || (slope, intercept) == (1.0, 0.0) {
            return Ok(plain);
        }
        if !intercept.is_finite() {
            return Err(fail(format!("voxels scaled by {slope} · x + {intercept}")).expected("a finite intercept"));
        }
        Ok(Coding { scaling: Some([slope, intercept]), ..plain })
    }

    /// The byte offset of the voxels.
    pub(super) fn voxels_at(&self) -> Result<u64> {
        let at = self.version.places().offset;
        let (place, offset) = match self.version {
            Version::One => {
                let [place] = self.floats::<1>(at)?;
                // A cast would turn NaN into 0 and truncate a fraction.
                (place.to_string(), (place >= 0.0 && place.fract() == 0.0 && place < 9e15).then_some(place as u64))
            }
            Version::Two => {
                let place = self.array(at).map(i64::from_le_bytes)?;
                (place.to_string(), u64::try_from(place).ok())
            }
        };
        let first = if self.of_a_pair() { 0 } else { self.length() };
        offset.filter(|&offset| offset >= first).ok_or_else(|| {
            fail(format!("voxels from byte {place}")).expected(format!("a place after {first} bytes of header"))
        })
    }

    /// The affine by nibabel's rules: the sform if its code is set, else the qform, else the spacing with the first axis
    /// pointing to the left and the centre of the volume at 0. A form that isn't finite or is singular is ignored, and its
    /// code becomes 0.
    ///
    /// All lengths are converted to millimetres, as in ITK: a header may use metres or micrometres, and an unknown unit is
    /// taken as millimetres. The time unit and time steps are kept.
    pub(super) fn geometry(&self, sizes: &[usize]) -> Result<Geometry> {
        let places = self.version.places();
        let pixdim = self.floats::<8>(places.pixdim)?;
        let [b, c, d, offset_x, offset_y, offset_z] = self.floats::<6>(places.forms)?;
        let (rows, units, [qform_code, sform_code]) = match self.version {
            Version::One => (
                places.forms.saturating_add(24),
                self.array::<1>(places.units)?[0],
                [i32::from(self.i16(places.codes)?), i32::from(self.i16(places.codes.saturating_add(2))?)],
            ),
            Version::Two => (
                places.forms.saturating_add(48),
                self.array::<4>(places.units)?[0],
                [
                    self.array(places.codes).map(i32::from_le_bytes)?,
                    self.array(places.codes.saturating_add(4)).map(i32::from_le_bytes)?,
                ],
            ),
        };
        let (units, scale) = match units & SPACE {
            METRE => (units & !SPACE | MILLIMETRE, 1e3),
            MICROMETRE => (units & !SPACE | MILLIMETRE, 1e-3),
            _ => (units, 1.0),
        };
        let millimetres = |value: f64| match self.version {
            // Rounded to the precision of this version, so that writing and reading again gives the same value.
            Version::One if scale != 1.0 => f64::from((value * scale) as f32),
            _ => value * scale,
        };
        let [qfac, x, y, z, rest @ ..] = pixdim;
        let [x, y, z] = [x, y, z].map(millimetres);
        let offsets = [offset_x, offset_y, offset_z].map(millimetres);
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = self.floats::<12>(rows)?.map(millimetres);
        let mut geometry = Geometry {
            affine: [[0.0; 4]; 4],
            pixdim: [qfac, x, y, z, rest[0], rest[1], rest[2], rest[3]],
            qform_code,
            quaternion: [b, c, d, offsets[0], offsets[1], offsets[2]],
            sform_code,
            sform: [[a0, a1, a2, a3], [b0, b1, b2, b3], [c0, c1, c2, c3]],
            units,
        };
        let (sform, qform) = (geometry.sform_affine().ok(), geometry.qform_affine().ok());
        if sform_code > 0 && sform.is_none() {
            (geometry.sform_code, geometry.sform) = (0, [[0.0; 4]; 3]);
        }
        if qform_code > 0 && qform.is_none() {
            (geometry.qform_code, geometry.quaternion) = (0, [0.0; 6]);
        }
        geometry.affine = match (sform.filter(|_| sform_code > 0), qform.filter(|_| qform_code > 0)) {
            (Some(affine), _) | (None, Some(affine)) => affine,
            (None, None) => geometry::centred(sizes, geometry.steps())
                .map_err(|error| fail("neither sform, qform nor spacing says where the voxels are").source(error))?,
        };
        // Replaces lengths that aren't finite, which are no longer used but would be written.
        for (step, spacing) in geometry.pixdim.iter_mut().skip(1).zip(geometry::spacing(&geometry.affine)) {
            if !step.is_finite() {
                *step = spacing;
            }
        }
        Ok(geometry)
    }

    /// Checks that reading this header returns these sizes, this coding and, within its precision, this geometry: a file that
    /// couldn't be read back isn't written.
    pub(super) fn must_say(&self, sizes: &[usize], coding: Coding, geometry: &Geometry) -> Result<()> {
        let parsed = (self.sizes()?, self.coding()?);
        if parsed != (sizes.to_vec(), coding) {
            return Err(fail(format!("the header would say {parsed:?}")).expected(format!("{sizes:?} and {coding:?}")));
        }
        let read = self.geometry(sizes)?.affine;
        let largest = geometry::spacing(&geometry.affine).into_iter().fold(0.0, f64::max);
        let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 2e-5 * largest + 1e-6 * b.abs();
        if !read.iter().flatten().zip(geometry.affine.iter().flatten()).all(close) {
            return Err(
                fail(format!("the header would say the affine {read:?}")).expected(format!("{:?}", geometry.affine))
            );
        }
        Ok(())
    }

    /// Sets the fields that describe the volume; all others stay. `unchanged`: the coding of the voxels is that of the
    /// source.
    pub(super) fn set(
        &mut self,
        sizes: &[usize],
        geometry: &Geometry,
        coding: Coding,
        unchanged: bool,
        extension: usize,
    ) -> Result<()> {
        let places = self.version.places();
        if sizes.len() > 7 {
            return Err(Error::shape(OPERATION, format!("{} axes", sizes.len())).expected("at most 7").shapes([sizes]));
        }
        let moved = self.sizes().ok().as_deref() != Some(sizes)
            || self.geometry(sizes).ok().is_none_or(|mine| mine.affine != geometry.affine);
        let dims = std::iter::once(sizes.len()).chain(sizes.iter().copied()).chain(std::iter::repeat(1)).take(8);
        for (i, size) in dims.enumerate() {
            match self.version {
                Version::One => {
                    let size = i16::try_from(size)
                        .map_err(|_| Error::shape(OPERATION, format!("an axis of {size} voxels")).shapes([sizes]))?;
                    self.put(places.dim.saturating_add(i.saturating_mul(2)), size.to_le_bytes());
                }
                Version::Two => {
                    self.put(places.dim.saturating_add(i.saturating_mul(8)), (size as i64).to_le_bytes());
                }
            }
        }
        if moved {
            // Slice axis and slice timing are no longer valid.
            for (at, length) in places.slices {
                self.put_raw(at, [0; 8].get(..length).unwrap_or_default());
            }
        }
        if !unchanged {
            self.put_floats(places.slope, &[1.0, 0.0]);
            self.put_floats(places.display, &[0.0, 0.0]);
            let code = datatype::code(coding).ok_or_else(|| fail(format!("no datatype for {coding:?}")))?;
            self.put(places.datatype, code.to_le_bytes());
            let bits = (coding.size() as i16).saturating_mul(8);
            self.put(places.datatype.saturating_add(2), bits.to_le_bytes());
        }
        // A pair is written as a single file.
        self.put_raw(places.magic, self.version.magics()[0]);
        let start = places.length.saturating_add(extension);
        match self.version {
            Version::One => self.put(places.offset, (start as f32).to_le_bytes()),
            Version::Two => self.put(places.offset, (start as i64).to_le_bytes()),
        }
        self.put_floats(places.pixdim, &geometry.pixdim);
        let forms: Vec<f64> = geometry.quaternion.iter().chain(geometry.sform.iter().flatten()).copied().collect();
        self.put_floats(places.forms, &forms);
        for (at, code) in [(0usize, geometry.qform_code), (1, geometry.sform_code)] {
            match self.version {
                Version::One => {
                    let code = i16::try_from(code).unwrap_or(0);
                    self.put(places.codes.saturating_add(at.saturating_mul(2)), code.to_le_bytes());
                }
                Version::Two => self.put(places.codes.saturating_add(at.saturating_mul(4)), code.to_le_bytes()),
            }
        }
        match self.version {
            Version::One => self.put(places.units, [geometry.units]),
            Version::Two => self.put(places.units, i32::from(geometry.units).to_le_bytes()),
        }
        Ok(())
    }
}

#[cfg(test)]
impl Header {
    /// An empty header in the opposite byte order.
    pub(super) fn swapped(mut self) -> Self {
        self.big = !self.big;
        self.put(0, (self.version.places().length as i32).to_le_bytes());
        self
    }

    pub(super) fn set_scaling(&mut self, scaling: [f64; 2]) {
        self.put_floats(self.version.places().slope, &scaling);
    }
}
