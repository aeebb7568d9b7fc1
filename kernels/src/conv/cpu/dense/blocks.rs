//! The blocks that a convolution is cut into: of some candidates those that a small model of a chunk's time finds cheapest.

use crate::conv::cpu::pack::{Reading, equal_blocks};

/// Positions of a chunk at the most, numbers of a packed block of the input, and (channel, tap) rows that are copied together.
pub(in crate::conv::cpu) const POSITIONS: usize = 2048;
const PACKED: usize = 128 << 10;
const COPIED_ROWS: usize = 192;
/// Sums of a chunk at the most.
const SUMS: usize = 256 << 10;
/// Boxes that are enough to keep threads busy.
const ENOUGH: usize = 8;
/// Positions of the widest vector, and how many of these a tile has at the most.
pub(in crate::conv::cpu) const VECTOR: usize = 16;
pub(in crate::conv::cpu) const TILE: usize = 3;

/// What the blocks are chosen for.
pub(super) struct Job<'a> {
    /// Images times groups.
    pub repeats: usize,
    /// Channels of a group: read and written.
    pub inputs: usize,
    pub outputs: usize,
    pub positions: [usize; 3],
    pub reading: &'a Reading,
    /// Lines, and the residues of all of them.
    pub lines: usize,
    pub residues: usize,
    /// The most residues of a line, and the most taps of a residue.
    pub most_residues: usize,
    pub most_taps: usize,
}

/// The blocks of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Output channels of a chunk.
    pub outputs: usize,
    /// The size of a chunk's box.
    pub size: [usize; 3],
    /// Whether a tile's positions are copied together.
    pub copied: bool,
    /// Input channels that are packed at a time.
    pub channels: usize,
    /// What the model says of all chunks together, in cycles of one core with AVX-512, and of waiting for the last one.
    pub cycles: f64,
}

impl Job<'_> {
    /// The cheapest blocks.
    pub fn blocks(&self) -> Blocks {
        let mut best: Option<Blocks> = None;
        let panels = self.outputs.div_ceil(8);
        for size in self.boxes() {
            let mut last = 0;
            for most in [32, 16, 8, 4] {
                let outputs = equal_blocks(panels, most) * 8;
                let sums = self.most_residues * size.iter().product::<usize>() * outputs;
                if outputs == last || (sums > SUMS && most > 4) {
                    continue;
                }
                last = outputs;
                for copied in [false, true] {
                    let blocks = self.estimate(size, outputs, copied);
                    if best.is_none_or(|best| blocks.cycles < best.cycles) {
                        best = Some(blocks);
                    }
                }
            }
        }
        best.expect("there are candidates")
    }

    /// Boxes to choose from: some rows of one plane, or several planes; as large as they may be, and smaller if they are few.
    fn boxes(&self) -> impl Iterator<Item = [usize; 3]> {
        let [depth, rows, columns] = self.positions;
        let plane = rows * columns;
        let most = POSITIONS / self.most_residues.max(1);
        let whole = plane <= most;
        let (times, length, fit) = if whole { (1, depth, most / plane.max(1)) } else { (depth, rows, most / columns) };
        let parts = length.div_ceil(equal_blocks(length, fit.max(1)));
        let finer = if self.repeats * times * parts < ENOUGH { 3 } else { 1 };
        let mut last = 0;
        [parts, 2 * parts, 4 * parts].into_iter().take(finer).filter_map(move |parts| {
            let block = length.div_ceil(parts.max(1)).max(1);
            let new = block != last;
            last = block;
            new.then_some(if whole { [block, rows, columns] } else { [1, block, columns] })
        })
    }

    /// Boxes of an image.
    fn count(&self, size: [usize; 3]) -> usize {
        (0..3).map(|axis| self.positions[axis].div_ceil(size[axis].max(1))).product()
    }

    /// Some blocks, and what they cost.
    fn estimate(&self, size: [usize; 3], outputs: usize, copied: bool) -> Blocks {
        let [depth, rows, columns] = size;
        let positions = depth * rows * columns;
        let pitch = self.reading.extent(size)[2];
        let (runs, run) = if copied { (1, positions) } else { (depth, rows.saturating_sub(1) * pitch + columns) };
        let vectors = runs * run.div_ceil(VECTOR);
        let tiles = runs * run.div_ceil(VECTOR).div_ceil(TILE);
        let packed = self.reading.channel_size(size);
        let mut most = PACKED / packed.max(1);
        if copied {
            most = most.min(COPIED_ROWS.div_ceil(self.most_taps.max(1)));
        }
        let channels = equal_blocks(self.inputs, most.max(1));
        let steps = self.inputs * self.reading.taps.len();
        // Where all channels don't fit, each line packs them again.
        let packs = if channels < self.inputs { self.lines } else { 1 };
        let outputs = outputs.min(self.outputs);
        let panels = outputs.div_ceil(8);
        let pieces = if copied { depth * rows * columns.div_ceil(VECTOR) + tiles } else { 0 };
        let calls = self.residues * tiles * panels * self.inputs.div_ceil(channels);
        // Tiles of few rows are held up by what they load.
        let height = if outputs > 4 { 8 * panels } else { outputs.next_power_of_two().max(2) };
        let chunk = 0.53 * (steps * vectors * height) as f64
            + 1.2 * (packs * self.inputs * packed) as f64
            + 2.5 * (steps * pieces) as f64
            + 50.0 * calls as f64
            + (0.3 * outputs as f64 + 2.0) * steps as f64
            + (outputs * self.residues * depth * rows) as f64 * (8.0 + 0.5 * columns as f64);
        let chunks = self.repeats * self.outputs.div_ceil(outputs.max(1)) * self.count(size);
        // A block of no channels would not be one.
        let outputs = panels.max(1) * 8;
        // Threads wait for the last chunk.
        let cycles = chunk * (chunks as f64 + 0.7);
        Blocks { outputs, size, copied, channels, cycles }
    }
}
