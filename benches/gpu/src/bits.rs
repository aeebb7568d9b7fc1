//! Trainings that are run three times from one seed, and must give the same weights to the bit.

use serde_json::json;
use tomograd::{kernels::cuda::allow_tf32, models::Model, prelude::*};

use crate::{Row, Setup, networks};

/// Runs of each training.
const RUNS: usize = 3;

/// The trainings: networks, in f32 or in TF32.
pub fn items() -> Vec<String> {
    ["unet3d f32", "unet3d tf32", "unet2d f32"].map(str::to_owned).to_vec()
}

/// Trains three times: whether the weights and the losses were equal, the weights' digest, and the first and the last loss.
///
/// # Errors
/// When a training fails.
pub fn run(setup: &Setup, item: &str) -> Result<Row> {
    let (name, precision) = item.split_once(' ').unwrap_or((item, "f32"));
    allow_tf32(precision == "tf32");
    let runs = (0..RUNS).map(|_| train(setup, name)).collect::<Result<Vec<_>>>();
    allow_tf32(false);
    let runs = runs?;
    let equal = runs.iter().all(|run| *run == runs[0]);
    let (digest, losses) = &runs[0];
    let number = |bits: Option<&u64>| bits.map(|&bits| f64::from_bits(bits));
    Ok(json!({
        "runs": RUNS, "steps": losses.len(), "equal": equal, "digest": format!("{digest:016x}"),
        "first_loss": number(losses.first()), "last_loss": number(losses.last()),
    }))
}

/// The digest of the weights after some steps, and the bits of the losses.
fn train(setup: &Setup, name: &str) -> Result<(u64, Vec<u64>)> {
    let widths: &[usize] = setup.choose(&[2, 3][..], &[16, 32, 64][..]);
    let Some(config) = networks::config(name, 3, Some(widths))? else {
        return Err(Error::argument("bits", format!("no network {name}")));
    };
    let (side, axes) = if name == "unet3d" { (setup.choose(4, 48), 3) } else { (setup.choose(8, 128), 2) };
    let mut shape = vec![setup.choose(1, 2), 1];
    shape.resize(2 + axes, side);
    let seed = Seed::new(5);
    let model = Model::new(&config, setup.device, seed)?;
    let mut training = networks::Training::new(model, &shape, |params| AdamW::new(params, 1e-3)?.decay(1e-2))?;
    let mut losses = Vec::new();
    for step in 0..setup.choose(2, 20) {
        losses.push(training.step(seed.at(step), Some(12.0))?.to_scalar()?.to_bits());
    }
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    for (name, value) in training.model().params().state() {
        for number in value.to_vec_f64()? {
            if !number.is_finite() {
                return Err(Error::argument("bits", format!("{name} has {number}")).expected("finite weights"));
            }
            digest = (digest ^ number.to_bits()).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
    }
    Ok((digest, losses))
}
