//! `tomograd zoo list`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tomograd::{
    core::unknown_name,
    models::registry::{self, Family},
    prelude::*,
};

use super::{
    choice::Chosen,
    measure::{grouped, multiply_adds, short},
    shapes,
    times::Times,
};
use crate::{Failure, print::print_line};

#[derive(Args)]
pub(crate) struct List {
    /// Only networks of this task: segmentation, classification, ...
    #[arg(long)]
    task: Option<String>,
    /// Only networks for images of this many axes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
    rank: Option<u8>,
    /// Prints the table of docs/zoo/README.md: with multiply-adds, sources and links
    #[arg(long)]
    markdown: bool,
    /// Adds to the table time and memory of one inference beside PyTorch's, from a file that benches/zoo_times.py wrote
    #[arg(long, value_name = "FILE", requires = "markdown")]
    times: Option<PathBuf>,
}

impl List {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let families = self.families().map_err(Failure::CommandLine)?;
        let times = self.times.as_deref().map(Times::read).transpose()?;
        let mut table = Vec::new();
        for family in families {
            for preset in family.presets()? {
                let chosen = Chosen::new(family, preset);
                let model = chosen.model().map_err(|error| error.within(chosen.preset))?;
                let row =
                    if self.markdown { markdown_row(&chosen, &model, times.as_ref()) } else { row(&chosen, &model) };
                table.push(row);
            }
        }
        if self.markdown {
            let measured = if times.is_some() { ["time | memory | ", "---:|---:|"] } else { [""; 2] };
            print_line!("| preset | family | task | images | parameters | multiply-adds | {}source |", measured[0]);
            print_line!("|---|---|---|---|---:|---:|{}---|", measured[1]);
            table.iter().for_each(|row| print_line!("| {} |", row.join(" | ")));
        } else {
            print_columns(&table);
        }
        Ok(())
    }

    /// The families of the given task and rank.
    fn families(&self) -> Result<Vec<&'static Family>> {
        let task_of = |family: &Family| family.card().task.to_string();
        let mut known: Vec<String> = registry::families().iter().map(task_of).collect();
        known.sort();
        known.dedup();
        if let Some(task) = self.task.as_ref().filter(|task| !known.contains(task)) {
            return Err(unknown_name("zoo list", "task", task, known.iter().map(String::as_str)));
        }
        let of_task = |family: &Family| self.task.as_ref().is_none_or(|task| *task == task_of(family));
        let of_rank = |family: &Family| self.rank.is_none_or(|rank| family.card().ranks.contains(&usize::from(rank)));
        Ok(registry::families().iter().filter(|family| of_task(family) && of_rank(family)).collect())
    }
}

/// The ranks of the images that a configuration is for: that of its own field or of its size, or if it has neither the family's.
fn images(chosen: &Chosen, model: &Model) -> String {
    let ranks = chosen.family.card().ranks;
    let all = |ranks: &[usize]| ranks.iter().map(|rank| format!("{rank}D")).collect::<Vec<_>>().join(", ");
    let config = model.config();
    let size = ["size", "start_size"].iter().find_map(|field| config.get(field)?.as_array().map(Vec::len));
    let own = config.get("rank").and_then(Value::as_u64).map(|rank| rank as usize).or(size);
    match own {
        Some(rank) if ranks.len() > 1 => {
            let others: Vec<usize> = ranks.iter().copied().filter(|other| *other != rank).collect();
            format!("{rank}D (also {})", all(&others))
        }
        // A perceptron takes numbers, in any shape.
        _ if chosen.family.name() == "fully_connected" => String::new(),
        _ => all(ranks),
    }
}

fn row(chosen: &Chosen, model: &Model) -> Vec<String> {
    let card = chosen.family.card();
    let parameters = short(model.params().count() as f64);
    let columns = [chosen.preset, chosen.family.name(), &card.task.to_string(), &ranks(card.ranks), &parameters];
    columns.iter().map(|column| (*column).to_owned()).chain([card.about.to_owned()]).collect()
}

fn ranks(ranks: &[usize]) -> String {
    ranks.iter().map(|rank| format!("{rank}D")).collect::<Vec<_>>().join(" ")
}

fn print_columns(rows: &[Vec<String>]) {
    let titles = ["preset", "family", "task", "images", "parameters", "about"].map(str::to_owned);
    let all: Vec<&[String]> = std::iter::once(&titles[..]).chain(rows.iter().map(Vec::as_slice)).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in all {
        let mut line = String::new();
        for (column, (text, &width)) in row.iter().zip(&widths).enumerate() {
            let padded = if column == 4 { format!("{text:>width$}  ") } else { format!("{text:<width$}  ") };
            line.push_str(&padded);
        }
        print_line!("{}", line.trim_end());
    }
}

fn markdown_row(chosen: &Chosen, model: &Model, times: Option<&Times>) -> Vec<String> {
    let (card, family) = (chosen.family.card(), chosen.family.name());
    let shapes = shapes::usual(chosen, model);
    let shape = shapes.as_ref().ok().and_then(|shapes| shapes.first()).cloned().unwrap_or_default();
    let cost = shapes
        .and_then(|shapes| Ok(format!("{} at {}", short(multiply_adds(model, &shapes)?), shapes::text(&shape))))
        .unwrap_or_default();
    let mut row = vec![
        format!("`{}`", chosen.preset),
        format!("[{family}]({family}.md)"),
        card.task.to_string(),
        images(chosen, model),
        grouped(model.params().count()),
        cost,
    ];
    row.extend(times.into_iter().flat_map(|times| times.cells(chosen.preset, &shape)));
    row.push(linked(chosen.source));
    row
}

/// The first of the sources, with a link for its number.
fn linked(source: &str) -> String {
    let first = source.split(';').next().unwrap_or(source).trim();
    for (prefix, site) in [("arXiv:", "https://arxiv.org/abs/"), ("doi:", "https://doi.org/")] {
        if let Some((before, rest)) = first.split_once(prefix) {
            let rest = rest.trim_start();
            let end = rest.find([' ', ',', ')']).unwrap_or(rest.len());
            let (number, after) = rest.split_at(end);
            return format!("{before}[{prefix}{number}]({site}{number}){after}").replace('|', "\\|");
        }
    }
    first.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_get_a_link() {
        assert_eq!(
            linked("A: B, 2015, arXiv:1512.03385; C, arXiv:1"),
            "A: B, 2015, [arXiv:1512.03385](https://arxiv.org/abs/1512.03385)"
        );
        assert_eq!(
            linked("A: B, doi:10.1000/x.1, page 2"),
            "A: B, [doi:10.1000/x.1](https://doi.org/10.1000/x.1), page 2"
        );
        assert_eq!(linked("a | b"), "a \\| b");
    }
}
