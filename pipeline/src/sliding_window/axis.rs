//! The windows along one axis.

/// Where windows begin along an axis, and the weight of each of their voxels.
pub(super) struct Axis {
    /// The first voxel of each window; negative where the image is smaller than the window.
    pub starts: Vec<isize>,
    /// For each window, the weights of its voxels. At each voxel of the image, those of all windows add up to 1.
    pub weights: Vec<Vec<f32>>,
}

impl Axis {
    pub fn new(size: usize, patch: usize, overlap: f64) -> Self {
        let starts = starts(size, patch, overlap);
        // The Gaussian has a standard deviation of an eighth of the window: at its rim the weight is 3e-4 of that in the centre.
        let centre = (patch as f64 - 1.0) / 2.0;
        let gauss = |i: usize| (-0.5 * ((i as f64 - centre) * 8.0 / patch as f64).powi(2)).exp();
        let inside = |start: isize, i: usize| usize::try_from(start + i as isize).ok().filter(|&at| at < size);
        let mut sums = vec![0.0; size];
        for &start in &starts {
            (0..patch).filter_map(|i| Some((i, inside(start, i)?))).for_each(|(i, at)| sums[at] += gauss(i));
        }
        let weight = |start, i| inside(start, i).map_or(0.0, |at| (gauss(i) / sums[at]) as f32);
        let weights = starts.iter().map(|&start| (0..patch).map(|i| weight(start, i)).collect()).collect();
        Self { starts, weights }
    }
}

/// As few windows as give the overlap, spread evenly from the first voxel to the last.
fn starts(size: usize, patch: usize, overlap: f64) -> Vec<isize> {
    let Some(room) = size.checked_sub(patch) else {
        return vec![-(((patch - size) / 2) as isize)];
    };
    let step = (patch as f64 * (1.0 - overlap)).max(1.0);
    let gaps = (room as f64 / step).ceil();
    (0..=gaps as usize).map(|i| (i as f64 * room as f64 / gaps.max(1.0)).round() as isize).collect()
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
