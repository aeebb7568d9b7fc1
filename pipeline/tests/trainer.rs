//! Trainings small enough for a test: with several learners, averages, accumulated gradients, early stopping, and what is refused.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{DType, Device, Error, Result, Seed, Tensor};
use tomograd_nn::{
    Activation, AdamW, Checkpoint, Linear, Loaded, Module, Params, Pass, Sequential, Sgd, losses, schedule,
};
use tomograd_pipeline::{Generated, Learner, Loader, Sample, Step, Trainer};

/// A folder of its own for each test, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("tomograd-trainer-{name}-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn normal(shape: &[usize], seed: Seed) -> Result<Tensor> {
    Tensor::normal(shape, 0.0, 1.0, seed, DType::F32, Device::Cpu)
}

/// Layers of these widths, with leaky ReLUs between them.
fn network(params: &mut Params, widths: &[usize]) -> Result<Sequential> {
    let mut scope = params.root();
    let mut net = Sequential::new();
    for (place, pair) in widths.windows(2).enumerate() {
        net = if place > 0 { net.then(Activation::LeakyRelu(0.2)) } else { net };
        net = net.then(Linear::new(scope.at(place), pair[0], pair[1])?);
    }
    Ok(net)
}

fn params(seed: u64) -> Params {
    Params::new(Device::Cpu, Seed::new(seed))
}

/// y = 2x − 1 and its batches, and a learner for it.
fn line() -> Result<(Sequential, Params, impl tomograd_pipeline::Batches<Batch = Tensor>)> {
    let mut params = params(1);
    let net = network(&mut params, &[1, 1])?;
    Ok((net, params, Generated::new(4, |epoch, step| normal(&[8, 1], Seed::new(2).at(epoch).at(step)))))
}

fn line_loss(net: &Sequential, step: &mut Step<'_, Tensor>) -> Result<()> {
    let pass = step.pass()?;
    let truth = step.batch.mul_scalar(2.0)?.add_scalar(-1.0)?;
    let loss = losses::mean_squared_error(&net.forward(&pass.input(&step.batch), &pass)?, &pass.input(&truth))?;
    step.learn(pass, loss)
}

fn weights(params: &Params) -> Vec<f64> {
    params.state().flat_map(|(_, tensor)| tensor.to_vec_f64().unwrap()).collect()
}

/// A generator learns where a Gaussian of mean 3 lies from a discriminator that learns to tell its samples from the
/// Gaussian's.
#[test]
fn a_generator_and_a_discriminator_learn_from_each_other() {
    let mean_of = |steps: u64| -> Result<f64> {
        let (mut forger, mut judge) = (params(1), params(2));
        let generator = network(&mut forger, &[1, 1])?;
        let discriminator = network(&mut judge, &[1, 16, 1])?;
        let judged = |values: &Var, pass: &Pass, truth: f64| -> Result<Var> {
            let logits = discriminator.forward(values, pass)?;
            let target = Tensor::full(logits.shape(), truth, DType::F32, Device::Cpu)?;
            losses::binary_cross_entropy(&logits, &pass.input(&target))
        };
        let optimizers = (AdamW::new(&forger, 0.02)?.betas([0.5, 0.9])?, AdamW::new(&judge, 0.02)?.betas([0.5, 0.9])?);
        let forger = Learner::new(forger, optimizers.0).average(0.97)?;
        let judge = Learner::new(judge, optimizers.1);
        let mut trainer = Trainer::of_several([("generator", forger), ("discriminator", judge)], 1)?.seed(Seed::new(5));
        let real = Generated::new(steps, |_, step| {
            Tensor::normal(&[64, 1], 3.0, 0.5, Seed::new(3).at(step), DType::F32, Device::Cpu)
        });
        trainer.run(&real, |step| {
            let noise = |name: &str| normal(&[64, 1], step.seed.named(name));
            let (first, second) = (noise("first")?, noise("second")?);
            // The discriminator: real samples against forged ones, which are constants here.
            let forge = Pass::eval(step.learner("generator")?.params())?;
            let forged = generator.forward(&forge.input(&first), &forge)?.into_value();
            let pass = step.learner("discriminator")?.pass(step.seed)?;
            let loss = judged(&pass.input(&step.batch), &pass, 1.0)?.add(&judged(&pass.input(&forged), &pass, 0.0)?)?;
            step.learn_as("discriminator", pass, loss)?;
            // The generator: its gradient comes through the discriminator, which is a constant here.
            let pass = step.learner("generator")?.pass(step.seed)?;
            let forged = generator.forward(&pass.input(&second), &pass)?;
            let judge = Pass::eval(step.learner("discriminator")?.params())?.on(pass.tape());
            let loss = judged(&forged, &judge, 1.0)?;
            step.learn_as("generator", pass, loss)
        })?;
        let pass = Pass::eval(trainer.learner("generator")?.averaged()?)?;
        let noise = normal(&[4096, 1], Seed::new(9))?;
        generator.forward(&pass.input(&noise), &pass)?.mean(..)?.value().to_scalar()
    };
    let (start, end) = (mean_of(0).unwrap(), mean_of(400).unwrap());
    assert!((start - 3.0).abs() > 2.0, "{start} at the start");
    // 3.001; after 300 and 600 steps 3.000 and 2.988.
    assert!((end - 3.0).abs() < 0.1, "{end}");
    assert_eq!(mean_of(400).unwrap().to_bits(), end.to_bits());
}

