//! Cases on disk: none is served that something it follows from has changed, whatever processes do and however they end.
#![cfg(unix)]

mod common;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use common::Folder;
use tomograd_core::{Result, Seed};
use tomograd_pipeline::{
    Cache, Cases, Dataset, Loader, Preparation, Sample, Scan,
    preparation::{Channel, Intensity},
    transforms::{Compose, CropOrPad, Flip, ZScore},
};

const CASES: usize = 12;

fn cases(name: &str) -> Folder {
    let folder = Folder::new(name);
    for case in 0..CASES {
        folder.volume(&format!("images/case_{case:02}.nii"), case, 1.0);
        folder.voxels(&format!("labels/case_{case:02}.nii"), &[(case % 2) as u8; 24], [2, 3, 4], 1.0);
    }
    folder
}

fn values(sample: &Sample) -> (Vec<f32>, Vec<u8>) {
    (sample.image().unwrap().to_vec().unwrap(), sample.label().unwrap().to_vec().unwrap())
}

/// The bytes of the cases in a cache, while nobody writes.
fn bytes(folder: &Path) -> u64 {
    let sizes = File::open(folder.join(".sizes")).unwrap();
    sizes.lock().unwrap();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| ![".sizes", ".digests"].map(Into::into).contains(&entry.file_name()));
    files.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum()
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "case")).collect()
}

/// A dataset that counts how often it reads a file.
fn counting(folder: &Folder, reads: &Arc<AtomicUsize>, cache: Cache) -> Result<Dataset> {
    let reads = reads.clone();
    Dataset::with_reader(folder, 2, move |path| {
        reads.fetch_add(1, Ordering::Relaxed);
        Scan::read_image(path)
    })?
    .cache(cache)
}

#[test]
fn a_case_is_made_once_for_all_processes_to_come() -> Result<()> {
    let (folder, reads) = (cases("disk"), Arc::new(AtomicUsize::new(0)));
    let place = folder.0.join("cache");
    let cache = || Cache::disk(&place, 1 << 20).version("raw");
    let first = counting(&folder, &reads, cache())?;
    let expected: Vec<_> = (0..CASES).map(|i| first.sample(i).map(|s| values(&s))).collect::<Result<_>>()?;
    assert_eq!(reads.load(Ordering::Relaxed), 2 * CASES);
    let again = counting(&folder, &reads, cache())?;
    for (index, expected) in expected.iter().enumerate() {
        let sample = again.sample(index)?;
        assert_eq!(
            (values(&sample), &sample.name, sample.spacing()),
            (expected.clone(), &first.name(index)?, &[1.0; 3][..])
        );
    }
    assert_eq!(reads.load(Ordering::Relaxed), 2 * CASES);
    let statistics = again.cache_statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.bytes), (CASES as u64, 0, bytes(&place)));

    // What a reader does, only its maker knows.
    let unknown = counting(&folder, &reads, Cache::disk(&place, 1 << 20))?.sample(0).unwrap_err().to_string();
    assert!(unknown.contains("the reader of this dataset") && unknown.contains("Cache::version"), "{unknown}");
    let other = counting(&folder, &reads, Cache::disk(&place, 1 << 20).version("other"))?;
    other.sample(0)?;
    assert_eq!(other.cache_statistics().misses, 1);
    assert!(Dataset::open(&folder, 2)?.cache(Cache::disk(folder.0.join("images/case_00.nii"), 9)).is_err());
    Ok(())
}

#[test]
fn what_has_changed_is_not_served() -> Result<()> {
    let folder = cases("changed");
    let place = folder.0.join("cache");
    let open = || Dataset::open(&folder, 2)?.cache(Cache::disk(&place, 1 << 20));
    let misses = |dataset: &Dataset| -> Result<(u64, Vec<f32>)> {
        let image = values(&dataset.sample(0)?).0;
        Ok((dataset.cache_statistics().misses, image))
    };
    assert_eq!(misses(&open()?)?.0, 1);
    let same = open()?;
    assert_eq!(misses(&same)?, (0, (0..24).map(|i| i as f32).collect()));
    // A file with another content, of the same length, while the dataset is in use.
    folder.volume("images/case_00.nii", 50, 1.0);
    assert_eq!(misses(&same)?, (1, (50..74).map(|i| i as f32).collect()));
    // The same content in a file that was written anew.
    folder.volume("images/case_00.nii", 50, 1.0);
    assert_eq!(misses(&same)?.0, 1);
    folder.voxels("labels/case_00.nii", &[1; 24], [2, 3, 4], 1.0);
    assert_eq!(values(&same.sample(0)?).1, [1; 24]);

    let names = ["background", "organ"];
    let plain =
        Preparation::new([2, 3, 4], names)?.channels([Channel::new("t1", "MR").intensity(Intensity::default())])?;
    let scored = || Compose::new().then(ZScore::default());
    let settings: [Dataset; 6] = [
        open()?.preparation(&plain)?,
        open()?.preparation(&plain.clone().orientation("LPS")?)?,
        open()?.prepare(scored()?),
        open()?.prepare(Compose::new().then(ZScore { nonzero: true })?),
        open()?.prepare(scored()?.then(CropOrPad::centred([2, 2, 2]))?),
        open()?.alignment_tolerance(0.5)?,
    ];
    for (number, dataset) in settings.iter().enumerate() {
        assert_eq!(misses(dataset)?.0, 1, "{number}");
    }
    // Each is there for the next that asks for the same.
    assert_eq!(misses(&open()?.prepare(scored()?))?.0, 0);
    assert_eq!(misses(&open()?.preparation(&plain.orientation("LPS")?)?)?.0, 0);

    struct Own;
    impl tomograd_pipeline::transforms::Transform for Own {
        fn name(&self) -> &str {
            "own"
        }

        fn apply(&self, sample: Sample, _: &mut tomograd_core::Random) -> Result<Sample> {
            Ok(sample)
        }
    }
    let own = open()?.prepare(Compose::new().then(Own)?);
    assert!(own.sample(0).unwrap_err().to_string().contains("a transform of this dataset's prepare"));
    let version = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, 1 << 20).version("own 1"))?;
    assert!(version.prepare(Compose::new().then(Own)?).sample(0).is_ok());
    Ok(())
}

