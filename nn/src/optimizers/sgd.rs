//! Stochastic gradient descent.

use tomograd_core::{Error, Result, Tensor};
use tomograd_kernels::optim::{self, SgdParameter};

use super::{
    Group, Optimizer, OptimizerState,
    state::{Active, State},
};
use crate::{
    ParamInfo, Params, Update,
    check::{self, LARGEST},
};

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
