//! `tomograd zoo`: the networks of the registry from the command line.

mod choice;
mod draw;
mod list;
mod measure;
mod run;
mod shapes;
mod show;
mod times;

use clap::Subcommand;

use crate::Failure;

/// The commands of `tomograd zoo`. NAME is a preset, or a family, which stands for its first preset.
#[derive(Subcommand)]
pub(crate) enum Zoo {
    /// Lists the networks: presets, families, tasks, parameters
    List(list::List),
    /// Shows one network: configuration, source, licence, parameters, stages, and its cost at a shape
    Show(show::Show),
    /// Draws a network, from its configuration, as an SVG file
    Draw(draw::Draw),
    /// Runs a network and its gradients on inputs by formula, and writes all results to a safetensors file, to be compared
    /// with another implementation
    Run(run::Run),
}

impl Zoo {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Draw(draw) => draw.run(),
            Self::Run(run) => run.run(),
        }
    }
}
