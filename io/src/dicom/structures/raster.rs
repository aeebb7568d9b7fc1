//! Contours into masks.

use tomograd_core::{DType, Device, Result, Tensor};

use super::{
    super::{fail, stack::Stack},
    Contour, Structure, StructureSet,
};
use crate::{Volume, geometry};

/// How far a point may be from the middle of its slice, in slices.
const WITHIN: f64 = 0.5;
/// Rows that edges of all contours of a structure may cross; the largest real ones have millions.
const MOST_CROSSINGS: u64 = 1 << 30;

impl StructureSet {
    /// The mask of a structure in the voxels of a stack: u8, 1 where the centre of a voxel is in an odd number of the contours of its slice, so
    /// that contours in contours are holes. With notes on what was left out.
    ///
    /// # Errors
    /// When the stack has another frame of reference, its slices are at differing distances, or a contour isn't in one of
    /// its planes.
    pub fn mask(&self, structure: &Structure, stack: &Stack) -> Result<(Volume, Vec<String>)> {
        let within = |error: tomograd_core::Error| error.within(format!("structure {:?}", structure.name));
        self.rasterized(structure, stack).map_err(within)
    }

    fn rasterized(&self, structure: &Structure, stack: &Stack) -> Result<(Volume, Vec<String>)> {
        let frame = stack.image()?.about.frame_of_reference.clone();
        let mut notes = Vec::new();
        match &frame {
            Some(frame) if !self.frames_of_reference.is_empty() && !self.frames_of_reference.contains(frame) => {
                return Err(fail(format!("contours in frame of reference {}", self.frames_of_reference.join(", ")))
                    .expected(format!("{frame}, that of the series")));
            }
            Some(_) if !self.frames_of_reference.is_empty() => {}
            _ => notes.push("the frame of reference isn't said: taken as that of the series".to_owned()),
        }
        if stack.is_uneven() {
            return Err(fail("a series whose slices are at differing distances").expected("even ones"));
        }
        let [width, height, depth] = stack.size();
        let inverse = geometry::inverse(stack.affine())?;
        let plane = width.saturating_mul(height);
        let mut voxels = Tensor::zeros(&[depth, height, width], DType::U8, Device::Cpu)?;
        let all = voxels.as_mut_slice::<u8>()?;
        // Whether the number of crossings on the left of a voxel and up to its row's last changes here; rows have one more.
        let (mut left_out, mut outside, mut between, mut crossings) = (0usize, 0usize, 0usize, 0u64);
        let mut touched = vec![false; depth];
        for contour in &structure.contours {
            if !matches!(&*contour.kind, "CLOSED_PLANAR" | "CLOSEDPLANAR_XOR") || contour.points.len() < 3 {
                left_out += 1;
                continue;
            }
            let points: Vec<[f64; 3]> =
                contour.points.iter().map(|&[x, y, z]| geometry::apply(&inverse, [0.0 - x, 0.0 - y, z])).collect();
            let Some((slice, off)) = slice(&points) else {
                return Err(tilted(contour));
            };
            if !(0.0..depth as f64).contains(&slice) {
                outside += 1;
                continue;
            }
            between += usize::from(off > 0.05);
            let k = slice as usize;
            if let Some(touched) = touched.get_mut(k) {
                *touched = true;
            }
            let part = all.get_mut(k.saturating_mul(plane)..k.saturating_add(1).saturating_mul(plane));
            crossings = crossings.saturating_add(toggle(part.unwrap_or_default(), width, height, &points));
            if crossings > MOST_CROSSINGS {
                return Err(fail("contours that cross rows more than 2³⁰ times").expected("outlines of structures"));
            }
        }
        // From changes to what they add up to.
        for row in all.chunks_exact_mut(width.max(1)) {
            let mut odd = 0;
            for voxel in row {
                odd ^= *voxel;
                *voxel = odd;
            }
        }
        let mut note = |count: usize, text: &str| {
            if count > 0 {
                notes.push(format!("{count} {text}"));
            }
        };
        note(left_out, "contours that aren't closed, or are points, were left out");
        note(outside, "contours lie outside of the series");
        note(between, "contours lie between slices and were put into the nearest");
        let drawn: Vec<usize> = touched.iter().enumerate().filter(|(_, touched)| **touched).map(|(k, _)| k).collect();
        let missing = drawn.iter().zip(drawn.iter().skip(1)).map(|(a, b)| b - a - 1).sum();
        note(missing, "slices between others have no contour: they are empty in the mask");
        Ok((Volume::new(voxels, *stack.affine())?, notes))
    }
}

fn tilted(contour: &Contour) -> tomograd_core::Error {
    fail(format!("a contour of {} points across slices", contour.points.len()))
        .expected("contours in the planes of the slices")
}

/// The slice of a contour, and how far it is from its middle; `None` if its points aren't in one.
fn slice(points: &[[f64; 3]]) -> Option<(f64, f64)> {
    let mean = points.iter().map(|[.., z]| z).sum::<f64>() / points.len() as f64;
    let slice = mean.round();
    let off = points.iter().map(|[.., z]| (z - slice).abs()).fold(0.0, f64::max);
    (mean.is_finite() && off <= WITHIN + 1e-3).then_some((slice, off))
}

/// Toggles, in each row that an edge crosses, the first voxel whose centre is on the right of the edge. Returns the number
/// of rows.
fn toggle(plane: &mut [u8], width: usize, height: usize, points: &[[f64; 3]]) -> u64 {
    let mut crossings = 0u64;
    let ends = points.iter().zip(points.iter().cycle().skip(1));
    for (&[ax, ay, _], &[bx, by, _]) in ends {
        let (low, high) = (ay.min(by), ay.max(by));
        // Centres are at whole numbers; a row is crossed if low ≤ row < high.
        let (first, last) = (low.ceil().max(0.0), high.ceil().min(height as f64));
        let rows = (last - first).max(0.0);
        if rows == 0.0 {
            continue;
        }
        for row in first as usize..last as usize {
            let x = ax + (row as f64 - ay) * (bx - ax) / (by - ay);
            let column = x.ceil().max(0.0);
            if column < width as f64
                && let Some(voxel) = plane.get_mut(row * width + column as usize)
            {
                *voxel ^= 1;
            }
        }
        crossings += rows as u64;
    }
    crossings
}
