//! Recurrent layers: LSTM and GRU.

use tomograd_autodiff::{Var, methods::*};
use tomograd_core::{Error, Result, Tensor, element_count};
use tomograd_kernels::matmul;

use super::Dropout;
use crate::{Module, Pass, Scope, Slot, check, init::Init};

/// The cell of a [`Recurrent`] layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecurrentKind {
    /// Long short-term memory (Hochreiter and Schmidhuber 1997).
    Lstm,
    /// Gated recurrent unit (Cho et al. 2014).
    Gru,
}

impl RecurrentKind {
    /// The number of gates, whose weights are one matrix.
    fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// Options of a [`Recurrent`] layer: cell and size of the hidden state; by default one layer, one direction, no dropout.
///
/// ```
/// use tomograd_nn::{RecurrentKind, RecurrentOptions};
/// let options = RecurrentOptions::new(RecurrentKind::Gru, 64).layers(2).bidirectional(true).dropout(0.2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RecurrentOptions {
    kind: RecurrentKind,
    hidden: usize,
    layers: usize,
    bidirectional: bool,
    dropout: f64,
}

impl RecurrentOptions {
    /// Options of a layer of this kind with `hidden` numbers in the hidden state.
    pub fn new(kind: RecurrentKind, hidden: usize) -> Self {
        Self { kind, hidden, layers: 1, bidirectional: false, dropout: 0.0 }
    }

    /// Sets the number of layers, each of which reads the outputs of the one before.
    #[must_use]
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }

    /// Sets whether there is a second direction, from the last step to the first.
    #[must_use]
    pub fn bidirectional(mut self, bidirectional: bool) -> Self {
        self.bidirectional = bidirectional;
        self
    }

    /// Sets the probability of dropout between layers.
    #[must_use]
    pub fn dropout(mut self, probability: f64) -> Self {
        self.dropout = probability;
        self
    }
}

/// The weights of one direction of one layer.
#[derive(Debug, Clone)]
struct Direction {
    /// Of the input and of the hidden state, each a weight and a bias.
    slots: [[Slot; 2]; 2],
    is_reverse: bool,
}

/// What a [`Recurrent`] layer computes for a sequence.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Recurrence {
    /// The hidden states of the last layer at each step, both directions concatenated: (N, L, directions · hidden).
    pub sequence: Var,
    /// The last hidden state of each layer and direction: (N, hidden), in the order layer 0 forward, layer 0 reverse, layer 1
    /// forward, …. That of the reverse direction has seen the whole sequence at the first step.
    pub hidden: Vec<Var>,
    /// The last cell state of each layer and direction, for an LSTM.
    pub cell: Vec<Var>,
}

/// One or several recurrent layers, as PyTorch's `LSTM` and `GRU` with `batch_first`: (N, L, C) to (N, L, directions · hidden). The
/// initial states are 0.
///
/// Parameters, for layer l: `weight_ih_l0` (gates · hidden, C), `weight_hh_l0` (gates · hidden, hidden), `bias_ih_l0`, `bias_hh_l0`,
/// then those of the second direction, `weight_ih_l0_reverse`, …. The gates of an LSTM are input, forget, cell, output; those of a
/// GRU reset, update, new.
///
/// ```
/// use tomograd_core::{DType, Device, Seed, Tensor};
/// use tomograd_nn::{Module, Params, Pass, Recurrent, RecurrentKind, RecurrentOptions};
/// let mut params = Params::new(Device::Cpu, Seed::new(1));
/// let options = RecurrentOptions::new(RecurrentKind::Lstm, 8).bidirectional(true);
/// let layer = Recurrent::new(params.root().at("rnn"), 5, options)?;
/// assert_eq!(params.get("rnn.weight_ih_l0_reverse")?.shape(), [32, 5]);
/// let pass = Pass::eval(&params)?;
/// let sequence = pass.input(&Tensor::ones(&[2, 7, 5], DType::F32, Device::Cpu)?);
/// assert_eq!(layer.forward(&sequence, &pass)?.shape(), [2, 7, 16]);
/// assert_eq!(layer.run(&sequence, &pass)?.hidden[1].shape(), [2, 8]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Recurrent {
    kind: RecurrentKind,
    inputs: usize,
    hidden: usize,
    layers: Vec<(Vec<Direction>, Dropout)>,
}

/// The most layers.
const MOST_LAYERS: usize = 64;

