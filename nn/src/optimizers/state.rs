//! The state of an optimizer: moments, learning rates, weight decays and step counts by parameter.

use std::collections::BTreeMap;

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};

use super::{Group, Numbers, OptimizerState};
use crate::{ParamInfo, Params, Update, params::Entry};

/// The state of an optimizer for all parameters, in the order of the store.
pub(super) struct State {
    pub(super) numbers: Hyperparameters,
    /// For each kind of moment, one tensor for each parameter (`None` for buffers).
    pub(super) moments: Vec<(&'static str, Vec<Option<Tensor>>)>,
}

/// Learning rates, weight decays and step counts.
pub(super) struct Hyperparameters {
    pub(super) store: u64,
    /// The optimizer's own rate and decay, where no group overrides them. This decay applies to weights only.
    pub(super) common: Numbers,
    pub(super) names: Vec<String>,
    /// `None` for buffers.
    pub(super) parameters: Vec<Option<Parameter>>,
    pub(super) steps: Vec<u64>,
    pub(super) factor: f64,
}

/// The optimizer's data of one parameter.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) shape: Vec<usize>,
    pub(super) dtype: DType,
    pub(super) device: Device,
    pub(super) frozen: bool,
    /// The settings of its groups; later groups override earlier ones.
    pub(super) group: Group,
}

/// A parameter that makes a step, with its gradient.
pub(super) struct Active<'a> {
    pub(super) place: usize,
    pub(super) value: &'a mut Tensor,
    pub(super) gradient: &'a Tensor,
    /// The current learning rate.
    pub(super) rate: f64,
    pub(super) decay: f64,
    /// The step count before this step.
    pub(super) steps: u64,
}

impl State {
    pub(super) fn new(params: &Params, rate: f64) -> Result<Self> {
        let parameter = |entry: &Entry| {
            let value = &entry.value;
            let (shape, dtype, device) = (value.shape().to_vec(), value.dtype(), value.device());
            (!entry.is_buffer).then(|| Parameter { shape, dtype, device, frozen: entry.frozen, group: Group::new() })
        };
        let parameters: Vec<Option<Parameter>> = params.entries.iter().map(parameter).collect();
        let names: Vec<String> = params.entries.iter().map(|entry| entry.name.clone()).collect();
        for (name, parameter) in names.iter().zip(&parameters) {
            // In half precision, most steps are less than half a unit in the last place and would have no effect.
            if let Some(dtype) = parameter.as_ref().map(|parameter| parameter.dtype).filter(|dtype| dtype.size() < 4) {
                return Err(Error::new(ErrorKind::DType, "optimizer", format!("{name} is {dtype}")).expected(
                    "f32 or f64: train in f32, and load the weights into a store of half precision afterwards",
                ));
            }
        }
        let common = Numbers { rate, decay: 0.0 };
        common.check(1.0)?;
        let (store, steps) = (params.store(), vec![0; names.len()]);
        Ok(Self {
            numbers: Hyperparameters { store, common, names, parameters, steps, factor: 1.0 },
            moments: Vec::new(),
        })
    }

    /// Allocates moments of these kinds, replacing all others.
    pub(super) fn moments(&mut self, kinds: &[&'static str]) -> Result<()> {
        let zeros = |parameter: &Option<Parameter>| {
            let zeros = |p: &Parameter| Tensor::zeros(&p.shape, p.dtype, p.device);
            parameter.as_ref().map(zeros).transpose()
        };
        let moments = |&kind| Ok((kind, self.numbers.parameters.iter().map(zeros).collect::<Result<_>>()?));
        self.moments = kinds.iter().map(moments).collect::<Result<_>>()?;
        Ok(())
    }

    pub(super) fn export(&self) -> OptimizerState {
        let mut tensors = Vec::new();
        for (kind, moments) in &self.moments {
            for (name, tensor) in self.numbers.names.iter().zip(moments) {
                tensors.extend(tensor.as_ref().map(|tensor| (format!("{kind}.{name}"), tensor.clone())));
            }
        }
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        self.numbers.named().for_each(|(index, _)| *counts.entry(self.numbers.steps[index]).or_default() += 1);
        // The most frequent step count is stored once; ties go to the largest.
        let steps = counts.iter().max_by_key(|&(_, count)| count).map_or(0, |(&steps, _)| steps);
        let others = self.numbers.named().filter(|&(index, _)| self.numbers.steps[index] != steps);
        let others = others.map(|(index, name)| (name.clone(), self.numbers.steps[index])).collect();
        OptimizerState { tensors, steps, others }
    }

    pub(super) fn import(&mut self, state: OptimizerState) -> Result<()> {
        let fail = |what: String| Error::new(ErrorKind::Name, "optimizer", what);
        let OptimizerState { tensors, steps, mut others } = state;
        let mut by_name = BTreeMap::new();
        for (name, tensor) in tensors {
            if let Some((name, _)) = by_name.remove_entry(&name) {
                return Err(fail(format!("the state has {name} twice")));
            }
            by_name.insert(name, tensor);
        }
        let mut loaded = Vec::with_capacity(self.moments.len());
        for (kind, tensors) in &self.moments {
            let one = |(name, tensor): (&String, &Option<Tensor>)| {
                let Some(tensor) = tensor else { return Ok(None) };
                let name = format!("{kind}.{name}");
                let loaded = by_name.remove(&name).ok_or_else(|| fail(format!("the state lacks {name}")))?;
                if loaded.shape() != tensor.shape() || loaded.dtype() != tensor.dtype() {
                    return Err(
                        Error::shape("optimizer", format!("{name} is {loaded:?}")).expected(format!("{tensor:?}"))
                    );
                }
                loaded.to(tensor.device()).map(Some)
            };
            loaded.push(self.numbers.names.iter().zip(tensors).map(one).collect::<Result<Vec<_>>>()?);
        }
        let mut counts = vec![0; self.numbers.steps.len()];
        for (index, name) in self.numbers.named() {
            counts[index] = others.remove(name).unwrap_or(steps);
        }
        if let Some(name) = by_name.keys().chain(others.keys()).next() {
            return Err(fail(format!("the state has {name}, which is unknown")));
        }
        for ((_, tensors), loaded) in self.moments.iter_mut().zip(loaded) {
            *tensors = loaded;
        }
        self.numbers.steps = counts;
        Ok(())
    }
}

impl Hyperparameters {
    pub(super) fn check(&self, params: &Params, update: &Update) -> Result<()> {
        if params.store() != self.store || params.entries.len() != self.names.len() {
            return Err(Error::new(ErrorKind::Name, "optimizer", "the parameters are of another store")
                .expected("those that the optimizer was made for"));
        }
        update.check_store(params)?;
        params.folds.check(true)?;
        update.check_used()?;
        update.check_finite()
    }

