//! The tomograd program. Exit codes: 0 done, 1 a file or its content is wrong, 2 the command line is, and nothing was done.

#![forbid(unsafe_code)]

mod info;
mod overrides;
mod predict;
mod profile;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use overrides::Overrides;
use tomograd::Error;

/// Medical volumes and networks from the command line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads a whole volume and prints shape, dtype, spacing, orientation, affine and intensities; of a file of weights, lists the
    /// tensors without reading them
    Info {
        /// A NIfTI file, or weights: .safetensors, .index.json, .pth, .pt, .bin, .ckpt
        file: PathBuf,
        /// Refuses weights whose pickle names classes or functions other than those of plain data
        #[arg(long)]
        strict: bool,
    },
    /// Segments volumes with a network from a checkpoint, prepared as in its training; the volumes of a file of four axes are
    /// its channels
    Predict {
        /// A checkpoint with the network's configuration and preparation in it
        checkpoint: PathBuf,
        /// NIfTI files
        #[arg(required = true)]
        inputs: Vec<PathBuf>,
        /// Where the masks go, under the names of the inputs
        #[arg(long)]
        out: PathBuf,
        /// Replaces masks that are there already; never an input
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        overrides: Overrides,
    },
    /// Prints what took the most time in a trace that a run with TOMOGRAD_TRACE=FILE wrote
    Profile {
        /// The trace
        trace: PathBuf,
        /// How many rows
        #[arg(long, default_value_t = 20)]
        top: usize,
        /// A row for each shape
        #[arg(long)]
        by_shape: bool,
    },
}

/// Why the program ends without what it was asked for.
enum Failure {
    /// What was asked for can't be; nothing was done.
    CommandLine(Error),
    /// A file, or what is in it.
    File(Error),
    /// Some of several files, each of which was named with its error; the others are done.
    Files { failed: Vec<String>, of: usize },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Info { file, strict } => info::run(&file, strict).map_err(Failure::from),
        Command::Predict { checkpoint, inputs, out, overwrite, overrides } => {
            predict::run(&checkpoint, &inputs, &out, overwrite, &overrides)
        }
        Command::Profile { trace, top, by_shape } => profile::run(&trace, top, by_shape).map_err(Failure::from),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::CommandLine(error)) => {
            eprintln!("tomograd: {error}");
            ExitCode::from(2)
        }
        Err(Failure::File(error)) => {
            eprintln!("tomograd: {error}");
            ExitCode::FAILURE
        }
        Err(Failure::Files { failed, of }) => {
            if of > 1 {
                eprintln!("tomograd: {} of {of} files failed: {}", failed.len(), failed.join(", "));
            }
            ExitCode::FAILURE
        }
    }
}
