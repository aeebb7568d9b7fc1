//! Layers. Each makes its parameters in a [`Scope`](crate::Scope) and holds their slots.

mod attention;
mod basic;
mod conv;
mod norm;

pub use attention::MultiHeadAttention;
pub use basic::{Activation, Dropout, Linear, PRelu, Upsample};
pub use conv::{Conv, ConvBuilder, ConvTranspose, PerAxis};
pub use norm::{ConvNormActivation, LayerNorm, Norm, NormKind};
