//! Small rotations, scalings and translations.

use tomograd_core::{DType, Device, Random, Result, Tensor};

use super::{Transform, check_probability, check_range};
use crate::{Sample, grid};

/// Rotates, scales and shifts the sample about its centre, in millimetres, so that anisotropic voxels don't shear. The image
/// is interpolated linearly, the label takes the nearest voxel; what comes from outside is 0 in both. Flat images are rotated in their plane.
#[derive(Clone, Copy, Debug)]
pub struct RandomAffine {
    /// How often it acts.
    pub probability: f64,
    /// The angle about each axis is drawn from this range, in degrees.
    pub degrees: (f64, f64),
    /// The magnification, the same along all axes, is drawn from this range.
    pub scale: (f64, f64),
    /// The shift along each axis is drawn from this range, in millimetres.
    pub translation: (f64, f64),
}

impl Default for RandomAffine {
    fn default() -> Self {
        Self { probability: 0.2, degrees: (-15.0, 15.0), scale: (0.85, 1.15), translation: (0.0, 0.0) }
    }
}

type Matrix = [[f64; 3]; 3];

fn multiply(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// The rotation by `angle` (radians) about `axis`.
fn rotation(axis: usize, angle: f64) -> Matrix {
    let (sine, cosine) = angle.sin_cos();
    let (first, second) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut matrix = [[0.0; 3]; 3];
    matrix[axis][axis] = 1.0;
    (matrix[first][first], matrix[first][second]) = (cosine, -sine);
    (matrix[second][first], matrix[second][second]) = (sine, cosine);
    matrix
}

/// Where each voxel of the result comes from: voxel `p` from `matrix · p + offset`.
struct Map {
    matrix: Matrix,
    offset: [f64; 3],
}

impl RandomAffine {
    fn map(&self, shape: [usize; 3], spacing: [f64; 3], rank: usize, random: &mut Random) -> Map {
        let draw = |(low, high): (f64, f64), random: &mut Random| random.uniform_in(low, high);
        let mut matrix = rotation(0, draw(self.degrees, random).to_radians());
        for axis in 1..3 {
            let angle = draw(self.degrees, random).to_radians();
            if rank == 3 {
                matrix = multiply(&matrix, &rotation(axis, angle));
            }
        }
        let scale = draw(self.scale, random);
        let mut offset = [0.0; 3];
        for i in 0..3 {
            let shift = draw(self.translation, random) / spacing[i];
            let real = i >= 3 - rank;
            for j in 0..3 {
                // From voxels to millimetres, rotate, back to voxels. The scale of an axis that isn't there stays 1.
                matrix[i][j] *= spacing[j] / spacing[i] / if real { scale } else { 1.0 };
            }
            let centre = |axis: usize| (shape[axis] as f64 - 1.0) / 2.0;
            let turned: f64 = (0..3).map(|j| matrix[i][j] * centre(j)).sum();
            offset[i] = centre(i) - turned + if real { shift } else { 0.0 };
        }
        Map { matrix, offset }
    }
}

impl Map {
    /// Calls `row` with the index of the first voxel of each row and the places that its voxels come from.
    fn rows(&self, shape: [usize; 3], mut row: impl FnMut(usize, &[[f32; 3]])) {
        let mut places = vec![[0f32; 3]; shape[2]];
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                let first: [f64; 3] = std::array::from_fn(|i| {
                    self.matrix[i][0] * z as f64 + self.matrix[i][1] * y as f64 + self.offset[i]
                });
                for (x, place) in places.iter_mut().enumerate() {
                    *place = std::array::from_fn(|i| (first[i] + self.matrix[i][2] * x as f64) as f32);
                }
                row((z * shape[1] + y) * shape[2], &places);
            }
        }
    }
}

/// Whether a place is nearer to a voxel of the grid than to one outside.
fn inside(place: &[f32; 3], shape: [usize; 3]) -> bool {
    (0..3).all(|axis| place[axis] >= -0.5 && place[axis] < shape[axis] as f32 - 0.5)
}

/// The index of the voxel nearest to a place inside.
fn nearest(place: &[f32; 3], shape: [usize; 3]) -> usize {
    (0..3).fold(0, |index, axis| index * shape[axis] + ((place[axis] + 0.5) as usize).min(shape[axis] - 1))
}

/// The eight voxels around a place inside, as their first index and the steps to the next one along each axis, and the
/// fractions between them. Beyond the outermost voxels their value goes on.
fn corners(place: &[f32; 3], shape: [usize; 3]) -> (usize, [usize; 3], [f32; 3]) {
    let (mut index, mut steps, mut fractions) = (0, [0; 3], [0.0; 3]);
    let strides = [shape[1] * shape[2], shape[2], 1];
    for axis in 0..3 {
        let at = place[axis].clamp(0.0, (shape[axis] - 1) as f32);
        let low = at as usize;
        fractions[axis] = at - low as f32;
        steps[axis] = if low + 1 < shape[axis] { strides[axis] } else { 0 };
        index += low * strides[axis];
    }
    (index, steps, fractions)
}

fn linear(voxels: &[f32], first: usize, steps: [usize; 3], fractions: [f32; 3]) -> f32 {
    // A voxel that has no part in the result doesn't reach it: a NaN, an infinity.
    let between = |a: f32, b: f32, t: f32| if t == 0.0 { a } else { a + (b - a) * t };
    let along_row = |at: usize| between(voxels[at], voxels[at + steps[2]], fractions[2]);
    let in_plane = |at: usize| between(along_row(at), along_row(at + steps[1]), fractions[1]);
    between(in_plane(first), in_plane(first + steps[0]), fractions[0])
}

impl Transform for RandomAffine {
    fn name(&self) -> &str {
        "affine"
    }

    fn check(&self) -> Result<()> {
        check_probability(self.probability)?;
        check_range("degrees", self.degrees, f64::NEG_INFINITY)?;
        // As small as this, a picture is nothing already, and its inverse still a number.
        check_range("scale", self.scale, 1e-6)?;
        check_range("translation", self.translation, f64::NEG_INFINITY)
    }

    fn apply(&self, sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if !random.bernoulli(self.probability) {
            return Ok(sample);
        }
        let (_, shape) = sample.dims("affine")?;
        let size = shape.iter().product::<usize>();
        let rank = sample.image.rank() - 1;
        let spacing = grid::spacings("affine", &sample.spacing, rank)?;
        let map = self.map(shape, spacing, rank, random);

        let mut image = Tensor::zeros(sample.image.shape(), DType::F32, Device::Cpu)?;
        let (source, target) = (sample.image.as_slice::<f32>()?, image.as_mut_slice::<f32>()?);
        let mut label = sample.label.as_ref().map(|l| Tensor::zeros(l.shape(), DType::U8, Device::Cpu)).transpose()?;
        let mut labels = match (&sample.label, &mut label) {
            (Some(from), Some(to)) => Some((from.as_slice::<u8>()?, to.as_mut_slice::<u8>()?)),
            _ => None,
        };
        map.rows(shape, |start, places| {
            for (voxel, place) in (start..).zip(places).filter(|(_, place)| inside(place, shape)) {
                let (first, steps, fractions) = corners(place, shape);
                for (from, to) in source.chunks_exact(size).zip(target.chunks_exact_mut(size)) {
                    to[voxel] = linear(from, first, steps, fractions);
                }
                if let Some((from, to)) = &mut labels {
                    to[voxel] = from[nearest(place, shape)];
                }
            }
        });
        Ok(Sample { image, label, ..sample })
    }
}
