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
}

#[test]
fn a_quaternion_says_every_rotation() {
    for qfac in [1.0, -1.0] {
        for (b, c, d) in
            [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, -0.5, 0.2), (0.7, 0.7, 0.1)]
        {
            let affine = geometry::from_quaternion([b, c, d], [1.0, 2.0, 3.0], [0.5, 1.0, 2.0], qfac).unwrap();
            let (q, sign, exact) = geometry::to_quaternion(&affine).unwrap();
            assert!(exact && sign == qfac, "{b} {c} {d}");
            let back = [q[0], q[1], q[2]];
            let back = geometry::from_quaternion(back, [q[3], q[4], q[5]], [0.5, 1.0, 2.0], sign).unwrap();
            for (x, y) in back.iter().flatten().zip(affine.iter().flatten()) {
                assert!((x - y).abs() < 1e-7, "{back:?} {affine:?}");
            }
        }
    }
    assert!(!geometry::to_quaternion(&OBLIQUE).unwrap().2, "a shear");
}

#[test]
fn linear_resampling_reproduces_a_linear_image_inside() {
    // The value is 1 + x + 2 y + 3 z of the world.
    let ramp = |[x, y, z]: [f64; 3]| 1.0 + x + 2.0 * y + 3.0 * z;
    let affine = geometry::from_spacing([1.0, 2.0, 3.0]).unwrap();
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
    let labels = scan(&[2, 2, 3, 4], DType::U8, geometry::from_spacing([1.0; 3]).unwrap());
    let fine = labels.resample([0.5; 3], Interpolation::Nearest).unwrap();
    assert_eq!((fine.voxels().shape(), fine.voxels().dtype()), (&[2, 4, 6, 8][..], DType::U8));
    for c in 0..2 {
        for (k, j, i) in (0..4).flat_map(|k| (0..6).flat_map(move |j| (0..8).map(move |i| (k, j, i)))) {
            assert_eq!(value(&fine, c, [i, j, k]), value(&labels, c, [i / 2, j / 2, k / 2]));
        }
    }
    // Two voxels to the right of the grid: beyond half a voxel there is nothing.
    let mut shifted = geometry::from_spacing([1.0; 3]).unwrap();
    shifted[0][3] = 2.0;
    let other = scan(&[2, 3, 4], DType::U8, shifted);
    let onto = labels.resample_to(&other, Interpolation::Nearest).unwrap();
    assert_eq!(onto.geometry(), other.geometry());
    assert_eq!((value(&onto, 0, [1, 0, 0]), value(&onto, 0, [2, 0, 0])), (3.0, 0.0));
}

/// The rotation of the oblique files of tests/golden, to f32's precision as a header holds it.
fn oblique() -> geometry::Affine {
    let f32s = |row: [f64; 4]| row.map(|value| f64::from(value as f32));
    [
        f32s([0.8913512008807514, -0.4202497432837133, -0.7127405459915891, -3.0]),
        f32s([0.43041794817799117, 1.1546266723577345, 0.942811987595654, 4.0]),
        f32s([0.14224426970694075, -0.8603646905528364, 1.6134145376020212, 5.0]),
        [0.0, 0.0, 0.0, 1.0],
    ]
}

