//! The plan of a dense convolution: its sizes, blocks and taps.

use super::blocks::Job;
use crate::conv::ConvShape;
use crate::conv::cpu::pack::{Reading, Tap};
use crate::simd::Real;

/// The outputs that a chunk computes and stores together. The forward pass has one line. Backward-data splits the output
/// positions into residue classes modulo the stride: it has one line for each class along z and y, and a line has a row of
/// sums for each class along x, which are interleaved when they are stored. All lines read the same packed input.
pub(super) struct Line {
    /// The output coordinates of position 0 along z and y.
    pub start: [usize; 2],
    /// For each residue class along x, its taps as indices into `Reading::taps`.
    pub residues: Vec<Vec<usize>>,
}

/// The strides of the weights: element `output channel * out + input channel * inp + tap` of a group.
#[derive(Clone, Copy)]
pub(super) struct WeightStrides {
    pub group: usize,
    pub out: usize,
    pub inp: usize,
}

/// The plan of a convolution.
pub(super) struct DenseConv<'a, T> {
    pub batch: usize,
    pub groups: usize,
    /// Input and output channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    pub source_size: [usize; 3],
    pub target_size: [usize; 3],
    pub reading: Reading,
    pub lines: Vec<Line>,
    /// The largest number of residue classes of a line, and of taps of a residue class.
    pub most_residues: usize,
    pub most_taps: usize,
    /// The number of positions along each axis (of the largest residue class), and the distance of their outputs.
    pub positions: [usize; 3],
    pub spread: [usize; 3],
    pub strides: WeightStrides,
    pub weights: &'a [T],
    /// Output channels of a chunk, and the number of such blocks in a group.
    pub output_block: usize,
    pub output_blocks: usize,
    /// The size of a chunk's box, and the number of boxes along each axis.
    pub block: [usize; 3],
    pub blocks: [usize; 3],
    /// Whether the positions of a tile are copied to contiguous memory first.
    pub copied: bool,
    /// The cost of all chunks in the model that chose the blocks.
    pub cycles: f64,
    /// Input channels that are packed together.
    pub channel_block: usize,
}

/// The part of a plan in which forward and backward-data differ.
struct Grid {
    /// Input and output channels of a group.
    channels: [usize; 2],
    source_size: [usize; 3],
    target_size: [usize; 3],
    reading: Reading,
    lines: Vec<Line>,
    positions: [usize; 3],
    spread: [usize; 3],
    strides: WeightStrides,
}

fn for_each_tap(size: [usize; 3], mut f: impl FnMut(usize, [usize; 3])) {
    let mut index = 0;
    for z in 0..size[0] {
        for y in 0..size[1] {
            for x in 0..size[2] {
                f(index, [z, y, x]);
                index += 1;
            }
        }
    }
}

impl<'a, T: Real> DenseConv<'a, T> {
    /// The forward pass.
    pub fn forward(shape: &ConvShape, weights: &'a [T]) -> Self {
        let mut taps = Vec::with_capacity(shape.taps());
        for_each_tap(shape.kernel, |index, at| {
            let shift =
                std::array::from_fn(|axis| (at[axis] * shape.dilation[axis]) as isize - shape.padding[axis] as isize);
            taps.push(Tap { shift, index });
        });
        let taps_count = shape.taps();
        let strides = WeightStrides {
            group: shape.weight_count() / shape.groups,
            out: shape.group_inputs() * taps_count,
            inp: taps_count,
        };
        let grid = Grid {
            channels: [shape.group_inputs(), shape.group_outputs()],
            source_size: shape.input,
            target_size: shape.output(),
            lines: vec![Line { start: [0; 2], residues: vec![(0..taps.len()).collect()] }],
            reading: Reading::new(shape.stride, taps),
            positions: shape.output(),
            spread: [1; 3],
            strides,
        };
        DenseConv::new(shape, grid, weights)
    }

