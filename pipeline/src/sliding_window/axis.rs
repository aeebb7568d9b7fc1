//! The windows along one axis.

/// Where windows begin along an axis, and the weight of each of their voxels.
pub(super) struct Axis {
    /// The first voxel of each window; negative where the image is smaller than the window.
    pub starts: Vec<isize>,
    /// For each window, the weights of those of its voxels that lie in the image. At each voxel of the image, those of all
    /// windows add up to 1.
    pub weights: Vec<Vec<f32>>,
}

impl Axis {
    pub fn new(size: usize, patch: usize, overlap: f64) -> Self {
        let starts = starts(size, patch, overlap);
        // The Gaussian has a standard deviation of an eighth of the window: at its rim the weight is 3e-4 of that in the centre.
        let centre = (patch as f64 - 1.0) / 2.0;
        let gauss = |i: usize| (-0.5 * ((i as f64 - centre) * 8.0 / patch as f64).powi(2)).exp();
        // The voxels of the image that a window has, and the number of the first of them in the window.
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

/// As few windows as give the overlap, to within the rounding of their places to voxels.
pub(super) fn count(size: usize, patch: usize, overlap: f64) -> usize {
    let room = size.saturating_sub(patch) as f64;
    let step = (patch as f64 * (1.0 - overlap)).max(1.0);
    let gaps = room / step;
    // 10 · (1 − 0.8) is a little less than 2, and 10 / 2 a little more than 5: rounding must not ask for another window.
    let whole = gaps.round();
    // The step is a voxel or more, so that this is the most that the difference, rounded once, is off in proportion.
    let rounding = 4.0 * f64::EPSILON * patch as f64;
    let gaps = if (gaps - whole).abs() <= rounding * whole { whole } else { gaps.ceil() };
    (gaps as usize).saturating_add(1)
}

/// The windows spread evenly from the first voxel to the last; one about the middle of an image smaller than it.
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

    /// The number by whole numbers: the overlap is `hundredths` of the window, at most.
    fn exact(size: u128, patch: u128, hundredths: u128) -> u128 {
        if size <= patch {
            return 1;
        }
        // The step is patch · (100 − hundredths) / 100, and one voxel at least.
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
