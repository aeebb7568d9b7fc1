//! The tomograd program. Exit codes: 0 success, 1 a file or its content is invalid, 2 the command line is invalid and nothing
//! was done, 130 Ctrl-C.

#![forbid(unsafe_code)]

mod anonymize;
mod completions;
mod convert;
mod dicom;
mod evaluate;
mod info;
mod inputs;
mod interrupt;
mod overrides;
mod parallel;
mod predict;
mod print;
mod profile;
mod series;
mod train;
mod view;
mod zoo;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
pub(crate) use print::plain;
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
    /// Reads a whole volume and prints shape, dtype, spacing, orientation, affine and intensities; for a DICOM folder or DICOMDIR,
    /// lists the series, and for a weights file the tensors, without reading them
    Info {
        /// NIfTI, NRRD, MetaImage, TIFF, PNG, JPEG or DICOM, a DICOM folder or DICOMDIR, or weights: .safetensors, .index.json, .pth,
        /// .pt, .bin, .ckpt
        file: PathBuf,
        /// Rejects weights whose pickle names classes or functions other than those of plain data
        #[arg(long)]
        strict: bool,
    },
    /// Segments volumes with a network from a checkpoint, preprocessed as in training; the volumes of a 4D file are its
    /// channels
    Predict(predict::Predict),
    /// Writes a volume in another format, turned or resampled where that is asked for
    Convert(convert::Convert),
    /// De-identifies DICOM files by the basic profile of the standard and its options
    Anonymize(anonymize::Anonymize),
    /// DICOM objects of a series: masks from and into segmentations and structure sets, captures, reports
    #[command(subcommand)]
    Dicom(dicom::Dicom),
    /// Compares masks with the truth, by class and case: Dice, surface Dice, distances, volumes, with bootstrap intervals
    Evaluate(evaluate::Evaluate),
    /// Trains a segmentation network as a configuration says, from a dataset of one of several layouts
    Train(train::Train),
    /// Draws slices of a volume with the outlines of a mask, in a PNG file or in the terminal
    View(view::View),
    /// Prints the slowest operations of a trace that was recorded with TOMOGRAD_TRACE=FILE
    Profile {
        /// The trace file
        trace: PathBuf,
        /// The number of rows
        #[arg(long, default_value_t = 20)]
        top: usize,
        /// One row per shape
        #[arg(long)]
        by_shape: bool,
    },
    /// The networks by name: lists, shows, draws and runs them
    #[command(subcommand)]
    Zoo(zoo::Zoo),
    /// Prints completions for a shell: source <(tomograd completions bash)
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page: tomograd man > tomograd.1; of a command, tomograd man convert
    Man {
        /// A command
        command: Option<String>,
    },
}

/// The reason for an unsuccessful exit.
enum Failure {
    /// An invalid command line; nothing was done.
    CommandLine(Error),
    /// An invalid file.
    File(Error),
    /// Some of several files failed, and an error was printed for each; the others succeeded.
    Files { failed: Vec<String>, of: usize },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

fn main() -> ExitCode {
    interrupt::watch();
    let result = match Arguments::parse().command {
        Command::Info { file, strict } => info::run(&file, strict).map_err(Failure::from),
        Command::Predict(predict) => predict.run(),
        Command::Profile { trace, top, by_shape } => profile::run(&trace, top, by_shape).map_err(Failure::from),
        Command::Zoo(zoo) => zoo.run(),
        Command::Convert(convert) => convert.run(),
        Command::Anonymize(anonymize) => anonymize.run(),
        Command::Dicom(dicom) => dicom.run(),
        Command::Evaluate(evaluate) => evaluate.run(),
        Command::Train(train) => train.run(),
        Command::View(view) => view.run(),
        Command::Completions { shell } => completions::shell(shell).map_err(Failure::from),
        Command::Man { command } => completions::manual(command.as_deref()),
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