/// Points of two classes, of which few have a label; a student learns from these, and on all others from its own running
/// average, which sees them with other noise (Tarvainen and Valpola 2017).
#[test]
fn a_student_learns_from_the_average_of_itself() {
    // Inside or outside of a ring.
    let points = |seed: Seed, count: usize| normal(&[count, 2], seed);
    let truth = |points: &Tensor| points.square()?.sum(keep([1]))?.lt(1.4)?.converted(DType::F32);
    let error = |net: &Sequential, params: &Params| -> Result<f64> {
        let (pass, points) = (Pass::eval(params)?, points(Seed::new(77), 2000)?);
        let found = net.forward(&pass.input(&points), &pass)?.value().to_vec_f64()?;
        let wrong = found.iter().zip(truth(&points)?.to_vec_f64()?).filter(|(x, y)| (**x > 0.0) != (*y > 0.5)).count();
        Ok(wrong as f64 / 2000.0)
    };
    let train = |epochs: u64| -> Result<[f64; 2]> {
        let mut params = params(4);
        let net = network(&mut params, &[2, 32, 1])?;
        let optimizer = AdamW::new(&params, 1e-2)?;
        let learner = Learner::new(params, optimizer).schedule(schedule::one_cycle).average(0.95)?;
        let mut trainer = Trainer::new(learner, epochs).seed(Seed::new(6));
        let few = points(Seed::new(7), 40)?;
        let unlabelled = Generated::new(50, |epoch, step| points(Seed::new(8).at(epoch).at(step), 64));
        trainer.run(&unlabelled, |step| {
            let noisy = |name: &str| step.batch.add(&normal(&[64, 2], step.seed.named(name))?.mul_scalar(0.1)?);
            let teacher = Pass::eval(step.averaged()?)?;
            let target = net.forward(&teacher.input(&noisy("teacher")?), &teacher)?.sigmoid()?.into_value();
            let pass = step.pass()?;
            let own = net.forward(&pass.input(&noisy("student")?), &pass)?.sigmoid()?;
            let consistency = losses::mean_squared_error(&own, &pass.input(&target))?;
            let labelled = net.forward(&pass.input(&few), &pass)?;
            let supervised = losses::binary_cross_entropy(&labelled, &pass.input(&truth(&few)?))?;
            step.log("consistency", consistency.value().to_scalar()?)?;
            let loss = supervised.add(&consistency)?;
            step.learn(pass, loss)
        })?;
        let learner = trainer.learner("model")?;
        Ok([error(&net, learner.params())?, error(&net, learner.averaged()?)?])
    };
    let (start, end) = (train(0).unwrap(), train(6).unwrap());
    // 0.43 at the start; at the end 0.088 of the student's answers are wrong, and 0.087 of the teacher's.
    assert!(start[0] > 0.3, "{start:?} at the start");
    assert!(end.iter().all(|error| *error < 0.15), "{end:?}");
    assert_eq!(train(6).unwrap(), end);
}

