//! Optimizers: fused steps over all parameters, parameter groups, and state by parameter name.

use std::collections::BTreeMap;

use tomograd_core::{DType, Device, Error, ErrorKind, Result, Tensor};
use tomograd_kernels::optim::{self, AdamParameter, SgdParameter};

use crate::{
    ParamInfo, Params, Update,
    check::{self, LARGEST, SMALLEST},
    params::Entry,
};

/// Settings of a parameter group; others are the optimizer's. The optimizer's `group` checks them.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{AdamW, Group, Linear, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let mut scope = params.root();
/// let (body, head) = (Linear::new(scope.at("body"), 8, 8)?, Linear::new(scope.at("head"), 8, 2)?);
/// let optimizer = AdamW::new(&params, 1e-4)?
///     .decay(1e-2)?
///     .group(|p| p.name.starts_with("head."), Group::new().rate(1e-3).decay(0.0))?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    rate: Option<f64>,
    decay: Option<f64>,
}

impl Group {
    /// A group without settings of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Sets the weight decay of all parameters of the group, of any rank.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = Some(decay);
        self
    }
}

/// The learning rate and weight decay of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Numbers {
    rate: f64,
    decay: f64,
}

impl Numbers {
    /// Checks rate, decay and their product, with the rate multiplied by `factor`.
    fn check(&self, factor: f64) -> Result<()> {
        check::number("optimizer", "the learning rate", self.rate, 0.0..=LARGEST)?;
        check::number("optimizer", "the weight decay", self.decay, 0.0..=LARGEST)?;
        check::number("optimizer", "the factor of the learning rate", factor, 0.0..=LARGEST)?;
        check::number("optimizer", "the learning rate with its factor", self.rate * factor, 0.0..=LARGEST)?;
        check::number("optimizer", "rate times decay", self.rate * factor * self.decay, 0.0..=LARGEST)
    }
}

/// An optimizer's state by name, as saved in a checkpoint.
#[derive(Debug, Clone, Default)]
pub struct OptimizerState {
    /// Moments and momentum: `first_moment.NAME`.
    pub tensors: Vec<(String, Tensor)>,
    /// The number of steps of each parameter that isn't in `others`.
    pub steps: u64,
    /// The step counts of parameters that differ from `steps`, by name.
    pub others: BTreeMap<String, u64>,
}

/// The interface of optimizers.
///
/// A parameter makes a step, and its step count grows, if the update has a gradient for it and it isn't frozen. So the state
/// of a parameter that is first used or unfrozen late, such as its bias correction, starts there, as in PyTorch.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_kernels::methods::*;
/// use tomograd_nn::{AdamW, Linear, Module, Optimizer, Params, Pass, schedule};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let layer = Linear::new(params.root(), 2, 1)?;
/// let mut optimizer = AdamW::new(&params, 1e-2)?;
/// let x = Tensor::ones(&[4, 2], DType::F32, Device::Cpu)?;
/// for step in 0..10 {
///     optimizer.set_rate_factor(schedule::cosine(step, 10, 0.0))?;
///     let pass = Pass::train(&params, Seed::new(2).at(step))?;
///     let loss = layer.forward(&pass.input(&x), &pass)?.square()?.mean(..)?;
///     optimizer.step(&mut params, pass.backward(loss)?)?;
/// }
/// assert_eq!(optimizer.state().steps, 10);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Optimizer {
    /// Applies an update: changes the parameters in place, and the buffers.
    ///
    /// # Errors
    /// When the update is of another store, a parameter that isn't frozen has no gradient, or memory runs out; then nothing
    /// is changed and no step is counted.
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()>;

    /// Sets a factor of the learning rates of all groups, such as the value of a schedule.
    ///
    /// # Errors
    /// When the factor is negative, NaN, or makes a rate too large; then the previous one stays.
    fn set_rate_factor(&mut self, factor: f64) -> Result<()>;

    /// The optimizer's name in checkpoints.
    fn kind(&self) -> &'static str;

    /// The state by name, as saved in a checkpoint.
    fn state(&self) -> OptimizerState;

    /// Restores a state.
    ///
    /// # Errors
    /// When a name is unknown or missing, or a tensor doesn't fit; then nothing is changed.
    fn load_state(&mut self, state: OptimizerState) -> Result<()>;
}

