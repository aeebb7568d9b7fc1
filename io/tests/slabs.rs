//! Parts of files against the whole.

use std::{fs, path::PathBuf};

use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_io::{Slabs, Volume, WriteOptions, geometry};

/// A folder of its own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tomograd-slabs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn volume(dtype: DType) -> Volume {
    let voxels = Tensor::uniform(&[6, 5, 7], 0.0, 200.0, Seed::new(1), DType::F32, Device::Cpu).unwrap();
    Volume::new(voxels.converted(dtype).unwrap(), geometry::from_orientation("PIL").unwrap()).unwrap()
}

#[test]
fn parts_are_those_of_the_whole() {
    let folder = Folder::new("parts");
    for (name, dtype) in [
        ("a.nii", DType::F32),
        ("b.nii", DType::U8),
        ("c.nrrd", DType::F32),
        ("d.nhdr", DType::I32),
        ("e.mha", DType::F64),
        ("f.mhd", DType::U8),
    ] {
        let path = folder.0.join(name);
        volume(dtype).write_with(&path, WriteOptions::default().compressed(false)).unwrap();
        let (whole, mut slabs) = (Volume::read(&path).unwrap(), Slabs::open(&path).unwrap());
        assert_eq!(
            (slabs.shape(), slabs.affine(), slabs.orientation()),
            ([6, 5, 7], whole.affine(), whole.orientation())
        );
        for (start, size) in [
            ([0, 0, 0], [6, 5, 7]),
            ([4, 0, 0], [2, 5, 7]),
            ([1, 2, 0], [3, 2, 7]),
            ([0, 1, 3], [6, 4, 2]),
            ([5, 4, 6], [1, 1, 1]),
            ([2, 0, 0], [1, 5, 7]),
        ] {
            let part = slabs.region(start, size).unwrap();
            let mut expected = whole.voxels().clone();
            for axis in 0..3 {
                expected = expected.narrow(axis, start[axis], size[axis]).unwrap();
            }
            assert_eq!((part.shape(), part.dtype()), (&size[..], expected.dtype()), "{name}");
            assert_eq!(part.to_vec_f64().unwrap(), expected.to_vec_f64().unwrap(), "{name} {start:?}");
        }
        assert_eq!(slabs.planes(1, 4).unwrap().shape(), [3, 5, 7]);
        let most = usize::MAX;
        for (start, size) in
            [([0; 3], [0, 5, 7]), ([6, 0, 0], [1; 3]), ([most, 0, 0], [2, 1, 1]), ([0; 3], [1, most, 1])]
        {
            let error = slabs.region(start, size).unwrap_err().to_string();
            assert!(error.contains("a box within [6, 5, 7]"), "{error}");
        }
        assert!(slabs.planes(3, 2).is_err());
        // A mask has the header of its image.
        let ones = Tensor::ones(&[6, 5, 7], DType::U8, Device::Cpu).unwrap();
        let mask = slabs.with_voxels(ones.clone()).unwrap();
        assert_eq!(mask.affine(), whole.with_voxels(ones).unwrap().affine());
        let mut bytes = (Vec::new(), Vec::new());
        mask.write_to(&mut bytes.0, false).unwrap();
        whole.with_voxels(mask.voxels().clone()).unwrap().write_to(&mut bytes.1, false).unwrap();
        assert!(bytes.0 == bytes.1, "{name}");
    }
}

#[test]
fn what_is_not_read_in_part_says_so() {
    let folder = Folder::new("refused");
    let path = |name: &str| folder.0.join(name);
    for name in ["a.nii.gz", "b.nrrd", "c.mha", "d.mhd", "e.png"] {
        let picture = Tensor::zeros(&[1, 5, 7], DType::U8, Device::Cpu).unwrap();
        let affine = geometry::from_spacing([1.0; 3]).unwrap();
        Volume::new(picture, affine).unwrap().write(path(name)).unwrap();
        let error = Slabs::open(path(name)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("read in part") || error.contains("raw"), "{error}");
    }
    let four = Tensor::zeros(&[2, 3, 4, 5], DType::U8, Device::Cpu).unwrap();
    Volume::new(four, geometry::from_spacing([1.0; 3]).unwrap()).unwrap().write(path("four.nii")).unwrap();
    assert!(Slabs::open(path("four.nii")).unwrap_err().to_string().contains("a single volume"));
    assert!(Slabs::open(path("nowhere.nii")).is_err() && Slabs::open(&folder.0).is_err());
    fs::write(path("empty"), "").unwrap();
    assert!(Slabs::open(path("empty")).is_err());
    // A header whose data lies elsewhere.
    volume(DType::U8).write_with(path("f.mhd"), WriteOptions::default().compressed(false)).unwrap();
    let header = fs::read_to_string(path("f.mhd")).unwrap();
    fs::write(path("f.mhd"), header.replace("f.raw", "../f.raw")).unwrap();
    assert!(Slabs::open(path("f.mhd")).unwrap_err().to_string().contains("isn't followed elsewhere"));
}

/// Whatever is broken in a file, both readers say the same, and nothing panics.
#[test]
fn damaged_files_are_read_as_the_whole_is_or_refused() {
    let folder = Folder::new("damaged");
    let mut random = Seed::new(7).random();
    let mut read = 0;
    for name in ["a.nii", "b.nrrd", "c.mha"] {
        let path = folder.0.join(name);
        volume(DType::U8).write_with(&path, WriteOptions::default().compressed(false)).unwrap();
        let bytes = fs::read(&path).unwrap();
        for _ in 0..1500 {
            let mut damaged = bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(damaged.len().min(400) as u64) as usize;
                damaged[at] = random.below(256) as u8;
            }
            damaged.truncate(if random.below(4) == 0 {
                random.below(bytes.len() as u64) as usize
            } else {
                bytes.len()
            });
            fs::write(&path, &damaged).unwrap();
            let (Ok(mut slabs), Ok(whole)) = (Slabs::open(&path), Volume::read(&path)) else { continue };
            let planes = slabs.planes(0, slabs.shape()[0]).unwrap();
            assert_eq!(planes.to_vec_f64().unwrap().len(), whole.voxels().count());
            let same = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same(planes.to_vec_f64().unwrap(), whole.voxels().to_vec_f64().unwrap()));
            read += 1;
        }
    }
    assert!(read > 500, "{read} files were read");
}
