//! Cases of the trainers of `tomograd-pipeline`.

use std::sync::Arc;

use tomograd::{
    core::{DType, Device, Error, Result, Seed, Tensor},
    io::tensorboard::EventWriter,
    nn::{Linear, Module, Params, Sgd, losses},
    pipeline::{Batches, ClassMetrics, Generated, Learner, Loader, Report, Sample, Trainer},
};

use crate::walk::cases;

/// Whether a small training works: two epochs of two steps give finite weights, with the right number of steps.
fn trains(
    epochs: u64,
    learner: impl FnOnce(Learner) -> Result<Learner>,
    trainer: impl FnOnce(Trainer) -> Result<Trainer>,
) -> Result<bool> {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let net = Linear::new(params.root(), 1, 1)?;
    let optimizer = Sgd::new(&params, 0.1)?;
    // The second validation isn't better than the first, so that even the longest training stops.
    let mut trainer = trainer(Trainer::new(learner(Learner::new(params, optimizer))?, epochs).patience(1)?)?;
    let batches = Generated::new(2, |_, step| Tensor::full(&[4, 1], step as f64 + 1.0, DType::F32, Device::Cpu));
    let mut steps = 0;
    trainer.run_with(
        &batches,
        |step| {
            steps += 1;
            let pass = step.pass()?;
            let x = pass.input(&step.batch);
            let loss = losses::mean_squared_error(&net.forward(&x, &pass)?, &x)?;
            step.learn(pass, loss)
        },
        |_| Ok(1.0),
    )?;
    let finite = |tensor: &Tensor| tensor.to_vec_f64().is_ok_and(|values| values.iter().all(|x| x.is_finite()));
    Ok(steps == 2 * trainer.epoch() && trainer.params().state().all(|(_, tensor)| finite(tensor)))
}

/// Whether a step or a validation can log a number.
fn notes(number: f64, by_step: bool, score: f64) -> Result<Option<f64>> {
    let params = Params::new(Device::Cpu, Seed::new(1));
    let optimizer = Sgd::new(&params, 0.1)?;
    let mut trainer = Trainer::new(Learner::new(params, optimizer), 1);
    trainer.run_with(
        &Generated::new(1, |_, _| Ok(())),
        |step| if by_step { step.log("number", number) } else { Ok(()) },
        |validation| {
            let mut report = Report::new(["a"]);
            report.add("case", vec![ClassMetrics { dice: 1.0, iou: 1.0, hd95: 1.0, assd: 1.0 }])?;
            validation.log_classes(&report, |_| number)?;
            validation.log("number again", number)?;
            Ok(score)
        },
    )?;
    Ok(trainer.best())
}

/// Writes to an event file by `write`; returns whether the file truncated after a step keeps the earlier events.
fn events(name: &str, step: u64, write: impl FnOnce(&mut EventWriter) -> Result<()>) -> Result<bool> {
    let folder = std::env::temp_dir().join(format!("tomograd-arguments-{name}-{}", std::process::id()));
    let tried = || {
        let mut events = EventWriter::create(&folder)?;
        write(&mut events)?;
        events.flush()?;
        let size = |events: &EventWriter| std::fs::metadata(events.path()).map_or(0, |about| about.len());
        let whole = size(&events);
        Ok(size(&EventWriter::resume(&folder, step)?) == whole && whole > 40)
    };
    let right = tried();
    let _ = std::fs::remove_dir_all(&folder);
    right
}

cases! {
    "io::tensorboard::EventWriter::image": (step: u64 = 3, size: usize = 2) => {
        let pixels = Tensor::zeros(&[size, 2, 3], DType::U8, Device::Cpu)?;
        events("image", step, |events| events.image("a", step, &pixels))
    };
    "io::tensorboard::EventWriter::resume": (step: u64 = 3) => {
        // Events of the current or an earlier step are kept.
        events("resume", step, |events| events.scalar("a", 0, 1.0))
    };
    "io::tensorboard::EventWriter::scalar": (step: u64 = 3, value: f64 = 0.5) => {
        events("scalar", step, |events| events.scalar("a", step, value))
    };
    "io::tensorboard::EventWriter::text": (step: u64 = 3) => {
        events("text", step, |events| events.text("a", step, "b"))
    };
    "pipeline::Batches::batches": (epoch: u64 = 1, first: u64 = 1) => {
        let image = Tensor::zeros(&[1, 2, 2], DType::F32, Device::Cpu)?;
        let label = Tensor::zeros(&[2, 2], DType::U8, Device::Cpu)?;
        let cases = vec![Sample::new("a", &image, Some(&label))?; 3];
        let loader = Loader::new(Arc::new(cases), 1, Seed::new(1))?;
        let count = loader.batches(epoch, first).collect::<Result<Vec<_>>>()?.len() as u64;
        Ok::<_, Error>(count == 3u64.saturating_sub(first))
    };
    "pipeline::Batches::batches": (epoch: u64 = 1, first: u64 = 1) => {
        Generated::new(3, |_, step| Ok(step)).batches(epoch, first).count() as u64 == 3u64.saturating_sub(first)
    };
    "pipeline::Generated::new": (steps: u64 = 3) => {
        let batches = Generated::new(steps, |_, step| Ok(step));
        batches.steps() == steps && batches.batches(0, steps.saturating_sub(2)).count() as u64 == steps.min(2)
    };
    "pipeline::Learner::accumulate": (updates: u64 = 2) => trains(2, |learner| learner.accumulate(updates), Ok);
    "pipeline::Learner::average": (decay: f64 = 0.9) => trains(2, |learner| learner.average(decay), Ok);
    "pipeline::Learner::clip_norm": (max: f64 = 1.0) => trains(2, |learner| learner.clip_norm(max), Ok);
    "pipeline::Learner::schedule": (factor: f64 = 0.5) => {
        trains(2, |learner| Ok(learner.schedule(move |_, _| factor)), Ok)
    };
    "pipeline::Step::log": (number: f64 = 0.5) => Ok::<_, Error>(notes(number, true, 1.0)?.is_some() && number.is_finite());
    "pipeline::Trainer::log_every": (steps: u64 = 2) => trains(2, Ok, |trainer| trainer.log_every(steps));
    "pipeline::Trainer::new": (epochs: u64 = 2) => trains(epochs, Ok, Ok);
    "pipeline::Trainer::of_several": (epochs: u64 = 2) => {
        trains(2, Ok, |trainer| Trainer::of_several(trainer.into_learners(), epochs)?.patience(1))
    };
    "pipeline::Trainer::patience": (validations: u64 = 2) => trains(2, Ok, |trainer| trainer.patience(validations));
    "pipeline::Trainer::run_with": (score: f64 = 0.5) => {
        Ok::<_, Error>(notes(0.0, false, score)? == Some(score).filter(|score| score.is_finite()))
    };
    "pipeline::Trainer::save_every": (steps: u64 = 1) => trains(2, Ok, |trainer| trainer.save_every(steps));
    "pipeline::Trainer::validate_every": (epochs: u64 = 2) => trains(2, Ok, |trainer| trainer.validate_every(epochs));
    "pipeline::Validation::log": (number: f64 = 0.5) => Ok::<_, Error>(notes(number, false, 1.0)? == Some(1.0));
    "pipeline::Validation::log_classes": (number: f64 = 0.5) => {
        Ok::<_, Error>(notes(number, false, 1.0)? == Some(1.0))
    };
}