/// Four batches and two of twice the size give the same gradients; what is left at an epoch's end makes a step.
#[test]
fn accumulated_gradients_are_those_of_a_larger_batch() {
    let train = |accumulate: u64, batches: &[usize]| -> Result<Vec<f64>> {
        let (net, params, _) = line()?;
        let optimizer = Sgd::new(&params, 0.1)?.momentum(0.9)?;
        let mut trainer = Trainer::new(Learner::new(params, optimizer).accumulate(accumulate)?, 2);
        let all = normal(&[20, 1], Seed::new(2))?;
        let (ends, all): (Vec<usize>, &Tensor) = (batches.to_vec(), &all);
        let parts = Generated::new(ends.len() as u64 - 1, |_, step| {
            let step = step as usize;
            all.narrow(0, ends[step], ends[step + 1] - ends[step])?.contiguous()
        });
        trainer.run(&parts, |step| line_loss(&net, step))?;
        Ok(weights(trainer.params()))
    };
    let (single, joined) = (train(1, &[0, 8, 16, 20]).unwrap(), train(2, &[0, 4, 8, 12, 16, 20]).unwrap());
    assert!(single.iter().zip(&joined).all(|(a, b)| (a - b).abs() < 1e-6), "{single:?} {joined:?}");
    assert_ne!(weights(&line().unwrap().1), single);
}

#[test]
fn the_average_follows_the_weights() {
    let (net, params, batches) = line().unwrap();
    let (mut average, optimizer) = (weights(&params), Sgd::new(&params, 0.1).unwrap());
    let mut trainer = Trainer::new(Learner::new(params, optimizer).average(0.75).unwrap(), 1);
    let mut steps = 0;
    trainer
        .run(&batches, |step| {
            line_loss(&net, step)?;
            steps += 1;
            for (own, new) in average.iter_mut().zip(weights(step.params())) {
                *own = 0.75 * *own + 0.25 * new;
            }
            let found = weights(step.averaged()?);
            assert!(found.iter().zip(&average).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {average:?}");
            Ok(())
        })
        .unwrap();
    assert_eq!(steps, 4);
}

/// A layer that is frozen until a step learns nothing before it.
#[test]
fn parameters_can_be_frozen_for_a_while() {
    let (net, params, batches) = line().unwrap();
    let (start, optimizer) = (weights(&params), Sgd::new(&params, 0.1).unwrap());
    let mut trainer = Trainer::new(Learner::new(params, optimizer), 1);
    trainer
        .run(&batches, |step| {
            let frozen = step.number < 2;
            step.learner_mut("model")?.params_mut().freeze(|parameter| frozen && parameter.name.ends_with("bias"));
            line_loss(&net, step)?;
            let now = weights(step.params());
            assert_eq!((now[1] == start[1], now[0] == start[0]), (frozen, false));
            Ok(())
        })
        .unwrap();
}

fn scored(folder: &Path, scores: &[f64], trainer: impl FnOnce(Trainer) -> Result<Trainer>) -> Result<Trainer> {
    let (net, params, batches) = line()?;
    let optimizer = Sgd::new(&params, 0.1)?;
    let mut trainer = trainer(Trainer::new(Learner::new(params, optimizer), scores.len() as u64).folder(folder))?;
    trainer.run_with(
        &batches,
        |step| line_loss(&net, step),
        |validation| {
            validation.log("first \"score\", twice", scores[validation.epoch as usize] * 2.0)?;
            Ok(scores[validation.epoch as usize])
        },
    )?;
    Ok(trainer)
}

#[test]
fn it_stops_when_the_score_no_longer_improves() {
    let folder = Folder::new("patience");
    let scores = [0.5, f64::NAN, 0.75, 0.75, 0.1, 9.0];
    let trainer = scored(&folder.0, &scores, |trainer| trainer.patience(2)).unwrap();
    assert_eq!((trainer.epoch(), trainer.best()), (5, Some(0.75)));
    let table = std::fs::read_to_string(folder.0.join("epochs.csv")).unwrap();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows[0], "epoch,loss,step_seconds,\"first \"\"score\"\", twice\"");
    assert!(rows.len() == 6 && rows[2].starts_with("2,") && rows[2].ends_with(",NaN") && rows[3].ends_with(",1.5"));
    // The best checkpoint is that of epoch 3; what it is resumed from makes of it what came of the first run.
    let best = Loaded::read(folder.0.join("best.safetensors")).unwrap();
    let again = Folder::new("patience-again");
    let third = scored(&again.0, &scores[..3], Ok).unwrap();
    let mut params = line().unwrap().1;
    best.restore(&mut params).unwrap();
    assert_eq!(weights(&params), weights(third.params()));
    let last = std::fs::read(folder.0.join("last.safetensors")).unwrap();
    let best = folder.0.join("best.safetensors");
    scored(&folder.0, &scores, |trainer| trainer.resume(&best).patience(2)).unwrap();
    assert!(std::fs::read(folder.0.join("last.safetensors")).unwrap() == last);
}

