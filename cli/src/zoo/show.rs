//! `tomograd zoo show`.

use clap::Args;
use serde_json::{Value, json};
use tomograd::{
    Error,
    models::{Cost, Model, Profile, profile},
    nn::PerAxis,
};

use super::{
    choice::{Choice, Chosen},
    measure::{grouped, outputs, short},
    shapes::{Shapes, text},
};
use crate::{Failure, print::print_line};

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    shapes: Shapes,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// What there is to say of a network.
struct Facts {
    chosen: Chosen,
    model: Model,
    shapes: Vec<Vec<usize>>,
    outputs: Vec<(String, Vec<usize>)>,
    profile: Profile,
}

impl Show {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let facts = self.facts().map_err(Failure::CommandLine)?;
        if self.json {
            print_line!("{:#}", facts.json());
        } else {
            facts.print();
        }
        Ok(())
    }

    fn facts(&self) -> Result<Facts, Error> {
        let chosen = self.choice.find()?;
        let model = chosen.model()?;
        let shapes = self.shapes.of(&chosen, &model)?;
        let profile = profile(&chosen.config, &shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let outputs = outputs(&model, &shapes, false)?;
        Ok(Facts { chosen, model, shapes, outputs, profile })
    }
}

impl Facts {
    fn json(&self) -> Value {
        let card = self.chosen.family.card();
        let reduction = |reduction: &PerAxis| match reduction {
            PerAxis::All(size) => json!(size),
            PerAxis::Each(sizes) if sizes.iter().all(|size| Some(size) == sizes.first()) => json!(sizes.first()),
            PerAxis::Each(sizes) => json!(sizes),
        };
        let stages = self.model.stages().iter();
        let names = self.model.network().inputs();
        let cost =
            |cost: &Cost| json!({"multiply_adds": cost.multiply_adds, "flops": cost.flops, "peak_bytes": cost.peak});
        let tensors = |named: Vec<(&str, &Vec<usize>)>| -> Vec<Value> {
            named.into_iter().map(|(name, shape)| json!({"name": name, "shape": shape})).collect()
        };
        json!({
            "preset": self.chosen.preset,
            "family": self.chosen.family.name(),
            "about": card.about,
            "task": card.task.to_string(),
            "ranks": card.ranks,
            "source": self.chosen.source,
            "code": card.code,
            "weights_licence": card.weights_licence,
            "config": self.model.config(),
            "parameters": self.profile.parameters,
            "all_inputs": names,
            "inputs": tensors(names.iter().copied().zip(&self.shapes).collect()),
            "outputs": tensors(self.outputs.iter().map(|(name, shape)| (name.as_str(), shape)).collect()),
            "stages": stages
                .map(|stage| json!({
                    "name": stage.name(), "channels": stage.channels(), "reduction": reduction(stage.reduction())
                }))
                .collect::<Vec<_>>(),
            "inference": cost(&self.profile.inference),
            "training": self.profile.training.as_ref().map(cost),
        })
    }

    fn print(&self) {
        let (card, family) = (self.chosen.family.card(), self.chosen.family.name());
        print_line!("{} ({family}): {}\n", self.chosen.preset, card.about);
        let ranks: Vec<String> = card.ranks.iter().map(|rank| format!("{rank}D")).collect();
        print_line!("task        {}, {} images", card.task, ranks.join(", "));
        print_line!("source      {}", self.chosen.source);
        print_line!("code        {}", card.code.unwrap_or("the authors published none"));
        print_line!("weights     {}", card.weights_licence.unwrap_or("none that are known here"));
        print_line!("config      {}", self.model.config());
        print_line!("parameters  {}", grouped(self.profile.parameters));
        for stage in self.model.stages() {
            let reduction = match stage.reduction() {
                PerAxis::All(size) => size.to_string(),
                PerAxis::Each(sizes) => {
                    let mut sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                    sizes.dedup();
                    sizes.join(", ")
                }
            };
            print_line!("stage       {:<16} {:>6} channels, size / {reduction}", stage.name(), stage.channels());
        }
        for (name, shape) in self.model.network().inputs().iter().zip(&self.shapes) {
            print_line!("input       {name:<16} {}", text(shape));
        }
        for (name, shape) in &self.outputs {
            print_line!("output      {name:<16} {}", text(shape));
        }
        print_line!("\nin f32, for this input   multiply-adds        FLOPs    peak memory");
        for (what, cost) in
            [("a forward pass", Some(&self.profile.inference)), ("a training step", self.profile.training.as_ref())]
        {
            let Some(cost) = cost else {
                print_line!("{what:<22} only with more images, or larger ones");
                continue;
            };
            let (products, flops) = (short(cost.multiply_adds), short(cost.flops));
            print_line!("{what:<22} {products:>15} {flops:>12} {:>12}B", short_bytes(cost.peak));
        }
    }
}

/// Bytes in units of 1024.
fn short_bytes(bytes: usize) -> String {
    let units = [" ", " Ki", " Mi", " Gi", " Ti"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1}{}", units[unit])
}