/// Half-way between two voxels the larger index is taken, wherever the axes point: as SimpleITK, scipy.ndimage and PyTorch
/// (nearest-exact) have it for an axis of 8 halved: 1, 3, 5, 7.
#[test]
fn nearest_by_a_ratio_is_the_same_for_every_row() {
    let straight = geometry::from_spacing([1.0, 1.5, 2.0]).unwrap();
    let mut mirrored = oblique();
    mirrored.iter_mut().for_each(|row| row[1] = -row[1]);
    for affine in [straight, oblique(), mirrored, OBLIQUE] {
        let volume = scan(&[8, 8, 8], DType::I32, affine);
        let coarse = volume.resample(volume.spacing().map(|step| 2.0 * step), Interpolation::Nearest).unwrap();
        // The same grid, given as that of another volume, of which only a header of 32 bits is known.
        let mut rounded = *coarse.affine();
        rounded.iter_mut().flatten().for_each(|value| *value = f64::from(*value as f32));
        let other = scan(&[4, 4, 4], DType::U8, rounded);
        for halved in [&coarse, &volume.resample_to(&other, Interpolation::Nearest).unwrap()] {
            assert_eq!(halved.voxels().shape(), [4, 4, 4]);
            for (k, j, i) in (0..4).flat_map(|k| (0..4).flat_map(move |j| (0..4).map(move |i| (k, j, i)))) {
                let expected = ((2 * k + 1) * 8 + 2 * j + 1) * 8 + 2 * i + 1;
                assert_eq!(value(halved, 0, [i, j, k]), expected as f64, "{affine:?} {:?}", [i, j, k]);
            }
        }
        // By 8/3 the middle one is half-way; by 1/2 each voxel comes twice.
        let thirds = volume.resample(volume.spacing().map(|step| step * 8.0 / 3.0), Interpolation::Nearest).unwrap();
        let fine = volume.resample(volume.spacing().map(|step| step / 2.0), Interpolation::Nearest).unwrap();
        assert_eq!((0..3).map(|i| value(&thirds, 0, [i, 0, 0]) as usize % 8).collect::<Vec<_>>(), [1, 4, 6]);
        assert!((0..16).all(|i| value(&fine, 0, [i, 0, 0]) as usize == i / 2));
    }
}

/// Every number that a volume takes, at its worst: an error or a right result.
#[test]
fn numbers_that_arent_any_are_errors() {
    let volume = scan(&[2, 3, 4], DType::F32, OBLIQUE);
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        for axis in 0..3 {
            let mut spacing = [1.0; 3];
            spacing[axis] = wrong;
            for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
                if let Ok(made) = volume.resample(spacing, interpolation) {
                    assert!(wrong == f64::MAX && made.affine().iter().flatten().all(|value| value.is_finite()));
                }
            }
            assert!(wrong == f64::MAX || geometry::from_spacing(spacing).is_err());
            assert!(wrong == f64::MAX || geometry::centred(&[2, 3, 4], spacing).is_err());
            assert!(wrong == f64::MAX || geometry::from_quaternion([0.0; 3], [0.0; 3], spacing, 1.0).is_err());
        }
        if !wrong.is_finite() {
            assert!(geometry::from_quaternion([wrong, 0.0, 0.0], [0.0; 3], [1.0; 3], 1.0).is_err());
            assert!(geometry::from_quaternion([0.0; 3], [0.0, wrong, 0.0], [1.0; 3], 1.0).is_err());
            assert!(geometry::from_quaternion([0.0; 3], [0.0; 3], [1.0; 3], wrong).is_err());
        }
        let mut affine = OBLIQUE;
        affine[0] = [wrong; 4];
        let known = geometry::orientation(&affine);
        assert_eq!(known.len(), 3);
        assert!(wrong.is_finite() && wrong.abs() < 1e300 || known == "???", "{wrong}: {known}");
        assert!(wrong.is_finite() || geometry::to_quaternion(&affine).is_err());
        assert!(wrong.is_finite() || Volume::new(volume.voxels().clone(), affine).is_err());
    }
    for tiny in [1e-9, f64::MIN_POSITIVE] {
        assert!(volume.resample([tiny; 3], Interpolation::Nearest).is_err());
    }
    assert!(geometry::to_quaternion(&[[0.0; 4]; 4]).is_err());
    assert_eq!(geometry::orientation(&[[0.0; 4]; 4]), "???");
}

#[test]
fn infinite_voxels_stay_infinite_between_each_other() {
    let values = [f32::INFINITY, f32::INFINITY, 1.0, f32::NAN];
    let volume = Volume::new(
        Tensor::from_slice(&values, &[1, 1, 4], Device::Cpu).unwrap(),
        geometry::from_spacing([1.0; 3]).unwrap(),
    )
    .unwrap();
    let fine = volume.resample([0.5, 1.0, 1.0], Interpolation::Linear).unwrap().voxels().to_vec::<f32>().unwrap();
    assert!(fine[..3].iter().all(|value| *value == f32::INFINITY), "{fine:?}");
    assert!(fine[6].is_nan() && fine[7].is_nan(), "{fine:?}");
}
