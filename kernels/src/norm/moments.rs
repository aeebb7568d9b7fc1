//! Mean and variance of a set of values, which can be combined with those of other sets.

/// The count and mean of a set of values, and the sum of squared differences from the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// The number of values.
    pub count: f64,
    /// The mean, rounded.
    pub mean: f64,
    /// The rounding error of `mean`, to be added to it.
    pub rest: f64,
    /// Σ (x - mean)²
    pub squares: f64,
}

impl Moments {
    /// The moments of the union of two sets.
    pub fn join(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        if other.count == 0.0 {
            return self;
        }
        if self.count == 0.0 {
            return other;
        }
        let delta = (other.mean - self.mean) + (other.rest - self.rest);
        let squares = self.squares + other.squares + delta * delta * (self.count * other.count / count);
        Moments { count, squares, ..self.moved(delta * (other.count / count)) }
    }

    /// The moments with the mean moved by `distance`; the rounding error of the addition goes to `rest`.
    pub(crate) fn moved(self, distance: f64) -> Moments {
        // Knuth's two-sum.
        let distance = self.rest + distance;
        let mean = self.mean + distance;
        let added = mean - self.mean;
        let rest = (self.mean - (mean - added)) + (distance - added);
        Moments { mean, rest, ..self }
    }

    /// The moments of `count` values from the sum of their differences from `center` and the sum of the squared differences.
    #[inline(always)]
    pub(crate) fn from_distances(count: f64, center: f64, sum: f64, squares: f64) -> Moments {
        let squares = squares - sum * (sum / count);
        // Rounding may make it negative; a NaN is kept.
        let squares = if squares < 0.0 { 0.0 } else { squares };
        Moments { count, mean: center, rest: 0.0, squares }.moved(sum / count)
    }
}