#[test]
fn validation_comes_every_so_many_epochs_and_at_the_end() {
    let folder = Folder::new("every");
    scored(&folder.0, &[1.0, 2.0, 3.0, 4.0, 5.0], |trainer| trainer.validate_every(2)).unwrap();
    let table = std::fs::read_to_string(folder.0.join("epochs.csv")).unwrap();
    let last: Vec<&str> = table.lines().skip(1).map(|row| row.rsplit(',').next().unwrap()).collect();
    assert_eq!(last, ["", "4", "", "8", "10"]);
}

/// The checkpoints within an epoch, seen by the next step: none while gradients wait, and then at once.
#[test]
fn checkpoints_come_when_no_gradients_wait() {
    let folder = Folder::new("waiting");
    let (net, params, _) = line().unwrap();
    let optimizer = Sgd::new(&params, 0.1).unwrap();
    let learner = Learner::new(params, optimizer).accumulate(2).unwrap();
    let mut trainer = Trainer::new(learner, 1).folder(&folder.0).save_every(3).unwrap();
    let batches = Generated::new(11, |_, step| normal(&[8, 1], Seed::new(2).at(step)));
    let mut found = Vec::new();
    trainer
        .run(&batches, |step| {
            let state =
                Loaded::read(folder.0.join("last.safetensors")).map(|last| last.text("trainer").unwrap().to_owned());
            let state = state.map_or(0, |text| {
                let at = text.find("\"step\":").unwrap() + 7;
                text[at..].split(',').next().unwrap().parse().unwrap()
            });
            found.push(state);
            line_loss(&net, step)
        })
        .unwrap();
    // After 3 steps a gradient waits, after 4 none; the next ones are due after 6 and 9, of which one waits.
    assert_eq!(found, [0, 0, 0, 0, 4, 4, 6, 6, 6, 6, 10]);
}

#[test]
fn another_runs_files_are_left_alone() {
    let folder = Folder::new("guard");
    let scores = [1.0, 2.0];
    scored(&folder.0, &scores, Ok).unwrap();
    let message = |made: Result<Trainer>| made.err().map_or(String::new(), |error| error.to_string());
    let refused = message(scored(&folder.0, &scores, Ok));
    assert!(refused.contains("last.safetensors holds the weights of another run; expected"), "{refused}");
    scored(&folder.0, &scores, |trainer| Ok(trainer.overwrite())).unwrap();
    let events = std::fs::read_dir(&folder.0)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 1);
    let last = folder.0.join("last.safetensors");
    let other = message(scored(&folder.0, &scores, |trainer| Ok(trainer.seed(Seed::new(1)).resume(&last))));
    assert!(other.contains("is of another run: seed [0,0]; expected [1,0]"), "{other}");
    let other = message(scored(&folder.0, &scores, |trainer| trainer.resume(&last).config(&"x")));
    assert!(other.contains("is of another run: configuration null; expected \"x\""), "{other}");
    // A finished run has nothing left to do; one without a schedule can have more epochs.
    assert_eq!(scored(&folder.0, &scores, |trainer| trainer.resume_if_there()).unwrap().epoch(), 2);
    assert_eq!(scored(&folder.0, &[1.0, 2.0, 3.0], |trainer| trainer.resume_if_there()).unwrap().epoch(), 3);
    let (_, params, _) = line().unwrap();
    let optimizer = Sgd::new(&params, 0.1).unwrap();
    Checkpoint::new(&params).optimizer(&optimizer).save(&last).unwrap();
    let old = message(scored(&folder.0, &scores, |trainer| trainer.resume_if_there()));
    assert!(old.contains("has no state of a trainer; expected a checkpoint that a Trainer"), "{old}");
    assert!(
        message(scored(&folder.0, &scores, |trainer| trainer.resume_if_there()?.config(&"x"))).contains("no state")
    );
}

