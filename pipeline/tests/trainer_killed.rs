//! A training that is killed (SIGKILL) at any moment and run again leaves the same files as one that nothing happened to.
#![cfg(unix)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_nn::{AdamW, Conv, DiceCe, Kernel, Module, Params, Sgd, schedule};
use tomograd_pipeline::{
    Learner, Loader, Sample, Trainer,
    transforms::{Compose, Flip, RandomNoise},
};

/// Where the child process finds its folder and the moment at which it kills itself.
const FOLDER: &str = "TOMOGRAD_TRAINER_FOLDER";
const MOMENT: &str = "TOMOGRAD_TRAINER_MOMENT";
const EPOCHS: u64 = 3;

fn kill_myself() -> ! {
    // SAFETY: no memory is touched.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Kills this process while the `count`-th temporary file of `name` is being written.
fn kill_while_writing(folder: PathBuf, name: String, count: usize) {
    std::thread::spawn(move || {
        let (prefix, mut seen) = (format!(".{name}."), BTreeSet::new());
        loop {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            seen.extend(names.filter(|name| name.starts_with(&prefix)));
            if seen.len() >= count {
                kill_myself();
            }
        }
    });
}

/// Two learners of everything that a checkpoint keeps: schedules, averages, moments, accumulated gradients, random numbers.
/// Without `save_every` there are checkpoints at the ends of epochs alone.
fn train(folder: &Path, save_every: Option<u64>, kill: impl Fn(&str, u64)) -> Result<()> {
    let seed = Seed::new(3);
    let case = |name: &str| {
        let image = Tensor::normal(&[1, 6, 6], 0.0, 1.0, seed.named(name), DType::F32, Device::Cpu)?;
        let bright: Vec<u8> = image.to_vec::<f32>()?.iter().map(|value| u8::from(*value > 0.0)).collect();
        Sample::new(name, &image, Some(&Tensor::from_slice(&bright, &[6, 6], Device::Cpu)?))
    };
    let cases = ["a", "b", "c", "d", "e", "f", "g"].map(case).into_iter().collect::<Result<Vec<Sample>>>()?;
    let changes = Compose::new().then(Flip::default())?.then(RandomNoise::default())?;
    let loader = Loader::new(Arc::new(cases), 1, seed.named("loader"))?.transforms(changes);
    let mut stores = [1, 2].map(|number| Params::new(Device::Cpu, seed.at(number)));
    let nets = [
        Conv::new(stores[0].root(), 1, 2, Kernel::d2(3).padding(1))?,
        Conv::new(stores[1].root().at("other"), 1, 2, Kernel::d2(1))?,
    ];
    let [first, second] = stores;
    let optimizers = (AdamW::new(&first, 1e-2)?.decay(1e-2)?, Sgd::new(&second, 1e-2)?.momentum(0.9)?);
    let first = Learner::new(first, optimizers.0).schedule(schedule::one_cycle).clip_norm(1.0)?.average(0.9)?;
    let second = Learner::new(second, optimizers.1).accumulate(2)?;
    let mut trainer = Trainer::of_several([("first", first), ("second", second)], EPOCHS)?
        .seed(seed)
        .folder(folder)
        .resume_if_there()?
        .patience(9)?
        .config(&[1, 2])?;
    if let Some(steps) = save_every {
        trainer = trainer.save_every(steps)?;
    }
    trainer.run_with(
        &loader,
        |step| {
            kill("step", step.number);
            let noise = Tensor::normal(&[1, 1, 6, 6], 0.0, 0.1, step.seed, DType::F32, Device::Cpu)?;
            for (name, net) in ["first", "second"].iter().zip(&nets) {
                let pass = step.learner(name)?.pass(step.seed)?;
                let logits = net.forward(&pass.input(step.batch.image()?), &pass)?;
                let noisy = net.forward(&pass.input(&noise), &pass)?;
                let loss = DiceCe::default().forward(&logits, step.batch.label()?)?;
                let size = noisy.value().to_vec_f64()?[0];
                step.log(&format!("{name}_noise"), size)?;
                step.learn_as(name, pass, loss)?;
            }
            Ok(())
        },
        |validation| {
            kill("validation", validation.epoch);
            validation.image("noise", Tensor::zeros(&[4, 4, 3], DType::U8, Device::Cpu)?);
            let weights = validation.averaged()?.get("weight")?.to_vec_f64()?;
            validation.log("weight", weights[0])?;
            // The best epoch is the second one.
            Ok(-(validation.epoch as f64 - 1.0).abs())
        },
    )
}

/// What the child process runs; nothing without a folder.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let moment = std::env::var(MOMENT).unwrap_or_default();
    let (save_every, moment) = moment.strip_prefix("plain ").map_or((Some(3), &moment[..]), |moment| (None, moment));
    let parts: Vec<&str> = moment.split(':').collect();
    if let ["write", name, count] = parts[..] {
        kill_while_writing(folder.clone(), name.to_owned(), count.parse().unwrap());
    }
    train(&folder, save_every, |place, number| {
        if parts == [place, &number.to_string()] {
            kill_myself();
        }
    })
    .unwrap();
}