    /// The rate and decay of a parameter: its group's, else the optimizer's, whose decay applies to weights only.
    pub(super) fn numbers(&self, parameter: &Parameter) -> Numbers {
        let decay = if parameter.shape.len() > 1 { self.common.decay } else { 0.0 };
        let Group { rate, decay: own } = parameter.group;
        Numbers { rate: rate.unwrap_or(self.common.rate), decay: own.unwrap_or(decay) }
    }

    /// Checks rates and decays of all parameters with this factor.
    pub(super) fn check_numbers(&self, factor: f64) -> Result<()> {
        // Checked even if there are no parameters.
        self.common.check(factor)?;
        let mut all = self.names.iter().zip(&self.parameters);
        all.try_for_each(|(name, parameter)| match parameter {
            Some(parameter) => self.numbers(parameter).check(factor).map_err(|error| error.within(name.clone())),
            None => Ok(()),
        })
    }

    pub(super) fn decay(&mut self, decay: f64) -> Result<()> {
        self.common.decay = decay;
        self.check_numbers(self.factor)
    }

    pub(super) fn group(&mut self, choose: impl Fn(&ParamInfo<'_>) -> bool, group: Group) -> Result<()> {
        let mut any = false;
        for (name, parameter) in self.names.iter().zip(&mut self.parameters) {
            let Some(parameter) = parameter else { continue };
            if choose(&ParamInfo { name, shape: &parameter.shape, frozen: parameter.frozen }) {
                let Group { rate, decay } = parameter.group;
                parameter.group = Group { rate: group.rate.or(rate), decay: group.decay.or(decay) };
                any = true;
            }
        }
        if !any {
            // A pattern with a misspelt name would otherwise be ignored silently.
            return Err(
                Error::argument("optimizer", "a group that no parameter is in").expected("one parameter at least")
            );
        }
        self.check_numbers(self.factor)
    }

    pub(super) fn active<'a>(&self, params: &'a mut Params, update: &'a Update) -> Vec<Active<'a>> {
        let mut all = Vec::with_capacity(self.names.len());
        for (place, (entry, gradient)) in params.entries.iter_mut().zip(&update.gradients).enumerate() {
            if let (Some(gradient), Some(parameter), false) = (gradient, &self.parameters[place], entry.frozen) {
                let Numbers { rate, decay } = self.numbers(parameter);
                let (value, rate, steps) = (&mut entry.value, rate * self.factor, self.steps[place]);
                all.push(Active { place, value, gradient, rate, decay, steps });
            }
        }
        all
    }

    pub(super) fn set_factor(&mut self, factor: f64) -> Result<()> {
        self.check_numbers(factor)?;
        self.factor = factor;
        Ok(())
    }

    /// Increments the step counts of the parameters at `places`, and stores the new values of buffers.
    pub(super) fn finish(&mut self, params: &mut Params, places: &[usize], buffers: Vec<(usize, Tensor)>) {
        for &place in places {
            self.steps[place] = self.steps[place].saturating_add(1);
        }
        for (index, value) in buffers {
            params.entries[index].value = value;
        }
    }

    /// Indices and names of the parameters.
    pub(super) fn named(&self) -> impl Iterator<Item = (usize, &String)> {
        self.names.iter().enumerate().filter(|(index, _)| self.parameters[*index].is_some())
    }
}
