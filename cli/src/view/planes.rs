//! Slices of a volume in LPS: x runs to the left, y to the back, z to the head.

use tomograd::prelude::*;

use super::{letters, picture::Picture};

/// A plane of the body.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Plane {
    Axial,
    Coronal,
    Sagittal,
}

impl Plane {
    /// The volume's axes (0: x, 1: y, 2: z) across, down and through the slice, and whether the one down is reversed.
    fn axes(self) -> ([usize; 3], bool) {
        match self {
            Self::Axial => ([0, 1, 2], false),
            Self::Coronal => ([0, 2, 1], true),
            Self::Sagittal => ([1, 2, 0], true),
        }
    }

    /// The letters of the sides: left, right, top, bottom of the picture.
    fn sides(self) -> [char; 4] {
        match self {
            Self::Axial => ['R', 'L', 'A', 'P'],
            Self::Coronal => ['R', 'L', 'S', 'I'],
            Self::Sagittal => ['A', 'P', 'S', 'I'],
        }
    }
}

/// Colours of the labels 1, 2, ...; then they begin again.
const LABELS: [[u8; 3]; 8] = [
    [255, 70, 50],
    [60, 220, 80],
    [70, 150, 255],
    [255, 210, 40],
    [230, 90, 240],
    [60, 230, 230],
    [255, 150, 60],
    [170, 130, 255],
];

/// The colours of outlines where two masks are compared: of the first alone, of the second alone, of both.
pub(crate) const COMPARED: [[u8; 3]; 3] = [[0, 200, 255], [255, 150, 0], [255, 255, 255]];

/// The colours of a volume and the labels on it.
pub(crate) struct Grid {
    /// The number of voxels along x, y, z.
    sizes: [usize; 3],
    spacing: [f64; 3],
    colours: Vec<[u8; 3]>,
    /// The labels of each mask: the outlines of one have a colour a label, those of two a colour a mask.
    masks: Vec<Vec<i64>>,
}

impl Grid {
    /// `window` is the centre and the width of the grey range; the 1st to the 99th percentile if there is none.
    pub(crate) fn new(volume: &Volume, masks: &[&Volume], window: Option<[f64; 2]>) -> Result<Self> {
        let voxels = volume.voxels();
        let mut sizes = [1; 3];
        sizes.iter_mut().zip(voxels.shape().iter().rev()).for_each(|(to, size)| *to = *size);
        let count: usize = sizes.iter().product();
        let colours = match voxels.rank() {
            3 => {
                let values = voxels.to_vec_f64()?;
                let [low, high] = match window {
                    Some([centre, width]) => [centre - width / 2.0, centre + width / 2.0],
                    None => range(&values),
                };
                let grey = |value: &f64| [((value - low) / (high - low).max(f64::MIN_POSITIVE) * 255.0) as u8; 3];
                values.iter().map(grey).collect()
            }
            _ => {
                // Red, green and blue; 16 bits are shown by their upper eight.
                let values = voxels.to_vec_f64()?;
                let factor = if values.iter().any(|value| *value > 255.0) { 1.0 / 257.0 } else { 1.0 };
                let part = |at: usize| values.get(at).map_or(0, |value| (value * factor) as u8);
                (0..count).map(|at| [0, 1, 2].map(|channel| part(at + channel * count))).collect()
            }
        };
        let labels = |mask: &&Volume| -> Result<Vec<i64>> {
            Ok(mask.voxels().to_vec_f64()?.into_iter().map(|label| label.round() as i64).collect())
        };
        let masks = masks.iter().map(labels).collect::<Result<_>>()?;
        Ok(Self { sizes, spacing: volume.spacing(), colours, masks })
    }

    /// Whether the volume has several planes and columns and rows, so that it can be cut along each axis.
    pub(crate) fn is_solid(&self) -> bool {
        self.sizes.iter().all(|size| *size > 1)
    }

    fn at(&self, place: [usize; 3]) -> usize {
        let [x, y, _] = self.sizes;
        (place[2] * y + place[1]) * x + place[0]
    }

    fn label(&self, mask: usize, place: [usize; 3]) -> i64 {
        self.masks.get(mask).and_then(|labels| labels.get(self.at(place))).copied().unwrap_or(0)
    }

    /// All voxels in the order of the memory.
    fn voxels(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [x, y, z] = self.sizes;
        (0..z).flat_map(move |k| (0..y).flat_map(move |j| (0..x).map(move |i| [i, j, k])))
    }

    /// The part around what the masks label, with `margin` millimetres on each side; the whole if there is nothing.
    pub(crate) fn around_labels(self, margin: f64) -> Self {
        let (mut low, mut high) = (self.sizes, [0; 3]);
        for (at, place) in self.voxels().enumerate() {
            if self.masks.iter().any(|labels| labels.get(at).is_some_and(|label| *label != 0)) {
                low = std::array::from_fn(|axis| low[axis].min(place[axis]));
                high = std::array::from_fn(|axis| high[axis].max(place[axis] + 1));
            }
        }
        if high == [0; 3] {
            return self;
        }
        for axis in 0..3 {
            let voxels = (margin / self.spacing[axis]).ceil().min(1e6) as usize;
            low[axis] = low[axis].saturating_sub(voxels);
            high[axis] = (high[axis] + voxels).min(self.sizes[axis]);
        }
        let inside = |place: &[usize; 3]| (0..3).all(|axis| (low[axis]..high[axis]).contains(&place[axis]));
        let kept: Vec<usize> = self.voxels().filter(inside).map(|place| self.at(place)).collect();
        Self {
            sizes: std::array::from_fn(|axis| high[axis] - low[axis]),
            spacing: self.spacing,
            colours: kept.iter().filter_map(|at| self.colours.get(*at)).copied().collect(),
            masks: self.masks.iter().map(|all| kept.iter().filter_map(|at| all.get(*at)).copied().collect()).collect(),
        }
    }