fn start(folder: &Path, moment: &str) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact"]).env(FOLDER, folder).env(MOMENT, moment);
    command.stdout(std::process::Stdio::null()).status().unwrap()
}

/// The files of a run, without times: of the table the column of seconds, of each event its first field.
fn results(folder: &Path) -> [Vec<u8>; 4] {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    let table = String::from_utf8(read("epochs.csv")).unwrap();
    let seconds = table.lines().next().unwrap().split(',').position(|name| name == "step_seconds").unwrap();
    let without = |row: &str| {
        let fields = row.split(',').enumerate().filter(|(place, _)| *place != seconds).map(|(_, field)| field);
        fields.collect::<Vec<_>>().join(",") + "\n"
    };
    let table: String = table.lines().map(without).collect();
    let events = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let events: Vec<String> = events.filter(|name| name.starts_with("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    let bytes = read(&events[0]);
    let (mut rest, mut plain) = (&bytes[..], Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        let message = &behind[4..4 + length];
        assert_eq!(message[0], 9);
        plain.extend_from_slice(&message[9..]);
        rest = &behind[length + 8..];
    }
    [read("last.safetensors"), read("best.safetensors"), table.into_bytes(), plain]
}

#[test]
fn killed_and_run_again_it_ends_as_if_nothing_had_happened() {
    let folder = std::env::temp_dir().join(format!("tomograd-killed-{}", std::process::id()));
    let whole = folder.join("whole");
    assert!(start(&whole, "").success());
    let expected = results(&whole);
    let names = ["last.safetensors", "best.safetensors", "epochs.csv", "the events"];
    // Steps are numbered over the run, seven an epoch; checkpoints come after steps 3, 6 and so on, where the second learner
    // doesn't wait for more gradients, and at the ends of epochs.
    let moments = [
        ["step:0", "step:1", "step:5"],
        ["step:6", "step:7", "step:13"],
        ["validation:0", "validation:1", "validation:2"],
        ["write:last.safetensors:1", "write:last.safetensors:2", "write:last.safetensors:3"],
        ["write:best.safetensors:1", "write:epochs.csv:1", "write:epochs.csv:1"],
        ["step:12", "write:best.safetensors:1", "write:last.safetensors:1"],
        // The best checkpoint is there, the last one isn't.
        ["plain write:last.safetensors:1", "plain step:8", "plain step:15"],
    ];
    let mut killed = 0;
    for (number, moments) in moments.iter().enumerate() {
        let out = folder.join(number.to_string());
        for moment in moments {
            let status = start(&out, moment);
            // A file that is written fast may be there before it is seen: the run then goes on, beyond later moments of its group.
            assert!(status.success() || status.signal() == Some(libc::SIGKILL), "{moment}: {status}");
            let seen = moments.iter().all(|moment| !moment.contains("write"));
            assert!(!status.success() || !seen, "{moment} was passed by");
            killed += usize::from(!status.success());
        }
        assert!(start(&out, "").success());
        for ((found, expected), name) in results(&out).iter().zip(&expected).zip(names) {
            assert!(found == expected, "{name} of a run killed at {moments:?} ({killed} times) is another");
        }
    }
    // Steps and validations can't be missed.
    assert!(killed >= 9, "killed {killed} times");
    fs::remove_dir_all(folder).unwrap();
}