    /// The backward pass with respect to the input; also the transposed convolution.
    pub fn backward_data(shape: &ConvShape, weights: &'a [T]) -> Self {
        // Input coordinate i = q * stride + residue receives w[k] dy[p] for each tap with
        // i + padding - k * dilation = p * stride.
        let (mut taps, mut lines) = (Vec::new(), Vec::new());
        // If the stride exceeds the input's size, the residue classes beyond it contain no voxel.
        let residues: [usize; 3] = std::array::from_fn(|axis| shape.stride[axis].min(shape.input[axis]));
        for_each_tap([residues[0], residues[1], 1], |_, [z, y, _]| {
            let mut columns = Vec::new();
            for x in 0..residues[2] {
                let before = taps.len();
                for_each_tap(shape.kernel, |index, at| {
                    let distance: [isize; 3] = std::array::from_fn(|axis| {
                        ([z, y, x][axis] + shape.padding[axis]) as isize - (at[axis] * shape.dilation[axis]) as isize
                    });
                    if (0..3).all(|axis| distance[axis].rem_euclid(shape.stride[axis] as isize) == 0) {
                        let shift = std::array::from_fn(|axis| distance[axis].div_euclid(shape.stride[axis] as isize));
                        taps.push(Tap { shift, index });
                    }
                });
                columns.push((before..taps.len()).collect());
            }
            lines.push(Line { start: [z, y], residues: columns });
        });
        let count = shape.taps();
        let grid = Grid {
            channels: [shape.group_outputs(), shape.group_inputs()],
            source_size: shape.output(),
            target_size: shape.input,
            reading: Reading::new([1; 3], taps),
            lines,
            positions: std::array::from_fn(|axis| shape.input[axis].div_ceil(shape.stride[axis])),
            spread: shape.stride,
            strides: WeightStrides {
                group: shape.weight_count() / shape.groups,
                out: count,
                inp: shape.group_inputs() * count,
            },
        };
        Self::new(shape, grid, weights)
    }

    fn new(shape: &ConvShape, grid: Grid, weights: &'a [T]) -> Self {
        let Grid { channels: [inputs, outputs], source_size, target_size, reading, lines, positions, spread, strides } =
            grid;
        let most_residues = lines.iter().map(|line| line.residues.len()).max().unwrap_or(0);
        let most_taps = lines.iter().flat_map(|line| &line.residues).map(Vec::len).max().unwrap_or(0);
        let blocks = Job {
            repeats: shape.batch * shape.groups,
            inputs,
            outputs,
            positions,
            reading: &reading,
            lines: lines.len(),
            residues: lines.iter().map(|line| line.residues.len()).sum(),
            most_residues,
            most_taps,
        }
        .blocks();
        DenseConv {
            batch: shape.batch,
            groups: shape.groups,
            inputs,
            outputs,
            source_size,
            target_size,
            reading,
            lines,
            most_residues,
            most_taps,
            positions,
            spread,
            strides,
            weights,
            output_block: blocks.outputs,
            output_blocks: outputs.div_ceil(blocks.outputs),
            block: blocks.size,
            blocks: std::array::from_fn(|axis| positions[axis].div_ceil(blocks.size[axis].max(1))),
            copied: blocks.copied,
            cycles: blocks.cycles,
            channel_block: blocks.channels,
        }
    }

    /// Whether the weights of an output channel are contiguous in the order of the tiles' steps, (input channel, tap): so in
    /// the forward pass.
    pub fn contiguous_steps(&self) -> bool {
        let forward = self.lines.len() == 1 && self.lines[0].residues.len() == 1;
        let in_order = |(place, tap): (usize, &Tap)| tap.index == place;
        forward && self.strides.inp == self.reading.taps.len() && self.reading.taps.iter().enumerate().all(in_order)
    }

    /// The number of boxes of an image.
    pub fn boxes(&self) -> usize {
        self.blocks.iter().product()
    }

    /// The size of the packed weights of a block of output channels, sufficient for panels of any width.
    pub fn weight_block(&self) -> usize {
        let padded = self.output_block.next_multiple_of(8).max(self.output_block.next_multiple_of(6));
        self.inputs * self.reading.taps.len() * padded
    }
}
