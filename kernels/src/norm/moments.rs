//! Mean and variance of a set of numbers, to be joined with those of others.

/// The mean of a channel of an image, and the sum of squared distances from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many numbers.
    pub count: f64,
    /// Their mean, `rest` being what its rounding lost.
    pub mean: f64,
    /// What is added to `mean`.
    pub rest: f64,
    /// Σ (x - mean)²
    pub squares: f64,
}

impl Moments {
    /// Those of two sets together.
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

    /// The mean moved by `distance`, without the rounding of a sum of one number.
    pub(crate) fn moved(self, distance: f64) -> Moments {
        // Knuth's two-sum.
        let distance = self.rest + distance;
        let mean = self.mean + distance;
        let added = mean - self.mean;
        let rest = (self.mean - (mean - added)) + (distance - added);
        Moments { mean, rest, ..self }
    }

    /// Those of `count` numbers from sums of their distances from `center`, and of the distances' squares.
    #[inline(always)]
    pub(crate) fn from_distances(count: f64, center: f64, sum: f64, squares: f64) -> Moments {
        let squares = squares - sum * (sum / count);
        // Rounding may leave less than nothing; a NaN stays.
        let squares = if squares < 0.0 { 0.0 } else { squares };
        Moments { count, mean: center, rest: 0.0, squares }.moved(sum / count)
    }
}
