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
    transforms::{Compose, RandomNoise, ZScore},
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
    .prepare(Compose::new().then(ZScore::default())?);
    assert_eq!(dataset.names(), ["a", "b.1"]);
    for _ in 0..2 {
        let sample = dataset.sample(0)?;
        assert_eq!(sample.image()?.to_vec::<f32>()?, [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!((sample.spacing(), &sample.name[..]), (&[1.0, 1.0][..], "a"));
    }
    assert_eq!(reads.load(Ordering::Relaxed), 2);
    assert!(dataset.sample(2).is_err());

    let other = dataset.subset(&["b.1".to_string()])?;
    assert_eq!(other.sample(0)?.label()?.to_vec::<u8>()?, [0, 1, 2, 0]);
    assert!(dataset.subset(&["c".to_string()]).is_err());
    assert!(
        other.image_file("b.1")?.ends_with("images/b.1.nii.gz") && other.label_file("b.1")?.ends_with("labels/b.1.nii")
    );
    assert!(other.label_file("a").is_err());
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
        (error("nan_label", &[image, ("labels/a.nii", "1 0 NaN 1 0")]), "value NaN at voxel [0, 1]"),
        (error("half", &[image, ("labels/a.nii", "1 0 0.5 1 0")]), "value 0.5 at voxel [0, 1]"),
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
    let no_number = ("images/a.nii", "1 1 NaN 3 4");
    let folder = Folder::new("nan", &[no_number, ("labels/a.nii", "1 0 1 1 0")]);
    let dataset =
        Dataset::with_reader(&folder.0, 2, read).unwrap().prepare(Compose::new().then(ZScore::default()).unwrap());
    let error = dataset.sample(0).unwrap_err().to_string();
    assert!(error.starts_with("case a: z_score: ") && error.contains("NaN at voxel [0, 1] of channel 0"), "{error}");
}

#[test]
fn files_that_are_one_case_or_none() -> Result<()> {
    let image = ("images/a.HDR", "1 1 2 3 4");
    let pair = Folder::new("pair", &[image, ("images/a.img", ""), ("labels/a.nii.GZ", "1 0 1 1 0")]);
    assert_eq!(Dataset::with_reader(&pair.0, 2, read)?.sample(0)?.image()?.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
    for classes in [0, 257, usize::MAX] {
        assert!(Dataset::with_reader(&pair.0, classes, read).err().unwrap().to_string().contains("1 to 256"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        // A name that would have been passed over in silence.
        fs::write(pair.0.join("images").join(std::ffi::OsStr::from_bytes(b"b\xff.nii")), "").unwrap();
        assert!(Dataset::with_reader(&pair.0, 2, read).err().unwrap().to_string().contains("UTF-8"));
    }
    Ok(())
}

#[test]
fn a_case_named_twice_is_prepared_twice() -> Result<()> {
    let folder = Folder::new("oversampled", &[("images/a.nii", "1 1 2 3 4"), ("labels/a.nii", "1 0 1 1 0")]);
    let noise = RandomNoise { probability: 1.0, deviation: (1.0, 1.0) };
    let dataset = Dataset::with_reader(&folder.0, 2, read)?.prepare(Compose::new().then(noise)?);
    let twice = dataset.subset(&["a".into(), "a".into()])?;
    let [alone, first, second] = [dataset.sample(0)?, twice.sample(0)?, twice.sample(1)?]
        .map(|sample| sample.image().unwrap().to_vec::<f32>().unwrap());
    assert_eq!(alone, first);
    assert!(first.iter().zip(&second).all(|(a, b)| a != b));
    assert_eq!((twice.name(1)?, twice.names()), ("a".to_string(), vec!["a".to_string(); 2]));
    Ok(())
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