/// The state of an optimizer for all parameters, in the order of the store.
struct State {
    numbers: Hyperparameters,
    /// For each kind of moment, one tensor for each parameter (`None` for buffers).
    moments: Vec<(&'static str, Vec<Option<Tensor>>)>,
}

/// Learning rates, weight decays and step counts.
struct Hyperparameters {
    store: u64,
    /// The optimizer's own rate and decay, where no group overrides them. This decay applies to weights only.
    common: Numbers,
    names: Vec<String>,
    /// `None` for buffers.
    parameters: Vec<Option<Parameter>>,
    steps: Vec<u64>,
    factor: f64,
}

/// The optimizer's data of one parameter.
#[derive(Debug, Clone)]
struct Parameter {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
    frozen: bool,
    /// The settings of its groups; later groups override earlier ones.
    group: Group,
}

/// A parameter that makes a step, with its gradient.
struct Active<'a> {
    place: usize,
    value: &'a mut Tensor,
    gradient: &'a Tensor,
    /// The current learning rate.
    rate: f64,
    decay: f64,
    /// The step count before this step.
    steps: u64,
}

impl State {
    fn new(params: &Params, rate: f64) -> Result<Self> {
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
    fn moments(&mut self, kinds: &[&'static str]) -> Result<()> {
        let zeros = |parameter: &Option<Parameter>| {
            let zeros = |p: &Parameter| Tensor::zeros(&p.shape, p.dtype, p.device);
            parameter.as_ref().map(zeros).transpose()
        };
        let moments = |&kind| Ok((kind, self.numbers.parameters.iter().map(zeros).collect::<Result<_>>()?));
        self.moments = kinds.iter().map(moments).collect::<Result<_>>()?;
        Ok(())
    }

    fn export(&self) -> OptimizerState {
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

    fn import(&mut self, state: OptimizerState) -> Result<()> {
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
    fn check(&self, params: &Params, update: &Update) -> Result<()> {
        if params.store() != self.store || params.entries.len() != self.names.len() {
            return Err(Error::new(ErrorKind::Name, "optimizer", "the parameters are of another store")
                .expected("those that the optimizer was made for"));
        }
        update.check_store(params)?;
        update.check_used()?;
        update.check_finite()
    }

    /// The rate and decay of a parameter: its group's, else the optimizer's, whose decay applies to weights only.
    fn numbers(&self, parameter: &Parameter) -> Numbers {
        let decay = if parameter.shape.len() > 1 { self.common.decay } else { 0.0 };
        let Group { rate, decay: own } = parameter.group;
        Numbers { rate: rate.unwrap_or(self.common.rate), decay: own.unwrap_or(decay) }
    }

    /// Checks rates and decays of all parameters with this factor.
    fn check_numbers(&self, factor: f64) -> Result<()> {
        // Checked even if there are no parameters.
        self.common.check(factor)?;
        let mut all = self.names.iter().zip(&self.parameters);
        all.try_for_each(|(name, parameter)| match parameter {
            Some(parameter) => self.numbers(parameter).check(factor).map_err(|error| error.within(name.clone())),
            None => Ok(()),
        })
    }

    fn decay(&mut self, decay: f64) -> Result<()> {
        self.common.decay = decay;
        self.check_numbers(self.factor)
    }

    fn group(&mut self, choose: impl Fn(&ParamInfo<'_>) -> bool, group: Group) -> Result<()> {
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

    fn active<'a>(&self, params: &'a mut Params, update: &'a Update) -> Vec<Active<'a>> {
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

    fn set_factor(&mut self, factor: f64) -> Result<()> {
        self.check_numbers(factor)?;
        self.factor = factor;
        Ok(())
    }

    /// Increments the step counts of the parameters at `places`, and stores the new values of buffers.
    fn finish(&mut self, params: &mut Params, places: &[usize], buffers: Vec<(usize, Tensor)>) {
        for &place in places {
            self.steps[place] = self.steps[place].saturating_add(1);
        }
        for (index, value) in buffers {
            params.entries[index].value = value;
        }
    }

    /// Indices and names of the parameters.
    fn named(&self) -> impl Iterator<Item = (usize, &String)> {
        self.names.iter().enumerate().filter(|(index, _)| self.parameters[*index].is_some())
    }
}

/// Stochastic gradient descent with optional momentum, as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{Linear, Params, Sgd};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// Linear::new(params.root(), 8, 2)?;
/// let optimizer = Sgd::new(&params, 0.01)?.momentum(0.99)?.nesterov()?.decay(3e-5)?;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Sgd {
    state: State,
    config: optim::Sgd,
}

impl Sgd {
    /// An optimizer of all parameters with this learning rate, without momentum or weight decay.
    ///
    /// # Errors
    /// When the rate is negative or not finite, or a parameter is of half precision.
    pub fn new(params: &Params, rate: f64) -> Result<Self> {
        let config = optim::Sgd { momentum: 0.0, dampening: 0.0, nesterov: false };
        Ok(Self { state: State::new(params, rate)?, config })
    }

    /// Sets the weight decay of weights, that is of parameters with two axes or more; a [`group`](Self::group) can override
    /// it. The default is none.
    ///
    /// # Errors
    /// When it is negative or not finite.
    pub fn decay(mut self, decay: f64) -> Result<Self> {
        self.state.numbers.decay(decay)?;
        Ok(self)
    }

    /// Sets a group: settings for the parameters for which `choose` is true. Later groups override earlier ones.
    ///
    /// # Errors
    /// When a rate or decay is negative or not finite, or no parameter is chosen.
    pub fn group(mut self, choose: impl Fn(&ParamInfo<'_>) -> bool, group: Group) -> Result<Self> {
        self.state.numbers.group(choose, group)?;
        Ok(self)
    }

    /// Sets the momentum; 0 means none.
    ///
    /// # Errors
    /// When it is negative or not finite, or memory runs out.
    pub fn momentum(mut self, momentum: f64) -> Result<Self> {
        check::number("sgd", "the momentum", momentum, 0.0..=LARGEST)?;
        self.state.moments(if momentum == 0.0 { &[] } else { &["momentum"] })?;
        self.config.momentum = momentum;
        self.checked()
    }

    /// Uses Nesterov momentum.
    ///
    /// # Errors
    /// When there is no [`momentum`](Self::momentum), or there is dampening.
    pub fn nesterov(mut self) -> Result<Self> {
        self.config.nesterov = true;
        self.checked()
    }

    /// Sets the dampening: a gradient enters the momentum with the factor 1 − dampening, except for a parameter's first one.
    ///
    /// # Errors
    /// When the dampening isn't in [0, 1], or Nesterov momentum is used, which allows none.
    pub fn dampening(mut self, dampening: f64) -> Result<Self> {
        check::number("sgd", "the dampening", dampening, 0.0..=1.0)?;
        self.config.dampening = dampening;
        self.checked()
    }

    fn checked(self) -> Result<Self> {
        let optim::Sgd { momentum, dampening, nesterov } = self.config;
        if nesterov && momentum == 0.0 {
            return Err(
                Error::argument("sgd", "Nesterov's step without momentum").expected("a momentum above 0 before it")
            );
        }
        if nesterov && dampening != 0.0 {
            return Err(Error::argument("sgd", "Nesterov's step with dampening").expected("no dampening"));
        }
        Ok(self)
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()> {
        let State { numbers, moments } = &mut self.state;
        numbers.check(params, &update)?;
        let buffers = update.buffers(params)?;
        let mut momenta: Vec<Option<&mut Tensor>> = match moments.first_mut() {
            Some((_, tensors)) => tensors.iter_mut().map(Option::as_mut).collect(),
            None => numbers.names.iter().map(|_| None).collect(),
        };
        let active = numbers.active(params, &update);
        let places: Vec<usize> = active.iter().map(|active| active.place).collect();
        let parameter = |Active { place, value, gradient, rate, decay, steps }| {
            let momentum = momenta[place].take();
            SgdParameter { value, gradient, momentum, rate, weight_decay: decay, first_step: steps == 0 }
        };
        let mut parameters: Vec<SgdParameter<'_>> = active.into_iter().map(parameter).collect();
        optim::sgd_step(&mut parameters, &self.config)?;
        numbers.finish(params, &places, buffers);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "sgd"
    }

    fn set_rate_factor(&mut self, factor: f64) -> Result<()> {
        self.state.numbers.set_factor(factor)
    }

    fn state(&self) -> OptimizerState {
        self.state.export()
    }

    fn load_state(&mut self, state: OptimizerState) -> Result<()> {
        self.state.import(state)
    }
}

/// AdamW (Loshchilov and Hutter 2019), or Adam (Kingma and Ba 2015) by [`AdamW::coupled`], as in PyTorch.
///
/// ```
/// use tomograd_core::{Device, Seed};
/// use tomograd_nn::{AdamW, Linear, Params};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// Linear::new(params.root(), 8, 2)?;
/// let adamw = AdamW::new(&params, 3e-4)?.betas([0.9, 0.95])?.decay(1e-2)?;
/// let adam = AdamW::new(&params, 3e-4)?.decay(1e-4)?.coupled();
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct AdamW {
    state: State,
    config: optim::Adam,
}

impl AdamW {
    /// An optimizer of all parameters with this learning rate, without weight decay; β = (0.9, 0.999), ε = 10⁻⁸.
    ///
    /// # Errors
    /// When the rate is negative or not finite, a parameter is of half precision, or memory runs out.
    pub fn new(params: &Params, rate: f64) -> Result<Self> {
        let mut state = State::new(params, rate)?;
        state.moments(&["first_moment", "second_moment"])?;
        Ok(Self { state, config: optim::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: true } })
    }

    /// Sets the weight decay of weights, that is of parameters with two axes or more; a [`group`](Self::group) can override
    /// it. The default is none.
    ///
    /// # Errors
    /// When it is negative or not finite.
    pub fn decay(mut self, decay: f64) -> Result<Self> {
        self.state.numbers.decay(decay)?;
        Ok(self)
    }

    /// Sets a group: settings for the parameters for which `choose` is true. Later groups override earlier ones.
    ///
    /// # Errors
    /// When a rate or decay is negative or not finite, or no parameter is chosen.
    pub fn group(mut self, choose: impl Fn(&ParamInfo<'_>) -> bool, group: Group) -> Result<Self> {
        self.state.numbers.group(choose, group)?;
        Ok(self)
    }

    /// Sets β₁ and β₂.
    ///
    /// # Errors
    /// When one isn't in [0, 1) after rounding to f32.
    pub fn betas(mut self, betas: [f64; 2]) -> Result<Self> {
        if betas.iter().any(|&beta| beta.is_nan() || beta < 0.0 || beta as f32 >= 1.0) {
            return Err(Error::argument("adamw", format!("betas {betas:?}")).expected("numbers in [0, 1)"));
        }
        self.config.betas = betas;
        Ok(self)
    }

    /// Sets ε.
    ///
    /// # Errors
    /// When it isn't from 10⁻³⁰ to 10³⁰.
    pub fn epsilon(mut self, epsilon: f64) -> Result<Self> {
        check::number("adamw", "epsilon", epsilon, SMALLEST..=LARGEST)?;
        self.config.epsilon = epsilon;
        Ok(self)
    }

    /// Uses Adam instead of AdamW: the weight decay is added to the gradient (L2 regularisation).
    #[must_use]
    pub fn coupled(mut self) -> Self {
        self.config.decoupled = false;
        self
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()> {
        let State { numbers, moments } = &mut self.state;
        numbers.check(params, &update)?;
        let buffers = update.buffers(params)?;
        let mut moments = moments.iter_mut().map(|(_, tensors)| tensors.iter_mut().map(Option::as_mut).collect());
        let mut next = || moments.next().unwrap_or_default();
        let (mut firsts, mut seconds): (Vec<Option<&mut Tensor>>, Vec<Option<&mut Tensor>>) = (next(), next());
        let active = numbers.active(params, &update);
        let places: Vec<usize> = active.iter().map(|active| active.place).collect();
        let parameter = |Active { place, value, gradient, rate, decay, steps }| {
            let (first, second) = (firsts[place].take()?, seconds[place].take()?);
            let step = steps.saturating_add(1);
            Some(AdamParameter { value, gradient, first, second, rate, weight_decay: decay, step })
        };
        let mut parameters: Vec<AdamParameter<'_>> = active.into_iter().filter_map(parameter).collect();
        optim::adam_step(&mut parameters, &self.config)?;
        numbers.finish(params, &places, buffers);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        if self.config.decoupled { "adamw" } else { "adam" }
    }

    fn set_rate_factor(&mut self, factor: f64) -> Result<()> {
        self.state.numbers.set_factor(factor)
    }

    fn state(&self) -> OptimizerState {
        self.state.export()
    }

    fn load_state(&mut self, state: OptimizerState) -> Result<()> {
        self.state.import(state)
    }
}
