//! This project's side of `benches/volumes.py`: does jobs on volumes that lines on standard input name, and prints for each a line of
//! JSON with the seconds that it took and a number that says what came out.
//!
//! `read FILE`, `series FOLDER`, `resample FILE MILLIMETRES`, `hd95 MASK MASK`. What is read is read before the clock runs, except by
//! `read` and `series`. Memory of an earlier job is returned to the system first.

use std::{
    io::{BufRead, stdin},
    time::Instant,
};

use tomograd::{
    core::memory,
    io::Interpolation,
    pipeline::{alignment, compare_volumes},
    prelude::*,
};

/// The sum of the voxels.
fn sum(volume: &Volume) -> Result<f64> {
    volume.info().map(|info| info.sum)
}

/// Runs a job; its seconds and its number.
fn job(line: &str) -> Result<(f64, f64)> {
    let words: Vec<&str> = line.split('\t').collect();
    memory::trim(Device::Cpu)?;
    match words[..] {
        ["read" | "series", path] => {
            let begun = Instant::now();
            let volume = Volume::read(path)?;
            Ok((begun.elapsed().as_secs_f64(), sum(&volume)?))
        }
        ["resample", path, spacing] => {
            let volume = Volume::read(path)?;
            let step = spacing.parse().map_err(|_| Error::argument("resample", spacing).expected("millimetres"))?;
            let begun = Instant::now();
            let volume = volume.resample([step; 3], Interpolation::Linear)?;
            Ok((begun.elapsed().as_secs_f64(), sum(&volume)?))
        }
        ["hd95", first, second] => {
            let masks = [Volume::read(first)?, Volume::read(second)?];
            let begun = Instant::now();
            let compared = compare_volumes(&masks[0], &masks[1], 2, alignment::TOLERANCE, 1.0)?;
            Ok((begun.elapsed().as_secs_f64(), compared[0].metrics.hd95))
        }
        _ => Err(Error::argument("volumes", line).expected("a job and its files, separated by tabs")),
    }
}

fn main() {
    for line in stdin().lock().lines().map_while(std::result::Result::ok) {
        match job(&line) {
            Ok((seconds, number)) => println!("{}", serde_json::json!({"seconds": seconds, "number": number})),
            Err(error) => println!("{}", serde_json::json!({"error": error.to_string()})),
        }
    }
}