    /// The slice of a plane in which two masks differ most; of equal ones, that with the most labels.
    pub(crate) fn most_different(&self, plane: Plane) -> usize {
        let ([.., through], _) = plane.axes();
        let mut counts = vec![(0usize, 0usize); self.sizes[through]];
        for place in self.voxels() {
            let [first, second] = [0, 1].map(|mask| self.label(mask, place));
            counts[place[through]].0 += usize::from(first != second);
            counts[place[through]].1 += usize::from(first != 0 || second != 0);
        }
        let best = (0..counts.len()).rev().max_by_key(|&slice| counts[slice]);
        best.unwrap_or(0)
    }

    /// `count` slices in the middles of equal parts of the plane's axis, or of the part of it that has labels.
    pub(crate) fn slices(&self, plane: Plane, count: usize) -> Vec<usize> {
        let ([.., through], _) = plane.axes();
        let size = self.sizes[through];
        let mut part = (0, size);
        if !self.masks.is_empty() {
            let mut has = vec![false; size];
            for (at, place) in self.voxels().enumerate() {
                if self.masks.iter().any(|labels| labels.get(at).is_some_and(|label| *label != 0)) {
                    has[place[through]] = true;
                }
            }
            if let (Some(first), Some(last)) = (has.iter().position(|has| *has), has.iter().rposition(|has| *has)) {
                part = (first, last + 1);
            }
        }
        let (first, end) = part;
        let count = count.min(end - first);
        (0..count).map(|i| first + (2 * i + 1) * (end - first) / (2 * count)).collect()
    }

    /// Pixels a millimetre, so that the longest side of a slice of these planes has `side` pixels.
    pub(crate) fn scale(&self, planes: &[Plane], side: usize) -> f64 {
        let longest = planes.iter().flat_map(|plane| {
            let ([across, down, _], _) = plane.axes();
            [across, down].map(|axis| self.sizes[axis] as f64 * self.spacing[axis])
        });
        side as f64 / longest.fold(f64::MIN_POSITIVE, f64::max)
    }

    /// A slice at `scale` pixels a millimetre, with outlines of the labels, and `letters` of its sides.
    pub(crate) fn draw(&self, plane: Plane, slice: usize, scale: f64, letters: bool) -> Picture {
        let ([across, down, through], reversed) = plane.axes();
        let pixels = |axis: usize| ((self.sizes[axis] as f64 * self.spacing[axis] * scale).round() as usize).max(1);
        let (width, height) = (pixels(across), pixels(down));
        // The voxel of a pixel.
        let voxel = |column: usize, row: usize| {
            let part = |at: usize, count: usize, axis: usize| {
                ((2 * at + 1) * self.sizes[axis] / (2 * count)).min(self.sizes[axis] - 1)
            };
            let mut place = [0; 3];
            place[through] = slice;
            place[across] = part(column, width, across);
            place[down] = part(row, height, down);
            if reversed {
                place[down] = self.sizes[down] - 1 - place[down];
            }
            place
        };
        let mut picture = Picture::black(width, height);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
            let place = voxel(column, row);
            let on_border = |mask: usize| {
                let label = self.label(mask, place);
                let differs = |column: usize, row: usize| {
                    column >= width || row >= height || self.label(mask, voxel(column, row)) != label
                };
                label != 0
                    && (differs(column.wrapping_sub(1), row)
                        || differs(column + 1, row)
                        || differs(column, row.wrapping_sub(1))
                        || differs(column, row + 1))
            };
            let own = || self.colours.get(self.at(place)).copied().unwrap_or_default();
            let colour = match self.masks.len() {
                0 => own(),
                1 => match usize::try_from(self.label(0, place).saturating_sub(1)) {
                    Ok(label) if on_border(0) => LABELS[label % LABELS.len()],
                    _ => own(),
                },
                _ => match (on_border(0), on_border(1)) {
                    (true, true) => COMPARED[2],
                    (true, false) => COMPARED[0],
                    (false, true) => COMPARED[1],
                    _ => own(),
                },
            };
            picture.set(column, row, colour);
        }
        if letters && width >= 64 && height >= 64 {
            let [left, right, top, bottom] = plane.sides();
            letters::put(&mut picture, left, 3, height / 2);
            letters::put(&mut picture, right, width - 3 - letters::WIDTH, height / 2);
            letters::put(&mut picture, top, width / 2, 3);
            letters::put(&mut picture, bottom, width / 2, height - 3 - letters::HEIGHT);
        }
        picture
    }
}

/// The 1st and the 99th percentile of the finite values.
fn range(values: &[f64]) -> [f64; 2] {
    let mut finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if finite.is_empty() {
        return [0.0, 1.0];
    }
    let last = finite.len() - 1;
    let mut at = |part: f64| *finite.select_nth_unstable_by((last as f64 * part).round() as usize, f64::total_cmp).1;
    let [low, high] = [at(0.01), at(0.99)];
    if low < high { [low, high] } else { [at(0.0), at(1.0)] }
}
