//! Networks of the zoo: the cases of `zoo.json`, one JSON object a line.
//!
//!     cargo bench --bench zoo -- --json [--case NAME ...] [--threads N] [--seconds S]
//!
//! `benches/compare.py --bench zoo` runs it beside PyTorch. With TOMOGRAD_TRACE=FILE, `tomograd profile FILE` says which
//! operations take the time. A case that isn't in the file is a preset and a shape: `resnet50:1,3,224,224`, with `:train` behind it a
//! training step.

mod measure;
mod resident;

use std::hint::black_box;

use serde_json::Value;
use tomograd::{
    models::{Model, registry},
    prelude::*,
};

use measure::{Step, random};

fn main() -> std::process::ExitCode {
    let Ok(cases) = serde_json::from_str::<serde_json::Map<String, Value>>(include_str!("zoo.json")) else {
        eprintln!("zoo: zoo.json is no JSON object");
        return std::process::ExitCode::FAILURE;
    };
    let names: Vec<&str> = cases.keys().map(String::as_str).collect();
    measure::main("zoo", &names, |name| build(name, cases.get(name)))
}

fn build(name: &str, case: Option<&Value>) -> Result<Option<Step>> {
    let (preset, shape, train) = match case {
        Some(case) => {
            let sizes = case["shape"].as_array().into_iter().flatten().filter_map(Value::as_u64);
            let shape: Vec<usize> = sizes.map(|size| size as usize).collect();
            (case["preset"].as_str().unwrap_or(name), shape, case["mode"] == "train")
        }
        None => {
            let mut parts = name.split(':');
            let (preset, shape) = (parts.next().unwrap_or(name), parts.next().unwrap_or_default());
            (preset, shape.split(',').filter_map(|size| size.parse().ok()).collect(), parts.next() == Some("train"))
        }
    };
    let mut configs = registry::families().iter().filter_map(|family| family.preset(preset).ok());
    let Some(config) = configs.next().map(|preset| preset.config) else { return Ok(None) };
    let model = Model::new(&config, Device::Cpu, Seed::new(0))?;
    let image = random(&shape, "x")?;
    if train { train_step(model, image).map(Some) } else { infer(model, image).map(Some) }
}

fn infer(mut model: Model, image: Tensor) -> Result<Step> {
    model.fold_batch_norm()?;
    Ok(Box::new(move || {
        black_box(model.predict(&image)?);
        Ok(())
    }))
}

fn train_step(mut model: Model, image: Tensor) -> Result<Step> {
    let mut optimizer = Sgd::new(model.params(), 1e-3)?.momentum(0.99)?.nesterov()?.decay(3e-5)?;
    let output = model.predict(&image)?;
    let [batch, classes, spatial @ ..] = output.shape() else {
        return Err(Error::shape("zoo", "an output without classes").shapes([output.shape()]));
    };
    let shape = [&[*batch], spatial].concat();
    let (classes, per_voxel) = (*classes as u64, !spatial.is_empty());
    let mut draw = Seed::new(0).named("label").random();
    let labels: Vec<i64> = (0..shape.iter().product::<usize>()).map(|_| draw.below(classes) as i64).collect();
    let labels = Tensor::from_slice(&labels, &shape, Device::Cpu)?;
    Ok(Box::new(move || {
        let pass = Pass::train(model.params(), Seed::new(0))?;
        let logits = model.network().run(&[("image", pass.input(&image))].into(), &pass)?.into_main()?;
        let loss = if per_voxel { DiceCe::default() } else { DiceCe::cross_entropy() };
        let loss = loss.forward(&logits, &labels)?;
        drop(logits);
        let update = pass.backward(loss)?;
        optimizer.step(model.params_mut(), update)
    }))
}
