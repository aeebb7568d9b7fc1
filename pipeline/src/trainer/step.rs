//! The arguments of the step and validation functions.

use tomograd_autodiff::Var;
use tomograd_core::{Error, ErrorKind, Result, Seed, Tensor};
use tomograd_nn::{Params, Pass, Update};

use crate::{ClassMetrics, Report};

use super::{
    Learner,
    log::{Picture, Values},
};

/// Named learners; the first one is the main one.
pub(super) type Learners = [(String, Learner)];

/// The index of the learner called `name`.
pub(super) fn find(learners: &Learners, name: &str) -> Result<usize> {
    learners.iter().position(|(known, _)| known == name).ok_or_else(|| {
        let names: Vec<&str> = learners.iter().map(|(name, _)| &name[..]).collect();
        Error::new(ErrorKind::Name, "trainer", format!("no learner is called {name:?}"))
            .expected(format!("one of {}", names.join(", ")))
    })
}

/// One training step: the argument of the step function.
///
/// A step runs any number of passes, on parameters, averages and batches, and passes on their results: a loss by
/// [`learn`](Self::learn) if there is one learner, by [`learn_as`](Self::learn_as) if there are several, and an update
/// by [`apply`](Self::apply).
pub struct Step<'a, B> {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The number of the step since the start of the run, counted from 0.
    pub number: u64,
    /// The random stream of this step.
    pub seed: Seed,
    /// The batch.
    pub batch: B,
    pub(super) learners: &'a mut Learners,
    /// The number of steps of the run.
    pub(super) total: u64,
    pub(super) values: Values,
}

impl<B> Step<'_, B> {
    /// The parameters of the first learner.
    pub fn params(&self) -> &Params {
        self.learners[0].1.params()
    }

    /// The average of the first learner's parameters.
    ///
    /// # Errors
    /// When none is kept.
    pub fn averaged(&self) -> Result<&Params> {
        self.learners[0].1.averaged()
    }

    /// A training pass on the first learner's parameters, with the seed of the step.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn pass(&self) -> Result<Pass> {
        self.learners[0].1.pass(self.seed)
    }

    /// The learner called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names.
    pub fn learner(&self, name: &str) -> Result<&Learner> {
        Ok(&self.learners[find(self.learners, name)?].1)
    }

    /// Mutable access to the learner called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names.
    pub fn learner_mut(&mut self, name: &str) -> Result<&mut Learner> {
        let place = find(self.learners, name)?;
        Ok(&mut self.learners[place].1)
    }

    /// Logs a value under `name`: its mean over the epoch in the CSV file, and the value of each step in TensorBoard.
    ///
    /// # Errors
    /// When the value isn't finite, since the training has diverged; also when the name is invalid for a
    /// column.
    pub fn log(&mut self, name: &str, value: f64) -> Result<()> {
        if !value.is_finite() {
            return Err(Error::argument(name, format!("{value}")).expected("a finite number"));
        }
        self.values.add(name, value)
    }

    /// Logs the loss under `loss`, and applies its gradients to the only learner.
    ///
    /// # Errors
    /// When the loss isn't finite, there are several learners, or as [`apply`](Self::apply).
    pub fn learn(&mut self, pass: Pass, loss: Var) -> Result<()> {
        if self.learners.len() > 1 {
            return Err(Error::argument("learn", format!("{} learners", self.learners.len()))
                .expected("Step::learn_as, which says for whom the loss is"));
        }
        self.backward(0, "loss", pass, loss)
    }

    /// Logs the loss under `NAME_loss`, and applies its gradients to the learner called `name`.
    ///
    /// # Errors
    /// When there is no learner of this name, and as [`learn`](Self::learn).
    pub fn learn_as(&mut self, name: &str, pass: Pass, loss: Var) -> Result<()> {
        let place = find(self.learners, name)?;
        self.backward(place, &format!("{name}_loss"), pass, loss).map_err(|error| error.within(name))
    }

    fn backward(&mut self, place: usize, column: &str, pass: Pass, loss: Var) -> Result<()> {
        self.log(column, loss.value().to_scalar()?)?;
        self.learners[place].1.apply(pass.backward(loss)?, [self.number, self.total])
    }

    /// Passes an update to the learner called `name` (`model` if it has no name): it is clipped, and the optimizer makes a
    /// step, or accumulates more updates ([`Learner::accumulate`]).
    ///
    /// # Errors
    /// When there is no learner of this name, the update is of another store, or as [`Update::clip_norm`] and
    /// [`Optimizer::step`](tomograd_nn::Optimizer::step).
    pub fn apply(&mut self, name: &str, update: Update) -> Result<()> {
        let place = find(self.learners, name)?;
        self.learners[place].1.apply(update, [self.number, self.total])
    }
}

/// A validation at the end of an epoch: the argument of the validation function. The returned score decides which checkpoint
/// is the best; a score that isn't finite is ignored.
pub struct Validation<'a> {
    /// The epoch, counted from 0.
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

    /// The average of the first learner's parameters.
    ///
    /// # Errors
    /// When none is kept.
    pub fn averaged(&self) -> Result<&Params> {
        self.learners[0].1.averaged()
    }

    /// The learner called `name`.
    ///
    /// # Errors
    /// When it doesn't exist; the error lists the names.
    pub fn learner(&self, name: &str) -> Result<&Learner> {
        Ok(&self.learners[find(self.learners, name)?].1)
    }

    /// Logs a value under `name`, a column of the CSV file; the mean of repeated values.
    ///
    /// # Errors
    /// When the name is invalid for a column.
    pub fn log(&mut self, name: &str, value: f64) -> Result<()> {
        self.values.add(name, value)
    }

    /// Logs the mean of a quantity over the cases for each class of a report, under the name of the class, and the number of
    /// cases in each mean under `NAME_defined`.
    ///
    /// # Errors
    /// When the name of a class is invalid for a column.
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

    /// Logs an image to TensorBoard, u8 `(height, width, 3)` or `(height, width)`, such as
    /// [`ContactSheet::pixels`](crate::ContactSheet::pixels).
    pub fn image(&mut self, name: &str, pixels: Tensor) {
        self.pictures.push((name.to_owned(), pixels));
    }
}
