//! The general convolution: a register tile over packed, zero-padded blocks of the input.
//!
//! A chunk is a box of output positions and some output channels of one group of one image. It packs the input that it reads,
//! a block of channels at a time, and runs the GEMM register tile over it: the weights are the left matrix, and each
//! (channel, tap) is a row of the right one. Where image rows are long, the tile reads the packed input directly, at the
//! tap's offset: the positions form one flat range over the padded rows, and the sums between two rows are discarded. Where
//! image rows are short, the positions of a tile are first copied to contiguous memory (implicit GEMM, im2col of one tile).
//!
//! Forward and backward-data both work this way; backward-data has a set of taps for each residue class modulo the stride.

mod blocks;
mod boxes;
mod conv;
mod run;

pub(super) use blocks::{POSITIONS, TILE, VECTOR};
pub(super) use run::{backward_data, estimate, forward};
