//! Matrix multiplication.

pub mod cpu;
pub mod reference;

#[cfg(test)]
mod tests;
