//! Siemens' mosaics: the slices of a volume as tiles of one picture.

use std::sync::Arc;

use dicom_core::Tag;
use tomograd_core::Result;

use super::{
    csa, fail,
    frame::Frame,
    geometry::{dot, moved, normal},
    image::Format,
    view::View,
};

/// How a picture is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Rows and columns of the picture.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Tiles in a row.
    pub(super) across: usize,
}

impl Tiles {
    /// A tile of the picture's samples.
    pub(super) fn cut<T: Copy>(&self, picture: &[T], samples: usize, tile: usize) -> Vec<T> {
        let (rows, columns) = (self.rows / self.across.max(1), self.columns / self.across.max(1));
        let (top, left) = (tile / self.across.max(1) * rows, tile % self.across.max(1) * columns);
        let lines = picture.chunks_exact((self.columns * samples).max(1)).skip(top).take(rows);
        lines
            .flat_map(|line| line.get(left * samples..(left + columns) * samples).unwrap_or_default())
            .copied()
            .collect()
    }
}

/// The frames of the tiles of a picture whose only frame is `frames`; the format becomes that of a tile.
///
/// # Errors
/// When the file doesn't say how many tiles there are, where they lie, or the picture can't be cut so.
pub(super) fn frames(
    root: View<'_>,
    format: &mut Format,
    frames: &[Frame],
    notes: &mut Vec<String>,
) -> Result<(Tiles, Vec<Frame>)> {
    let [frame] = frames else {
        return Err(fail(format!("a mosaic of {} frames", frames.len())).expected("one"));
    };
    // In implicit files the representation of private elements isn't known.
    let own = root.raw(Tag(0x19, 0x100A)).filter(|_| csa::has_mr_header(root)).and_then(|(bytes, _, big)| {
        let &[a, b] = bytes else { return None };
        Some(f64::from(if big { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) }))
    });
    let count = csa::numbers(root, "NumberOfImagesInMosaic").first().copied().or(own);
    let count = count.filter(|count| count.fract() == 0.0 && (1.0..=4096.0).contains(count));
    let count = count.ok_or_else(|| {
        fail("a mosaic of Siemens that doesn't say how many slices it has")
            .expected("NumberOfImagesInMosaic in its CSA header")
    })? as usize;
    let across = (1..=64).find(|across| across * across >= count).unwrap_or(64);
    if !format.rows.is_multiple_of(across) || !format.columns.is_multiple_of(across) {
        return Err(fail(format!("a mosaic of {} × {} pixels", format.columns, format.rows))
            .expected(format!("multiples of {across}, for {count} tiles")));
    }
    let tiles = Tiles { rows: format.rows, columns: format.columns, across };
    format.rows /= across;
    format.columns /= across;
    let detail = &frame.detail;
    let (Some(position), Some(orientation), Some([down, along])) = (frame.position, detail.orientation, detail.spacing)
    else {
        return Err(fail("a mosaic without position, orientation and pixel spacing"));
    };
    let distance = detail.between.or_else(|| {
        notes.push("a mosaic without a distance between slices: their thickness is taken".to_owned());
        detail.thickness
    });
    let distance = distance.ok_or_else(|| fail("a mosaic without a distance between slices"))?;
    let across = normal(&orientation);
    // The normal along which slices follow each other; it may be against that of the plane.
    let own = csa::numbers(root, "SliceNormalVector");
    let towards = match own.as_slice() {
        &[x, y, z] if dot([x, y, z], across).abs() > 0.99 => across.map(|part| part * dot([x, y, z], across).signum()),
        [] => {
            notes.push("a mosaic that doesn't say in which direction its slices follow: along the normal".to_owned());
            across
        }
        other => {
            return Err(
                fail(format!("a mosaic with slices along {other:?}")).expected(format!("±{across:?}, the normal"))
            );
        }
    };
    // The position is that of the picture as if it were one slice around the same centre.
    let [a, b, c, d, e, f] = orientation;
    let first = moved(position, [a, b, c], along * (tiles.columns - format.columns) as f64 / 2.0);
    let first = moved(first, [d, e, f], down * (tiles.rows - format.rows) as f64 / 2.0);
    let slice =
        |i: usize| Frame { position: Some(moved(first, towards, distance * i as f64)), detail: Arc::clone(detail) };
    notes.push(format!("a mosaic of Siemens: its {count} tiles are slices"));
    Ok((tiles, (0..count).map(slice).collect()))
}