impl Recurrent {
    /// A layer for inputs of `inputs` numbers, with PyTorch's initialisation: uniform on ±1/√hidden.
    ///
    /// # Errors
    /// When there are no inputs, no hidden numbers or not 1 to 64 layers, sizes overflow, the probability of dropout isn't in
    /// [0, 1), a name is taken, or memory runs out.
    pub fn new(scope: Scope<'_>, inputs: usize, options: RecurrentOptions) -> Result<Self> {
        let RecurrentOptions { kind, hidden, layers, bidirectional, dropout } = options;
        scope.layer(|scope| {
            check::sizes("recurrent", "inputs and hidden numbers", &[inputs, hidden])?;
            if !(1..=MOST_LAYERS).contains(&layers) {
                return Err(
                    Error::argument("recurrent", format!("{layers} layers")).expected(format!("1 to {MOST_LAYERS}"))
                );
            }
            let rows = hidden.saturating_mul(kind.gates());
            let (init, directions) = (Init::FanIn(hidden), if bidirectional { 2 } else { 1 });
            let widest = inputs.max(hidden.saturating_mul(directions));
            element_count("recurrent", &[rows, widest])?;
            let mut made = Vec::new();
            for layer in 0..layers {
                let inputs = if layer == 0 { inputs } else { hidden * directions };
                let mut both = Vec::new();
                for is_reverse in [false, true].into_iter().take(directions) {
                    let ending = if is_reverse { "_reverse" } else { "" };
                    let mut named =
                        |name: &str, shape: &[usize]| scope.parameter(&format!("{name}_l{layer}{ending}"), shape, init);
                    let weights = [named("weight_ih", &[rows, inputs])?, named("weight_hh", &[rows, hidden])?];
                    let biases = [named("bias_ih", &[rows])?, named("bias_hh", &[rows])?];
                    let slots = [[weights[0], biases[0]], [weights[1], biases[1]]];
                    both.push(Direction { slots, is_reverse });
                }
                made.push((both, Dropout::new(scope.at(format!("dropout_l{layer}")), dropout)?));
            }
            Ok(Self { kind, inputs, hidden, layers: made })
        })
    }

    /// Outputs and last states for the sequences x (N, L, C).
    ///
    /// # Errors
    /// When x has another shape, or no step.
    pub fn run(&self, x: &Var, pass: &Pass) -> Result<Recurrence> {
        if x.rank() != 3 || x.shape()[1] == 0 || x.shape()[2] != self.inputs {
            let error = Error::shape("recurrent", "the input doesn't fit")
                .expected(format!("(N, L, {}) with one step at least", self.inputs))
                .shapes([x.shape()]);
            return Err(pass.within(self.layers[0].0[0].slots[0][0], error));
        }
        let mut result = Recurrence { sequence: x.clone(), hidden: Vec::new(), cell: Vec::new() };
        for (layer, (directions, dropout)) in self.layers.iter().enumerate() {
            if layer > 0 {
                result.sequence = dropout.forward(&result.sequence, pass)?;
            }
            let mut outputs = Vec::new();
            for direction in directions {
                let (sequence, state) = self.steps(direction, &result.sequence, pass)?;
                outputs.push(sequence);
                let mut state = state.into_iter();
                result.hidden.extend(state.next());
                result.cell.extend(state.next());
            }
            result.sequence = match &outputs[..] {
                [one] => one.clone(),
                both => Var::concat(&both.iter().collect::<Vec<_>>(), 2)?,
            };
        }
        Ok(result)
    }

    /// The hidden states of one direction, and its last states.
    fn steps(&self, direction: &Direction, x: &Var, pass: &Pass) -> Result<(Var, Vec<Var>)> {
        let [input, hidden] = &direction.slots;
        let linear = |x: &Var, [weight, bias]: &[Slot; 2]| {
            Var::apply(matmul::Linear { bias: true }, &[x, &pass.parameter(*weight)?, &pass.parameter(*bias)?])
                .map_err(|error| pass.within(*weight, error))
        };
        // What the gates see of the inputs is one product for all steps.
        let seen = linear(x, input)?;
        let (images, length) = (x.shape()[0], x.shape()[1]);
        let value = x.value();
        let zero = x.tape().constant(Tensor::zeros(&[images, self.hidden], value.dtype(), value.device())?);
        let states = if self.kind == RecurrentKind::Lstm { 2 } else { 1 };
        let (mut state, mut outputs) = (vec![zero; states], Vec::with_capacity(length));
        for step in 0..length {
            let step = if direction.is_reverse { length - 1 - step } else { step };
            let own = seen.select(1, step)?;
            state = self.step(&own, &linear(&state[0], hidden)?, &state)?;
            outputs.push(state[0].clone());
        }
        if direction.is_reverse {
            outputs.reverse();
        }
        Ok((Var::stack(&outputs.iter().collect::<Vec<_>>(), 1)?, state))
    }

