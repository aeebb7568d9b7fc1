//! Tests and times tomograd on the GPU of this machine, and writes one table.
//!
//!     tomograd-gpu [--out FILE] [--python PATH]
//!     tomograd-gpu pack --out PROGRAM [--architecture 90] [--cases FILE] [--networks FILE] [--data FOLDER]
//!
//! The first needs an NVIDIA GPU with its driver, and nothing else if the program was made by `benches/gpu/make`; it ends with 2 where a GPU
//! can't be used, and with 1 where a check failed. The second writes a copy of this program with everything inside, and needs NVRTC.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use tomograd_core::{Device, Error, ErrorKind, Result, cuda::Capability};
use tomograd_gpu::{
    Effort, Setup,
    archive::Archive,
    parts::{self, PARTS},
    sources,
    table::{Results, Section},
    torch,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.split_first().map(|(first, rest)| (&first[..], rest)) {
        Some(("pack", rest)) => {
            options(rest, &["out", "architecture", "cases", "networks", "data"]).and_then(|o| pack(&o))
        }
        Some(("part", rest)) => options(rest, &["name", "from"]).and_then(|options| part(&options)),
        Some(("--help" | "-h", _)) => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => options(&arguments, &["out", "python"]).and_then(|options| all(&options)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tomograd-gpu: {error}");
        ExitCode::from(if error.kind() == ErrorKind::Device { 2 } else { 1 })
    })
}

const HELP: &str = "Tests and times tomograd on the GPU of this machine, and writes one table.

    tomograd-gpu [--out FILE] [--python PATH]

--out is the table's file (tomograd-gpu.md), --python a Python with torch (python3), beside which the cases are timed if it is there.";

/// The values of `--name value` pairs.
fn options(arguments: &[String], known: &[&str]) -> Result<HashMap<String, String>> {
    let mut found = HashMap::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let name = argument.strip_prefix("--").filter(|name| known.contains(name));
        let (Some(name), Some(value)) = (name, arguments.next()) else {
            let names: Vec<String> = known.iter().map(|name| format!("--{name} VALUE")).collect();
            return Err(Error::argument("arguments", argument.clone()).expected(names.join(", ")));
        };
        found.insert(name.to_owned(), value.clone());
    }
    Ok(found)
}

/// This program's file.
fn program() -> Result<PathBuf> {
    env::current_exe().map_err(|error| Error::io("find", "this program", error))
}

/// The device, with the machine code that travels with the program.
fn setup() -> Result<Setup> {
    let archive = Archive::at_end_of(&program()?)?;
    sources::provide(&archive);
    let device = Device::Cuda(0);
    device.check("device")?;
    Ok(Setup { device, archive, effort: Effort::Whole })
}

/// Does the jobs of a part; the program starts itself with this.
fn part(options: &HashMap<String, String>) -> Result<ExitCode> {
    let name = options.get("name").map_or("", String::as_str);
    let part = PARTS.iter().find(|part| part.name == name);
    let part = part.ok_or_else(|| Error::argument("part", format!("no part {name}")))?;
    let from = options.get("from").and_then(|from| from.parse().ok()).unwrap_or(0);
    // The messages of failed checks are in the table.
    std::panic::set_hook(Box::new(|_| {}));
    parts::work(&setup()?, part, from, std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs everything and writes the table.
fn all(options: &HashMap<String, String>) -> Result<ExitCode> {
    let start = Instant::now();
    let setup = setup()?;
    let program = program()?;
    let mut results = Results { machine: machine(&setup), ..Results::default() };
    for part in &PARTS {
        eprintln!("{} (at most {} s)", part.title, part.seconds);
        let items = (part.items)(&setup)?;
        let command = |from: usize| {
            let mut command = Command::new(&program);
            command.args(["part", "--name", part.name, "--from", &from.to_string()]);
            command
        };
        let (outcomes, note) = parts::oversee([part.seconds, part.patience], &items, command)?;
        let section = Section { outcomes, note };
        match part.name {
            "registry" => results.registry = section,
            "bits" => results.bits = section,
            "segmentation" => results.segmentation = section,
            _ => results.cases = section,
        }
    }
    let out = Path::new(options.get("out").map_or("tomograd-gpu.md", String::as_str));
    let write = |page: &str| fs::write(out, page).map_err(|error| Error::io("write", out.display(), error));
    // Whatever becomes of PyTorch, what is known is kept.
    write(&results.markdown())?;
    results.torch = beside(&setup, options.get("python").map_or("python3", String::as_str), &mut results.machine)?;
    results.seconds = start.elapsed().as_secs_f64();
    let (page, failures) = (results.markdown(), results.failures());
    println!("{page}");
    write(&page)?;
    eprintln!("{failures} failures; the table is in {}", out.display());
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// PyTorch's side, if it is there.
fn beside(setup: &Setup, python: &str, machine: &mut Vec<(String, String)>) -> Result<Section> {
    let version = match torch::look(python) {
        Ok(version) => version,
        Err(error) => return Ok(Section { note: Some(error.to_string()), ..Section::default() }),
    };
    machine.push(("PyTorch".to_owned(), version));
    let [most, last] = parts::TORCH_SECONDS;
    eprintln!("PyTorch's side (at most {most} s)");
    let folder = env::temp_dir().join(format!("tomograd-gpu-torch-{}", std::process::id()));
    torch::write(&setup.archive, &folder)?;
    let rows = parts::rows(most, torch::command(python, &folder, last));
    fs::remove_dir_all(&folder).ok();
    rows.map(|(outcomes, note)| Section { outcomes, note })
}

/// What is known of the machine.
fn machine(setup: &Setup) -> Vec<(String, String)> {
    let query = ["--query-gpu=name,driver_version,clocks.max.sm,memory.total", "--format=csv,noheader", "--id=0"];
    let card = Command::new("nvidia-smi").args(query).output().ok().filter(|output| output.status.success());
    let card = card.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let code = setup.archive.under("code/").count();
    vec![
        ("GPU, driver, highest clock, memory".to_owned(), card.unwrap_or_else(|| "nvidia-smi says nothing".to_owned())),
        ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (
            "kernels".to_owned(),
            if code == 0 { "compiled here".to_owned() } else { format!("{code} files compiled ahead") },
        ),
    ]
}

/// Writes a copy of this program with machine code, cases and scans inside.
fn pack(options: &HashMap<String, String>) -> Result<ExitCode> {
    let out = options.get("out").ok_or_else(|| Error::argument("pack", "no --out").expected("--out PROGRAM"))?;
    let architecture = options.get("architecture").map_or("90", String::as_str).trim_end_matches('a');
    let number: u32 = architecture.parse().map_err(|_| {
        Error::argument("pack", format!("the architecture {architecture}")).expected("a number, as 90 for sm_90a")
    })?;
    let mut archive = Archive::default();
    sources::pack(&mut archive, Capability { major: number / 10, minor: number % 10 })?;
    for (option, name) in [("cases", "cases.json"), ("networks", "torch_bench.py")] {
        if let Some(path) = options.get(option) {
            archive.add(name, fs::read(path).map_err(|error| Error::io("read", path, error))?);
        }
    }
    if let Some(folder) = options.get("data") {
        archive.add_folder("data", Path::new(folder))?;
    }
    fs::copy(program()?, out).map_err(|error| Error::io("write", out, error))?;
    archive.append_to(Path::new(out))?;
    let size = fs::metadata(out).map_err(|error| Error::io("read", out, error))?.len();
    println!("{out}: {} kernel files for sm_{number}, {:.1} MB", sources::SOURCES.len(), size as f64 / 1e6);
    Ok(ExitCode::SUCCESS)
}
