//! Networks that make images of random numbers.

mod generator;

pub use generator::{Generator, GeneratorConfig};
