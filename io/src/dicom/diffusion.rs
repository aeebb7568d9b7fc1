//! Diffusion: b-values and directions, and series of them as one volume.

use std::path::Path;

use dicom_core::Tag;
use tomograd_core::{DType, Device, Error, Result, Tensor};

use super::{OPERATION, csa, fail, geometry::length, series::Series, stack::Stack, view::View};
use crate::{Format, Volume, WriteOptions, write_atomically};

/// The diffusion weighting of a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Diffusion {
    /// The b-value in s/mm².
    pub b_value: f64,
    /// The direction of the gradient, of length 1, in world coordinates (RAS+). `None` without weighting, or of a trace.
    pub direction: Option<[f64; 3]>,
}

impl Diffusion {
    /// What standard attributes say, or those of Siemens.
    pub(super) fn of(standard: (Option<f64>, Option<[f64; 3]>), root: View<'_>) -> Option<Self> {
        let (b_value, direction) = match standard {
            (Some(b_value), direction) => (b_value, direction),
            (None, _) if csa::has_mr_header(root) && root.has(Tag(0x19, 0x100C)) => {
                (whole(root, Tag(0x19, 0x100C))?, three(root, Tag(0x19, 0x100E)))
            }
            (None, _) => {
                let direction = csa::numbers(root, "DiffusionGradientDirection");
                (*csa::numbers(root, "B_value").first()?, <[f64; 3]>::try_from(direction.as_slice()).ok())
            }
        };
        let direction = direction.and_then(|direction| {
            let long = length(direction);
            let unit = long.is_finite() && (long - 1.0).abs() < 0.1 && b_value > 0.0;
            unit.then(|| direction.map(|part| part / long))
        });
        // From DICOM's axes, to the left and back, to those here.
        let direction = direction.map(|[x, y, z]| [0.0 - x, 0.0 - y, z]);
        (b_value.is_finite() && b_value >= 0.0).then_some(Self { b_value, direction })
    }
}

/// A number as text, also where the representation isn't known.
fn whole(root: View<'_>, tag: Tag) -> Option<f64> {
    let (bytes, ..) = root.raw(tag)?;
    String::from_utf8_lossy(bytes).trim_matches([' ', '\0']).parse().ok()
}

/// Three floating-point numbers, also where the representation isn't known.
fn three(root: View<'_>, tag: Tag) -> Option<[f64; 3]> {
    let (bytes, _, big) = root.raw(tag)?;
    let numbers: Vec<f64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|part| if big { f64::from_be_bytes(*part) } else { f64::from_le_bytes(*part) })
        .collect();
    <[f64; 3]>::try_from(numbers.as_slice()).ok()
}

/// A diffusion series: its volumes, and the weighting of each.
#[derive(Debug, Clone)]
pub struct DiffusionSeries {
    volume: Volume,
    weights: Vec<Diffusion>,
}

impl Stack {
    /// The diffusion weighting of the stack: standard attributes, or those of Siemens; `None` if it doesn't say any.
    pub fn diffusion(&self) -> Option<Diffusion> {
        self.slices().first()?.detail()?.diffusion
    }
}

impl Series {
    /// All stacks of a diffusion series as one volume (N, D, H, W), in the order of acquisition.
    ///
    /// ```no_run
    /// use tomograd_io::dicom::Listing;
    /// let series = Listing::open("study")?.only()?.diffusion()?;
    /// println!("{:?} {:?}", series.volume().voxels().shape(), series.weights());
    /// series.write("dwi.nii.gz")?; // and dwi.bval, dwi.bvec
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a stack doesn't say its b-value, stacks lie on different grids, or files can't be read.
    pub fn diffusion(&self) -> Result<DiffusionSeries> {
        let number = |stack: &Stack| {
            let detail = stack.slices().first().and_then(|slice| slice.detail());
            detail.and_then(|detail| detail.number).unwrap_or(f64::INFINITY)
        };
        let mut stacks: Vec<&Stack> = self.stacks().iter().collect();
        stacks.sort_by(|a, b| number(a).total_cmp(&number(b)));
        let first = *stacks.first().ok_or_else(|| fail("a series without stacks"))?;
        let (mut weights, mut values, mut whole) = (Vec::new(), Vec::new(), true);
        for stack in &stacks {
            let weight = stack.diffusion().ok_or_else(|| {
                fail(format!("a stack without a b-value ({})", stack.label()))
                    .expected("DiffusionBValue, or Siemens' own attributes")
            })?;
            let close = stack.affine().iter().flatten().zip(first.affine().iter().flatten());
            if stack.size() != first.size() || close.into_iter().any(|(a, b)| (a - b).abs() > 1e-3) {
                return Err(fail(format!("stacks on different grids ({})", stack.label())).expected("one grid"));
            }
            let read = stack.read()?;
            whole &= matches!(read.voxels().dtype(), DType::U8 | DType::I32);
            values.extend(read.voxels().to_vec_f64()?);
            weights.push(weight);
        }
        let [width, height, depth] = first.size();
        let shape = [stacks.len(), depth, height, width];
        let voxels = if whole {
            let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
            Tensor::from_slice(&values, &shape, Device::Cpu)?
        } else {
            Tensor::from_slice(&values, &shape, Device::Cpu)?
        };
        Ok(DiffusionSeries { volume: Volume::new(voxels, *first.affine())?, weights })
    }
}

