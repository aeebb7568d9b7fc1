//! Random rotations, scalings and translations.

use tomograd_core::{Device, Element, Random, Result, Tensor};

use super::{
    Effect, Transform, check_probability, check_range, debug_key,
    spatial::{Map, Matrix},
    spatial_effect,
};
use crate::{Field, Kind, Sample, grid};

/// Rotates, scales and translates the sample about its centre, in millimetres, so that anisotropic voxels don't cause shear.
/// Images are interpolated linearly, labels with nearest neighbour; both are padded with 0. Boxes and points are moved by the
/// same map. 2D images are rotated in their plane.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_pipeline::{Sample, transforms::{Compose, RandomAffine}};
/// let affine = RandomAffine { probability: 1.0, degrees: (-30.0, 30.0), scale: (0.7, 1.4), translation: (-5.0, 5.0) };
/// let image = Tensor::uniform(&[1, 8, 8, 8], 0.0, 1.0, Seed::new(1), DType::F32, Device::Cpu)?;
/// let moved = Compose::new().then(affine)?.apply(Sample::new("case", &image, None)?, Seed::new(2))?;
/// assert_eq!(moved.image()?.shape(), [1, 8, 8, 8]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RandomAffine {
    /// The probability of application.
    pub probability: f64,
    /// The range of the rotation angle about each axis, in degrees.
    pub degrees: (f64, f64),
    /// The range of the scale factor, which is the same for all axes.
    pub scale: (f64, f64),
    /// The range of the translation along each axis, in millimetres.
    pub translation: (f64, f64),
}

impl Default for RandomAffine {
    fn default() -> Self {
        Self { probability: 0.2, degrees: (-15.0, 15.0), scale: (0.85, 1.15), translation: (0.0, 0.0) }
    }
}

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
                // Voxels to millimetres, rotation, millimetres to voxels. The scale along a padded axis is 1.
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
    /// Calls `row` with the index of the first voxel of each row, and the source positions of its voxels.
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

/// Whether the nearest voxel to a position is in the grid.
fn inside(place: &[f32; 3], shape: [usize; 3]) -> bool {
    (0..3).all(|axis| place[axis] >= -0.5 && place[axis] < shape[axis] as f32 - 0.5)
}

/// The index of the nearest voxel to a position inside the grid.
fn nearest(place: &[f32; 3], shape: [usize; 3]) -> usize {
    (0..3).fold(0, |index, axis| index * shape[axis] + ((place[axis] + 0.5) as usize).min(shape[axis] - 1))
}

/// The eight voxels around a position inside the grid: the index of the first, the steps to the next one along each axis, and
/// the interpolation weights. Positions beyond the outermost voxel centres take the boundary value.
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
    // A NaN or infinity with weight 0 must not affect the result.
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
        // A smaller scale would leave nothing of the image, and its inverse could overflow.
        check_range("scale", self.scale, 1e-6)?;
        check_range("translation", self.translation, f64::NEG_INFINITY)
    }

    fn effect(&self, kind: Kind) -> Effect {
        spatial_effect(kind, Effect::Linear, Effect::Nearest)
    }

    fn key(&self) -> Option<String> {
        debug_key(self)
    }

    fn apply(&self, mut sample: Sample, random: &mut Random) -> Result<Sample> {
        self.check()?;
        if !random.bernoulli(self.probability) {
            return Ok(sample);
        }
        let (shape, rank) = sample.dims("affine")?;
        let size = shape.iter().product::<usize>();
        let spacing = grid::spacings("affine", sample.spacing(), rank)?;
        let map = self.map(shape, spacing, rank, random);

        // The original tensors, and the mutable fields that receive the results.
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for (_, field) in sample.fields_mut() {
            let (tensor, all) = match field {
                Field::Image(tensor) => (tensor, &mut images),
                Field::Label(tensor) => (tensor, &mut labels),
                _ => continue,
            };
            let zeros = Tensor::zeros(tensor.shape(), tensor.dtype(), Device::Cpu)?;
            let source = std::mem::replace(tensor, zeros);
            all.push((source, tensor));
        }
        let (mut images, mut labels) = (slices::<f32>(&mut images)?, slices::<u8>(&mut labels)?);
        map.rows(shape, |start, places| {
            for (voxel, place) in (start..).zip(places).filter(|(_, place)| inside(place, shape)) {
                let (first, steps, fractions) = corners(place, shape);
                for (source, target) in images.iter_mut() {
                    for (from, to) in source.chunks_exact(size).zip(target.chunks_exact_mut(size)) {
                        to[voxel] = linear(from, first, steps, fractions);
                    }
                }
                if !labels.is_empty() {
                    let nearest = nearest(place, shape);
                    labels.iter_mut().for_each(|(from, to)| to[voxel] = from[nearest]);
                }
            }
        });
        map.move_shapes(&mut sample, shape)?;
        Ok(sample)
    }
}

/// The elements of pairs of tensors.
fn slices<'a, T: Element>(pairs: &'a mut [(Tensor, &mut Tensor)]) -> Result<Vec<(&'a [T], &'a mut [T])>> {
    pairs.iter_mut().map(|(from, to)| Ok((from.as_slice::<T>()?, to.as_mut_slice::<T>()?))).collect()
}
