//! Linear maps along one axis, of which interpolation and average pooling are made.

/// A map of one axis: output `o` is `Σ_t weights[o][t] · x[start(o) + t]`. Both `start` and `start + count` grow with `o`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AxisMap {
    /// The size of the input.
    pub input: usize,
    /// Of each output: where its taps start.
    pub starts: Vec<usize>,
    /// Of each output: the weights of its taps.
    pub weights: Vec<Vec<f64>>,
}

/// A run of outputs that a vector kernel can compute: `phases` outputs in turn have the same weights again, `step` inputs
/// further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// 1 or 2.
    pub phases: usize,
    /// 0, 1 or 2, with 2 phases always 1.
    pub step: usize,
    /// The first output, and the first after the run.
    pub from: usize,
    pub to: usize,
}

impl AxisMap {
    /// The map of `output` outputs, each from the taps that `taps` gives: the first input, and the weights.
    pub(crate) fn new(input: usize, output: usize, taps: impl Fn(usize) -> (usize, Vec<f64>)) -> Self {
        let (starts, weights) = (0..output).map(taps).unzip();
        Self { input, starts, weights }
    }

    /// The map that changes nothing.
    pub(crate) fn identity(size: usize) -> Self {
        Self::new(size, size, |o| (o, vec![1.0]))
    }

    /// How many outputs there are.
    pub(crate) fn output(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn is_identity(&self) -> bool {
        self.input == self.output() && (0..self.input).all(|o| self.starts[o] == o && self.weights[o] == [1.0])
    }

    /// The transposed map, from outputs to inputs: that of gradients.
    pub(crate) fn adjoint(&self) -> Self {
        let mut starts = vec![0; self.input];
        let mut weights = vec![Vec::new(); self.input];
        for (o, (&start, taps)) in self.starts.iter().zip(&self.weights).enumerate() {
            for (input, &weight) in (start..).zip(taps) {
                if weights[input].is_empty() {
                    starts[input] = o;
                }
                // An output between two that read this input reads it too, perhaps with weight zero.
                weights[input].resize(o - starts[input], 0.0);
                weights[input].push(weight);
            }
        }
        Self { input: self.output(), starts, weights }
    }

    /// Where the map is regular, the longest run that it finds.
    pub(super) fn run(&self) -> Option<Run> {
        let repeats = |o: usize, phases: usize, step: usize| {
            self.starts[o + phases] == self.starts[o] + step && self.weights[o + phases] == self.weights[o]
        };
        let outputs = self.output();
        let mut best: Option<Run> = None;
        for (phases, step) in [(1, 1), (1, 2), (2, 1), (1, 0)] {
            // Borders are at most a few outputs wide in what matters.
            for from in 0..outputs.min(4) {
                let mut last = from;
                while last + phases < outputs && repeats(last, phases, step) {
                    last += 1;
                }
                // Outputs from..last + phases are regular; whole turns of the phases count.
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
