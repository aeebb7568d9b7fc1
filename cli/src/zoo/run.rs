//! `tomograd zoo run`.

use std::{collections::BTreeMap, fs, path::PathBuf};

use clap::{Args, ValueEnum};
use tomograd::{
    io::safetensors,
    models::{Model, formula},
    nn::Import,
    prelude::*,
};

use super::{
    choice::{Choice, Chosen},
    measure::outputs,
    shapes::Shapes,
};
use crate::{Failure, print::print_line};

#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    values: Values,
    #[command(flatten)]
    shapes: Shapes,
    /// The precision of parameters and inputs; the file has f64 in any case
    #[arg(long, default_value = "f64")]
    dtype: Precision,
    /// Training mode: batch statistics, auxiliary heads; the file also has the buffers after this step. Dropout is on if the
    /// configuration has it
    #[arg(long)]
    train: bool,
    /// Computes the outputs in inference mode alone, in less time and memory; the file has no gradients
    #[arg(long, conflicts_with = "train")]
    outputs: bool,
    /// The values of the inputs: s(`input`), of further inputs s(`input.k`)
    #[arg(long, default_value = "formula")]
    input: Fill,
    /// The safetensors file: output.k, grad.input.k, grad_norm.NAME, and with --train buffer.NAME
    #[arg(long, value_name = "FILE")]
    dump: PathBuf,
    /// Replaces an existing file
    #[arg(long)]
    overwrite: bool,
}

/// Where the parameters come from.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Values {
    /// Computes every parameter from its name and shape
    #[arg(long)]
    fill: Option<Fill>,
    /// Reads the parameters by name from .safetensors, .pth, .pt, .bin, .ckpt or .index.json; names and shapes must match
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Initialises the parameters as for training, from this seed
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fill {
    /// Values from a hash of the tensor's name
    Formula,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    F64,
    F32,
}

impl Run {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        if !self.overwrite && fs::symlink_metadata(&self.dump).is_ok() {
            let what = format!("{} is there already", self.dump.display());
            return Err(Failure::CommandLine(
                Error::argument("zoo run", what).expected("another file, or --overwrite"),
            ));
        }
        // The network and the shapes are checked without memory for them, before anything is computed.
        let chosen = self.choice.find().map_err(Failure::CommandLine)?;
        let shapes = self.checked_shapes(&chosen).map_err(Failure::CommandLine)?;
        let dtype = match self.dtype {
            Precision::F64 => DType::F64,
            Precision::F32 => DType::F32,
        };
        let seed = Seed::new(self.values.seed.unwrap_or(0));
        let mut model = Model::with_dtype(chosen.config, Device::Cpu, seed, dtype)?;
        match (&self.values.fill, &self.values.weights) {
            (Some(Fill::Formula), _) => formula::fill(model.params_mut())?,
            (None, Some(file)) => {
                let place = |error: Error| error.within(file.display().to_string());
                let weights = Weights::open(file)?;
                let import = Import::of(&weights).map_err(place)?;
                model.params_mut().import(&import).map_err(place)?;
            }
            (None, None) => {}
        }
        let Fill::Formula = self.input;
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let results = match self.outputs {
            true => formula::outputs(model.params(), model.network(), &shapes)?,
            false => formula::dump(model.params(), model.network(), &shapes, self.train)?,
        };
        let results = results
            .into_iter()
            .filter(|(name, _)| self.train || !name.starts_with("buffer."))
            .map(|(name, value)| Ok((name, value.converted(DType::F64)?)))
            .collect::<Result<Vec<_>>>()?;
        let metadata = BTreeMap::from([
            ("config".to_owned(), model.config().to_string()),
            ("mode".to_owned(), if self.train { "train" } else { "eval" }.to_owned()),
        ]);
        safetensors::save(&self.dump, &results, &metadata)?;
        print_line!("{}: {} tensors", self.dump.display(), results.len());
        Ok(())
    }

    /// The shapes of the inputs, which the network takes. Training mode refuses some that inference takes, such as one value
    /// for each channel of a batch norm.
    fn checked_shapes(&self, chosen: &Chosen) -> Result<Vec<Vec<usize>>> {
        let model = chosen.model()?;
        let shapes = self.shapes.of(chosen, &model)?;
        if self.train {
            outputs(&model, &shapes, true)?;
        }
        Ok(shapes)
    }
}
