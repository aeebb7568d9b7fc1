//! Affine maps from voxel indices (i, j, k) to world coordinates: RAS+, millimetres.

/// A 4 × 4 matrix, row by row.
pub type Affine = [[f64; 4]; 4];

/// Scaling by a spacing, origin 0.
pub fn from_spacing([x, y, z]: [f64; 3]) -> Affine {
    [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, z, 0.0], [0.0, 0.0, 0.0, 1.0]]
}

/// The affine of a NIfTI quaternion (b, c, d), offsets, spacing and qfac (−1 flips the third axis).
pub fn from_quaternion([b, c, d]: [f64; 3], offset: [f64; 3], spacing: [f64; 3], qfac: f64) -> Affine {
    let squares = b * b + c * c + d * d;
    // Beyond 1 by rounding: then it is a half turn, and the rest is scaled to unit length.
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
    [row(r0, offset[0]), row(r1, offset[1]), row(r2, offset[2]), [0.0, 0.0, 0.0, 1.0]]
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

/// Three letters that say where each voxel axis points: `RAS` for right, anterior, superior. The axes are matched with the
/// world's by the largest cosines, each world axis once.
pub fn orientation(affine: &Affine) -> String {
    let lengths = spacing(affine);
    let mut cosines: Vec<(f64, usize, usize)> = Vec::new();
    for (world, row) in affine.iter().take(3).enumerate() {
        for (voxel, (value, length)) in row.iter().zip(lengths).enumerate() {
            cosines.push((value / length.max(f64::MIN_POSITIVE), world, voxel));
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
