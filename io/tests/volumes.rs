//! Reorienting and resampling: where voxels are in the world doesn't change.

use tomograd_core::{DType, Device, Tensor};
use tomograd_io::{Interpolation, Volume, geometry};

const OBLIQUE: geometry::Affine =
    [[-1.4, 0.2, 0.1, 10.0], [0.1, 0.3, 2.0, -20.0], [0.2, 1.1, -0.4, 3.0], [0.0, 0.0, 0.0, 1.0]];

fn scan(shape: &[usize], dtype: DType, affine: geometry::Affine) -> Volume {
    let count = shape.iter().product();
    let voxels = Tensor::arange(count, DType::I64, Device::Cpu).unwrap().converted(dtype).unwrap();
    Volume::new(voxels.reshape(shape).unwrap(), affine).unwrap()
}

/// The value of the voxel at (i, j, k) in channel `c`.
fn value(volume: &Volume, c: usize, [i, j, k]: [usize; 3]) -> f64 {
    let [d, h, w] = *volume.voxels().shape().last_chunk::<3>().unwrap();
    volume.voxels().to_vec_f64().unwrap()[((c * d + k) * h + j) * w + i]
}

#[test]
fn all_48_orientations_keep_places_and_come_back() {
    for shape in [&[2, 3, 4][..], &[2, 2, 3, 4]] {
        let original = scan(shape, DType::I32, OBLIQUE);
        assert_eq!(original.orientation(), "LSA");
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            for signs in 0..8usize {
                let codes: String = order
                    .iter()
                    .map(|&world| ["RL", "AP", "SI"][world].as_bytes()[signs >> world & 1] as char)
                    .collect();
                let turned = original.reorient(&codes).unwrap();
                assert_eq!(turned.orientation(), codes);
                let map = geometry::compose(&geometry::inverse(original.affine()).unwrap(), turned.affine());
                let [d, h, w] = *turned.voxels().shape().last_chunk::<3>().unwrap();
                for (k, j, i) in (0..d).flat_map(|k| (0..h).flat_map(move |j| (0..w).map(move |i| (k, j, i)))) {
                    let place = geometry::apply(&map, [i as f64, j as f64, k as f64]).map(|at| at.round() as usize);
                    assert_eq!(value(&turned, 0, [i, j, k]), value(&original, 0, place), "{codes}");
                }
                let back = turned.reorient("LSA").unwrap();
                assert_eq!(back.voxels().to_vec::<i32>().unwrap(), original.voxels().to_vec::<i32>().unwrap());
                for (a, b) in back.affine().iter().flatten().zip(OBLIQUE.iter().flatten()) {
                    assert!((a - b).abs() < 1e-12);
                }
                let mut bytes = Vec::new();
                turned.write_to(&mut bytes, false).unwrap();
                let read = Volume::from_bytes(&bytes).unwrap();
                for (a, b) in read.affine().iter().flatten().zip(turned.affine().iter().flatten()) {
                    assert!((a - b).abs() < 1e-5);
                }
            }
        }
    }
    for wrong in ["", "RA", "RAR", "RASS", "XYZ"] {
        assert!(scan(&[2, 3, 4], DType::U8, OBLIQUE).reorient(wrong).is_err(), "{wrong}");
    }
    assert!(scan(&[2, 3, 4], DType::U8, [[0.0; 4]; 4]).reorient("RAS").is_err());
}

#[test]
fn a_quaternion_says_every_rotation() {
    for qfac in [1.0, -1.0] {
        for (b, c, d) in
            [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, -0.5, 0.2), (0.7, 0.7, 0.1)]
        {
            let affine = geometry::from_quaternion([b, c, d], [1.0, 2.0, 3.0], [0.5, 1.0, 2.0], qfac);
            let (q, sign, exact) = geometry::to_quaternion(&affine);
            assert!(exact && sign == qfac, "{b} {c} {d}");
            let back = geometry::from_quaternion([q[0], q[1], q[2]], [q[3], q[4], q[5]], [0.5, 1.0, 2.0], sign);
            for (x, y) in back.iter().flatten().zip(affine.iter().flatten()) {
                assert!((x - y).abs() < 1e-7, "{back:?} {affine:?}");
            }
        }
    }
    assert!(!geometry::to_quaternion(&OBLIQUE).2, "a shear");
}

