//! Every job of the program on the emulated device, at small sizes, and that its list of sources has every source that they load.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tomograd::{io::geometry, prelude::*};
use tomograd_core::cuda::{Capability, CodeKey};
use tomograd_gpu::{
    Effort, Setup,
    archive::Archive,
    parts::{self, PARTS},
    sources::SOURCES,
    table::{Results, Section},
};

/// Each kind of case, in both modes where it has two.
const CASES: &str = r#"{
  "_": "what the file is",
  "conv3d": {"kind": "conv", "x": [1, 32, 64, 64, 64], "w": [32, 32, 3, 3, 3], "pad": 1, "mode": "fwd"},
  "conv3d_train": {"kind": "conv", "x": [1, 64, 32, 32, 32], "w": [64, 64, 3, 3, 3], "pad": 1, "mode": "train"},
  "strided": {"kind": "conv", "x": [1, 32, 64, 64, 64], "w": [64, 32, 3, 3, 3], "pad": 1, "stride": 2, "mode": "fwd"},
  "depthwise_train": {"kind": "conv", "x": [1, 96, 32, 32, 32], "w": [96, 1, 3, 3, 3], "pad": 1, "groups": 96, "mode": "train"},
  "grouped": {"kind": "conv", "x": [1, 64, 32, 32, 32], "w": [64, 8, 3, 3, 3], "pad": 1, "groups": 8, "mode": "fwd"},
  "conv2d": {"kind": "conv", "x": [1, 64, 256, 256], "w": [64, 64, 3, 3], "pad": 1, "mode": "fwd"},
  "transposed": {"kind": "convt", "x": [1, 64, 32, 32, 32], "w": [64, 32, 2, 2, 2], "stride": 2, "mode": "fwd"},
  "norm_train": {"kind": "inorm_lrelu", "x": [1, 32, 64, 64, 64], "mode": "train"},
  "maxpool": {"kind": "maxpool", "x": [1, 32, 64, 64, 64], "mode": "fwd"},
  "upsample": {"kind": "upsample", "x": [1, 32, 32, 32, 32], "mode": "fwd"},
  "matmul": {"kind": "matmul", "x": [1024, 1024], "w": [1024, 1024], "mode": "fwd"},
  "layernorm": {"kind": "layernorm", "x": [4096, 384], "mode": "fwd"},
  "attention_train": {"kind": "attention", "x": [1, 12, 1024, 64], "mode": "train"},
  "scan_train": {"kind": "scan", "x": [1, 192, 4096], "n": 16, "mode": "train"},
  "unet3d_train": {"kind": "net", "net": "unet3d", "x": [2, 1, 64, 64, 64], "classes": 3, "mode": "train"},
  "unet2d": {"kind": "net", "net": "unet2d", "x": [1, 1, 512, 512], "classes": 2, "mode": "fwd"}
}"#;

/// Three small scans with labels, as a folder of the archive.
fn scans(archive: &mut Archive, folder: &Path) -> Result<()> {
    let affine = geometry::from_orientation("RAS")?;
    let mut names = Vec::new();
    for number in 0..3 {
        let image = Tensor::normal(&[4, 5, 9], 0.0, 1.0, Seed::new(number), DType::F32, Device::Cpu)?;
        let labels: Vec<u8> = image.as_slice::<f32>()?.iter().map(|&x| u8::from(x > 0.0) + u8::from(x > 0.7)).collect();
        let name = format!("case_{number}");
        for (kind, voxels) in [("images", image), ("labels", Tensor::from_slice(&labels, &[4, 5, 9], Device::Cpu)?)] {
            fs::create_dir_all(folder.join(kind)).unwrap();
            Volume::new(voxels, affine)?.write(folder.join(kind).join(format!("{name}.nii.gz")))?;
        }
        names.push(name);
    }
    Split { train: names[..2].to_vec(), validation: names[2..].to_vec() }.write(folder.join("split.txt"))?;
    archive.add_folder("data", folder)
}

