//! Runs the example as a process: killed at random times and resumed, and with several numbers of threads, it must give
//! the same bytes. (`pipeline/tests/trainer_killed.rs` kills a trainer at chosen times.)

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tomograd::core::Seed;

fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/unet3d");
    assert!(program.exists(), "{} isn't there: cargo test builds it", program.display());
    program
}

/// Creates a folder with four training cases and one for validation.
fn data(folder: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/hippocampus");
    let to = folder.join("data");
    let mut names: Vec<_> =
        fs::read_dir(from.join("images")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for part in ["images", "labels"] {
        fs::create_dir_all(to.join(part)).unwrap();
        for name in &names[..5] {
            fs::copy(from.join(part).join(name), to.join(part).join(name)).unwrap();
        }
    }
    to
}

fn start(data: &Path, out: &Path, more: &[&str]) -> Child {
    let mut command = Command::new(example());
    command.arg("--data").arg(data).arg("--out").arg(out).args(["--epochs", "4", "--widths", "4,8"]).args(more);
    command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// The output of a finished run: the last and the best checkpoint, and the table without the column of seconds.
fn finish(data: &Path, out: &Path, more: &[&str]) -> [Vec<u8>; 3] {
    assert!(start(data, out, more).wait().unwrap().success());
    let table = fs::read_to_string(out.join("epochs.csv")).unwrap();
    assert!(table.starts_with("epoch,loss,step_seconds,anterior,posterior,anterior_defined,posterior_defined\n"));
    let without = |row: &str| {
        let fields: Vec<&str> = row.split(',').collect();
        [&fields[..2], &fields[3..]].concat().join(",") + "\n"
    };
    let [last, best] = ["last", "best"].map(|name| fs::read(out.join(name).with_extension("safetensors")).unwrap());
    [last, best, table.lines().map(without).collect::<String>().into_bytes()]
}

#[test]
fn killed_and_resumed_it_ends_as_if_nothing_had_happened() {
    let folder = std::env::temp_dir().join(format!("tomograd-resume-{}", std::process::id()));
    let data = data(&folder);
    let whole = finish(&data, &folder.join("whole"), &["--threads", "1"]);
    assert!(finish(&data, &folder.join("five"), &["--threads", "5"]) == whole, "five threads give other files");

    // A new run must not overwrite the weights of another one.
    assert!(!start(&data, &folder.join("whole"), &[]).wait().unwrap().success());
    assert!(
        fs::read(folder.join("whole/last.safetensors")).unwrap() == whole[0],
        "the weights of a finished run are gone"
    );

    let out = folder.join("killed");
    let last = out.join("last.safetensors");
    let mut random = Seed::new(u64::from(std::process::id())).random();
    let mut resumed = 0;
    for _ in 0..4 {
        let path = last.display().to_string();
        let more: &[&str] = if last.exists() { &["--resume", &path] } else { &[] };
        resumed += more.len();
        let mut child = start(&data, &out, more);
        std::thread::sleep(Duration::from_millis(200 + random.below(1200)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let path = last.display().to_string();
    let more: &[&str] = if last.exists() { &["--resume", &path] } else { &[] };
    assert!(
        finish(&data, &out, more) == whole,
        "a run killed four times and resumed {} times ends otherwise",
        resumed / 2
    );
    fs::remove_dir_all(folder).unwrap();
}
