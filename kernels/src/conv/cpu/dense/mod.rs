//! The general convolution: a register tile over packed, zero-padded pieces of the input.
//!
//! A chunk is a box of output positions and some output channels of one group of one image. It packs the input that it
//! needs, a block of channels at a time, and runs the tile of matrix multiplication over it: the weights are the left matrix,
//! and each (channel, tap) is a row of the right one. Where rows are long, that row is read where it lies, at the tap's
//! offset: positions are taken as one flat range over padded rows, and what falls between two rows is thrown away. Where
//! rows are short, a tile's positions are first copied together (an implicit GEMM).
//!
//! Forward and backward-data are both this: the latter with one set of taps for each residue of the stride.

mod blocks;
mod boxes;
mod conv;
mod run;

pub(super) use blocks::{POSITIONS, TILE, VECTOR};
pub(super) use run::{backward_data, estimate, forward};
