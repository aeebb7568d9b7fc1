//! Matrix products.
//!
//! [`Matmul`] is the batched product with broadcast batch axes; [`Linear`] is the product with a weight matrix, plus a bias.
//! Operands are read in place by strides: a transposed or permuted view costs no copy.

#[cfg(not(feature = "testing"))]
pub(crate) mod cpu;
#[cfg(feature = "testing")]
pub mod cpu;
pub(crate) mod cuda;
mod linear;
mod op;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
pub mod reference;

#[cfg(test)]
mod tests;

pub use linear::Linear;
pub use op::Matmul;
