//! Adam with decoupled weight decay, and without.

use tomograd_core::{Error, Result, Tensor};
use tomograd_kernels::optim::{self, AdamParameter};

use super::{
    Group, Optimizer, OptimizerState,
    state::{Active, State},
};
use crate::{
    ParamInfo, Params, Update,
    check::{self, LARGEST, SMALLEST},
};

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