/// The emulated device with cases and scans; `None` without a C++ compiler.
fn setup() -> Result<Option<Setup>> {
    let Some(device) = tomograd_emulator::device() else { return Ok(None) };
    // Tests of one process have folders of their own.
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tomograd-gpu-emulated-{}-{number}", std::process::id()));
    let mut archive = Archive::default();
    archive.add("cases.json", CASES.as_bytes().to_vec());
    scans(&mut archive, &folder)?;
    fs::remove_dir_all(&folder).ok();
    Ok(Some(Setup { device, archive, effort: Effort::Small }))
}

#[test]
fn every_job_is_done_on_the_emulator() -> Result<()> {
    let Some(setup) = setup()? else { return Ok(()) };
    for part in &PARTS {
        let items = (part.items)(&setup)?;
        assert!(!items.is_empty(), "{}", part.name);
        let mut printed = Vec::new();
        parts::work(&setup, part, 0, &mut printed)?;
        let lines: Vec<serde_json::Value> = String::from_utf8(printed)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &serde_json::Value| line["begin"].is_null())
            .collect();
        assert_eq!(lines.len(), items.len(), "{}", part.name);
        for (line, item) in lines.iter().zip(&items) {
            println!("{}: {line}", part.name);
            assert_eq!(line["item"], **item);
            assert!(line["error"].is_null(), "{line}");
            let row = &line["row"];
            match part.name {
                "registry" => {
                    assert!(row["passed"].as_u64().unwrap() > 0, "{line}");
                    assert_eq!(row["failures"].as_array().unwrap().len(), 0, "{line}");
                }
                "bits" => assert_eq!((&row["equal"], &row["runs"]), (&true.into(), &3.into()), "{line}"),
                "segmentation" => {
                    assert!((0.0..=1.0).contains(&row["dice"].as_f64().unwrap()), "{line}");
                    assert!(row["last_loss"].as_f64().unwrap().is_finite(), "{line}");
                }
                _ => {
                    assert!(row["f32"].as_f64().unwrap() > 0.0, "{line}");
                    assert_eq!(row["missing"].as_array().unwrap().len(), 0, "{line}");
                }
            }
        }
    }
    let key = |source| CodeKey::new(source, Capability { major: 9, minor: 0 });
    let known: HashSet<CodeKey> = SOURCES.iter().map(key).collect();
    assert_eq!(known.len(), SOURCES.len(), "two sources with one key");
    let loaded = tomograd_emulator::loaded();
    assert!(loaded.len() > 20, "{} sources were loaded", loaded.len());
    for source in &loaded {
        assert!(known.contains(&key(source)), "{} isn't in the list of sources as it is loaded", source.name);
    }
    Ok(())
}

/// What makes this test's process one that does the jobs of a part: its name and the number of the first job.
const CHILD: &str = "TOMOGRAD_GPU_PART";

/// The processes of the program, with this test in the place of the program, and their page.
#[test]
fn parts_run_in_processes_of_their_own() -> Result<()> {
    let Some(setup) = setup()? else { return Ok(()) };
    let part = |name: &str| PARTS.iter().find(|part| part.name == name).unwrap();
    if let Ok(child) = std::env::var(CHILD) {
        let (name, from) = child.split_once(' ').unwrap();
        // The test's name may stand on the line.
        println!();
        return parts::work(&setup, part(name), from.parse().unwrap(), std::io::stdout());
    }
    let done = |name: &str| {
        let items = (part(name).items)(&setup)?;
        let command = |from: usize| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "parts_run_in_processes_of_their_own", "--nocapture"]);
            command.env(CHILD, format!("{name} {from}"));
            command
        };
        let (outcomes, note) = parts::oversee([600, 600], &items, command)?;
        assert_eq!((outcomes.len(), &note), (items.len(), &None), "{name}: {outcomes:?}");
        Ok::<_, Error>(Section { outcomes, note })
    };
    let results = Results { bits: done("bits")?, segmentation: done("segmentation")?, ..Results::default() };
    let page = results.markdown();
    assert_eq!(results.failures(), 0, "{page}");
    for text in ["| unet3d f32 | 3 | 2 | yes |", "1 epochs, 1 steps", "mean Dice of 1 validation cases **0."] {
        assert!(page.contains(text), "{text}\nisn't in\n{page}");
    }
    Ok(())
}