impl DiffusionSeries {
    /// The volumes, (N, D, H, W).
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The weighting of each volume.
    pub fn weights(&self) -> &[Diffusion] {
        &self.weights
    }

    /// The directions as FSL's `.bvec` has them: along the axes of the voxels, the first reversed where the affine doesn't mirror; zeros
    /// where there is none.
    pub fn fsl_directions(&self) -> Vec<[f64; 3]> {
        let affine = self.volume.affine();
        let axis = |axis: usize| {
            let column =
                [0, 1, 2].map(|row: usize| affine.get(row).and_then(|row| row.get(axis)).copied().unwrap_or(0.0));
            column.map(|part| part / length(column).max(f64::MIN_POSITIVE))
        };
        let axes = [axis(0), axis(1), axis(2)];
        let [[a, b, c], [d, e, f], [g, h, i]] = axes;
        let mirrors = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) < 0.0;
        let along = |direction: [f64; 3]| {
            let [x, y, z] = axes.map(|axis| super::geometry::dot(axis, direction));
            [if mirrors { x } else { 0.0 - x }, y, z]
        };
        self.weights.iter().map(|weight| weight.direction.map_or([0.0; 3], along)).collect()
    }

    /// Writes a NIfTI file, and beside it `.bval` and `.bvec` as FSL reads them.
    ///
    /// # Errors
    /// When the name isn't that of a NIfTI file, a volume with a b-value has no direction among others that have one, or a file can't
    /// be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let [bval, bvec] = Self::companions(path)?;
        let weighted = |weight: &&Diffusion| weight.b_value > 0.0;
        let lost = self.weights.iter().filter(weighted).filter(|weight| weight.direction.is_none()).count();
        if lost > 0 && self.weights.iter().any(|weight| weight.direction.is_some()) {
            return Err(fail(format!("{lost} weighted volumes without a direction"))
                .expected("a direction for each, or for none"));
        }
        self.volume.write_with(path, WriteOptions::default())?;
        let line = |numbers: &mut dyn Iterator<Item = f64>| {
            let texts: Vec<String> = numbers.map(|number| ((number * 1e8).round() / 1e8).to_string()).collect();
            texts.join(" ") + "\n"
        };
        let values = line(&mut self.weights.iter().map(|weight| weight.b_value));
        write_atomically(&bval, |writer| crate::atomic::write_all(writer, values.as_bytes()))?;
        let directions = self.fsl_directions();
        let rows: String = [0, 1, 2]
            .map(|row: usize| line(&mut directions.iter().map(|each| each.get(row).copied().unwrap_or(0.0) + 0.0)))
            .concat();
        write_atomically(&bvec, |writer| crate::atomic::write_all(writer, rows.as_bytes()))
    }

    /// The names of `.bval` and `.bvec` beside a NIfTI file.
    ///
    /// # Errors
    /// When it has another ending.
    pub fn companions(path: impl AsRef<Path>) -> Result<[std::path::PathBuf; 2]> {
        let path = path.as_ref();
        let name = path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        if Format::of_path(path).ok() != Some(Format::Nifti) {
            return Err(Error::argument(OPERATION, format!("{} for a diffusion series", path.display()))
                .expected("a name in .nii or .nii.gz"));
        }
        let stem = Format::stem(&name);
        Ok([path.with_file_name(format!("{stem}.bval")), path.with_file_name(format!("{stem}.bvec"))])
    }
}
