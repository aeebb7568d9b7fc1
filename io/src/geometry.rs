//! Affine maps from voxel indices (i, j, k) to world coordinates: RAS+, millimetres.

use tomograd_core::{Error, Result};

/// A 4 × 4 matrix in row-major order.
pub type Affine = [[f64; 4]; 4];

/// The affine with this spacing and origin 0.
///
/// # Errors
/// When a spacing isn't positive and finite.
pub fn from_spacing(spacing: [f64; 3]) -> Result<Affine> {
    let [x, y, z] = positive(spacing)?;
    checked([[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0], [0.0, 0.0, 0.0, 1.0]])
}

fn positive(spacing: [f64; 3]) -> Result<[f64; 3]> {
    if spacing.iter().all(|step| step.is_finite() && *step > 0.0) {
        return Ok(spacing);
    }
    Err(Error::argument("affine", format!("a spacing of {spacing:?}")).expected("positive, finite numbers"))
}

/// Returns the affine if it is valid: see [`inverse`].
pub(crate) fn checked(affine: Affine) -> Result<Affine> {
    inverse(&affine).map(|_| affine)
}

/// The affine that nibabel uses for a NIfTI file without qform and sform: the spacing, the first axis pointing to the left,
/// and the centre of a volume of these sizes at the origin.
///
/// # Errors
/// When a spacing isn't positive and finite.
pub fn centred(sizes: &[usize], spacing: [f64; 3]) -> Result<Affine> {
    let [x, y, z] = positive(spacing)?;
    let middle = |axis: usize| sizes.get(axis).map_or(0.0, |&size| (size as f64 - 1.0) / 2.0);
    checked([
        [-x, 0.0, 0.0, x * middle(0)],
        [0.0, y, 0.0, -y * middle(1)],
        [0.0, 0.0, z, -z * middle(2)],
        [0.0, 0.0, 0.0, 1.0],
    ])
}

/// World coordinates in millimetres of the (fractional) voxel index (i, j, k).
pub fn apply(affine: &Affine, [i, j, k]: [f64; 3]) -> [f64; 3] {
    let [x, y, z, _] = *affine;
    [x, y, z].map(|[a, b, c, d]| a * i + b * j + c * k + d)
}

/// The composition `then` ∘ `first`.
pub fn compose(then: &Affine, first: &Affine) -> Affine {
    let [f0, f1, f2, f3] = *first;
    then.map(|[a, b, c, d]| {
        let mut row = [0.0; 4];
        for ((((to, x), y), z), w) in row.iter_mut().zip(f0).zip(f1).zip(f2).zip(f3) {
            *to = a * x + b * y + c * z + d * w;
        }
        row
    })
}

/// The inverse affine: from world coordinates to voxel indices.
///
/// # Errors
/// When a value isn't finite, or the matrix is singular or nearly so.
pub fn inverse(affine: &Affine) -> Result<Affine> {
    let fail = |what: &str| Err(Error::argument("affine", format!("{what}: {affine:?}")).expected("an invertible map"));
    let [[a, b, c, x], [d, e, f, y], [g, h, i, z], last] = *affine;
    if last != [0.0, 0.0, 0.0, 1.0] || affine.iter().flatten().any(|value| !value.is_finite()) {
        return fail("a value isn't finite, or the last row isn't (0, 0, 0, 1)");
    }
    let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    let [p, q, r] = spacing(affine);
    // The determinant relative to the lengths of the columns, so that it is independent of the voxel size.
    if !(determinant.abs() > 1e-9 * p * q * r && determinant.is_finite() && p * q * r > 0.0) {
        return fail("the matrix is singular");
    }
    let row = |row: [f64; 3]| {
        let [p, q, r] = row.map(|value| value / determinant);
        [p, q, r, -(p * x + q * y + r * z)]
    };
    Ok([
        row([e * i - f * h, c * h - b * i, b * f - c * e]),
        row([f * g - d * i, a * i - c * g, c * d - a * f]),
        row([d * h - e * g, b * g - a * h, a * e - b * d]),
        last,
    ])
}

/// The affine of a NIfTI quaternion (b, c, d), offsets, spacing and qfac (if negative, the third axis is flipped). A
/// quaternion of norm greater than 1 is normalised, as in the format's reference library.
///
/// # Errors
/// When a number isn't finite, or a spacing isn't positive.
pub fn from_quaternion([b, c, d]: [f64; 3], offset: [f64; 3], spacing: [f64; 3], qfac: f64) -> Result<Affine> {
    positive(spacing)?;
    if !qfac.is_finite() {
        return Err(Error::argument("affine", format!("a qfac of {qfac}")).expected("1 or -1"));
    }
    let qfac = if qfac < 0.0 { -1.0 } else { 1.0 };
    let squares = b * b + c * c + d * d;
    // If rounding makes the sum of squares greater than 1, it is a half turn, and b, c, d are normalised.
    let (a, scale) = if squares > 1.0 { (0.0, 1.0 / squares.sqrt()) } else { ((1.0 - squares).sqrt(), 1.0) };
    let (b, c, d) = (b * scale, c * scale, d * scale);
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let [x, y, z] = [spacing[0], spacing[1], spacing[2] * qfac];
    let [r0, r1, r2] = rotation;
    let row = |r: [f64; 3], offset: f64| [r[0] * x, r[1] * y, r[2] * z, offset];
    checked([row(r0, offset[0]), row(r1, offset[1]), row(r2, offset[2]), [0.0, 0.0, 0.0, 1.0]])
}

