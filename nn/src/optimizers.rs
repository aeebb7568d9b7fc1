//! Optimizers: fused steps over all parameters, with groups; state is kept by name.

use std::collections::BTreeMap;

use tomograd_core::{Error, ErrorKind, Result, Tensor};
use tomograd_kernels::optim::{self, AdamParameter, SgdParameter};

use crate::{ParamInfo, Params, Update, params::Entry};

/// What a group of parameters has of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    rate: f64,
    decay: f64,
}

impl Group {
    /// A learning rate, without weight decay.
    pub fn rate(rate: f64) -> Self {
        Self { rate, decay: 0.0 }
    }

    /// With this weight decay.
    #[must_use]
    pub fn decay(mut self, decay: f64) -> Self {
        self.decay = decay;
        self
    }
}

/// What all optimizers have in common.
pub trait Optimizer {
    /// Carries an update out: changes the parameters in place, and the buffers.
    ///
    /// # Errors
    /// When the update is of another store, or a parameter that isn't frozen got no gradient.
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()>;

    /// Multiplies the learning rates of all groups from now on: what a schedule gives.
    fn set_rate_factor(&mut self, factor: f64);

    /// What it is called in checkpoints.
    fn kind(&self) -> &'static str;

    /// The state by name, and the number of steps made: what a checkpoint keeps.
    fn state(&self) -> (Vec<(String, Tensor)>, u64);

    /// Takes a state up again.
    ///
    /// # Errors
    /// When a name is unknown or a tensor doesn't fit.
    fn load_state(&mut self, state: Vec<(String, Tensor)>, steps: u64) -> Result<()>;
}

/// Group and moments of each parameter, in the order of the store.
struct State {
    store: u64,
    groups: Vec<Group>,
    /// For each kind of moment, a tensor for each parameter (`None` for buffers).
    moments: Vec<(&'static str, Vec<Option<Tensor>>)>,
    names: Vec<String>,
    factor: f64,
    steps: u64,
}

impl State {
    fn new(params: &Params, group: impl Fn(&ParamInfo<'_>) -> Group, kinds: &[&'static str]) -> Result<Self> {
        let moment = |entry: &Entry| match entry.is_buffer {
            true => Ok(None),
            false => Tensor::zeros(entry.value.shape(), entry.value.dtype(), entry.value.device()).map(Some),
        };
        let moments = |&kind| Ok((kind, params.entries.iter().map(moment).collect::<Result<_>>()?));
        Ok(Self {
            store: params.store(),
            groups: (0..params.entries.len()).map(|index| group(&params.info(index))).collect(),
            moments: kinds.iter().map(moments).collect::<Result<_>>()?,
            names: params.entries.iter().map(|entry| entry.name.clone()).collect(),
            factor: 1.0,
            steps: 0,
        })
    }

    fn begin(&mut self, params: &Params, update: &Update) -> Result<()> {
        if params.store() != self.store
            || update.structure != params.structure()
            || params.entries.len() != self.groups.len()
        {
            return Err(Error::new(ErrorKind::Name, "optimizer", "the update or the parameters are of another store")
                .expected("those that the optimizer was made for"));
        }
        update.check_used()?;
        self.steps += 1;
        Ok(())
    }

    fn export(&self) -> (Vec<(String, Tensor)>, u64) {
        let mut all = Vec::new();
        for (kind, tensors) in &self.moments {
            for (name, tensor) in self.names.iter().zip(tensors) {
                all.extend(tensor.as_ref().map(|tensor| (format!("{kind}.{name}"), tensor.clone())));
            }
        }
        (all, self.steps)
    }

