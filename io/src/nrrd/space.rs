//! Where the voxels of a header are.

use tomograd_core::Result;

use super::{fail, header::Header};
use crate::geometry::{self, Affine};

/// The spatial axes of an array, and where they are.
#[derive(Debug)]
pub(super) struct Placed {
    /// One to three axes.
    pub(super) spatial: Vec<usize>,
    pub(super) affine: Affine,
    /// The step of a further axis (time), if the header has one.
    pub(super) step: Option<f64>,
    pub(super) notes: Vec<String>,
}

/// The signs that turn the coordinates of a space into RAS, whether it says left from right, and how many axes it has.
fn space(name: &str) -> Option<([f64; 3], bool, usize)> {
    let lower = name.to_ascii_lowercase();
    let (plain, axes) = match lower.strip_suffix("-time") {
        Some(plain) => (plain, 4),
        None => (lower.as_str(), 3),
    };
    let (signs, known) = match plain {
        "right-anterior-superior" | "ras" => ([1.0, 1.0, 1.0], true),
        "left-anterior-superior" | "las" => ([-1.0, 1.0, 1.0], true),
        "left-posterior-superior" | "lps" => ([-1.0, -1.0, 1.0], true),
        "scanner-xyz" | "3d-right-handed" | "3d-left-handed" => ([-1.0, -1.0, 1.0], false),
        _ => {
            return match plain {
                "rast" => Some(([1.0, 1.0, 1.0], true, 4)),
                "last" => Some(([-1.0, 1.0, 1.0], true, 4)),
                "lpst" => Some(([-1.0, -1.0, 1.0], true, 4)),
                _ => None,
            };
        }
    };
    Some((signs, known, axes))
}

/// Millimetres in a unit.
fn unit(name: &str) -> Option<f64> {
    Some(match name.trim().to_lowercase().as_str() {
        "mm" | "millimeter" | "millimeters" | "millimetre" | "millimetres" => 1.0,
        "cm" | "centimeter" | "centimeters" | "centimetre" | "centimetres" => 10.0,
        "m" | "meter" | "meters" | "metre" | "metres" => 1e3,
        "um" | "µm" | "μm" | "micron" | "microns" | "micrometer" | "micrometre" => 1e-3,
        _ => return None,
    })
}

/// Finds the spatial axes and the affine.
pub(super) fn place(header: &Header) -> Result<Placed> {
    let rank = header.sizes.len();
    let mut notes = Vec::new();
    let (mut signs, mut axes) = ([-1.0, -1.0, 1.0], None);
    match header.text("space") {
        Some(name) => {
            let (of_space, known, count) = space(name).ok_or_else(|| {
                fail(format!("the space {name:?}")).expected("right-anterior-superior, left-posterior-superior, ...")
            })?;
            (signs, axes) = (of_space, Some(count));
            if !known {
                notes.push(format!("the space {name} doesn't say left from right: taken as LPS"));
            }
        }
        None => notes.push("the file doesn't say its space: taken as LPS".to_owned()),
    }
    if let Some(count) = header.text("space dimension") {
        let number = count.parse::<usize>().ok().filter(|count| (1..=4).contains(count) && axes.is_none());
        axes = Some(number.ok_or_else(|| {
            fail(format!("space dimension {count:?}")).expected("1 to 4, and no space in the header")
        })?);
    }

    let directions = header.vectors("space directions")?;
    let kinds = header.words("kinds");
    for (name, count) in [("space directions", directions.as_ref().map(Vec::len)), ("kinds", Some(kinds.len()))] {
        if header.text(name).is_some() && count != Some(rank) {
            return Err(fail(format!("{name} {:?}", header.text(name))).expected(format!("{rank}, one for each axis")));
        }
    }
    let is_spatial = |axis: usize| match kinds.get(axis).map(|kind| kind.to_ascii_lowercase()).as_deref() {
        None | Some("domain" | "space" | "none" | "???") => true,
        Some(_) => false,
    };
    let spacings = header.numbers("spacings")?;
    let mut columns: Vec<[f64; 3]> = Vec::new();
    let mut spatial = Vec::new();
    let mut step = None;
    if let Some(directions) = &directions {
        let axes = axes.ok_or_else(|| fail("space directions without a space or a space dimension"))?;
        for (axis, vector) in directions.iter().enumerate() {
            let Some(vector) = vector else { continue };
            if vector.len() != axes || vector.iter().any(|part| !part.is_finite()) {
                let what = format!("the direction {vector:?} of axis {}", axis.saturating_add(1));
                return Err(fail(what).expected(format!("{axes} finite numbers")));
            }
            let mut parts = vector.iter().copied();
            let column = [(); 3].map(|()| parts.next().unwrap_or(0.0));
            let time = parts.next().unwrap_or(0.0);
            if column == [0.0; 3] && time != 0.0 {
                step = Some(time.abs());
                continue;
            }
            if time != 0.0 {
                return Err(fail("an axis that runs through space and time").expected("one or the other"));
            }
            spatial.push(axis);
            columns.push(column);
        }
    } else {
        for axis in (0..rank).filter(|&axis| is_spatial(axis)) {
            let spacing = spacings.as_ref().and_then(|spacings| spacings.get(axis)).copied();
            let spacing = spacing.filter(|spacing| spacing.is_finite() && *spacing != 0.0).map(f64::abs);
            if spatial.len() == 3 {
                step = step.or(spacing);
                continue;
            }
            if spacing.is_none() {
                notes.push(format!(
                    "the file doesn't say the spacing of axis {}: taken as 1 mm",
                    axis.saturating_add(1)
                ));
            }
            let mut column = [0.0; 3];
            if let Some(entry) = column.get_mut(spatial.len()) {
                *entry = spacing.unwrap_or(1.0);
            }
            spatial.push(axis);
            columns.push(column);
        }
    }
    if !(1..=3).contains(&spatial.len()) {
        return Err(fail(format!("{} spatial axes", spatial.len())).expected("1 to 3"));
    }
    let origin = origin(header, &spatial, &columns, axes)?;
    let scales = scales(header, &mut notes);
    let [Some(x), Some(y), Some(z)] = filled(columns) else {
        return Err(fail("space directions of axes that coincide").expected("axes that span a space"));
    };
    let mut affine: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
    let rows =
        affine.iter_mut().zip(x.into_iter().zip(y).zip(z.into_iter().zip(origin))).zip(signs.into_iter().zip(scales));
    for ((row, ((x, y), (z, o))), (sign, scale)) in rows {
        *row = [x, y, z, o].map(|value| if value == 0.0 { 0.0 } else { value * sign * scale });
    }
    Ok(Placed { spatial, affine: geometry::checked(affine)?, step, notes })
}

