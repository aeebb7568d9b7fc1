//! Linear maps along one axis, the building blocks of interpolation and average pooling.

/// A linear map of one axis: output `o` is `Σ_t weights[o][t] · x[starts[o] + t]`. The start and the end of the taps increase
/// with `o`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AxisMap {
    /// The size of the input.
    pub input: usize,
    /// For each output, the index of its first tap.
    pub starts: Vec<usize>,
    /// For each output, the weights of its taps.
    pub weights: Vec<Vec<f64>>,
}

/// A range of outputs with a periodic pattern, which a vector kernel can compute: the weights repeat every `phases` outputs,
/// with taps that start `step` inputs later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// 1 or 2.
    pub phases: usize,
    /// 0, 1 or 2; always 1 if there are 2 phases.
    pub step: usize,
    /// The first output of the run, and the one after the last.
    pub from: usize,
    pub to: usize,
}

impl AxisMap {
    /// The map with `output` outputs, where `taps` gives the first input and the weights of each.
    pub(crate) fn new(input: usize, output: usize, taps: impl Fn(usize) -> (usize, Vec<f64>)) -> Self {
        let (starts, weights) = (0..output).map(taps).unzip();
        Self { input, starts, weights }
    }

    /// The identity map.
    pub(crate) fn identity(size: usize) -> Self {
        Self::new(size, size, |o| (o, vec![1.0]))
    }

    /// The number of outputs.
    pub(crate) fn output(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn is_identity(&self) -> bool {
        self.input == self.output() && (0..self.input).all(|o| self.starts[o] == o && self.weights[o] == [1.0])
    }

    /// The transposed map, from outputs to inputs, which propagates gradients.
    pub(crate) fn adjoint(&self) -> Self {
        let mut starts = vec![0; self.input];
        let mut weights = vec![Vec::new(); self.input];
        for (o, (&start, taps)) in self.starts.iter().zip(&self.weights).enumerate() {
            for (input, &weight) in (start..).zip(taps) {
                if weights[input].is_empty() {
                    starts[input] = o;
                }
                // An output between two that read this input is given a weight too, which may be zero.
                weights[input].resize(o - starts[input], 0.0);
                weights[input].push(weight);
            }
        }
        Self { input: self.output(), starts, weights }
    }

    /// The longest periodic range of outputs, if there is one.
    pub(super) fn run(&self) -> Option<Run> {
        let repeats = |o: usize, phases: usize, step: usize| {
            self.starts[o + phases] == self.starts[o] + step && self.weights[o + phases] == self.weights[o]
        };
        let outputs = self.output();
        let mut best: Option<Run> = None;
        for (phases, step) in [(1, 1), (1, 2), (2, 1), (1, 0)] {
            // The irregular outputs at the border are at most a few.
            for from in 0..outputs.min(4) {
                let mut last = from;
                while last + phases < outputs && repeats(last, phases, step) {
                    last += 1;
                }
                // Outputs from..last + phases are regular; the length is rounded down to whole periods.
                let length = (last + phases).min(outputs) - from;
                let run = Run { phases, step, from, to: from + length / phases * phases };
                if last > from && best.is_none_or(|best| run.to - run.from > best.to - best.from) {
                    best = Some(run);
                }
            }
        }
        best
    }
}
