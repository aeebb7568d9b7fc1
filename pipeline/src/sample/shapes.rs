//! Boxes and points in voxel coordinates.

use serde::{Deserialize, Serialize};
use tomograd_core::{Device, Error, Result, Tensor};

/// Boxes on a sample's grid, each with a class.
///
/// Axes are in the order of the grid: (D, H, W) or (H, W). A box is half-open, `low..high` along each axis, in units of
/// voxels, where voxel `i` is `i..i + 1`: the box of the voxels 2, 3 and 4 is 2 to 5. (So an edge `e` is at `e - 0.5` in the
/// coordinates of [`Points`].) Edges may be fractional and outside the grid.
///
/// ```
/// use tomograd_pipeline::Boxes;
/// let boxes = Boxes::new(&[([2.0, 10.0], [5.0, 14.0])], &[1])?;
/// assert_eq!(boxes.corners()?.to_vec::<f32>()?, [2.0, 10.0, 5.0, 14.0]);
/// assert_eq!(boxes.classes(), [1]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Boxes {
    axes: usize,
    /// Lower and upper edges along three axes; a 2D box is 0 to 1 along the first.
    pub(crate) edges: Vec<[[f64; 3]; 2]>,
    pub(crate) classes: Vec<i64>,
}

/// Points on a sample's grid, such as landmarks.
///
/// Axes are in the order of the grid: (D, H, W) or (H, W). The centre of voxel `i` is at `i`, as in NIfTI affines. Points
/// keep their order and number, even if a transform moves one outside the grid.
///
/// ```
/// use tomograd_pipeline::Points;
/// let points = Points::new(&[[2.0, 10.5, 7.0], [0.0, 1.0, 2.0]])?;
/// assert_eq!(points.coordinates()?.shape(), [2, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Points {
    axes: usize,
    /// Coordinates along three axes; a 2D point is at 0 along the first.
    pub(crate) at: Vec<[f64; 3]>,
}

/// Larger coordinates are rejected.
const FARTHEST: f64 = 1e12;

fn checked<const N: usize>(operation: &str, place: [f64; N], rest: f64) -> Result<[f64; 3]> {
    if !place.iter().all(|x| x.abs() <= FARTHEST) {
        return Err(Error::argument(operation, format!("coordinates {place:?}"))
            .expected("finite numbers of voxels within 1e12 of the grid"));
    }
    let mut whole = [rest; 3];
    whole[3 - N..].copy_from_slice(&place);
    Ok(whole)
}

fn axes<const N: usize>(operation: &str) -> Result<usize> {
    if !(2..=3).contains(&N) {
        return Err(Error::argument(operation, format!("{N} coordinates")).expected("(D, H, W) or (H, W)"));
    }
    Ok(N)
}

impl Boxes {
    /// Boxes from their lower and upper edges and classes.
    ///
    /// # Errors
    /// When there isn't one class per box, there aren't 2 or 3 axes, a coordinate isn't finite, or an upper edge isn't above
    /// the lower one.
    pub fn new<const N: usize>(edges: &[([f64; N], [f64; N])], classes: &[i64]) -> Result<Self> {
        let axes = axes::<N>("boxes")?;
        if edges.len() != classes.len() {
            return Err(Error::argument("boxes", format!("{} classes", classes.len()))
                .expected(format!("{}, one a box", edges.len())));
        }
        let one = |(low, high): &([f64; N], [f64; N])| {
            if (0..N).any(|axis| low[axis] >= high[axis]) {
                return Err(Error::argument("boxes", format!("a box from {low:?} to {high:?}"))
                    .expected("upper edges above the lower ones"));
            }
            Ok([checked("boxes", *low, 0.0)?, checked("boxes", *high, 1.0)?])
        };
        Ok(Self { axes, edges: edges.iter().map(one).collect::<Result<_>>()?, classes: classes.to_vec() })
    }

    /// Checks deserialised boxes.
    pub(crate) fn checked(self) -> Result<Self> {
        let whole = (2..=3).contains(&self.axes) && self.edges.len() == self.classes.len();
        let inside = self.edges.iter().flatten().flatten().all(|x| x.abs() <= FARTHEST);
        if whole && inside { Ok(self) } else { Err(Error::format("boxes", "boxes that can't be")) }
    }

    /// The number of boxes.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    /// Whether there are no boxes.
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// The number of coordinates of a corner.
    pub fn axes(&self) -> usize {
        self.axes
    }

    /// The class of each box.
    pub fn classes(&self) -> &[i64] {
        &self.classes
    }

    /// f32 `(boxes, 2 · axes)`: in each row the lower edges, then the upper edges.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn corners(&self) -> Result<Tensor> {
        let from = 3 - self.axes;
        let rows = self.edges.iter().flatten().flat_map(|corner| &corner[from..]);
        let values: Vec<f32> = rows.map(|&x| x as f32).collect();
        Tensor::from_slice(&values, &[self.len(), 2 * self.axes], Device::Cpu)
    }
}

impl Points {
    /// Points with these coordinates.
    ///
    /// # Errors
    /// When there aren't 2 or 3 axes, or a coordinate isn't finite.
    pub fn new<const N: usize>(points: &[[f64; N]]) -> Result<Self> {
        let axes = axes::<N>("points")?;
        Ok(Self { axes, at: points.iter().map(|&point| checked("points", point, 0.0)).collect::<Result<_>>()? })
    }

    /// Checks deserialised points.
    pub(crate) fn checked(self) -> Result<Self> {
        let inside = self.at.iter().flatten().all(|x| x.abs() <= FARTHEST);
        if (2..=3).contains(&self.axes) && inside {
            Ok(self)
        } else {
            Err(Error::format("points", "points that can't be"))
        }
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The number of coordinates of a point.
    pub fn axes(&self) -> usize {
        self.axes
    }

    /// f32 `(points, axes)`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn coordinates(&self) -> Result<Tensor> {
        let values: Vec<f32> = self.at.iter().flat_map(|point| &point[3 - self.axes..]).map(|&x| x as f32).collect();
        Tensor::from_slice(&values, &[self.len(), self.axes], Device::Cpu)
    }
}