#[test]
fn linear_resampling_reproduces_a_linear_image_inside() {
    // The value is 1 + x + 2 y + 3 z of the world.
    let ramp = |[x, y, z]: [f64; 3]| 1.0 + x + 2.0 * y + 3.0 * z;
    let affine = geometry::from_spacing([1.0, 2.0, 3.0]);
    let mut values = Vec::new();
    for (k, j, i) in (0..6).flat_map(|k| (0..7).flat_map(move |j| (0..8).map(move |i| (k, j, i)))) {
        values.push(ramp(geometry::apply(&affine, [i as f64, j as f64, k as f64])));
    }
    let image = Volume::new(Tensor::from_slice(&values, &[6, 7, 8], Device::Cpu).unwrap(), affine).unwrap();
    let fine = image.resample([0.7, 1.0, 1.5], Interpolation::Linear).unwrap();
    assert_eq!(fine.voxels().shape(), [12, 14, 11]);
    assert_eq!(fine.spacing(), [0.7, 1.0, 1.5]);
    // The middle stays.
    let middle = |v: &Volume| {
        let [d, h, w] = *v.voxels().shape().last_chunk::<3>().unwrap();
        geometry::apply(v.affine(), [w, h, d].map(|n| (n as f64 - 1.0) / 2.0))
    };
    for (a, b) in middle(&fine).iter().zip(middle(&image)) {
        assert!((a - b).abs() < 1e-12);
    }
    for (k, j, i) in (1..11).flat_map(|k| (1..13).flat_map(move |j| (1..10).map(move |i| (k, j, i)))) {
        let expected = ramp(geometry::apply(fine.affine(), [i as f64, j as f64, k as f64]));
        assert!((value(&fine, 0, [i, j, k]) - expected).abs() < 1e-9);
    }
    let same = image.resample(image.spacing(), Interpolation::Linear).unwrap();
    assert_eq!(same.voxels().to_vec::<f64>().unwrap(), values);
    assert!(image.resample([0.0, 1.0, 1.0], Interpolation::Linear).is_err());
    assert!(image.resample([1e-300, 1.0, 1.0], Interpolation::Linear).is_err());
}

#[test]
fn nearest_invents_no_label_and_ends_at_the_edge() {
    let labels = scan(&[2, 2, 3, 4], DType::U8, geometry::from_spacing([1.0; 3]));
    let fine = labels.resample([0.5; 3], Interpolation::Nearest).unwrap();
    assert_eq!((fine.voxels().shape(), fine.voxels().dtype()), (&[2, 4, 6, 8][..], DType::U8));
    for c in 0..2 {
        for (k, j, i) in (0..4).flat_map(|k| (0..6).flat_map(move |j| (0..8).map(move |i| (k, j, i)))) {
            assert_eq!(value(&fine, c, [i, j, k]), value(&labels, c, [i / 2, j / 2, k / 2]));
        }
    }
    // Two voxels to the right of the grid: beyond half a voxel there is nothing.
    let mut shifted = geometry::from_spacing([1.0; 3]);
    shifted[0][3] = 2.0;
    let other = scan(&[2, 3, 4], DType::U8, shifted);
    let onto = labels.resample_to(&other, Interpolation::Nearest).unwrap();
    assert_eq!(onto.geometry(), other.geometry());
    assert_eq!((value(&onto, 0, [1, 0, 0]), value(&onto, 0, [2, 0, 0])), (3.0, 0.0));
}
