//! Vectors of DICOM's patient coordinates: to the left, posterior and head, in millimetres.

/// The normal of a plane, of length 1: rows × columns. Zeros if there is none.
pub(super) fn normal(orientation: &[f64; 6]) -> [f64; 3] {
    let [a, b, c, d, e, f] = *orientation;
    let cross = [b * f - c * e, c * d - a * f, a * e - b * d];
    let length = dot(cross, cross).sqrt();
    // Orthogonal unit vectors have 1; less than half of it is no orientation.
    if length.is_finite() && length > 0.5 && length < 2.0 { cross.map(|x| x / length) } else { [0.0; 3] }
}

pub(super) fn dot([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> f64 {
    a * d + b * e + c * f
}

pub(super) fn minus([a, b, c]: [f64; 3], [d, e, f]: [f64; 3]) -> [f64; 3] {
    [a - d, b - e, c - f]
}

pub(super) fn length(x: [f64; 3]) -> f64 {
    dot(x, x).sqrt()
}

/// The point that is so far from `point` in this direction.
pub(super) fn moved([a, b, c]: [f64; 3], [d, e, f]: [f64; 3], by: f64) -> [f64; 3] {
    [a + by * d, b + by * e, c + by * f]
}
