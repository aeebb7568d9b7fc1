//! What the functions of a training get.

use tomograd_autodiff::Var;
use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{Params, Pass, Update};

use crate::{ClassMetrics, Report};

use super::{
    Learner,
    log::{Picture, Values},
};

/// Learners by name, the first one the main one.
pub(super) type Learners = [(String, Learner)];

/// The place of the learner called `name`.
pub(super) fn find(learners: &Learners, name: &str) -> Result<usize> {
    learners.iter().position(|(known, _)| known == name).ok_or_else(|| {
        let names: Vec<&str> = learners.iter().map(|(name, _)| &name[..]).collect();
        Error::new(ErrorKind::Name, "trainer", format!("no learner is called {name:?}"))
            .expected(format!("one of {}", names.join(", ")))
    })
}

/// One step of a training: what the step's function is called with.
///
/// It runs as many passes as it likes, on parameters, averages and batches, and hands their results over: a loss
/// by [`learn`](Self::learn), where there is one learner; by [`learn_as`](Self::learn_as), where there are several;
/// and an update that it has put together itself by [`apply`](Self::apply).
pub struct Step<'a, B> {
    /// The number of the epoch, from 0.
    pub epoch: u64,
    /// The number of the step since the start of the run, from 0.
    pub number: u64,
    /// A random stream of this step alone.
    pub seed: Seed,
    /// The batch.
    pub batch: B,
    pub(super) learners: &'a mut Learners,
    /// How many steps the run has.
    pub(super) total: u64,
    pub(super) values: Values,
}

impl<B> Step<'_, B> {
    /// The parameters of the first learner.
    pub fn params(&self) -> &Params {
        self.learners[0].1.params()
    }

    /// The running average of the first learner's parameters.
    ///
    /// # Errors
    /// When it has none.
    pub fn averaged(&self) -> Result<&Params> {
        self.learners[0].1.averaged()
    }

    /// A training pass through the first learner's parameters, with the step's seed.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pass(&self) -> Result<Pass> {
        self.learners[0].1.pass(self.seed)
    }

    /// The learner called `name`.
    ///
    /// # Errors
    /// When there is none; the error lists the names.
    pub fn learner(&self, name: &str) -> Result<&Learner> {
        Ok(&self.learners[find(self.learners, name)?].1)
    }

    /// The learner called `name`, to be changed.
    ///
    /// # Errors
    /// When there is none; the error lists the names.
    pub fn learner_mut(&mut self, name: &str) -> Result<&mut Learner> {
        let place = find(self.learners, name)?;
        Ok(&mut self.learners[place].1)
    }

    /// Notes a number under `name`: the log has its mean over the epoch, TensorBoard also each step's.
    ///
    /// # Errors
    /// When it isn't finite: the training has gone astray, and the error says where. Also when the name can't be that of a
    /// column.
    pub fn log(&mut self, name: &str, value: f64) -> Result<()> {
        if !value.is_finite() {
            return Err(Error::argument(name, format!("{value}")).expected("a finite number"));
        }
        self.values.add(name, value)
    }

    /// Notes the loss under `loss`, and hands its gradients to the only learner.
    ///
    /// # Errors
    /// When the loss isn't a finite number, there are several learners, or as [`apply`](Self::apply).
    pub fn learn(&mut self, pass: Pass, loss: Var) -> Result<()> {
        if self.learners.len() > 1 {
            return Err(Error::argument("learn", format!("{} learners", self.learners.len()))
                .expected("Step::learn_as, which says for whom the loss is"));
        }
        self.backward(0, "loss", pass, loss)
    }

    /// Notes the loss under `NAME_loss`, and hands its gradients to the learner called `name`.
    ///
    /// # Errors
    /// When no learner has this name, and as [`learn`](Self::learn).
    pub fn learn_as(&mut self, name: &str, pass: Pass, loss: Var) -> Result<()> {
        let place = find(self.learners, name)?;
        self.backward(place, &format!("{name}_loss"), pass, loss).map_err(|error| error.within(name))
    }

    fn backward(&mut self, place: usize, column: &str, pass: Pass, loss: Var) -> Result<()> {
        self.log(column, loss.value().to_scalar()?)?;
        self.learners[place].1.apply(pass.backward(loss)?, [self.number, self.total])
    }

    /// Hands an update to the learner called `name` (`model`, if it has no name): it is clipped, and the optimizer
    /// makes a step, or waits for more of them ([`Learner::accumulate`]).
    ///
    /// # Errors
    /// When no learner has this name, the update is of another store, or as [`Update::clip_norm`] and
    /// [`Optimizer::step`](tomograd_nn::Optimizer::step).
    pub fn apply(&mut self, name: &str, update: Update) -> Result<()> {
        let place = find(self.learners, name)?;
        self.learners[place].1.apply(update, [self.number, self.total])
    }
}

/// A validation at the end of an epoch: what its function is called with. The score that it returns decides which
/// checkpoint is the best one; one that isn't finite is no score.
pub struct Validation<'a> {
    /// The number of the epoch, from 0.
    pub epoch: u64,
    pub(super) learners: &'a Learners,
    pub(super) values: Values,
    pub(super) pictures: Vec<Picture>,
}

impl Validation<'_> {
    /// The parameters of the first learner.
    pub fn params(&self) -> &Params {
        self.learners[0].1.params()
    }

    /// The running average of the first learner's parameters.
    ///
    /// # Errors
    /// When it has none.
    pub fn averaged(&self) -> Result<&Params> {
        self.learners[0].1.averaged()
    }

    /// The learner called `name`.
    ///
    /// # Errors
    /// When there is none; the error lists the names.
    pub fn learner(&self, name: &str) -> Result<&Learner> {
        Ok(&self.learners[find(self.learners, name)?].1)
    }

    /// Notes a number under `name`, which becomes a column of the log; of several ones their mean.
    ///
    /// # Errors
    /// When the name can't be that of a column.
    pub fn log(&mut self, name: &str, value: f64) -> Result<()> {
        self.values.add(name, value)
    }

    /// Notes the mean of a quantity over the cases for each class of a report, under the class's name, and over how many cases
    /// each is a mean, under `NAME_defined`.
    ///
    /// # Errors
    /// When a class has a name that can't be that of a column.
    pub fn log_classes(&mut self, report: &Report, quantity: impl Fn(&ClassMetrics) -> f64) -> Result<()> {
        let mean = |place: usize| report.class_mean(place + 1, &quantity);
        for (place, name) in report.classes().iter().enumerate() {
            self.log(name, mean(place)?.value)?;
        }
        for (place, name) in report.classes().iter().enumerate() {
            self.log(&format!("{name}_defined"), mean(place)?.defined as f64)?;
        }
        Ok(())
    }

    /// Notes a picture for TensorBoard, u8 `(height, width, 3)` or `(height, width)`, as
    /// [`ContactSheet::pixels`](crate::ContactSheet::pixels) gives it.
    pub fn image(&mut self, name: &str, pixels: Tensor) {
        self.pictures.push((name.to_owned(), pixels));
    }
}
