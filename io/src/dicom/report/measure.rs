//! What is measured of a segment.

use tomograd_core::{Error, Result, Tensor};

use super::super::OPERATION;
use crate::geometry::{self, Affine};

/// Measurements of a segment. Values are in the units of the voxels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurements {
    /// The number of voxels.
    pub voxels: usize,
    /// Their volume in mm³.
    pub volume: f64,
    /// The largest distance between the centres of two voxels, in mm.
    pub diameter: f64,
    /// The mean of the values.
    pub mean: f64,
    /// Their standard deviation, with the number of voxels as the divisor.
    pub deviation: f64,
    /// Their least value.
    pub minimum: f64,
    /// Their largest value.
    pub maximum: f64,
}

impl Measurements {
    /// Measures the voxels of `values` (D, H, W) in which `mask` isn't 0; the affine leads to millimetres.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_io::{dicom::Measurements, geometry};
    /// let ones = Tensor::ones(&[2, 3, 4], DType::F32, Device::Cpu)?;
    /// let found = Measurements::of(&ones, &ones, &geometry::from_spacing([1.0, 1.0, 2.0])?)?;
    /// assert_eq!((found.voxels, found.volume, found.mean), (24, 48.0, 1.0));
    /// assert!((found.diameter - (9.0f64 + 4.0 + 4.0).sqrt()).abs() < 1e-12);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When shapes differ, the affine isn't finite, the mask is empty, or a value in it isn't finite.
    pub fn of(values: &Tensor, mask: &Tensor, affine: &Affine) -> Result<Self> {
        let &[_, height, width] = values.shape() else {
            return Err(Error::shape(OPERATION, "values to measure").expected("(D, H, W)").shapes([values.shape()]));
        };
        if mask.shape() != values.shape() {
            let shapes = [values.shape(), mask.shape()];
            return Err(Error::shape(OPERATION, "values and a mask").expected("one shape").shapes(shapes));
        }
        geometry::inverse(affine)?;
        let (values, mask) = (values.to_vec_f64()?, mask.to_vec_f64()?);
        let (mut voxels, mut sum, mut minimum, mut maximum) = (0usize, 0.0, f64::INFINITY, f64::NEG_INFINITY);
        for (&value, _) in values.iter().zip(&mask).filter(|(_, mask)| **mask != 0.0) {
            if !value.is_finite() {
                return Err(Error::argument(OPERATION, format!("a voxel of {value}")).expected("finite values"));
            }
            voxels += 1;
            sum += value;
            minimum = value.min(minimum);
            maximum = value.max(maximum);
        }
        if voxels == 0 {
            return Err(Error::argument(OPERATION, "a mask without voxels").expected("something to measure"));
        }
        let mean = sum / voxels as f64;
        let inside = values.iter().zip(&mask).filter(|(_, mask)| **mask != 0.0);
        let squares: f64 = inside.map(|(value, _)| (value - mean).powi(2)).sum();
        Ok(Self {
            voxels,
            volume: voxels as f64 * determinant(affine).abs(),
            diameter: diameter(&mask, height, width, affine),
            mean,
            deviation: (squares / voxels as f64).sqrt(),
            minimum,
            maximum,
        })
    }
}

/// The volume of a voxel.
fn determinant(affine: &Affine) -> f64 {
    let [[a, b, c, _], [d, e, f, _], [g, h, i, _], _] = *affine;
    a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
}

/// The largest distance between two voxels: both are corners of the convex hull of their slice.
fn diameter(mask: &[f64], height: usize, width: usize, affine: &Affine) -> f64 {
    let mut corners: Vec<[f64; 3]> = Vec::new();
    for (k, slice) in mask.chunks_exact(height.saturating_mul(width).max(1)).enumerate() {
        // The ends of each row, by row and column.
        let mut points: Vec<[i64; 2]> = Vec::new();
        for (y, row) in slice.chunks_exact(width.max(1)).enumerate() {
            let first = row.iter().position(|&voxel| voxel != 0.0);
            let last = row.iter().rposition(|&voxel| voxel != 0.0);
            points.extend(first.into_iter().chain(last.filter(|_| first != last)).map(|x| [y as i64, x as i64]));
        }
        let place = |[y, x]: [i64; 2]| geometry::apply(affine, [x as f64, y as f64, k as f64]);
        corners.extend(hull(&points).into_iter().map(place));
    }
    let mut largest = 0.0f64;
    for (i, a) in corners.iter().enumerate() {
        for b in corners.iter().skip(i + 1) {
            let square: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
            largest = largest.max(square);
        }
    }
    largest.sqrt()
}

/// The corners of the convex hull of sorted points (Andrew's monotone chain).
fn hull(points: &[[i64; 2]]) -> Vec<[i64; 2]> {
    if points.len() < 3 {
        return points.to_vec();
    }
    let half = |points: &mut dyn Iterator<Item = &[i64; 2]>| {
        let mut chain: Vec<[i64; 2]> = Vec::new();
        for &[y, x] in points {
            while let [.., [ay, ax], [by, bx]] = chain[..] {
                if (by - ay) * (x - ax) - (bx - ax) * (y - ay) > 0 {
                    break;
                }
                chain.pop();
            }
            chain.push([y, x]);
        }
        chain.pop();
        chain
    };
    [half(&mut points.iter()), half(&mut points.iter().rev())].concat()
}

#[cfg(test)]
mod tests {
    use tomograd_core::{Device, Seed};

    use super::*;

    #[test]
    fn diameters_are_those_of_all_pairs() {
        let mut random = Seed::new(3).random();
        let affine = [[0.7, 0.1, 0.2, 5.0], [0.0, 0.9, -0.3, 1.0], [0.1, 0.0, 2.5, 0.0], [0.0, 0.0, 0.0, 1.0]];
        for case in 0..200 {
            let (depth, height, width) =
                (1 + random.below(4) as usize, 1 + random.below(7) as usize, 1 + random.below(7) as usize);
            let mask: Vec<f32> =
                (0..depth * height * width).map(|_| f32::from(u8::from(random.below(10) < 1 + case % 8))).collect();
            let values: Vec<f32> = (0..mask.len()).map(|i| i as f32).collect();
            let shape = [depth, height, width];
            let [values, tensor] = [&values, &mask].map(|data| Tensor::from_slice(data, &shape, Device::Cpu).unwrap());
            let inside: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] != 0.0).collect();
            let Ok(found) = Measurements::of(&values, &tensor, &affine) else {
                assert!(inside.is_empty());
                continue;
            };
            let place = |i: usize| {
                geometry::apply(&affine, [(i % width) as f64, (i / width % height) as f64, (i / width / height) as f64])
            };
            let mut largest = 0.0f64;
            for &i in &inside {
                for &j in &inside {
                    let square: f64 = place(i).iter().zip(place(j)).map(|(a, b)| (a - b) * (a - b)).sum();
                    largest = largest.max(square.sqrt());
                }
            }
            assert!((found.diameter - largest).abs() < 1e-9, "{found:?} {largest}");
            let mean = inside.iter().map(|&i| i as f64).sum::<f64>() / inside.len() as f64;
            assert!((found.mean - mean).abs() < 1e-9 && found.voxels == inside.len());
            assert_eq!((found.minimum, found.maximum), (inside[0] as f64, inside[inside.len() - 1] as f64));
        }
    }
}