#[test]
fn a_loss_that_is_no_number_ends_the_training_with_its_place() {
    let image = Tensor::zeros(&[1, 2, 2], DType::F32, Device::Cpu).unwrap();
    let label = Tensor::zeros(&[2, 2], DType::U8, Device::Cpu).unwrap();
    let cases: Vec<Sample> = ["a", "b"].map(|name| Sample::new(name, &image, Some(&label)).unwrap()).into();
    let loader = Loader::new(Arc::new(cases), 1, Seed::new(1)).unwrap().in_order();
    let train = |factor: f64| {
        let (_, params, _) = line().unwrap();
        let optimizer = Sgd::new(&params, 0.1).unwrap();
        Trainer::new(Learner::new(params, optimizer), 3).run(&loader, |step| {
            let pass = step.pass()?;
            let value = if step.number == 3 { factor } else { 1.0 };
            let loss = pass.tape().leaf(Tensor::full(&[], value, DType::F32, Device::Cpu)?)?;
            step.log("loss", loss.value().to_scalar()?)
        })
    };
    train(1.0).unwrap();
    for (factor, text) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let error = train(factor).unwrap_err().to_string();
        assert_eq!(error, format!("epoch 2: step 2: cases b: loss: {text}; expected a finite number"));
    }
}

#[test]
fn mistakes_are_named() {
    let learner = || {
        let (_, params, _) = line().unwrap();
        let optimizer = Sgd::new(&params, 0.1).unwrap();
        Learner::new(params, optimizer)
    };
    assert!(learner().accumulate(0).is_err() && learner().average(1.1).is_err());
    assert!(learner().clip_norm(f64::NAN).is_err());
    for names in [&[][..], &["a", "a"], &["", "a"], &["a/b"]] {
        assert!(Trainer::of_several(names.iter().map(|name| (*name, learner())), 1).is_err(), "{names:?}");
    }
    let run = |step: fn(&mut Step<'_, Tensor>) -> Result<()>| -> String {
        let mut trainer = Trainer::of_several([("student", learner()), ("other", learner())], 1).unwrap();
        trainer.run(&line().unwrap().2, step).unwrap_err().to_string()
    };
    let unknown = run(|step| step.learner("teacher").map(|_| ()));
    assert!(unknown.contains("no learner is called \"teacher\"; expected one of student, other"), "{unknown}");
    let which = run(|step| {
        let pass = step.pass()?;
        let loss = pass.tape().leaf(Tensor::full(&[], 1.0, DType::F32, Device::Cpu)?)?;
        step.learn(pass, loss)
    });
    assert!(which.contains("2 learners; expected Step::learn_as"), "{which}");
    let average = run(|step| step.averaged().map(|_| ()));
    assert!(average.contains("no running average"), "{average}");
    // Fewer batches than announced, and more steps than can be counted.
    struct Short;
    impl tomograd_pipeline::Batches for Short {
        type Batch = ();
        fn steps(&self) -> u64 {
            3
        }
        fn batches(&self, _: u64, first: u64) -> impl Iterator<Item = Result<()>> {
            (first..2).map(|_| Ok(()))
        }
    }
    let error = Trainer::new(learner(), 1).run(&Short, |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("2 batches; expected 3, as Batches::steps says"), "{error}");
    assert!(Trainer::new(learner(), u64::MAX).run(&Short, |_| Ok(())).is_err());
    let patient = Trainer::new(learner(), 1).patience(1).and_then(|mut trainer| trainer.run(&Short, |_| Ok(())));
    assert!(patient.is_err_and(|error: Error| error.to_string().contains("run_with")));
    assert!(Trainer::new(learner(), 1).resume_if_there().is_err());
}
