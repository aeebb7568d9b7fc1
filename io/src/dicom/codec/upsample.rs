//! Subsampled channels of JPEG at full size, with the weights 3/4 and 1/4 that libjpeg uses ("fancy upsampling").

/// A channel: rows of `width` samples.
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) samples: Vec<u16>,
}

impl Plane {
    fn row(&self, y: usize) -> &[u16] {
        let start = y.min(self.height.saturating_sub(1)).saturating_mul(self.width);
        self.samples.get(start..start.saturating_add(self.width)).unwrap_or_default()
    }

    /// Row `y` of the picture, of `width` samples, of a channel that has one sample for `h` × `v` pixels.
    pub(super) fn upsampled_row(&self, y: usize, [h, v]: [usize; 2], width: usize) -> Vec<u16> {
        let near = self.row(y.checked_div(v).unwrap_or(0));
        let smooth = self.width > 2;
        let mut row: Vec<u16> = match (h, v) {
            (1, 1) => near.to_vec(),
            (2, 1) if smooth => across(&near.iter().map(|&x| u32::from(x)).collect::<Vec<_>>(), [1, 2], 2, 1),
            (2, 2) if smooth => {
                // The nearer of the rows beside; at the border the row itself.
                let beside = y / 2;
                let beside = if y.is_multiple_of(2) { beside.saturating_sub(1) } else { beside.saturating_add(1) };
                let sums = near.iter().zip(self.row(beside)).map(|(&a, &b)| 3 * u32::from(a) + u32::from(b));
                across(&sums.collect::<Vec<_>>(), [8, 7], 4, 4)
            }
            _ => near.iter().flat_map(|&x| std::iter::repeat_n(x, h)).collect(),
        };
        row.truncate(width);
        row
    }
}

/// Twice as many numbers: each has three quarters of the nearest and a quarter of the one beside. `rounding` is that of the
/// left and of the right of a pair, `edge` the weight of the outermost.
fn across(row: &[u32], rounding: [u32; 2], shift: u32, edge: u32) -> Vec<u16> {
    let [left, right] = rounding;
    let mut wide = Vec::with_capacity(row.len().saturating_mul(2));
    for (i, &x) in row.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| row.get(i));
        let after = row.get(i.saturating_add(1));
        // With one row, the outermost numbers are kept; with two, they are four times the sum of weights 4.
        let outermost = |rounding| if edge == 1 { x as u16 } else { ((4 * x + rounding) >> shift) as u16 };
        wide.push(before.map_or_else(|| outermost(left), |b| ((3 * x + b + left) >> shift) as u16));
        wide.push(after.map_or_else(|| outermost(right), |a| ((3 * x + a + right) >> shift) as u16));
    }
    wide
}
