//! The windows along one axis.

/// The start of each window along an axis, and the weights of its voxels.
pub(super) struct Axis {
    /// The first voxel of each window; negative if the image is smaller than the window.
    pub starts: Vec<isize>,
    /// For each window, the weights of its voxels inside the image. At each voxel of the image, the weights of all windows
    /// add up to 1.
    pub weights: Vec<Vec<f32>>,
}

impl Axis {
    pub fn new(size: usize, patch: usize, overlap: f64) -> Self {
        let starts = starts(size, patch, overlap);
        // The standard deviation of the Gaussian is an eighth of the window: the weight at the edge is 3e-4 of that at the
        // centre.
        let centre = (patch as f64 - 1.0) / 2.0;
        let gauss = |i: usize| (-0.5 * ((i as f64 - centre) * 8.0 / patch as f64).powi(2)).exp();
        // The voxels of the image inside a window, and the index of the first of them in the window.
        let inside = |start: isize| {
            let first = start.max(0) as usize;
            (first..size.min(first.saturating_add(patch)), start.min(0).unsigned_abs())
        };
        let mut sums = vec![0.0; size];
        for &start in &starts {
            let (voxels, first) = inside(start);
            sums[voxels].iter_mut().zip(first..).for_each(|(sum, i)| *sum += gauss(i));
        }
        let weights_of = |start| {
            let (voxels, first) = inside(start);
            sums[voxels].iter().zip(first..).map(|(sum, i)| (gauss(i) / sum) as f32).collect()
        };
        let weights = starts.iter().map(|&start| weights_of(start)).collect();
        Self { starts, weights }
    }
}

/// The least number of windows with at least the overlap, up to rounding of their positions to voxels.
pub(super) fn count(size: usize, patch: usize, overlap: f64) -> usize {
    let room = size.saturating_sub(patch) as f64;
    let step = (patch as f64 * (1.0 - overlap)).max(1.0);
    let gaps = room / step;
    // 10 · (1 − 0.8) is slightly less than 2, and 10 / 2 slightly more than 5; rounding errors must not add a window.
    let whole = gaps.round();
    // The step is at least one voxel, so this bounds the relative error of the rounded difference.
    let rounding = 4.0 * f64::EPSILON * patch as f64;
    let gaps = if (gaps - whole).abs() <= rounding * whole { whole } else { gaps.ceil() };
    (gaps as usize).saturating_add(1)
}

/// Evenly spaced windows from the first voxel to the last; for an image smaller than the window, one centred window.
fn starts(size: usize, patch: usize, overlap: f64) -> Vec<isize> {
    let Some(room) = size.checked_sub(patch) else {
        return vec![-(((patch - size) / 2) as isize)];
    };
    let gaps = count(size, patch, overlap) - 1;
    (0..=gaps).map(|i| (i as f64 * room as f64 / gaps.max(1) as f64).round() as isize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_reach_from_end_to_end() {
        assert_eq!(starts(100, 64, 0.5), [0, 18, 36]);
        assert_eq!(starts(64, 64, 0.5), [0]);
        assert_eq!(starts(35, 64, 0.5), [-14]);
        assert_eq!(starts(5, 2, 0.9), [0, 1, 2, 3]);
        assert_eq!(starts(7, usize::MAX, 0.9), [-(((usize::MAX - 7) / 2) as isize)]);
    }

    /// The number of windows in integer arithmetic, with an overlap of `hundredths` of the window.
    fn exact(size: u128, patch: u128, hundredths: u128) -> u128 {
        if size <= patch {
            return 1;
        }
        // The step is patch · (100 − hundredths) / 100, but at least one voxel.
        let step = (patch * (100 - hundredths)).max(100);
        ((size - patch) * 100).div_ceil(step) + 1
    }

    #[test]
    fn as_few_windows_as_are_enough() {
        assert_eq!(starts(20, 10, 0.8), [0, 2, 4, 6, 8, 10]);
        for hundredths in 0..100u128 {
            let overlap = hundredths as f64 / 100.0;
            for patch in 1..40 {
                for size in 1..150 {
                    let expected = exact(size, patch, hundredths);
                    let found = count(size as usize, patch as usize, overlap);
                    assert_eq!(found as u128, expected, "{size} {patch} {overlap}");
                }
            }
            for size in [1 << 20, (1 << 31) + 1] {
                let found = count(size, 64, overlap) as u128;
                assert_eq!(found, exact(size as u128, 64, hundredths), "{size} {overlap}");
            }
        }
    }

    #[test]
    fn weights_add_up_to_1() {
        let axis = Axis::new(100, 32, 0.5);
        let mut sums = vec![0.0; 100];
        for (start, weights) in axis.starts.iter().zip(&axis.weights) {
            weights.iter().enumerate().for_each(|(i, weight)| sums[*start as usize + i] += weight);
        }
        assert!(sums.iter().all(|sum| (sum - 1.0f32).abs() < 1e-6));
    }
}
