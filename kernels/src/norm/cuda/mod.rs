//! Norms on CUDA devices. The statistics stay on the device, in the same state as on the CPU.

use tomograd_core::{DType, Result, Tensor};

use super::{Norm, Statistics};
use crate::{
    Context, Forward, Saved,
    cuda::{Header, Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single},
    elementwise::cuda::{Coded, FUNCTIONS, coded},
};

static SOURCE: Source = Source {
    name: "norm.cu",
    text: include_str!("norm.cu"),
    headers: &[Header { name: "../../elementwise/cuda/function.cuh", text: FUNCTIONS }],
};

/// Elements of a segment, and the most segments of a set or row.
const SEGMENT: usize = 1 << 13;
const MOST_SEGMENTS: usize = 1 << 12;
/// The most blocks along an axis of the grid whose blocks take turns.
const MOST_BLOCKS: usize = 65535;

/// The length and number of the segments of so many elements.
fn segments(elements: usize) -> (usize, usize) {
    let length = SEGMENT.max(elements.div_ceil(MOST_SEGMENTS));
    (length, elements.div_ceil(length).max(1))
}

/// f64 memory for pairs of numbers.
fn pairs(count: usize, like: &Tensor) -> Result<Unwritten> {
    Unwritten::new("norm", &[2 * count], DType::F64, like.device())
}

/// A norm with the sizes of its x: what its kernels share.
struct Run<'a> {
    norm: &'a Norm,
    x: Tensor,
    gamma: Option<Tensor>,
    beta: Option<Tensor>,
    /// The `Sets` of the kernels.
    sets: [i64; 14],
    set_count: usize,
    channels: usize,
    activation: Coded,
}

impl<'a> Run<'a> {
    fn new(norm: &'a Norm, inputs: &[&Tensor]) -> Result<Self> {
        single("norm", inputs[0].dtype())?;
        let x = inputs[0].contiguous()?;
        let (batch, channels) = (x.shape()[0], x.shape()[1]);
        let voxels: usize = x.shape()[2..].iter().product();
        let (width, images) = match norm.statistics {
            Statistics::Instance => (1, channels),
            Statistics::Group(groups) => (channels / groups, groups),
            Statistics::Batch | Statistics::Running => (1, 0),
        };
        let set_count = norm.set_count(batch, channels);
        let parameter = |index: usize| norm.affine.then(|| inputs[index].contiguous()).transpose();
        Ok(Self {
            norm,
            gamma: parameter(1)?,
            beta: parameter(2)?,
            sets: {
                let mut sets = [batch as i64; 14];
                for (to, size) in sets[1..].chunks_exact_mut(3).zip([channels, voxels, width.max(1), images]) {
                    to.copy_from_slice(&divisor(size));
                }
                sets[13] = set_count as i64;
                sets
            },
            set_count,
            channels,
            activation: coded(norm.activation),
            x,
        })
    }

    fn launch(&self, kernel: &'static str) -> Result<Launch<'static>> {
        Launch::new("norm", &SOURCE, kernel, self.x.device())
    }

    /// The statistics of the sets and, of a batch, the mean and unbiased variance of each channel.
    fn statistics(&self, inputs: &[&Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let mut statistics = Unwritten::new("norm", &[3, self.set_count], DType::F64, self.x.device())?;
        if self.norm.statistics == Statistics::Running {
            let first = 1 + 2 * usize::from(self.norm.affine);
            let (mean, variance) = (inputs[first].contiguous()?, inputs[first + 1].contiguous()?);
            let launch = self.launch("norm_given")?.read(&mean)?.read(&variance)?.write(&mut statistics)?;
            let launch = launch.value(self.norm.epsilon).size(self.channels);
            // SAFETY: mean and variance have a number for each channel, and the kernel writes all statistics.
            unsafe {
                launch.run(blocks(self.channels), THREADS)?;
                return Ok((statistics.assume_init(), Vec::new()));
            }
        }
        let (length, segments) = segments(self.x.count() / self.set_count.max(1));
        let mut partial = pairs(self.set_count * segments, &self.x)?;
        let launch = self.launch("norm_moments")?.read(&self.x)?.write(&mut partial)?.value(self.sets).size(length);
        // Sets of no voxels have no first element to read.
        let sets = if self.x.count() == 0 { 0 } else { self.set_count };
        // SAFETY: the sets are made of rows of x; a block writes the sums of its segment.
        let partial = unsafe {
            launch.run_shaped([segments, sets.min(MOST_BLOCKS), 1], THREADS, 0)?;
            partial.assume_init()
        };
        let partial = if sets == 0 { Tensor::zeros(partial.shape(), DType::F64, partial.device())? } else { partial };
        let of_batch = self.norm.statistics == Statistics::Batch;
        let mut outputs = [(); 2].map(|()| of_batch.then(|| output_like("norm", &[self.channels], &self.x)));
        let [mean, unbiased] = &mut outputs;
        let (mut mean, mut unbiased) = (mean.take().transpose()?, unbiased.take().transpose()?);
        let launch = self
            .launch("norm_statistics")?
            .read(&self.x)?
            .read(&partial)?
            .write(&mut statistics)?
            .write_if(mean.as_mut())?
            .write_if(unbiased.as_mut())?
            .value(self.sets)
            .size(segments)
            .value(self.norm.epsilon);
        // SAFETY: the kernel reads the sums of each set, and writes its statistics and outputs.
        unsafe {
            launch.run(blocks(self.set_count), THREADS)?;
            let outputs = [mean, unbiased].into_iter().flatten().map(|output| output.assume_init()).collect();
            Ok((statistics.assume_init(), outputs))
        }
    }

    /// y, from the statistics.
    fn apply(&self, statistics: &Tensor) -> Result<Tensor> {
        let mut y = output_like("norm", self.x.shape(), &self.x)?;
        let count = y.count();
        let launch = self
            .launch("norm_apply")?
            .read(&self.x)?
            .read(statistics)?
            .read_if(self.gamma.as_ref())?
            .read_if(self.beta.as_ref())?
            .write(&mut y)?
            .value(self.activation)
            .value(self.sets);
        // SAFETY: there are statistics of each set and parameters of each channel; the kernel writes every element.
        unsafe {
            launch.run(blocks(count), THREADS)?;
            Ok(y.assume_init())
        }
    }
}

/// The outputs, and the statistics as state.
pub(super) fn forward(norm: &Norm, context: &Context, inputs: &[&Tensor]) -> Result<Forward> {
    let run = Run::new(norm, inputs)?;
    let (statistics, extra) = run.statistics(inputs)?;
    let outputs = std::iter::once(run.apply(&statistics)?).chain(extra).collect();
    Ok(Forward { outputs, state: if context.inference { Vec::new() } else { vec![statistics] } })
}

fn saved_inputs<'a>(norm: &Norm, saved: &'a Saved) -> Result<Vec<&'a Tensor>> {
    (0..norm.input_count()).map(|i| saved.input(i)).collect()
}