/// The quaternion (b, c, d) and offsets of an affine, its qfac, and whether these represent the affine to the precision of
/// f32 (an affine with shear has no such representation). The inverse of [`from_quaternion`].
///
/// # Errors
/// When the affine has no inverse.
pub fn to_quaternion(affine: &Affine) -> Result<([f64; 6], f64, bool)> {
    inverse(affine)?;
    let lengths = spacing(affine);
    let [lx, ly, lz] = lengths;
    let [[a, b, c, x], [d, e, f, y], [g, h, i, z], _] = *affine;
    let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    let qfac = if determinant < 0.0 { -1.0 } else { 1.0 };
    let lz = lz * qfac;
    let [r00, r01, r02] = [a / lx, b / ly, c / lz];
    let [r10, r11, r12] = [d / lx, e / ly, f / lz];
    let [r20, r21, r22] = [g / lx, h / ly, i / lz];
    // Four times the square of each component. The largest one is the divisor, which avoids cancellation.
    let squares = [1.0 + r00 + r11 + r22, 1.0 + r00 - r11 - r22, 1.0 - r00 + r11 - r22, 1.0 - r00 - r11 + r22];
    let [w, p, q, r] = squares;
    let largest = w.max(p).max(q).max(r);
    let s = 2.0 * largest.sqrt();
    let [w, p, q, r] = if largest == w {
        [s / 4.0, (r21 - r12) / s, (r02 - r20) / s, (r10 - r01) / s]
    } else if largest == p {
        [(r21 - r12) / s, s / 4.0, (r01 + r10) / s, (r02 + r20) / s]
    } else if largest == q {
        [(r02 - r20) / s, (r01 + r10) / s, s / 4.0, (r12 + r21) / s]
    } else {
        [(r10 - r01) / s, (r02 + r20) / s, (r12 + r21) / s, s / 4.0]
    };
    // A quaternion and its negative are the same rotation; the format requires a nonnegative first component.
    let [p, q, r] = if w < 0.0 { [-p, -q, -r] } else { [p, q, r] };
    let back = from_quaternion([p, q, r], [x, y, z], lengths, qfac)?;
    let largest = lengths.iter().fold(0.0, |a: f64, &b| a.max(b));
    let exact = back.iter().flatten().zip(affine.iter().flatten()).all(|(m, n)| (m - n).abs() <= 1e-5 * largest);
    Ok(([p, q, r, x, y, z], qfac, exact))
}

/// The length of each voxel axis in millimetres.
pub fn spacing(affine: &Affine) -> [f64; 3] {
    let [r0, r1, r2, _] = affine;
    let [x0, y0, z0, _] = r0;
    let [x1, y1, z1, _] = r1;
    let [x2, y2, z2, _] = r2;
    let length = |a: &f64, b: &f64, c: &f64| (a * a + b * b + c * c).sqrt();
    [length(x0, x1, x2), length(y0, y1, y2), length(z0, z1, z2)]
}

/// The orientation code: three letters for the direction of each voxel axis, such as `RAS` for right, anterior, superior.
/// Voxel axes are matched with world axes by the largest cosines, each world axis once. An axis of length 0 or of non-finite
/// direction is `?`.
pub fn orientation(affine: &Affine) -> String {
    let lengths = spacing(affine);
    let mut cosines: Vec<(f64, usize, usize)> = Vec::new();
    for (world, row) in affine.iter().take(3).enumerate() {
        for (voxel, (value, length)) in row.iter().zip(lengths).enumerate() {
            if length > 0.0 && length.is_finite() {
                cosines.push((value / length, world, voxel));
            }
        }
    }
    cosines.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()));
    let mut letters = ['?'; 3];
    let mut used = [false; 3];
    for (cosine, world, voxel) in cosines {
        let (Some(letter), Some(taken)) = (letters.get_mut(voxel), used.get_mut(world)) else { continue };
        if *letter == '?' && !*taken {
            *taken = true;
            *letter = match (world, cosine >= 0.0) {
                (0, true) => 'R',
                (0, false) => 'L',
                (1, true) => 'A',
                (1, false) => 'P',
                (_, true) => 'S',
                (_, false) => 'I',
            };
        }
    }
    letters.iter().collect()
}

/// The affine with 1 mm voxels whose axes have this orientation code (`RAS`, `LPS`, ...), the first voxel at the origin;
/// [`orientation`] returns the same code for it.
///
/// ```
/// use tomograd_io::geometry;
/// assert_eq!(geometry::orientation(&geometry::from_orientation("PIR")?), "PIR");
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// When `codes` isn't three letters, one each of R/L, A/P and S/I.
pub fn from_orientation(codes: &str) -> Result<Affine> {
    let mut affine: Affine = [[0.0; 4], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
    for (voxel, (world, positive)) in axes(codes)?.into_iter().enumerate() {
        if let Some(entry) = affine.get_mut(world).and_then(|row| row.get_mut(voxel)) {
            *entry = if positive { 1.0 } else { -1.0 };
        }
    }
    Ok(affine)
}

/// For each of the three letters: its world axis, and whether it points to R, A or S.
pub(crate) fn axes(codes: &str) -> Result<[(usize, bool); 3]> {
    let fail = || {
        Error::argument("orientation", format!("{codes:?} names no orientation"))
            .expected("three letters, one each of R/L, A/P and S/I, such as RAS or LPS")
    };
    let one = |letter: char| match letter.to_ascii_uppercase() {
        'R' => Some((0, true)),
        'L' => Some((0, false)),
        'A' => Some((1, true)),
        'P' => Some((1, false)),
        'S' => Some((2, true)),
        'I' => Some((2, false)),
        _ => None,
    };
    let found: Option<Vec<(usize, bool)>> = codes.chars().map(one).collect();
    let axes: [(usize, bool); 3] = found.and_then(|found| found.try_into().ok()).ok_or_else(fail)?;
    let [a, b, c] = axes.map(|axis| axis.0);
    if a == b || a == c || b == c { Err(fail()) } else { Ok(axes) }
}