    fn import(&mut self, state: Vec<(String, Tensor)>, steps: u64) -> Result<()> {
        let mut state: BTreeMap<String, Tensor> = state.into_iter().collect();
        for (kind, tensors) in &mut self.moments {
            for (name, tensor) in self.names.iter().zip(tensors) {
                let Some(tensor) = tensor else { continue };
                let name = format!("{kind}.{name}");
                let loaded = state
                    .remove(&name)
                    .ok_or_else(|| Error::new(ErrorKind::Name, "optimizer", format!("the state lacks {name}")))?;
                if loaded.shape() != tensor.shape() || loaded.dtype() != tensor.dtype() {
                    return Err(
                        Error::shape("optimizer", format!("{name} is {loaded:?}")).expected(format!("{tensor:?}"))
                    );
                }
                *tensor = loaded;
            }
        }
        if let Some(name) = state.keys().next() {
            return Err(Error::new(ErrorKind::Name, "optimizer", format!("the state has {name}, which is unknown")));
        }
        self.steps = steps;
        Ok(())
    }
}

fn finish(params: &mut Params, buffers: BTreeMap<usize, Tensor>) {
    for (index, value) in buffers {
        params.entries[index].value = value;
    }
}

/// Stochastic gradient descent with momentum, as PyTorch's.
pub struct Sgd {
    state: State,
    config: optim::Sgd,
}

impl Sgd {
    /// An optimizer of all parameters that `group` gives a learning rate, with this momentum (0: none).
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(
        params: &Params,
        momentum: f64,
        nesterov: bool,
        group: impl Fn(&ParamInfo<'_>) -> Group,
    ) -> Result<Self> {
        let kinds: &[&str] = if momentum == 0.0 { &[] } else { &["momentum"] };
        Ok(Self { state: State::new(params, group, kinds)?, config: optim::Sgd { momentum, dampening: 0.0, nesterov } })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()> {
        self.state.begin(params, &update)?;
        let mut momenta: Vec<Option<&mut Tensor>> = match self.state.moments.first_mut() {
            Some((_, tensors)) => tensors.iter_mut().map(Option::as_mut).collect(),
            None => params.entries.iter().map(|_| None).collect(),
        };
        let mut parameters = Vec::new();
        for (index, (entry, gradient)) in params.entries.iter_mut().zip(&update.gradients).enumerate() {
            let Some(gradient) = gradient else { continue };
            let Group { rate, decay } = self.state.groups[index];
            parameters.push(SgdParameter {
                value: &mut entry.value,
                gradient,
                momentum: momenta[index].take(),
                rate: rate * self.state.factor,
                weight_decay: decay,
            });
        }
        optim::sgd_step(&mut parameters, &self.config, self.state.steps == 1)?;
        finish(params, update.buffers);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        "sgd"
    }

    fn set_rate_factor(&mut self, factor: f64) {
        self.state.factor = factor;
    }

    fn state(&self) -> (Vec<(String, Tensor)>, u64) {
        self.state.export()
    }

    fn load_state(&mut self, state: Vec<(String, Tensor)>, steps: u64) -> Result<()> {
        self.state.import(state, steps)
    }
}

/// AdamW (Loshchilov and Hutter 2019), or Adam (Kingma and Ba 2015) with [`AdamW::coupled`], as PyTorch's.
pub struct AdamW {
    state: State,
    config: optim::Adam,
}

impl AdamW {
    /// An optimizer of all parameters with the groups that `group` gives; β = (0.9, 0.999), ε = 10⁻⁸.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(params: &Params, group: impl Fn(&ParamInfo<'_>) -> Group) -> Result<Self> {
        let config = optim::Adam { betas: [0.9, 0.999], epsilon: 1e-8, decoupled: true };
        Ok(Self { state: State::new(params, group, &["first_moment", "second_moment"])?, config })
    }

    /// With these β₁ and β₂.
    #[must_use]
    pub fn betas(mut self, betas: [f64; 2]) -> Self {
        self.config.betas = betas;
        self
    }

    /// With this ε.
    #[must_use]
    pub fn epsilon(mut self, epsilon: f64) -> Self {
        self.config.epsilon = epsilon;
        self
    }

    /// Adam: the weight decay is added to the gradient.
    #[must_use]
    pub fn coupled(mut self) -> Self {
        self.config.decoupled = false;
        self
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &mut Params, update: Update) -> Result<()> {
        self.state.begin(params, &update)?;
        let mut parameters = Vec::new();
        let (first, second) = self.state.moments.split_at_mut(1);
        let moments = first[0].1.iter_mut().zip(&mut second[0].1);
        for (index, ((entry, gradient), moments)) in
            params.entries.iter_mut().zip(&update.gradients).zip(moments).enumerate()
        {
            let (Some(gradient), (Some(first), Some(second))) = (gradient, moments) else { continue };
            let Group { rate, decay } = self.state.groups[index];
            let rate = rate * self.state.factor;
            parameters.push(AdamParameter {
                value: &mut entry.value,
                gradient,
                first,
                second,
                rate,
                weight_decay: decay,
            });
        }
        optim::adam_step(&mut parameters, &self.config, self.state.steps)?;
        finish(params, update.buffers);
        Ok(())
    }

    fn kind(&self) -> &'static str {
        if self.config.decoupled { "adamw" } else { "adam" }
    }

    fn set_rate_factor(&mut self, factor: f64) {
        self.state.factor = factor;
    }

    fn state(&self) -> (Vec<(String, Tensor)>, u64) {
        self.state.export()
    }

    fn load_state(&mut self, state: Vec<(String, Tensor)>, steps: u64) -> Result<()> {
        self.state.import(state, steps)
    }
}
