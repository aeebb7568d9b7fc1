//! A sliding window over a whole head with a network of random weights: seconds, those of the network among them, and memory against
//! its bound. Prints one JSON object; `benches/head.py` runs it beside PyTorch.
//!
//!     cargo bench --bench head -- IMAGE [--classes K] [--overlap PART] [--threads N]

mod resident;

use std::{
    cell::Cell,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use serde_json::json;
use tomograd::{
    core::memory,
    kernels::settings::{Settings, with_settings},
    pipeline::{
        Sample,
        transforms::{Compose, ZScore},
    },
    prelude::*,
};

#[derive(Parser)]
struct Arguments {
    /// A NIfTI file
    image: PathBuf,
    #[arg(long, default_value_t = 3)]
    classes: usize,
    #[arg(long, default_value_t = 0.25)]
    overlap: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const PATCH: [usize; 3] = [64; 3];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match with_settings(Settings::default().threads(arguments.threads), || run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("head: the bound doesn't hold");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("head: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the bound held.
fn run(arguments: &Arguments) -> Result<bool> {
    let idle = resident::peak_mb();
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    let net = UNet3d::new(params.root(), &UNet3dConfig::new(arguments.classes))?;
    let in_network = Cell::new(Duration::ZERO);
    let predict = |patches: &Tensor| {
        let begun = Instant::now();
        let pass = Pass::eval(&params)?;
        let logits = net.forward(&pass.input(patches), &pass)?.into_value();
        in_network.set(in_network.get() + begun.elapsed());
        Ok(logits)
    };

    // What the network takes for one window, beside the window and its logits.
    let window = Tensor::zeros(&[&[1, 1], &PATCH[..]].concat(), DType::F32, Device::Cpu)?;
    let (network, logits) = peak_of(|| predict(&window))?;
    let network = network - 4 * logits.count();
    drop((window, logits));
    memory::trim(Device::Cpu)?;

    let sample = Sample::new("head", &Volume::read(&arguments.image)?.to_f32()?.unsqueeze(0)?, None)?;
    let image = Compose::new().then(ZScore::default())?.apply(sample, Seed::new(0))?.image()?.clone();
    let (spatial, windows) = (&image.shape()[1..], SlidingWindow::new(PATCH)?.overlap(arguments.overlap)?);
    let bound = windows.memory_bound(1, arguments.classes, spatial)? + network;
    in_network.set(Duration::ZERO);
    let start = Instant::now();
    let (peak, _labels) = peak_of(|| windows.labels(&image, predict))?;
    let line = json!({
        "classes": arguments.classes, "shape": spatial, "windows": windows.windows(spatial)?,
        "seconds": start.elapsed().as_secs_f64(), "network_seconds": in_network.get().as_secs_f64(), "image_bytes": 4 * image.count(), "network_bytes": network,
        "peak_bytes": peak, "bound_bytes": bound, "peak_rss_mb": resident::peak_mb(), "idle_rss_mb": idle,
    });
    println!("{line}");
    // The pool rounds blocks up by a quarter at most.
    Ok(peak <= bound + bound / 4)
}

/// The most bytes of the pool that `work` takes beside what was there before, and its result.
fn peak_of<T>(work: impl FnOnce() -> Result<T>) -> Result<(usize, T)> {
    memory::reset_peak(Device::Cpu)?;
    let before = memory::statistics(Device::Cpu)?.live;
    let result = work()?;
    Ok((memory::statistics(Device::Cpu)?.peak - before, result))
}
