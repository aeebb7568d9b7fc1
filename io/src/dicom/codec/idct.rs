//! The inverse cosine transform of JPEG, in the integer arithmetic that libjpeg uses for accuracy (Loeffler, Ligtenberg,
//! Moschytz 1989, with 13-bit constants), so that lossy pictures have the samples that other programs see.

const BITS: u32 = 13;

/// The constants of the transform, times 2¹³ and rounded.
const F_0_298: i64 = 2446;
const F_0_390: i64 = 3196;
const F_0_541: i64 = 4433;
const F_0_765: i64 = 6270;
const F_0_899: i64 = 7373;
const F_1_175: i64 = 9633;
const F_1_501: i64 = 12299;
const F_1_847: i64 = 15137;
const F_1_961: i64 = 16069;
const F_2_053: i64 = 16819;
const F_2_562: i64 = 20995;
const F_3_072: i64 = 25172;

/// Eight numbers, transformed and divided by 2^`shift` with rounding.
fn eight([a, b, c, d, e, f, g, h]: [i64; 8], shift: u32) -> [i64; 8] {
    let z = (c + g) * F_0_541;
    let (even2, even3) = (z - g * F_1_847, z + c * F_0_765);
    let (even0, even1) = ((a + e) << BITS, (a - e) << BITS);
    let (s0, s3, s1, s2) = (even0 + even3, even0 - even3, even1 + even2, even1 - even2);

    let (z1, z2, z3, z4) = (h + b, f + d, h + d, f + b);
    let z5 = (z3 + z4) * F_1_175;
    let (z1, z2, z3, z4) = (-z1 * F_0_899, -z2 * F_2_562, z5 - z3 * F_1_961, z5 - z4 * F_0_390);
    let o0 = h * F_0_298 + z1 + z3;
    let o1 = f * F_2_053 + z2 + z4;
    let o2 = d * F_3_072 + z2 + z3;
    let o3 = b * F_1_501 + z1 + z4;
    [s0 + o3, s1 + o2, s2 + o1, s3 + o0, s3 - o0, s2 - o1, s1 - o2, s0 - o3]
        .map(|sum| (sum + (1 << (shift - 1))) >> shift)
}

/// Transforms dequantised coefficients (row by row) to samples of `precision` bits, 8 or 12.
pub(super) fn inverse(block: &mut [[i64; 8]; 8], precision: u8) {
    // Bits kept between the passes.
    let kept = if precision > 8 { 1 } else { 2 };
    let (half, most) = (1i64 << (precision - 1), (1i64 << precision) - 1);
    let mut columns = [[0; 8]; 8];
    for (x, column) in columns.iter_mut().enumerate() {
        for (to, row) in column.iter_mut().zip(block.iter()) {
            *to = row.get(x).copied().unwrap_or(0);
        }
        *column = eight(*column, BITS - kept);
    }
    for (y, row) in block.iter_mut().enumerate() {
        let mut line = [0; 8];
        for (to, column) in line.iter_mut().zip(&columns) {
            *to = column.get(y).copied().unwrap_or(0);
        }
        *row = eight(line, BITS + kept + 3).map(|sample| (sample + half).clamp(0, most));
    }
}
