//! Folders of cases, read by a reader of text files: `SPACING VALUE VALUE ...` makes an image of 2×2 pixels.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tomograd_core::{Device, Error, Result, Seed, Tensor};
use tomograd_pipeline::{
    Cases, Dataset, Loader, Split,
    transforms::{Compose, ZScore},
};

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("tomograd-dataset-{name}-{}", std::process::id()));
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        for (path, text) in files {
            fs::write(folder.join(path), text).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn read(path: &Path) -> Result<(Tensor, Vec<f64>)> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path.display(), error))?;
    let numbers: Vec<f64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Ok((Tensor::from_slice(&numbers[1..], &[1, 2, 2], Device::Cpu)?, vec![numbers[0]; 2]))
}

#[test]
fn cases_are_read_once_and_prepared() -> Result<()> {
    let folder = Folder::new(
        "good",
        &[
            ("images/b.1.nii.gz", "0.5 1 2 3 4"),
            ("labels/b.1.nii", "0.5 0 1 2 0"),
            ("images/a.nii.gz", "1 5 5 7 7"),
            ("labels/a.nii.gz", "1 0 0 0 1"),
            ("images/.hidden", "no image"),
        ],
    );
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let dataset = Dataset::with_reader(&folder.0, 3, move |path| {
        counter.fetch_add(1, Ordering::Relaxed);
        read(path)
    })?
    .prepare(Compose::new().then(ZScore::default()));
    assert_eq!(dataset.names(), ["a", "b.1"]);
    for _ in 0..2 {
        let sample = dataset.sample(0)?;
        assert_eq!(sample.image.to_vec::<f32>()?, [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!((sample.spacing, sample.name), (vec![1.0, 1.0], "a".to_string()));
    }
    assert_eq!(reads.load(Ordering::Relaxed), 2);
    assert!(dataset.sample(2).is_err());

    let other = dataset.subset(&["b.1".to_string()])?;
    assert_eq!(other.sample(0)?.label.unwrap().to_vec::<u8>()?, [0, 1, 2, 0]);
    assert!(dataset.subset(&["c".to_string()]).is_err());
    assert_eq!(Loader::new(Arc::new(dataset), 2, Seed::new(1))?.epoch(0).count(), 1);
    Ok(())
}

#[test]
fn what_is_wrong_is_named() {
    let error = |name: &str, files: &[(&str, &str)]| {
        let folder = Folder::new(name, files);
        let dataset = Dataset::with_reader(&folder.0, 2, read);
        dataset.and_then(|dataset| dataset.sample(0)).unwrap_err().to_string()
    };
    let image = ("images/a.nii", "1 1 2 3 4");
    let cases = [
        (error("range", &[image, ("labels/a.nii", "1 0 1 2 0")]), "labels/a.nii: label: value 2 at voxel [1, 0]"),
        (error("spacing", &[image, ("labels/a.nii", "2 0 1 1 0")]), "a spacing of [2.0, 2.0] mm"),
        (error("alone", &[image, ("labels/b.nii", "1 0 1 1 0")]), "images/a.nii has no label"),
        (error("left", &[image, ("labels/a.nii", "1 0 1 1 0"), ("labels/b.nii", "")]), "labels/b.nii has no image"),
        (error("twice", &[image, ("images/a.nrrd", "")]), "two files for case \"a\""),
        (error("empty", &[]), "no files in"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{error}");
    }
    assert!(Dataset::with_reader("/nowhere", 2, read).is_err());
}

#[test]
fn the_shipped_split_follows_the_fixed_one() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/data/hippocampus");
    let split = Split::read(folder.join("split.txt"))?;
    assert_eq!((split.train.len(), split.validation.len()), (40, 12));
    let dataset = Dataset::with_reader(&folder, 3, read)?;
    assert_eq!(dataset.subset(&split.train)?.len() + dataset.subset(&split.validation)?.len(), dataset.len());
    Ok(())
}