#[test]
fn a_damaged_file_is_made_again() -> Result<()> {
    let folder = cases("damaged");
    let place = folder.0.join("cache");
    let dataset = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, 1 << 20))?;
    let expected = values(&dataset.sample(3)?);
    let [path] = kept(&place).try_into().unwrap();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    for damaged in [&flipped[..], &good[..good.len() / 2], b"", &[9; 500]] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(values(&dataset.sample(3)?), expected);
        assert_eq!(fs::read(&path).unwrap(), good);
    }
    assert_eq!(dataset.cache_statistics().misses, 5);
    Ok(())
}

#[test]
fn the_budget_of_a_disk_is_kept_and_the_oldest_leave() -> Result<()> {
    let folder = cases("budget");
    let place = folder.0.join("cache");
    let one = {
        let dataset = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, 1 << 20))?;
        dataset.sample(0)?;
        let one = bytes(&place);
        fs::remove_dir_all(&place).unwrap();
        one
    };
    let budget = 4 * one + one / 2;
    let dataset = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, budget))?;
    let misses = |index: usize| -> Result<u64> {
        let before = dataset.cache_statistics().misses;
        dataset.sample(index)?;
        // The times of files differ by more than their clock's step.
        sleep(Duration::from_millis(5));
        assert!(bytes(&place) <= budget);
        Ok(dataset.cache_statistics().misses - before)
    };
    let asked = [0, 1, 2, 3, 0, 4, 0, 1, 3, 2];
    let made = asked.into_iter().map(misses).collect::<Result<Vec<_>>>()?;
    // 1 left when 4 came, 2 when 1 came again; 3 was there; 4 left when 2 came again.
    assert_eq!(made, [1, 1, 1, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(dataset.cache_statistics().bytes, bytes(&place));
    // A smaller budget holds for what is there; one of nothing keeps nothing, and all is made.
    for budget in [2 * one, 0] {
        let dataset = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, budget))?;
        dataset.sample(7)?;
        assert!(budget == 0 || bytes(&place) <= budget);
    }
    Ok(())
}

#[test]
fn workers_share_a_cache() -> Result<()> {
    let folder = cases("workers");
    let flips = || Compose::new().then(Flip::default());
    let batches = |cache: Cache, workers: usize| -> Result<Vec<Vec<f32>>> {
        let dataset = Dataset::open(&folder, 2)?.cache(cache)?;
        let loader = Loader::new(Arc::new(dataset), 2, Seed::new(1))?.transforms(flips()?).workers(workers)?;
        (0..4).flat_map(|epoch| loader.epoch(epoch)).map(|batch| batch?.image()?.to_vec()).collect()
    };
    let expected = batches(Cache::memory(u64::MAX), 1)?;
    for workers in [1, 4] {
        assert_eq!(batches(Cache::memory(500), workers)?, expected);
        assert_eq!(batches(Cache::disk(folder.0.join("cache"), 1500), workers)?, expected);
    }
    Ok(())
}

/// In the child process of the tests below: trains for ever on a cache.
#[test]
fn child() {
    let Ok(place) = std::env::var("TOMOGRAD_CACHE_CHILD") else { return };
    let folder = Path::new(&place).parent().unwrap();
    let dataset = Dataset::open(folder, 2).unwrap().cache(Cache::disk(&place, BUDGET)).unwrap();
    for round in 0.. {
        for index in 0..CASES {
            check(&dataset.sample((index * (2 * round + 1)) % CASES).unwrap());
        }
        println!("round {round}");
    }
}

const BUDGET: u64 = 2500;

fn check(sample: &Sample) {
    let case: usize = sample.name[5..].parse().unwrap();
    let (image, label) = values(sample);
    assert!(image.iter().enumerate().all(|(i, &value)| value == (case + i) as f32), "{}: {image:?}", sample.name);
    assert_eq!(label, [(case % 2) as u8; 24]);
}

/// A process that ends with the test, whatever comes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn start(place: &Path) -> Running {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env("TOMOGRAD_CACHE_CHILD", place)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    Running(child)
}

#[test]
fn two_processes_keep_one_budget_and_one_that_is_killed_leaves_no_harm() -> Result<()> {
    let folder = cases("processes");
    let place = folder.0.join("cache");
    let dataset = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, BUDGET))?;
    for round in 0..8 {
        let mut other = start(&place);
        for index in 0..4 * CASES {
            check(&dataset.sample((index * 7 + round) % CASES)?);
            assert!(bytes(&place) <= BUDGET, "{} bytes", bytes(&place));
        }
        sleep(Duration::from_millis(3 * round as u64));
        assert!(other.0.try_wait().unwrap().is_none(), "the other process ended by itself");
        // Killed at any moment: while it reads, writes, or renames.
        drop(other);
    }
    // What the killed ones left is removed by whoever opens the cache next.
    let next = Dataset::open(&folder, 2)?.cache(Cache::disk(&place, BUDGET))?;
    let temporary = fs::read_dir(&place)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "tmp"));
    assert_eq!(temporary.count(), 0);
    for index in 0..CASES {
        check(&next.sample(index)?);
    }
    assert!(bytes(&place) <= BUDGET && !kept(&place).is_empty());
    Ok(())
}
