//! What benchmarks of cases share: the command line, the timing, and the lines of JSON.

use std::{process::ExitCode, time::Instant};

use serde_json::json;
use tomograd::{
    kernels::{
        settings::{self, Settings, with_settings},
        trace,
    },
    prelude::*,
};

use super::resident;

/// What is timed.
pub type Step = Box<dyn FnMut() -> Result<()>>;

/// Times the cases that the command line names (`all` without one), which `build` makes.
pub fn main(program: &str, all: &[&str], build: impl Fn(&str) -> Result<Option<Step>>) -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench" && argument != "--json");
    let (mut names, mut threads, mut seconds) = (Vec::new(), None, 1.5);
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--case" => {}
            "--threads" => threads = arguments.next().and_then(|value| value.parse().ok()),
            "--seconds" => seconds = arguments.next().and_then(|value| value.parse().ok()).unwrap_or(seconds),
            name => names.push(name.to_owned()),
        }
    }
    let settings = threads.map_or(Settings::default(), |threads| Settings::default().threads(threads));
    let names: Vec<&str> = if names.is_empty() { all.to_vec() } else { names.iter().map(String::as_str).collect() };
    let run = || run_all(program, &names, seconds, threads.unwrap_or_else(settings::threads), build);
    match with_settings(settings, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(
    program: &str,
    names: &[&str],
    seconds: f64,
    threads: usize,
    build: impl Fn(&str) -> Result<Option<Step>>,
) -> Result<()> {
    let isa = format!("{:?}", settings::current_isa()).to_lowercase();
    let idle = resident::peak_mb();
    for &name in names {
        let Some(mut step) = build(name)? else {
            eprintln!("{program}: no case {name}");
            continue;
        };
        // The peak of memory begins anew, where the system can do that.
        std::fs::write("/proc/self/clear_refs", "5").ok();
        let (first, events) = trace::collect(&mut step);
        first?;
        let (flops, bytes) = events.iter().fold((0.0, 0.0), |(f, b), e| (f + e.cost.flops, b + e.cost.bytes));
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < 3 || (begin.elapsed().as_secs_f64() < seconds && times.len() < 200) {
            let start = Instant::now();
            step()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let line = json!({
            "case": name, "peer": "tomograd", "isa": isa, "threads": threads, "min_s": times[0],
            "median_s": times[times.len() / 2], "runs": times.len(), "peak_rss_mb": resident::peak_mb(), "idle_rss_mb": idle,
            "flops": flops, "bytes": bytes,
        });
        println!("{line}");
    }
    // Last, because copying takes memory that would count as the cases'.
    let peaks = trace::Peaks::measure()?;
    println!(
        "{}",
        json!({"machine": {"isa": isa, "threads": threads, "fma_gflops": peaks.gflops, "copy_gbs": peaks.gbytes}})
    );
    Ok(())
}

/// Uniform random numbers from −1 to 1.
pub fn random(shape: &[usize], name: &str) -> Result<Tensor> {
    Tensor::uniform(shape, -1.0, 1.0, Seed::new(0).named(name), DType::F32, Device::Cpu)
}
