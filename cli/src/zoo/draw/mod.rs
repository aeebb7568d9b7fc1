//! `tomograd zoo draw`: a network as an SVG picture, from a run on [`Device::Meta`](tomograd::prelude::Device::Meta).
//!
//! [`record`] lists the operations of a run, [`group`] divides them among blocks, [`describe`] says what a block holds, [`fold`]
//! folds repeated blocks, [`layout`] and [`route`] give blocks and arrows their places, and [`svg`] writes them.

mod describe;
mod diagram;
mod fold;
mod group;
mod label;
mod layout;
mod record;
mod route;
mod svg;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use tomograd::{io::write_atomically, models::registry, prelude::*};

use super::{
    choice::{Choice, Chosen},
    measure::{grouped, multiply_adds, short},
    shapes::{self, Shapes},
};
use crate::{Failure, print::print_line};

#[derive(Args)]
pub(crate) struct Draw {
    #[command(flatten)]
    choice: Option<Choice>,
    #[command(flatten)]
    shapes: Shapes,
    /// The picture; by default NAME.svg
    #[arg(long, value_name = "FILE.svg")]
    out: Option<PathBuf>,
    /// Draws the first preset of every family
    #[arg(long, conflicts_with_all = ["name", "out", "shapes"], requires = "out_dir")]
    all: bool,
    /// The folder for the pictures of --all, FAMILY.svg, which are replaced
    #[arg(long, value_name = "DIR", requires = "all")]
    out_dir: Option<PathBuf>,
    /// Replaces an existing picture
    #[arg(long)]
    overwrite: bool,
}

impl Draw {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        match (&self.choice, &self.out_dir) {
            (Some(choice), _) => self.one(choice),
            (None, Some(folder)) => all(folder),
            (None, None) => Err(Failure::CommandLine(
                Error::argument("zoo draw", "there is no NAME").expected("a network, or --all --out-dir DIR"),
            )),
        }
    }

    fn one(&self, choice: &Choice) -> Result<(), Failure> {
        let chosen = choice.find().map_err(Failure::CommandLine)?;
        let file = self.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.svg", chosen.preset)));
        if !self.overwrite && fs::symlink_metadata(&file).is_ok() {
            let what = format!("{} is there already", file.display());
            return Err(Failure::CommandLine(
                Error::argument("zoo draw", what).expected("another file for --out, or --overwrite"),
            ));
        }
        let model = chosen.model().map_err(Failure::CommandLine)?;
        let shapes = self.shapes.of(&chosen, &model).map_err(Failure::CommandLine)?;
        save(&file, &picture(&chosen, &model, &shapes)?)?;
        Ok(())
    }
}

/// Draws the first preset of every family.
fn all(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder).map_err(|error| Error::io("create", folder.display(), error))?;
    let mut failed = Vec::new();
    for family in registry::families() {
        let drawn = || {
            let preset = family.presets()?.into_iter().next();
            let preset = preset.ok_or_else(|| Error::argument("zoo draw", "the family has no preset"))?;
            let chosen = Chosen::new(family, preset);
            let model = chosen.model()?;
            let shapes = shapes::usual(&chosen, &model)?;
            save(&folder.join(format!("{}.svg", family.name())), &picture(&chosen, &model, &shapes)?)
        };
        if let Err(error) = drawn() {
            eprintln!("tomograd: {}", error.within(family.name()));
            failed.push(family.name().to_owned());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Files { failed, of: registry::families().len() }) }
}

fn save(file: &Path, picture: &str) -> Result<()> {
    write_atomically(file, |writer| {
        writer.write_all(picture.as_bytes()).map_err(|error| Error::io("write", file.display(), error))
    })?;
    print_line!("{}", file.display());
    Ok(())
}

/// The picture of a network for inputs of these shapes.
fn picture(chosen: &Chosen, model: &Model, shapes: &[Vec<usize>]) -> Result<String> {
    let diagram = diagram::Diagram::new(&record::operations(model, shapes)?);
    let placed = layout::place(&diagram);
    let routes = route::route(&diagram, &placed);
    let (preset, family) = (chosen.preset, chosen.family.name());
    let title = if preset == family { family.to_owned() } else { format!("{family}: {preset}") };
    let of: Vec<String> = shapes.iter().map(|shape| shapes::text(shape)).collect();
    let subtitle = format!(
        "{} · {} parameters · {} multiply-adds at {}",
        chosen.family.card().task,
        grouped(model.params().count()),
        short(multiply_adds(model, shapes)?),
        of.join(", ")
    );
    Ok(svg::svg(&title, &subtitle, &diagram, &placed, &routes))
}