/// The world coordinates of the first voxel, in the header's space.
fn origin(header: &Header, spatial: &[usize], columns: &[[f64; 3]], axes: Option<usize>) -> Result<[f64; 3]> {
    let mut origin = [0.0; 3];
    if let Some(vectors) = header.vectors("space origin")? {
        let [Some(vector)] = &vectors[..] else {
            return Err(fail(format!("space origin {:?}", header.text("space origin"))).expected("one vector"));
        };
        if Some(vector.len()) != axes || vector.iter().any(|part| !part.is_finite()) {
            return Err(fail(format!("space origin {vector:?}")).expected("a finite number for each axis of the space"));
        }
        origin.iter_mut().zip(vector).for_each(|(to, from)| *to = *from);
        return Ok(origin);
    }
    // Without a space, the least coordinate of an axis, which is the border of its first voxel, or its centre.
    let Some(mins) = header.numbers("axis mins")?.filter(|_| axes.is_none()) else { return Ok(origin) };
    let centers = header.words("centers");
    for ((at, &axis), column) in spatial.iter().enumerate().zip(columns) {
        let (Some(min), Some(to)) = (mins.get(axis).filter(|min| min.is_finite()), origin.get_mut(at)) else {
            continue;
        };
        let node = centers.get(axis).is_some_and(|center| center.eq_ignore_ascii_case("node"));
        let step = column.get(at).copied().unwrap_or(0.0);
        *to = if node { *min } else { min + step / 2.0 };
    }
    Ok(origin)
}

/// Millimetres in the unit of each world axis.
fn scales(header: &Header, notes: &mut Vec<String>) -> [f64; 3] {
    let mut scales = [1.0; 3];
    for (scale, name) in scales.iter_mut().zip(header.words("space units")) {
        match unit(&name) {
            Some(millimetres) => *scale = millimetres,
            None if name.is_empty() || name == "???" => {}
            None => notes.push(format!("the unit {name:?} isn't a length that is known: taken as millimetres")),
        }
    }
    scales
}

/// Three columns: those that aren't there are perpendicular to the others, with 1 mm.
fn filled(columns: Vec<[f64; 3]>) -> [Option<[f64; 3]>; 3] {
    let cross = |[a, b, c]: [f64; 3], [x, y, z]: [f64; 3]| [b * z - c * y, c * x - a * z, a * y - b * x];
    let unit = |vector: [f64; 3]| {
        let length = vector.iter().map(|part| part * part).sum::<f64>().sqrt();
        (length > 0.0).then(|| vector.map(|part| part / length))
    };
    match columns[..] {
        [x, y, z] => [Some(x), Some(y), Some(z)],
        [x, y] => [Some(x), Some(y), unit(cross(x, y))],
        [x] => {
            // The world axis that is farthest from it.
            let [a, b, c] = x.map(f64::abs);
            let other = if b <= a && b <= c {
                [0.0, 1.0, 0.0]
            } else if a <= c {
                [1.0, 0.0, 0.0]
            } else {
                [0.0, 0.0, 1.0]
            };
            let z = unit(cross(x, other));
            [Some(x), z.and_then(|z| unit(cross(z, x))), z]
        }
        _ => [None; 3],
    }
}
