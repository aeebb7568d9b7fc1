//! The tomograd program. Exit codes: 0 done, 1 a file or its content is wrong, 2 the command line is.

mod info;
mod predict;
mod profile;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Medical volumes and networks from the command line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads a whole volume and prints shape, dtype, spacing, orientation, affine and intensities
    Info {
        /// A NIfTI file
        file: PathBuf,
    },
    /// Segments volumes with a network from a checkpoint
    Predict {
        /// A checkpoint with the network's configuration in it
        checkpoint: PathBuf,
        /// NIfTI files
        #[arg(required = true)]
        inputs: Vec<PathBuf>,
        /// Where the masks go, under the names of the inputs
        #[arg(long)]
        out: PathBuf,
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

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Info { file } => info::run(&file),
        Command::Predict { checkpoint, inputs, out } => predict::run(&checkpoint, &inputs, &out),
        Command::Profile { trace, top, by_shape } => profile::run(&trace, top, by_shape),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tomograd: {error}");
            ExitCode::FAILURE
        }
    }
}