    /// The next state, from what the gates see of the input and of the hidden state.
    fn step(&self, input: &Var, hidden: &Var, state: &[Var]) -> Result<Vec<Var>> {
        let sizes = vec![self.hidden; self.kind.gates()];
        match self.kind {
            RecurrentKind::Lstm => {
                let gates = input.add(hidden)?.split(&sizes, 1)?;
                let (kept, new) = (gates[1].sigmoid()?.mul(&state[1])?, gates[0].sigmoid()?.mul(&gates[2].tanh()?)?);
                let cell = kept.add(&new)?;
                Ok(vec![gates[3].sigmoid()?.mul(&cell.tanh()?)?, cell])
            }
            RecurrentKind::Gru => {
                let (input, hidden) = (input.split(&sizes, 1)?, hidden.split(&sizes, 1)?);
                let reset = input[0].add(&hidden[0])?.sigmoid()?;
                let update = input[1].add(&hidden[1])?.sigmoid()?;
                let new = input[2].add(&reset.mul(&hidden[2])?)?.tanh()?;
                // (1 − update) · new + update · state.
                Ok(vec![new.add(&update.mul(&state[0].sub(&new)?)?)?])
            }
        }
    }
}

impl Module for Recurrent {
    fn forward(&self, x: &Var, pass: &Pass) -> Result<Var> {
        Ok(self.run(x, pass)?.sequence)
    }
}

#[cfg(test)]
mod tests {
    use tomograd_core::{DType, Device, Seed};

    use super::*;
    use crate::{Params, gradcheck};

    #[test]
    fn gradients_equal_differences() {
        let x = Tensor::normal(&[2, 4, 3], 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
        for kind in [RecurrentKind::Lstm, RecurrentKind::Gru] {
            let options = RecurrentOptions::new(kind, 3).layers(2).bidirectional(true).dropout(0.3);
            gradcheck::module(|scope| Recurrent::new(scope, 3, options), &x).unwrap();
        }
    }

    #[test]
    fn last_states_are_those_of_the_sequence() {
        for kind in [RecurrentKind::Lstm, RecurrentKind::Gru] {
            let mut params = Params::new(Device::Cpu, Seed::new(1)).with_dtype(DType::F64);
            let options = RecurrentOptions::new(kind, 3).bidirectional(true);
            let layer = Recurrent::new(params.root(), 2, options).unwrap();
            let pass = Pass::eval(&params).unwrap();
            let x = Tensor::normal(&[2, 5, 2], 0.0, 1.0, Seed::new(3), DType::F64, Device::Cpu).unwrap();
            let result = layer.run(&pass.input(&x), &pass).unwrap();
            let values = |var: &Var| var.value().contiguous().unwrap().to_vec::<f64>().unwrap();
            let last = result.sequence.select(1, 4).unwrap().narrow(1, 0, 3).unwrap();
            let first = result.sequence.select(1, 0).unwrap().narrow(1, 3, 3).unwrap();
            assert_eq!(values(&result.hidden[0]), values(&last));
            assert_eq!(values(&result.hidden[1]), values(&first));
            assert_eq!(result.cell.len(), if kind == RecurrentKind::Lstm { 2 } else { 0 });
        }
    }

    #[test]
    fn bad_arguments_are_explained() {
        let mut params = Params::new(Device::Cpu, Seed::new(0));
        let options = RecurrentOptions::new(RecurrentKind::Gru, 4);
        for (inputs, options) in [(0, options), (3, options.layers(0)), (3, options.dropout(1.0))] {
            assert!(Recurrent::new(params.root(), inputs, options).is_err());
            assert_eq!(params.state().count(), 0);
        }
        let layer = Recurrent::new(params.root(), 3, options).unwrap();
        let pass = Pass::eval(&params).unwrap();
        for shape in [&[2, 3][..], &[2, 5, 4], &[2, 0, 3]] {
            let x = pass.input(&Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap());
            let error = layer.forward(&x, &pass).unwrap_err().to_string();
            assert!(error.contains("(N, L, 3)"), "{error}");
        }
    }
}