/// Recomputes the output.
pub(super) fn again(norm: &Norm, saved: &Saved) -> Result<Tensor> {
    Run::new(norm, &saved_inputs(norm, saved)?)?.apply(saved.state(0)?)
}

/// The gradients of all inputs.
pub(super) fn gradients(
    norm: &Norm,
    saved: &Saved,
    gradients: &[Option<Tensor>],
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let mut results = vec![None; needed.len()];
    if gradients.iter().all(Option::is_none) {
        return Ok(results);
    }
    let (run, statistics) = (Run::new(norm, &saved_inputs(norm, saved)?)?, saved.state(0)?);
    let (x, channels) = (&run.x, run.channels);
    let dy = match &gradients[0] {
        Some(dy) => dy.contiguous()?,
        None => Tensor::zeros(x.shape(), x.dtype(), x.device())?,
    };
    let rows = x.shape()[0] * channels;
    let (length, segments) = segments(x.count() / rows.max(1));
    let mut partial = pairs(rows * segments, x)?;
    let launch = run
        .launch("norm_backward_sums")?
        .read(x)?
        .read(&dy)?
        .read(statistics)?
        .read_if(run.gamma.as_ref())?
        .read_if(run.beta.as_ref())?
        .write(&mut partial)?
        .value(run.activation)
        .value(run.sets)
        .size(length);
    // SAFETY: there are statistics of each set and parameters of each channel; a block writes the sums of its segment of a row.
    let partial = unsafe {
        launch.run_shaped([segments, rows.min(MOST_BLOCKS), 1], THREADS, 0)?;
        partial.assume_init()
    };
    if needed[0] {
        let mut through = None;
        if norm.statistics != Statistics::Running {
            let mut pairs = pairs(run.set_count, x)?;
            let extra =
                |output: usize| gradients.get(output).and_then(Option::as_ref).map(Tensor::contiguous).transpose();
            let (of_mean, of_variance) = (extra(1)?, extra(2)?);
            let launch = run
                .launch("norm_through")?
                .read(&partial)?
                .read(statistics)?
                .read_if(run.gamma.as_ref())?
                .read_if(of_mean.as_ref())?
                .read_if(of_variance.as_ref())?
                .write(&mut pairs)?
                .value(run.sets)
                .size(segments);
            // SAFETY: there are sums of each row and segment; the kernel writes both numbers of each set.
            through = Some(unsafe {
                launch.run(blocks(run.set_count), THREADS)?;
                pairs.assume_init()
            });
        }
        let mut dx = output_like("norm", x.shape(), x)?;
        let count = dx.count();
        let launch = run
            .launch("norm_backward_data")?
            .read(x)?
            .read(&dy)?
            .read(statistics)?
            .read_if(run.gamma.as_ref())?
            .read_if(run.beta.as_ref())?
            .read_if(through.as_ref())?
            .write(&mut dx)?
            .value(run.activation)
            .value(run.sets);
        // SAFETY: there are statistics of each set and parameters of each channel; the kernel writes every element.
        results[0] = Some(unsafe {
            launch.run(blocks(count), THREADS)?;
            dx.assume_init()
        });
    }
    // γ, β, and the given mean and variance, where they are inputs and need a gradient.
    let first = 1 + 2 * usize::from(norm.affine);
    let places = [
        norm.affine.then_some(1),
        norm.affine.then_some(2),
        (norm.statistics == Statistics::Running).then_some(first),
        (norm.statistics == Statistics::Running).then_some(first + 1),
    ];
    let places = places.map(|place| place.filter(|&place| needed[place]));
    let output = |place: Option<usize>| place.map(|_| output_like("norm", &[channels], x)).transpose();
    let mut outputs = [output(places[0])?, output(places[1])?, output(places[2])?, output(places[3])?];
    let mut launch = run.launch("norm_parameters")?.read(&partial)?.read(statistics)?.read_if(run.gamma.as_ref())?;
    for output in &mut outputs {
        launch = launch.write_if(output.as_mut())?;
    }
    let launch = launch.value(run.sets).size(segments);
    // SAFETY: there are sums of each row and segment; the kernel writes a number for each channel of each output.
    unsafe {
        launch.run(blocks(channels), THREADS)?;
        for (place, output) in places.into_iter().zip(outputs) {
            if let (Some(place), Some(output)) = (place, output) {
                results[place] = Some(output.assume_init());
            }
        }
    }
    Ok(results)
}
