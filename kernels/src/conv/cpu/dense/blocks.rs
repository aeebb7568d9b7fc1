//! The block sizes of a convolution: among some candidates, those with the lowest time in a simple cost model of a chunk.

use crate::conv::cpu::pack::{Reading, equal_blocks};

/// The largest number of positions of a chunk, of elements of a packed input block, and of (channel, tap) rows copied
/// together.
pub(in crate::conv::cpu) const POSITIONS: usize = 2048;
const PACKED: usize = 128 << 10;
const COPIED_ROWS: usize = 192;
/// The largest number of sums of a chunk.
const SUMS: usize = 256 << 10;
/// If there are fewer boxes than this, smaller boxes are candidates too, to keep threads busy.
const ENOUGH: usize = 8;
/// Positions in the widest vector, and the largest number of such vectors in a tile.
pub(in crate::conv::cpu) const VECTOR: usize = 16;
pub(in crate::conv::cpu) const TILE: usize = 3;

/// The sizes that the choice of blocks depends on.
pub(super) struct Job<'a> {
    /// The number of images times groups.
    pub repeats: usize,
    /// Input and output channels of a group.
    pub inputs: usize,
    pub outputs: usize,
    pub positions: [usize; 3],
    pub reading: &'a Reading,
    /// The number of lines, and the number of residue classes over all lines.
    pub lines: usize,
    pub residues: usize,
    /// The largest number of residue classes of a line, and of taps of a residue class.
    pub most_residues: usize,
    pub most_taps: usize,
}

/// The chosen block sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// Output channels of a chunk.
    pub outputs: usize,
    /// The size of a chunk's box.
    pub size: [usize; 3],
    /// Whether the positions of a tile are copied to contiguous memory first (implicit GEMM).
    pub copied: bool,
    /// Input channels that are packed together.
    pub channels: usize,
    /// The modelled cost of all chunks, including the wait for the last one, in cycles of one core with AVX-512.
    pub cycles: f64,
}

impl Job<'_> {
    /// The blocks with the lowest modelled cost.
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

    /// Candidate boxes: some rows of one plane, or several planes. The largest allowed size, and smaller ones if there are
    /// few boxes.
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

    /// The number of boxes of an image.
    fn count(&self, size: [usize; 3]) -> usize {
        (0..3).map(|axis| self.positions[axis].div_ceil(size[axis].max(1))).product()
    }

    /// The blocks with the given sizes, and their modelled cost.
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
        // If the packed block can't hold all channels, each line packs the input again.
        let packs = if channels < self.inputs { self.lines } else { 1 };
        let outputs = outputs.min(self.outputs);
        let panels = outputs.div_ceil(8);
        let pieces = if copied { depth * rows * columns.div_ceil(VECTOR) + tiles } else { 0 };
        let calls = self.residues * tiles * panels * self.inputs.div_ceil(channels);
        // Tiles of few rows are limited by their loads.
        let height = if outputs > 4 { 8 * panels } else { outputs.next_power_of_two().max(2) };
        let chunk = 0.53 * (steps * vectors * height) as f64
            + 1.2 * (packs * self.inputs * packed) as f64
            + 2.5 * (steps * pieces) as f64
            + 50.0 * calls as f64
            + (0.3 * outputs as f64 + 2.0) * steps as f64
            + (outputs * self.residues * depth * rows) as f64 * (8.0 + 0.5 * columns as f64);
        let chunks = self.repeats * self.outputs.div_ceil(outputs.max(1)) * self.count(size);
        // The block size must not be 0, even without output channels.
        let outputs = panels.max(1) * 8;
        // At the end, threads wait for the last chunk.
        let cycles = chunk * (chunks as f64 + 0.7);
        Blocks { outputs, size, copied, channels, cycles }
    }
}
